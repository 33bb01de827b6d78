"""The table of one request topic: its settings where they differ from the shared ones."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, create_model

from delaystream.config.request_settings import RequestSettings
from delaystream.config.values import Section, Topic

TABLE: Final = "tenants"
_VARIABLE_PREFIX: Final = "DELAYSTREAM_TENANTS_"
#: Settings that hold in addition to the shared one, not instead of it.
BESIDE: Final = frozenset({"destination_rates"})
_MEANINGS: Final = {
    "default_destination": "Where its requests without `delaystream-destination` are delivered. Empty: they "
    "are refused.",
    "destinations_allow": "Topics that its requests may be delivered to.",
    "max_pending": "Most fires that it may have pending, in all partitions together. 0: no bound.",
    "destination_rates": "Its own limit of records a second to a destination, in addition to the shared "
    "`destination_rates`. Records that wait for it do not delay other tenants' records.",
    "default_timezone": "Time zone of its `delaystream-cron`, and of local times in its `delaystream-at`, "
    "without `delaystream-timezone`.",
    "default_grace_ms": "Default of `delaystream-grace`, for its requests that recur or have "
    "`delaystream-on-late`.",
    "events_anonymous": "Whether the events topic reports its requests without an id, and their fires.",
    "events_key": "Whether its events have the key that is delivered.",
    "events_correlation_id": "Whether its events have a correlation id.",
    "dialects": "Other systems whose headers its requests may use. Empty: none.",
}


class _Base(Section):
    def requests(self, shared: RequestSettings) -> RequestSettings:
        """The settings of the topic's requests: its own, and the shared ones for the rest."""
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
    # The bounds are in the annotation, and None is not checked against them.
    return kind | None, Field(None, description=_MEANINGS.get(name, field.description))


_fields: dict[str, Any] = {name: _optional(name) for name in RequestSettings.model_fields}
TenantSettings: type[_Base] = create_model("TenantSettings", __base__=_Base, **_fields)
"""Every setting of `RequestSettings`; None, the default, stands for the shared one."""


def setting_name(topic: str, field: str) -> str:
    """`tenants.orders.max_pending`: the form in `--set`, in errors and in `delaystream config`."""
    return f"{TABLE}.{topic}.{field}"


def variable_name(topic: str, field: str) -> str:
    """`DELAYSTREAM_TENANTS_ORDERS_EU_MAX_PENDING` for the topic `orders.eu` or `orders-eu`."""
    return f"{_VARIABLE_PREFIX}{re.sub('[^A-Z0-9]', '_', topic.upper())}_{field.upper()}"


def is_variable(name: str) -> bool:
    """Whether an environment variable is about a tenant."""
    return name.startswith(_VARIABLE_PREFIX)


def variables(topics: Iterable[str]) -> Mapping[str, list[tuple[str, str]]]:
    """The (topic, setting) pairs that each variable may stand for; several when topics look alike."""
    known: dict[str, list[tuple[str, str]]] = {}
    for topic in topics:
        for field in TenantSettings.model_fields:
            known.setdefault(variable_name(topic, field), []).append((topic, field))
    return known
