"""Every setting with its value and origin, as it may be shown: secrets are masked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from delaystream.config import tenant_settings
from delaystream.config.kafka import SECRET, SUPPORTED
from delaystream.config.layers import Loaded
from delaystream.config.settings import TABLES, Settings, environment_name

MASK: Final = "********"
_PASSWORD: Final = re.compile(r"(?<=://)([^:/?#@]*):[^/?#]*@")
_PARAMETER: Final = re.compile(r"([?&](?:password|sslpassword|passfile)=)[^&#]*", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """One setting, with values as plain as JSON has them."""

    name: str
    value: Any
    origin: str
    default: Any
    variable: str
    meaning: str | None


def listed(loaded: Loaded) -> list[Listed]:
    """All settings: delaystream's, those of request topics, and Kafka's."""
    return [*_own(loaded), *_tenants(loaded), *_kafka(loaded)]


def _own(loaded: Loaded) -> Iterator[Listed]:
    for name, field in Settings.model_fields.items():
        if name in TABLES:
            continue
        yield Listed(
            name,
            (_plain if field.repr else _masked)(getattr(loaded.settings, name)),
            str(loaded.origin(name)),
            _plain(field.default),
            environment_name(name),
            field.description,
        )


def _tenants(loaded: Loaded) -> Iterator[Listed]:
    """The settings in the tables of request topics; the shared settings hold for the rest."""
    for topic, table in loaded.settings.tenants.items():
        for field, described in tenant_settings.TenantSettings.model_fields.items():
            if (value := getattr(table, field)) is None:
                continue
            name = tenant_settings.setting_name(topic, field)
            shared = getattr(loaded.settings, field)
            yield Listed(
                name,
                _plain(value),
                str(loaded.origin(name)),
                None if field in tenant_settings.BESIDE else _plain(shared),
                tenant_settings.variable_name(topic, field),
                described.description,
            )


def _kafka(loaded: Loaded) -> Iterator[Listed]:
    for name, meaning in SUPPORTED.items():
        value = loaded.settings.kafka.get(name)
        yield Listed(
            f"kafka.{name}",
            MASK if name in SECRET and value is not None else value,
            str(loaded.origin(f"kafka.{name}")),
            "localhost:9092" if name == "bootstrap.servers" else None,
            environment_name("kafka_" + name.replace(".", "_")),
            meaning,
        )


def _masked(value: Any) -> Any:
    """A setting that may hold a secret. Of an URL it is the password: before the host, or a parameter."""
    if value is None:
        return None
    if isinstance(value, str) and "://" in value:
        return _PARAMETER.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", value))
    return MASK


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(value)
    return value if value is None or isinstance(value, int) else str(value)
