"""Merges flags, environment and file into `Settings`, with the origin of every value.

pydantic-settings merges such layers too, but it keeps no origins, ignores unknown variables, and knows no
dotted names. So pydantic validates, and this module merges.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from delaystream.config import kafka, tenant_settings
from delaystream.config.errors import ConfigurationError, suggestion
from delaystream.config.origin import Origin
from delaystream.config.settings import ENVIRONMENT_PREFIX, TABLES, Settings, environment_name
from delaystream.config.tenant_offers import TenantOffers
from delaystream.config.values import split

CONFIG_VARIABLE = "DELAYSTREAM_CONFIG"
FILE_SUFFIX = "_FILE"

_OTHERS = re.compile(r"DELAYSTREAM_(TEST|SOAK|SIMULATION|BENCH)_\w+|DELAYSTREAM_CACHE_DIR|" + CONFIG_VARIABLE)
"""Variables that are not settings: of the tests, and of the cache of downloads."""

_SERVICE_LINK = re.compile(
    r"DELAYSTREAM_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
"""Variables that Kubernetes sets in every container for a Service called `delaystream` or `delaystream-…`."""


@dataclass(frozen=True)
class Loaded:
    """The settings, and the origin of each: by setting name, and by `kafka.<name>` for Kafka's."""

    settings: Settings
    origins: Mapping[str, Origin]

    def origin(self, name: str) -> Origin:
        """The origin of one setting, such as `http_port` or `kafka.client.id`."""
        return self.origins.get(name, Origin("default"))


