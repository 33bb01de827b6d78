"""The tables of request topics: how they are written, what they say, and what is wrong with one."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from delaystream.app.tenants import require_shares, tenants_of
from delaystream.cli import main
from delaystream.config import ConfigurationError, Loaded, Settings, load
from delaystream.config.request_settings import RequestSettings
from delaystream.config.tenant_settings import TenantSettings
from delaystream.engine.failures import Misconfigured
from delaystream.exit_codes import ExitCode

TOPICS = {"DELAYSTREAM_REQUEST_TOPICS": "orders,billing.eu", "DELAYSTREAM_DESTINATIONS_ALLOW": "*"}


def loaded(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    pairs: Mapping[str, str] = MappingProxyType({}),
    **named: str,
) -> Loaded:
    return load(pairs={**pairs, **named}, environ={**TOPICS, **(environ or {})}, config=config)


def problems(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    pairs: Mapping[str, str] = MappingProxyType({}),
    **named: str,
) -> str:
    with pytest.raises(ConfigurationError) as failure:
        loaded(environ, config, pairs, **named)
    return str(failure.value)


def toml(directory: Path, text: str) -> Path:
    path = directory / "delaystream.toml"
    path.write_text(text)
    return path


FILE = """
max_list = 7
default_destination = "everyone"

[tenants.orders]
destinations_allow = ["orders-*", "late"]
default_destination = ""
max_pending = 100
dialects = "kaspr,nats"

[tenants.billing.eu]
max_value_bytes = 5_000_000

[tenants."billing.eu".destination_rates]
emails = "600/m"
"sms-*" = 0.5
"""


def test_a_table_says_what_differs_and_the_rest_is_shared(tmp_path: Path) -> None:
    """Quoted or not, a topic's name may hold dots."""
    settings = loaded(config=toml(tmp_path, FILE)).settings
    orders, billing = settings.requests("orders"), settings.requests("billing.eu")
    assert (orders.destinations_allow, orders.max_pending) == (("orders-*", "late"), 100)
    assert orders.default_destination is None, "an empty one is none, not the shared one"
    assert orders.dialects == ("kaspr", "nats")
    assert (billing.default_destination, billing.max_list, billing.max_pending) == ("everyone", 7, 0)
    assert billing.destination_rates == ("emails=600/m", "sms-*=0.5")
    assert billing.limits().max_value_bytes == 5_000_000
    assert settings.max_message_bytes > 5_000_000, "our own topics take what any tenant may send"


def test_a_request_topic_without_a_table_has_the_shared_settings() -> None:
    settings = loaded().settings
    assert settings.requests("orders") is settings


def test_a_rate_of_the_shared_settings_is_not_each_tenants_own() -> None:
    """It is of all of them together; each would have it besides."""
    pairs = {"destination_rates": "emails=50", "tenants.orders.max_pending": "5"}
    assert loaded(**pairs).settings.requests("orders").destination_rates == ()  # type: ignore[arg-type]


def test_flag_wins_over_environment_over_file(tmp_path: Path) -> None:
    """For each setting of a table by itself, and the origin is known."""
    file = toml(tmp_path, "[tenants.orders]\nmax_pending = 1\nmax_list = 1\nmax_headers = 1\n")
    environ = {"DELAYSTREAM_TENANTS_ORDERS_MAX_LIST": "2", "DELAYSTREAM_TENANTS_ORDERS_MAX_HEADERS": "2"}
    result = loaded(environ, file, pairs={"tenants.orders.max_headers": "3"})
    orders = result.settings.requests("orders")
    assert (orders.max_pending, orders.max_list, orders.max_headers) == (1, 2, 3)
    assert str(result.origin("tenants.orders.max_pending")) == f"file {file}"
    assert str(result.origin("tenants.orders.max_list")) == "environment DELAYSTREAM_TENANTS_ORDERS_MAX_LIST"
    assert str(result.origin("tenants.orders.max_headers")) == "flag --set tenants.orders.max_headers"


def test_in_a_variable_everything_but_letters_and_digits_is_an_underscore() -> None:
    settings = loaded({"DELAYSTREAM_TENANTS_BILLING_EU_MAX_PENDING": "9"}).settings
    assert settings.requests("billing.eu").max_pending == 9


