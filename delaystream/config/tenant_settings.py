"""The table of one request topic: what its requests may do, where that differs from what all may."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, create_model

from delaystream.config.request_settings import RequestSettings
from delaystream.config.values import Section, Topic

TABLE: Final = "tenants"
_VARIABLE_PREFIX: Final = "DELAYSTREAM_TENANTS_"
#: Settings that hold beside the shared one, not instead of it.
BESIDE: Final = frozenset({"destination_rates"})
_MEANINGS: Final = {
    "default_destination": "Where its requests without `delaystream-destination` are delivered. Empty: they "
    "are refused.",
    "destinations_allow": "Topics that its requests may be delivered to.",
    "max_pending": "Most fires that it may have pending, in all partitions together. 0: no bound.",
    "destination_rates": "Most records a second of its own to a destination, beside the shared "
    "`destination_rates`. What waits for it keeps other tenants' records for the destination no longer.",
    "default_timezone": "Time zone of its `delaystream-cron`, and of local times in its `delaystream-at`, "
    "without `delaystream-timezone`.",
    "default_grace_ms": "How late is too late for its requests that recur, or have `delaystream-on-late`, "
    "and no `delaystream-grace`.",
    "events_anonymous": "Whether its requests without an id, and their fires, are told on the events topic.",
    "events_key": "Whether its events hold the keys that are delivered.",
    "dialects": "Other systems' headers that its requests may have. Empty: none.",
}


class _Base(Section):
    def requests(self, shared: RequestSettings) -> RequestSettings:
        """What holds for the topic's requests: its own settings, and for the rest the shared ones."""
        values: dict[str, Any] = {}
        for name in RequestSettings.model_fields:
            own = getattr(self, name)
            if own is None:
                values[name] = () if name in BESIDE else getattr(shared, name)
            else:
                values[name] = own or None if name == "default_destination" else own
        return RequestSettings.model_construct(**values)


def _optional(name: str) -> tuple[Any, Any]:
    field = RequestSettings.model_fields[name]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if name == "default_destination":
        kind = Topic | Literal[""]
    # The bounds are in the annotation, which None is not held against.
    return kind | None, Field(None, description=_MEANINGS.get(name, field.description))


_fields: dict[str, Any] = {name: _optional(name) for name in RequestSettings.model_fields}
TenantSettings: type[_Base] = create_model("TenantSettings", __base__=_Base, **_fields)
"""Every setting of `RequestSettings`; None, the default, stands for the shared one."""


def setting_name(topic: str, field: str) -> str:
    """`tenants.orders.max_pending`, as `--set`, errors and `delaystream config` have it."""
    return f"{TABLE}.{topic}.{field}"


def variable_name(topic: str, field: str) -> str:
    """`DELAYSTREAM_TENANTS_ORDERS_EU_MAX_PENDING` for the topic `orders.eu` or `orders-eu`."""
    return f"{_VARIABLE_PREFIX}{re.sub('[^A-Z0-9]', '_', topic.upper())}_{field.upper()}"


def is_variable(name: str) -> bool:
    """Whether an environment variable is about a tenant."""
    return name.startswith(_VARIABLE_PREFIX)


def variables(topics: Iterable[str]) -> Mapping[str, list[tuple[str, str]]]:
    """The (topic, setting) that each variable may stand for: more than one where topics look alike."""
    known: dict[str, list[tuple[str, str]]] = {}
    for topic in topics:
        for field in TenantSettings.model_fields:
            known.setdefault(variable_name(topic, field), []).append((topic, field))
    return known