class _Values:
    """Values and origins, filled from the strongest layer to the weakest. The first value stays."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.kafka: dict[str, str] = {}
        self.tenants = TenantOffers()
        self.origins: dict[str, Origin] = {}
        self.problems: list[str] = []

    def offer(self, name: str, value: Any, origin: Origin) -> None:
        if name.startswith("kafka."):
            self._offer_kafka(name.removeprefix("kafka."), value, origin)
        elif name.startswith(f"{tenant_settings.TABLE}."):
            self.tenants.offer(name.removeprefix(f"{tenant_settings.TABLE}."), value, origin)
        elif name in Settings.model_fields and name not in TABLES:
            if name not in self.values:
                self.values[name] = value
                self.origins[name] = origin
        elif name in TABLES:
            self.problems.append(f"{name} ({origin}) is a table; expected one of its settings, {name}.NAME.")
        else:
            known = [*Settings.model_fields, *(f"kafka.{known}" for known in kafka.SUPPORTED)]
            self.problems.append(f"There is no setting {name} ({origin}).{suggestion(name, known)}")

    def _offer_kafka(self, name: str, value: Any, origin: Origin) -> None:
        if not name:
            self.problems.append(
                f"kafka. ({origin}) names no setting of Kafka's clients; expected kafka.NAME."
            )
        elif name in kafka.REFUSED:
            self.problems.append(f"Kafka's {name} ({origin}) cannot be set: it {kafka.REFUSED[name]}.")
        elif name not in kafka.SUPPORTED:
            hint = suggestion(name, kafka.SUGGESTED)
            self.problems.append(f"There is no Kafka client setting {name} ({origin}).{hint}")
        elif name not in self.kafka:
            self.kafka[name] = str(value).lower() if isinstance(value, bool) else str(value)
            self.origins[f"kafka.{name}"] = origin


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    pairs: Mapping[str, str] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """Merge flag > environment > file > default.

    `flags` maps setting names, or `kafka.<name>`, to values; None stands for a flag that was not given.
    `pairs` come from `--set NAME=VALUE`; a setting's own flag wins over them. Without `config`,
    DELAYSTREAM_CONFIG names the file, if there is one. `defaults` replaces defaults of the model, for a
    command that has its own. Raises ConfigurationError with all faults.
    """
    environ = os.environ if environ is None else environ
    values = _Values()
    for name, value in (flags or {}).items():
        if value is not None:
            values.offer(name, value, Origin("flag", _flag(name)))
    for name, value in (pairs or {}).items():
        values.offer(name, value, Origin("flag", f"--set {name}"))
    _offer_environment(values, environ)
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    if config is not None:
        _offer_file(values, config)
    for name, value in (defaults or {}).items():
        values.offer(name, value, Origin("default"))
    topics = values.values.get("request_topics", Settings.model_fields["request_topics"].default)
    tenants, origins, problems = values.tenants.resolved(split(topics))
    values.origins.update(origins)
    if values.problems or problems:
        raise ConfigurationError([*values.problems, *problems])
    values.kafka.setdefault("bootstrap.servers", "localhost:9092")
    tables = {"kafka": MappingProxyType(values.kafka), tenant_settings.TABLE: tenants}
    try:
        settings = Settings.model_validate({**values.values, **tables})
    except ValidationError as error:
        raise ConfigurationError(_sentences(error, values, tenants)) from None
    return Loaded(settings, MappingProxyType(values.origins))


def _flag(name: str) -> str:
    if name == "kafka.bootstrap.servers":
        return "--bootstrap-server"
    return f"-X {name.removeprefix('kafka.')}" if name.startswith("kafka.") else "--" + name.replace("_", "-")


def _offer_environment(values: _Values, environ: Mapping[str, str]) -> None:
    kafka_names = kafka.variable_names()
    known = {environment_name(name): name for name in Settings.model_fields if name not in TABLES}
    known.update({ENVIRONMENT_PREFIX + variable: f"kafka.{name}" for variable, name in kafka_names.items()})
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or _OTHERS.fullmatch(variable):
            continue
        if _is_service_link(variable, environ[variable], known):
            continue
        origin = Origin("environment", variable)
        if tenant_settings.is_variable(variable):
            values.tenants.offer_variable(variable, environ[variable], origin)
        elif variable in known:
            values.offer(known[variable], environ[variable], origin)
        elif (name := known.get(variable.removesuffix(FILE_SUFFIX))) and variable.endswith(FILE_SUFFIX):
            _offer_secret(values, name, environ, origin)
        else:
            values.problems.append(f"There is no setting {variable}.{_nearest(variable, known)}")


def _nearest(variable: str, known: Mapping[str, str]) -> str:
    """A suggestion for an unknown variable, as a sentence; '' when no known one is similar."""
    refused = {f"kafka.{name}" for name in kafka.REFUSED} - {f"kafka.{name}" for name in kafka.SUGGESTED}
    names = [other for other, name in known.items() if name not in refused]
    of_kafka = f"{ENVIRONMENT_PREFIX}KAFKA_"
    return suggestion(variable, names, of_kafka if variable.startswith(of_kafka) else ENVIRONMENT_PREFIX)


def _offer_secret(values: _Values, name: str, environ: Mapping[str, str], origin: Origin) -> None:
    if origin.name.removesuffix(FILE_SUFFIX) in environ:
        plain = origin.name.removesuffix(FILE_SUFFIX)
        values.problems.append(f"{plain} and {origin.name} are both set: only one can hold.")
        return
    try:
        text = Path(environ[origin.name]).read_text(encoding="utf-8")
    except OSError as error:
        values.problems.append(f"{origin.name} names {environ[origin.name]}, which {_unreadable(error)}.")
    except UnicodeDecodeError:
        values.problems.append(f"{origin.name} names {environ[origin.name]}, which is not UTF-8.")
    else:
        values.offer(name, text.removesuffix("\n").removesuffix("\r"), origin)


def _is_service_link(variable: str, value: str, known: Mapping[str, str]) -> bool:
    if _SERVICE_LINK.fullmatch(variable) is None:
        return False
    # A Service `delaystream-http` yields DELAYSTREAM_HTTP_PORT=tcp://10.0.0.1:8642, the name of a setting.
    return variable not in known or value.startswith(("tcp://", "udp://", "sctp://"))


def _offer_file(values: _Values, path: Path) -> None:
    origin = Origin("file", str(path))
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        values.problems.append(f"The configuration file {path} {_unreadable(error)}.")
        return
    except ValueError as error:  # not TOML, or not UTF-8
        values.problems.append(f"The configuration file {path} is not TOML: {error}.")
        return
    tenants = content.pop(tenant_settings.TABLE, {})
    if isinstance(tenants, dict):
        values.tenants.offer_table(tenants, origin)
    else:
        values.problems.append(f"`{tenant_settings.TABLE}` in {path} is not a table of request topics.")
    table = content.pop("kafka", {})
    if not isinstance(table, dict):
        values.problems.append(f"`kafka` in {path} is not a table of Kafka's client settings.")
        table = {}
    for name, value in content.items():
        values.offer(name, value, origin)
    for name, value in _flattened(table):
        values.offer(f"kafka.{name}", value, origin)


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    # In TOML an unquoted `bootstrap.servers = …` is a table in a table.
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _sentences(
    error: ValidationError, values: _Values, tenants: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    sentences = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = _message(problem)
        if name == tenant_settings.TABLE:
            topic, field = (str(part) for part in problem["loc"][1:3])
            name = tenant_settings.setting_name(topic, field)
            value = tenants[topic].get(field)
        elif name:
            value = values.values.get(name)
        if name and not _is_shown(name):
            sentences.append(_ended(f"{name} ({values.origins.get(name, 'default')}): {message}"))
        elif name:
            sentences.append(_ended(f"{name} = {value!r} ({values.origins.get(name, 'default')}): {message}"))
        else:
            sentences.append(_ended(f"{message[:1].upper()}{message[1:]}"))
    return sentences


def _is_shown(name: str) -> bool:
    """Whether a setting's value may be told."""
    field = Settings.model_fields.get(name)
    return field is None or field.repr or name in TABLES


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "at least {min_length} characters of text",
    "string_too_long": "at most {max_length} characters of text",
    "too_short": "at least {min_length} in the list",
    "too_long": "at most {max_length} in the list",
    "list_type": "a list",
    "tuple_type": "a list",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text of the form {pattern}",
}
"""Our words for pydantic's errors, by pydantic's error type."""


def _message(problem: Any) -> str:
    """The fault of a value, as the rest of a sentence."""
    expected = _EXPECTED.get(problem["type"])
    if expected is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"expected {expected.format_map(problem.get('ctx', {}))}"