def test_a_variable_that_may_be_about_two_topics_is_refused() -> None:
    """It says which ones."""
    environ = {"DELAYSTREAM_REQUEST_TOPICS": "a-b,a.b", "DELAYSTREAM_TENANTS_A_B_MAX_LIST": "1"}
    assert "a-b or a.b" in problems(environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants.order]\nmax_list = 1\n", "Did you mean orders?"),
        ("[tenants.orders]\nmax_pendings = 1\n", "Did you mean max_pending?"),
        ("[tenants.orders]\nhttp_port = 1\n", "A request topic has no setting http_port"),
        ("[tenants.orders]\nmax_pending = -1\n", "tenants.orders.max_pending = -1 (file"),
        ("[tenants.orders]\ndialects = 'natz'\n", "'natz' is not a dialect; expected one of"),
        ("[tenants.orders]\ndestination_rates = 'a=0'\n", "'a=0' is out of bounds"),
        ("[tenants.orders]\ndestination_rates = 'a'\n", "'a' is not a rate; expected TOPIC=COUNT"),
        ("[tenants.orders]\ndefault_destination = 'a b'\n", "'a b' is not a topic name"),
        ("[tenants.orders]\ndefault_timezone = 'Europe/Berln'\n", "Europe/Berln"),
        ("[tenants.orders]\ndefault_grace_ms = -1\n", "tenants.orders.default_grace_ms = -1"),
        ("tenants = 1\n", "is not a table of request topics"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    assert said in problems(config=toml(tmp_path, text))


def test_an_unknown_variable_of_a_tenant_is_an_error_that_suggests_the_right_one() -> None:
    text = problems({"DELAYSTREAM_TENANTS_ORDERS_MAX_PENDIN": "1"})
    assert "Did you mean DELAYSTREAM_TENANTS_ORDERS_MAX_PENDING?" in text


def test_every_setting_of_requests_may_stand_in_a_table() -> None:
    """One that is added is known there too, with its bounds."""
    assert set(TenantSettings.model_fields) == set(RequestSettings.model_fields)
    for name, field in RequestSettings.model_fields.items():
        if field.annotation is int:
            with pytest.raises(ValueError, match=name):
                TenantSettings.model_validate({name: -1})


def test_every_request_topic_needs_an_allow_list() -> None:
    """The shared one or its own."""

    def require(**values: Any) -> None:
        Settings(request_topics=("orders", "billing"), **values).require_for_worker()

    require(destinations_allow="*")
    require(tenants={"orders": {"destinations_allow": "a"}, "billing": {"destinations_allow": "b"}})
    with pytest.raises(ConfigurationError, match="requests of billing"):
        require(tenants={"orders": {"destinations_allow": "a"}})


def test_a_default_destination_that_its_topic_may_not_use_is_refused_by_its_name() -> None:
    table = {"tenants.orders.destinations_allow": "a", "tenants.orders.default_destination": "b"}
    with pytest.raises(ConfigurationError, match=r"tenants\.orders\.default_destination"):
        tenants_of(loaded(pairs=table).settings)


def test_a_quota_that_leaves_a_partition_nothing_is_refused() -> None:
    settings = loaded(pairs={"tenants.orders.max_pending": "15"}).settings
    require_shares(settings, 15)
    with pytest.raises(Misconfigured, match="max_pending of orders is 15"):
        require_shares(settings, 16)


def test_config_shows_what_the_tables_set_and_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the name that sets it; what a table leaves out is among the shared settings."""
    monkeypatch.setenv("DELAYSTREAM_REQUEST_TOPICS", "orders,billing.eu")
    monkeypatch.setenv("DELAYSTREAM_TENANTS_BILLING_EU_DESTINATION_RATES", "a=5,b=6/m")
    assert main(["config", "--json", "--set", "tenants.orders.max_pending=7"]) == ExitCode.OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    tables = {name: row for name, row in rows.items() if name.startswith("tenants.")}
    assert {name: (row["value"], row["origin"]) for name, row in tables.items()} == {
        "tenants.orders.max_pending": (7, "flag --set tenants.orders.max_pending"),
        "tenants.billing.eu.destination_rates": (
            "a=5,b=6/m",
            "environment DELAYSTREAM_TENANTS_BILLING_EU_DESTINATION_RATES",
        ),
    }
    assert tables["tenants.orders.max_pending"]["variable"] == "DELAYSTREAM_TENANTS_ORDERS_MAX_PENDING"
    assert main(["config", "--set", "tenants.orders.nope=1"]) == ExitCode.CONFIGURATION
