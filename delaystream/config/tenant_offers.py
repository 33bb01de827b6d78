"""The layers' values for tenants, merged once the request topics are known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from delaystream.config.errors import suggestion
from delaystream.config.origin import Origin
from delaystream.config.tenant_settings import (
    TABLE,
    TenantSettings,
    setting_name,
    variable_name,
    variables,
)


class TenantOffers:
    """Offers from the strongest layer to the weakest. The first offer of a setting stays."""

    def __init__(self) -> None:
        #: (`<topic>.<setting>`, or a variable; value; origin)
        self._offers: list[tuple[str, bool, Any, Origin]] = []

    def offer(self, name: str, value: Any, origin: Origin) -> None:
        """`<topic>.<setting>`; the topic's name may hold dots."""
        self._offers.append((name, False, value, origin))

    def offer_variable(self, variable: str, value: str, origin: Origin) -> None:
        """`DELAYSTREAM_TENANTS_<TOPIC>_<SETTING>`."""
        self._offers.append((variable, True, value, origin))

    def offer_table(self, table: Mapping[str, Any], origin: Origin) -> None:
        """The table `tenants` of a file. An unquoted `[tenants.a.b]` is a table in a table, and works too."""
        for name, value in _leaves(table):
            self.offer(name, value, origin)

    def resolved(
        self, topics: Sequence[Any]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, Origin], list[str]]:
        """Values by topic and setting, origins by `tenants.<topic>.<setting>`, and all faults."""
        names = [str(topic) for topic in topics]
        tables: dict[str, dict[str, Any]] = {}
        origins: dict[str, Origin] = {}
        problems: list[str] = []
        known = variables(names)
        for name, is_variable, value, origin in self._offers:
            if is_variable:
                found = known.get(name, [])
                if len(found) != 1:
                    problems.append(_unclear(name, found, known))
                    continue
                topic, field = found[0]
            else:
                topic, _, field = name.rpartition(".")
                if not topic or not field:
                    such = setting_name(names[0] if names else "orders", "max_pending")
                    problems.append(
                        f"{TABLE}.{name} ({origin}) names no setting of a request topic; expected "
                        f"{TABLE}.TOPIC.SETTING, such as {such}."
                    )
                    continue
                if topic not in names:
                    hint = suggestion(topic, names)
                    problems.append(f"There is no request topic {topic} ({TABLE}.{name}, {origin}).{hint}")
                    continue
                if field not in TenantSettings.model_fields:
                    hint = suggestion(field, TenantSettings.model_fields)
                    problems.append(
                        f"A request topic has no setting {field} ({TABLE}.{name}, {origin}).{hint}"
                    )
                    continue
            if field not in tables.setdefault(topic, {}):
                tables[topic][field] = value
                origins[setting_name(topic, field)] = origin
        return tables, origins, problems


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        # This is the one setting that may be a table itself.
        if isinstance(value, dict) and key != "destination_rates":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _whose(variable: str, known: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The beginning of a variable that stands for its topic, if there is such a topic."""
    topics = {topic for offered in known.values() for topic, _ in offered}
    begin = [begin for topic in topics if variable.startswith(begin := variable_name(topic, ""))]
    return max(begin, key=len, default=variable_name("", "")[:-1])


def _unclear(
    name: str, found: Sequence[tuple[str, str]], known: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    if not found:
        return f"There is no setting {name}.{suggestion(name, known, _whose(name, known))}"
    topics = " or ".join(topic for topic, field in found if variable_name(topic, field) == name)
    return f"{name} may be about {topics}: say which in a file, or by --set."
