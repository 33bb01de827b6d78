"""Settings: which value holds, where it came from, and what is said when one is wrong."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from delaystream.config import ConfigurationError, Loaded, Settings, environment_name, load
from delaystream.config.kafka import REFUSED, SUPPORTED, variable_names
from delaystream.config.settings import TABLES
from delaystream.core.limits import Limits
from delaystream.engine.settings import EngineSettings


def loaded(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    flags: Mapping[str, object] = MappingProxyType({}),
    **named: object,
) -> Loaded:
    return load({**flags, **named}, environ=environ or {}, config=config)


def problems(
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    flags: Mapping[str, object] = MappingProxyType({}),
    **named: object,
) -> str:
    with pytest.raises(ConfigurationError) as failure:
        loaded(environ, config, flags, **named)
    return str(failure.value)


def toml(directory: Path, text: str) -> Path:
    path = directory / "delaystream.toml"
    path.write_text(text)
    return path


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each layer hides the ones below it, and the origin says which one held."""
    file = toml(tmp_path, 'app_id = "file"\nhttp_port = 1\nmax_list = 7\n')
    environ = {"DELAYSTREAM_APP_ID": "environment", "DELAYSTREAM_HTTP_PORT": "2"}
    result = loaded(environ, file, app_id="flag")
    assert (result.settings.app_id, result.settings.http_port, result.settings.max_list) == ("flag", 2, 7)
    assert str(result.origin("app_id")) == "flag --app-id"
    assert str(result.origin("http_port")) == "environment DELAYSTREAM_HTTP_PORT"
    assert str(result.origin("max_list")) == f"file {file}"
    assert str(result.origin("data_dir")) == "default"


def test_a_flag_that_was_not_given_hides_nothing() -> None:
    """None is what the command line has for it."""
    assert loaded({"DELAYSTREAM_APP_ID": "orders"}, app_id=None).settings.app_id == "orders"


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    """DELAYSTREAM_CONFIG stands for --config."""
    file = toml(tmp_path, "max_list = 7\n")
    assert loaded({"DELAYSTREAM_CONFIG": str(file)}).settings.max_list == 7


def test_lists_are_comma_separated_in_the_environment_and_arrays_in_a_file(tmp_path: Path) -> None:
    """Both give the same tuple."""
    file = toml(tmp_path, 'request_topics = ["a", "b"]\n')
    expected = ("a", "b")
    assert loaded(config=file).settings.request_topics == expected
    assert loaded({"DELAYSTREAM_REQUEST_TOPICS": "a, b,"}).settings.request_topics == expected


def test_kafka_settings_have_the_java_clients_names_in_every_layer(tmp_path: Path) -> None:
    """Dots become underscores in the environment; in a file, quoted and bare dotted names are the same."""
    file = toml(
        tmp_path, '[kafka]\nbootstrap.servers = "file:1"\n"client.id" = "c"\nrequest.timeout.ms = 7\n'
    )
    settings = loaded({"DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS": "environment:2"}, file).settings
    assert settings.bootstrap_servers == "environment:2"
    assert settings.kafka["client.id"] == "c"
    assert settings.kafka["request.timeout.ms"] == "7"


def test_any_setting_may_be_read_from_a_file_that_a_variable_names(tmp_path: Path) -> None:
    """The way secrets are mounted; the line's end is not part of the secret."""
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    result = loaded({"DELAYSTREAM_KAFKA_SASL_PASSWORD_FILE": str(secret)})
    assert result.settings.kafka["sasl.password"] == "s3cret"


