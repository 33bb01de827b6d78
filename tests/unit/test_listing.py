"""Settings as they are shown: on the command line and on the console's page."""

from __future__ import annotations

import pytest

from delaystream.config import load
from delaystream.config.listing import MASK, listed


def shown(**environ: str) -> dict[str, object]:
    loaded = load(environ={f"DELAYSTREAM_{name}": value for name, value in environ.items()})
    return {one.name: one.value for one in listed(loaded)}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://user:pa:ss@w@host/db", f"postgresql+psycopg://user:{MASK}@host/db"),
        ("postgresql+psycopg://:secret@host/db", f"postgresql+psycopg://:{MASK}@host/db"),
        (
            "postgresql+psycopg://host/db?user=u&password=secret&sslmode=require",
            f"postgresql+psycopg://host/db?user=u&password={MASK}&sslmode=require",
        ),
        ("postgresql+psycopg://user@host/db", "postgresql+psycopg://user@host/db"),
        ("sqlite:////var/lib/history.db", "sqlite:////var/lib/history.db"),
    ],
)
def test_a_password_in_an_url_is_masked(url: str, expected: str) -> None:
    assert shown(CONSOLE_DATABASE=url)["console_database"] == expected


def test_secrets_of_kafka_are_masked() -> None:
    found = shown(KAFKA_SASL_PASSWORD="secret", KAFKA_SASL_USERNAME="me")
    assert (found["kafka.sasl.password"], found["kafka.sasl.username"]) == (MASK, "me")


def test_a_setting_says_where_it_came_from() -> None:
    loaded = load(environ={"DELAYSTREAM_CONSOLE_HTTP_PORT": "9000"})
    found = {one.name: one for one in listed(loaded)}
    assert (found["console_http_port"].value, found["console_http_port"].default) == (9000, 8643)
    assert found["console_http_port"].origin == "environment DELAYSTREAM_CONSOLE_HTTP_PORT"
    assert found["console_http_host"].origin == "default"
