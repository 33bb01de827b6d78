"""Tokens for OAUTHBEARER: from an endpoint, asked like a browser never would, or from a file."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.security.oauth_tokens import TokenLogin, TokenUnavailable

SECRET = "s3cret/with+signs="


class Issuer:
    """A token endpoint; what it answers can be changed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, dict[str, list[str]]]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")
        self.grants(lifetime_s=100)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                issuer.asked.append((self.headers["authorization"], parse_qs(body)))
                status, headers, content = issuer.answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def grants(self, lifetime_s: int | None) -> None:
        body = {"access_token": f"token-{len(self.asked)}", "token_type": "Bearer"}
        if lifetime_s is not None:
            body["expires_in"] = lifetime_s  # type: ignore[assignment]
        self.answer = (200, {}, json.dumps(body).encode())


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


def login(url: str, **more: str) -> TokenLogin:
    config = ClientConfig.parse(
        {
            "bootstrap.servers": "localhost:9092",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.token.endpoint.url": url,
            **{name.replace("_", "."): value for name, value in more.items()},
        }
    )
    found = config.login
    assert isinstance(config.login, TokenLogin)
    assert config.aiokafka()["sasl_oauth_token_provider"] is config.login
    return found  # type: ignore[return-value]


def by_secret(issuer: Issuer) -> TokenLogin:
    jaas = f'OAuthBearerLoginModule required clientId="me" clientSecret="{SECRET}" scope="kafka";'
    return login(issuer.url, sasl_jaas_config=jaas)


def test_the_endpoint_is_asked_with_the_clients_id_and_secret(issuer: Issuer) -> None:
    """As RFC 6749 says: a form, and the secret in the Authorization header."""
    assert asyncio.run(by_secret(issuer).token()) == "token-0"
    [(authorization, form)] = issuer.asked
    assert authorization == "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}


def test_a_token_is_used_again_for_most_of_its_life(issuer: Issuer) -> None:
    """A worker has connections to every broker, and logs in on each."""
    tokens = by_secret(issuer)
    now = time.time()
    tokens._now_s = lambda: now
    assert [tokens.current().text, tokens.current().text] == ["token-0", "token-0"]
    issuer.grants(100)
    now += 79
    assert tokens.current().text == "token-0"
    now += 2
    assert tokens.current().text == "token-1"
    assert len(issuer.asked) == 2


def test_both_clients_get_the_same_tokens(tmp_path: Path) -> None:
    """And confluent-kafka is not even made while there is none: it would wait, and not say why."""
    file = tmp_path / "token"
    config = ClientConfig.parse(
        {
            "bootstrap.servers": "localhost:9092",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.token.endpoint.url": file.as_uri(),
        }
    )
    assert isinstance(config.login, TokenLogin)
    with pytest.raises(TokenUnavailable):
        config.confluent()
    file.write_text("t")
    assert config.confluent()["oauth_cb"] == config.login.confluent


def test_confluent_kafka_hears_when_the_token_ends(issuer: Issuer) -> None:
    """It asks again before that."""
    text, expires_s = by_secret(issuer).confluent("")
    assert text == "token-0"
    assert 95 < expires_s - time.time() <= 100


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {}, b'{"error": "invalid_client", "error_description": "s3cret"}'), "401 (invalid_client)"),
        ((500, {}, b"<html>s3cret/with+signs=</html>"), "answered 500"),
        ((200, {}, b"{}"), "without an access_token"),
        ((200, {}, b"not json"), "gave no token"),
        ((200, {}, b"[]"), "without an access_token"),
        ((302, {"location": "http://127.0.0.1:1/elsewhere"}, b""), "answered 302"),
    ],
)
def test_an_endpoint_that_gives_none_is_named_without_any_secret(
    issuer: Issuer, answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    """The message goes to the log."""
    issuer.answer = answer
    with pytest.raises(TokenUnavailable) as failure:
        by_secret(issuer).current()
    assert said in str(failure.value)
    assert "s3cret" not in str(failure.value)
    assert isinstance(failure.value, OSError)  # which connections take for something that may pass


def _jwt(expires_s: float) -> str:
    parts = [{"alg": "none"}, {"exp": expires_s}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "signature"])


@pytest.mark.parametrize(
    ("content", "lifetime_s"),
    [(lambda: _jwt(time.time() + 500), 500), (lambda: "opaque", 60), (lambda: "a.%%%.c", 60)],
)
def test_a_token_in_a_file_is_read_anew_each_time(
    tmp_path: Path, content: Callable[[], str], lifetime_s: int
) -> None:
    """Kubernetes renews it in place."""
    file = tmp_path / "a token"
    tokens = login(file.as_uri())
    file.write_text(content() + "\n")
    text, expires_s = tokens.current()
    assert text == file.read_text().strip()
    assert expires_s - time.time() == pytest.approx(lifetime_s, abs=5)
    file.write_text("another")
    assert tokens.current().text == "another"


def test_a_file_without_a_token_is_named(tmp_path: Path) -> None:
    """Missing, or empty."""
    tokens = login((tmp_path / "token").as_uri())
    with pytest.raises(TokenUnavailable, match="cannot be read"):
        tokens.current()
    (tmp_path / "token").write_text("\n")
    with pytest.raises(TokenUnavailable, match="is empty"):
        tokens.current()