def test_a_secret_given_twice_or_missing_is_an_error(tmp_path: Path) -> None:
    """Neither is guessed at."""
    name = "DELAYSTREAM_KAFKA_SASL_PASSWORD"
    assert "both set" in problems({name: "a", f"{name}_FILE": "b"})
    assert "cannot be read" in problems({f"{name}_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("variable", "suggested"),
    [
        ("DELAYSTREAM_HTTP_PROT", "DELAYSTREAM_HTTP_PORT"),
        ("DELAYSTREAM_KAFKA_BOOTSTRAP_SERVER", "DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS"),
        ("DELAYSTREAM_DESTINATION_ALLOW", "DELAYSTREAM_DESTINATIONS_ALLOW"),
    ],
)
def test_an_unknown_variable_is_an_error_that_suggests_the_right_one(variable: str, suggested: str) -> None:
    """A misspelt setting must not be silently without effect."""
    assert f"Did you mean {suggested}?" in problems({variable: "1"})


@pytest.mark.parametrize(
    "variable",
    [
        "DELAYSTREAM_KAFKA_FOO_BAR",
        "DELAYSTREAM_KAFKA_ACK",
        "DELAYSTREAM_FOO",
        "DELAYSTREAM_",
        "DELAYSTREAM_TENANTS_DELAY_REQUESTS_FOO",
        "DELAYSTREAM_TENANTS_FOO",
    ],
)
def test_nothing_is_suggested_that_is_not_like_it_or_cannot_be_set(variable: str) -> None:
    """What all variables begin with makes none more like another."""
    assert f"There is no setting {variable}." in problems({variable: "1"}).splitlines()


def test_what_is_a_setting_of_ours_is_suggested_by_kafkas_name() -> None:
    assert "Did you mean group.id?" in problems(flags={"kafka.group.idd": "1"})
    assert problems(flags={"kafka.ack": "1"}).endswith("(flag -X ack).")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tenants.", "tenants. (flag --set tenants.) names no setting of a request topic; expected "
            "tenants.TOPIC.SETTING, such as tenants.delay-requests.max_pending."),
        ("tenants.orders", "tenants.orders (flag --set tenants.orders) names no setting of a request topic;"),
        ("tenants.orders.", "tenants.orders. (flag --set tenants.orders.) names no setting of a request"),
        ("tenants", "tenants (flag --set tenants) is a table; expected one of its settings, tenants.NAME."),
        ("kafka", "kafka (flag --set kafka) is a table; expected one of its settings, kafka.NAME."),
        ("kafka.", "kafka. (flag --set kafka.) names no setting of Kafka's clients; expected kafka.NAME."),
    ],
)  # fmt: skip
def test_a_name_that_is_not_whole_says_how_one_is_written(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(pairs={name: "1"}, environ={})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("x", "it is no name of a time zone; expected one such as 'Europe/Berlin' or 'UTC'."),
        ("Europe/Berln", "it is no name of a time zone; did you mean 'Europe/Berlin'?"),
    ],
)
def test_a_default_time_zone_that_is_none_is_said_by_the_settings_name(zone: str, said: str) -> None:
    text = problems(default_timezone=zone)
    assert text == f"default_timezone = '{zone}' (flag --default-timezone): {said}"
    topic = "tenants.delay-requests.default_timezone"
    with pytest.raises(ConfigurationError) as refused:
        load(pairs={topic: zone}, environ={})
    assert str(refused.value) == f"{topic} = '{zone}' (flag --set {topic}): {said}"


def test_an_unknown_name_in_the_file_is_an_error_that_suggests_the_right_one(tmp_path: Path) -> None:
    """The same for files, in both tables."""
    text = problems(config=toml(tmp_path, 'http_prot = 1\n[kafka]\nsasl.mechanisms = "PLAIN"\n'))
    assert "Did you mean http_port?" in text
    assert "Did you mean sasl.mechanism?" in text


def test_a_refused_kafka_setting_says_why() -> None:
    """What aiokafka cannot honour, or delaystream decides itself, is not passed over."""
    text = problems(flags={"kafka.acks": "1", "kafka.session.timeout.ms": "1"})
    assert "guarantees rest on it" in text
    assert "DELAYSTREAM_SESSION_TIMEOUT_MS" in text


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """Nobody fixes one setting only to learn of the next."""
    text = problems({"DELAYSTREAM_NOPE": "1"}, flags={"nope": 1, "kafka.nope": "1"})
    assert len(text.splitlines()) == 3


def test_a_value_out_of_bounds_names_setting_value_and_origin() -> None:
    """The sentence is enough to find it."""
    text = problems({"DELAYSTREAM_HTTP_PORT": "70000"})
    assert "http_port = '70000' (environment DELAYSTREAM_HTTP_PORT)" in text


@pytest.mark.parametrize(
    "flags",
    [
        {"request_topics": "a,delay-commands"},
        {"request_topics": "a b"},
        {"request_topics": ""},
        {"destination_backoff_min_ms": 10, "destination_backoff_max_ms": 5},
        {"batch_max_decompressed_bytes": 8 * 1024 * 1024, "max_value_bytes": 8 * 1024 * 1024},
        {"log_format": "yaml"},
        {"on_requests_lost": "ignore"},
        {"app_id": ""},
        {"app_id": "."},
        {"app_id": ".."},
    ],
)
def test_settings_that_contradict_or_make_no_sense_are_refused(flags: dict[str, Any]) -> None:
    """Topics have distinct and valid names, bounds have an order, choices are closed."""
    assert problems(**flags)


