"""The policies of all request topics, made from the settings."""

from delaystream.codec.requests.headers import RequestParser
from delaystream.config import ConfigurationError, Settings
from delaystream.config.request_settings import RequestSettings
from delaystream.config.tenant_settings import setting_name
from delaystream.core.destinations import DestinationFilter
from delaystream.core.rates import RateTable, parse_rate
from delaystream.dialects import by_name
from delaystream.engine.failures import Misconfigured
from delaystream.engine.policy.tenants import Tenant, TenantEvents, Tenants


def tenants_of(settings: Settings) -> Tenants:
    """Make the policies. Raises ConfigurationError for a default destination that is denied."""
    shared = _tenant(settings, settings, RateTable(), "default_destination")
    own = {
        topic: _tenant(settings, requests, _rates(requests), setting_name(topic, "default_destination"))
        for topic in settings.tenants
        for requests in [settings.requests(topic)]
    }
    return Tenants(shared, own, _rates(settings))


def require_shares(settings: Settings, partitions: int) -> None:
    """Raise Misconfigured when a quota is too small to give every partition a share."""
    for topic in settings.request_topics:
        most = settings.requests(topic).max_pending
        if 0 < most < partitions:
            raise Misconfigured(
                f"max_pending of {topic} is {most}, and it is split over {partitions} partitions: some would "
                f"have no share. Expected {partitions} or more, or 0 for no bound"
            )


def _tenant(settings: Settings, requests: RequestSettings, rates: RateTable, name: str) -> Tenant:
    allowed = DestinationFilter(requests.destinations_allow, settings.own_topics, settings.receipts_topic)
    try:
        parser = RequestParser(
            allowed,
            requests.limits(),
            requests.default_destination,
            requests.default_timezone,
            requests.default_grace_ms,
        )
    except ValueError as error:
        raise ConfigurationError([f"{name}: {error}."]) from error
    dialects = [by_name(dialect) for dialect in requests.dialects]
    return Tenant(
        parser,
        max_pending=requests.max_pending,
        rates=rates,
        dialects=dialects,
        describes_payload=requests.describe_payload,
        events=TenantEvents(requests.events_key, requests.events_correlation_id, requests.events_anonymous),
    )


def _rates(requests: RequestSettings) -> RateTable:
    return RateTable([parse_rate(rate) for rate in requests.destination_rates])