@pytest.mark.parametrize(
    "environ",
    [
        {"DELAYSTREAM_SERVICE_HOST": "10.0.0.1", "DELAYSTREAM_SERVICE_PORT_HTTP": "8642"},
        {"DELAYSTREAM_PORT": "tcp://10.0.0.1:8642", "DELAYSTREAM_PORT_8642_TCP_ADDR": "10.0.0.1"},
        {"DELAYSTREAM_HTTP_PORT": "tcp://10.0.0.1:8642"},
        {"DELAYSTREAM_METRICS_SERVICE_HOST": "10.0.0.1"},
        {"DELAYSTREAM_TEST_BOOTSTRAP": "x", "DELAYSTREAM_SOAK_SECONDS": "1", "DELAYSTREAM_CACHE_DIR": "/x"},
    ],
)
def test_variables_that_are_not_ours_to_judge_are_passed_over(environ: dict[str, str]) -> None:
    """Kubernetes sets some for every Service called `delaystream`; the tests have their own."""
    assert loaded(environ).settings == loaded().settings


def test_a_file_that_is_missing_or_no_toml_is_an_error(tmp_path: Path) -> None:
    """Defaults in its place would be a surprise."""
    assert "cannot be read" in problems(config=tmp_path / "absent.toml")
    assert "is not TOML" in problems(config=toml(tmp_path, "= 1"))
    assert "is not a table" in problems(config=toml(tmp_path, "kafka = 1"))


def test_secrets_are_not_in_the_settings_text() -> None:
    """They would end up in logs."""
    assert "s3cret" not in repr(loaded(**{"kafka.sasl.password": "s3cret"}).settings)  # type: ignore[arg-type]


def test_a_worker_needs_an_allow_list() -> None:
    """And is told what to set."""
    with pytest.raises(ConfigurationError, match="DELAYSTREAM_DESTINATIONS_ALLOW"):
        Settings().require_for_worker()
    Settings(destinations_allow="*").require_for_worker()


def test_limits_and_engine_settings_are_those_of_the_settings() -> None:
    """No default stands in two places with two values, and none is out of reach."""
    settings = Settings()
    assert settings.limits() == Limits()
    framed = settings.max_message_bytes - 4096
    assert settings.engine(1) == EngineSettings(own_record_max_bytes=framed)
    assert Settings(on_requests_lost="continue").engine(3) == EngineSettings(
        partitions=3, continue_on_lost_requests=True, own_record_max_bytes=framed
    )
    derived = {
        "owner",
        "host",
        "partitions",
        "own_record_max_bytes",
        "continue_on_lost_requests",
        "changelog_delete_retention_ms",
        "producer_max_records",
    }
    assert set(EngineSettings.__struct_fields__) - derived <= set(Settings.model_fields)


def test_every_setting_is_described_and_bounded() -> None:
    """For help and documentation; numbers have bounds on both sides."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if field.annotation is int:
            assert {type(bound).__name__ for bound in field.metadata} == {"Ge", "Le"}, name


def test_every_name_has_one_variable() -> None:
    """No two names meet in the environment."""
    names = [environment_name(name) for name in Settings.model_fields]
    names += [f"DELAYSTREAM_{variable}" for variable in variable_names()]
    assert len(set(names)) == len(names)
    assert not SUPPORTED.keys() & REFUSED.keys()


_WRONG = ["?!", "", "-1", "99999999999999999999", "a=b", "1.5", "x,,y", "a b"]
_LIBRARY = re.compile(r"Input should|Value should|String should|Value error|unable to|valid ")


def _refusal(name: str, value: str) -> str:
    """What is said of the value; nothing where it is taken."""
    try:
        load(pairs={name: value}, environ={})
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in TABLES])
def test_no_setting_is_refused_in_the_words_of_a_library(name: str) -> None:
    """Whatever is written there."""
    told = [_refusal(name, value) for value in _WRONG]
    assert [sentence for sentence in told if _LIBRARY.search(sentence)] == []
