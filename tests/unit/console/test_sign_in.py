"""People sign in, by a token or with a provider, and stay who they are; what others try comes to nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
from collections.abc import Callable, Coroutine, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from sqlalchemy import text

from delaystream.console.access.caller import Kind
from delaystream.console.access.claims import Claims, parse_grant
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.sessions import SESSION, Cookies, local_path, new_secret
from delaystream.console.access.token_file import TokenFile
from delaystream.console.audit.acts import EntryFilter
from delaystream.console.signing.provider import Provider, ProviderAway, Registration, TokenRefused
from delaystream.console.signing.service import Identities, Signing
from delaystream.console.signing.sessions import Lifetimes, SignIn, StoredSessions
from tests.unit.console.issuer import AUDIENCE, CLIENT, SECRET, Issuer, issuer
from tests.unit.console.neighbours import entry, token
from tests.unit.console.test_writing_access import CRON
from tests.unit.console.writable import HOST, World, in_world

FILE = entry("boss", {"*": "admin"}) + entry("clerk", {"one": "viewer"})
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BROWSER = {"Accept": "text/html"}
OWN = {"Origin": HOST}
JSON = {"Content-Type": "application/json", "Prefer": "wait=60"}
GRANTS = ("operator:one=support", "admin:*=platform", "viewer:tw*=guests")


class Clocked:
    """A time that tests move."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def now_s(self) -> float:
        return self.at_ms / 1_000


@pytest.fixture
def provider() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


Story = Callable[[World, Clocked], Coroutine[Any, Any, None]]


def signing(directory: Path, story: Story, of: Issuer | None = None, **options: Any) -> None:
    """A world where people sign in."""
    file, clock = directory / "tokens.toml", Clocked()
    file.write_text(options.pop("file", FILE))
    through = Entrance(clock.now_ms, tokens=TokenFile(file), hosts=Hosts(), now_s=clock.now_s)
    through.cookies = options.pop("cookies", Cookies(secure=False))
    if of is not None:
        through.claims = Claims(issuer=of.url, grants=tuple(map(parse_grant, GRANTS)))

    async def happen(world: World) -> None:
        audit = world.console.audit
        assert audit is not None
        sessions = StoredSessions(audit.database, clock.now_ms, Lifetimes(600_000, 3_600_000))
        identities = None
        if of is not None and through.claims is not None:
            known = Registration(issuer=of.url, client_id=CLIENT, client_secret=SECRET, audience=AUDIENCE)
            identities = Identities(Provider(known, lambda: of.now_s), through.claims)
            through.services = identities
        through.sessions = sessions
        world.console.signing = Signing(sessions, audit, through, identities)
        await story(world, clock)
        if identities is not None:
            identities.close()

    in_world(directory, happen, topics=("one", "two"), entrance=through, **options)


async def sign_in(world: World, name: str, to: str = "/", **headers: str) -> httpx.Response:
    form = {"token": token(name), "to": to}
    return await world.ask.post("/sign-in", data=form, headers={**OWN, **headers})


def cookie(answer: httpx.Response, name: str = "delaystream-session") -> str:
    for header in answer.headers.get_list("set-cookie"):
        if name in (found := SimpleCookie(header)):
            return found[name].value
    raise AssertionError(answer.headers)


def stored(directory: Path) -> bytes:
    """All that the database has."""
    return b"".join(one.read_bytes() for one in directory.glob("history.db*"))


def page(answer: httpx.Response) -> str:
    assert "Sign in" in answer.text
    return answer.text


# -- by a token ------------------------------------------------------------------------------------


def test_where_sessions_cannot_be_looked_up_tokens_are_taken(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        await sign_in(world, "boss")
        assert world.console.audit is not None
        with world.console.audit.database.writing() as connection:
            connection.execute(text("ALTER TABLE sessions RENAME TO gone"))
        away = await world.ask.get("/v1/stats")
        assert (away.status_code, away.json()["code"]) == (503, "sessions-unavailable")
        bearer = {"Authorization": f"Bearer {token('boss')}"}
        assert (await world.ask.get("/v1/stats", headers=bearer)).status_code == 200

    signing(tmp_path, story)


def test_somebody_signs_in_looks_and_signs_out(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        sent = await world.ask.get("/schedules?tag=a%2Fb", headers=BROWSER)
        assert (sent.status_code, sent.headers["location"]) == (
            303,
            "/sign-in?to=%2Fschedules%3Ftag%3Da%252Fb",
        )
        asked = await world.ask.get(sent.headers["location"])
        assert 'value="/schedules?tag=a%2Fb"' in page(asked)
        assert (await world.ask.get("/static/console.css")).status_code == 200
        answer = await sign_in(world, "boss", "/schedules?tag=a%2Fb")
        assert (answer.status_code, answer.headers["location"]) == (303, "/schedules?tag=a%2Fb")
        (header,) = answer.headers.get_list("set-cookie")
        assert header.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
        shown = await world.ask.get("/schedules", headers=BROWSER)
        assert "You are boss" in shown.text
        assert 'action="/sign-out"' in shown.text
        # What is stored of it lets nobody in.
        content = stored(tmp_path)
        assert cookie(answer).encode() not in content
        assert token("boss").encode() not in content
        out = await world.ask.post("/sign-out", headers=OWN)
        assert out.headers["location"] == "/sign-in"
        assert "Max-Age=0" in out.headers["set-cookie"]
        world.ask.cookies.clear()
        again = {"Cookie": f"delaystream-session={cookie(answer)}"}
        over = await world.ask.get("/v1/stats", headers=again)
        assert (over.status_code, over.json()["code"]) == (401, "session-over")
        assert world.console.audit is not None
        log = world.console.audit.page(EntryFilter(name="boss"), 9)
        assert [one.act.action for one in log] == ["sign-out", "sign-in"]
        assert log[1].act.who.kind is Kind.TOKEN

    signing(tmp_path, story)


def test_who_has_no_token_is_told_and_counted(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        form = {"token": "delaystream_" + "x" * 43, "to": "/"}
        for _attempt in range(30):
            answer = await world.ask.post("/sign-in", data=form, headers=OWN)
            assert answer.status_code == 401
            assert "The token is not known." in page(answer)
            assert "set-cookie" not in answer.headers
        assert (await world.ask.post("/sign-in", data=form, headers=OWN)).status_code == 429
        assert (await sign_in(world, "boss")).status_code == 303
        assert world.console.audit is not None
        refused = world.console.audit.page(EntryFilter(code="invalid-token"), 99)
        assert len(refused) == 30

    signing(tmp_path, story)


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(tmp_path: Path) -> None:
    async def story(world: World, clock: Clocked) -> None:
        await sign_in(world, "boss")
        for _ in range(5):
            clock.at_ms += 599_999
            assert (await world.ask.get("/v1/stats")).status_code == 200
        clock.at_ms += 599_999
        assert (await world.ask.get("/v1/stats")).status_code == 200
        clock.at_ms += 10
        assert (await world.ask.get("/v1/stats")).json()["code"] == "session-over"
        await sign_in(world, "boss")
        clock.at_ms += 600_000
        assert (await world.ask.get("/v1/stats")).json()["code"] == "session-over"
        assert world.console.signing is not None
        assert world.console.signing.sessions.forget() >= 1

    signing(tmp_path, story)


def test_a_session_has_no_more_rights_than_its_token_has_now(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        await sign_in(world, "clerk")
        assert (await world.ask.get("/v1/schedules")).status_code == 200
        refused = await world.ask.put("/v1/schedules/x?request_topic=one", json=CRON, headers={**OWN, **JSON})
        assert refused.json()["code"] == "role-too-low"
        file = tmp_path / "tokens.toml"
        entrance = world.app.state.entrance
        caller = entrance.of_session(
            world.console.signing.sessions.find(world.ask.cookies["delaystream-session"])  # type: ignore[union-attr]
        )
        assert await entrance.stands(caller)
        file.write_text(entry("boss", {"*": "admin"}))
        entrance.tokens.look()
        assert not await entrance.stands(caller)
        assert (await world.ask.get("/v1/schedules")).json()["code"] == "session-over"

    signing(tmp_path, story)


def test_a_session_that_somebody_has_put_into_the_browser_is_not_gone_on_with(tmp_path: Path) -> None:
    """Session fixation: the secret is a new one, and the one before is over."""

    async def story(world: World, _: Clocked) -> None:
        attacker = cookie(await sign_in(world, "clerk"))
        for planted in (attacker, "A" * 43, "x"):
            world.ask.cookies.clear()
            mine = cookie(await sign_in(world, "boss", Cookie=f"delaystream-session={planted}"))
            assert mine != planted
            world.ask.cookies.clear()
            theirs = {"Cookie": f"delaystream-session={planted}"}
            assert (await world.ask.get("/v1/stats", headers=theirs)).status_code == 401

    signing(tmp_path, story)


FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://localhost:8643"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]


def test_what_a_page_of_another_site_asks_with_the_cookie_is_refused(tmp_path: Path) -> None:
    """A replayed form, another port of the machine, a name of the same address: each is another site."""

    async def story(world: World, _: Clocked) -> None:
        await sign_in(world, "boss")
        for foreign in FOREIGN:
            for method, path in (
                ("PUT", "/v1/schedules/x?request_topic=one"),
                ("POST", "/sign-out"),
                ("POST", "/sign-in"),
            ):
                answer = await world.ask.request(method, path, json=CRON, headers={**JSON, **foreign})
                assert (answer.status_code, answer.json()["code"]) == (403, "cross-site"), foreign
        assert world.sent("one") == []
        assert (await world.ask.get("/v1/stats")).status_code == 200
        own = await world.ask.put("/v1/schedules/x?request_topic=one", json=CRON, headers={**JSON, **OWN})
        assert own.status_code == 201, own.text
        # A token comes from no browser unasked.
        bearer = {"Authorization": f"Bearer {token('boss')}", **JSON}
        again = await world.ask.put("/v1/schedules/x?request_topic=one", json=CRON, headers=bearer)
        assert again.status_code == 200

    signing(tmp_path, story)


def test_beyond_loopback_a_cookie_is_for_this_host_and_tls_alone(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        answer = await sign_in(world, "boss")
        (header,) = answer.headers.get_list("set-cookie")
        assert header.startswith("__Host-delaystream-session=")
        assert header.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
        assert "Domain" not in header
        secret = cookie(answer, "__Host-delaystream-session")
        world.ask.cookies.clear()
        # One that a neighbour of the domain could set has no prefix.
        plain = await world.ask.get("/v1/stats", headers={"Cookie": f"delaystream-session={secret}"})
        assert plain.status_code == 401
        own = await world.ask.get("/v1/stats", headers={"Cookie": f"__Host-delaystream-session={secret}"})
        assert own.status_code == 200

    signing(tmp_path, story, cookies=Cookies(secure=True))


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "/\n/evil.example", "javascript:alert(1)", "", " /x", "/x\r\nSet-Cookie: a=b", "/\u2028",
        "/" + "x" * 3_000,
    ],
)  # fmt: skip
def test_a_browser_is_sent_nowhere_else(to: str, tmp_path: Path) -> None:
    assert local_path(to) == "/"

    async def story(world: World, _: Clocked) -> None:
        answer = await sign_in(world, "boss", to)
        assert answer.headers["location"] == "/"
        asked = await world.ask.get("/sign-in", params={"to": to})
        assert 'name="to" value="/"' in page(asked)

    if to.startswith("//"):
        signing(tmp_path, story)


def test_html_in_what_somebody_sends_is_text(tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        asked = await world.ask.get("/sign-in", params={"to": '/"><script>alert(1)</script>'})
        assert "<script>alert" not in page(asked)
        assert "&#34;&gt;&lt;script&gt;" in asked.text
        assert "script-src 'self'" in asked.headers["content-security-policy"]
        await sign_in(world, "boss")
        hostile = "<img src=x onerror=alert(1)>"
        path = f"/v1/schedules/{hostile}?request_topic=one"
        body = {**CRON, "note": hostile, "name": hostile}
        made = await world.ask.put(path, json=body, headers={**JSON, **OWN})
        assert made.status_code == 201, made.text
        shown = await world.ask.get("/audit", headers=BROWSER)
        assert shown.status_code == 200
        assert hostile not in shown.text
        assert "&lt;img src=x onerror=alert(1)&gt;" in shown.text

    signing(tmp_path, story)


# -- with a provider -------------------------------------------------------------------------------


async def there(world: World, of: Issuer, to: str = "/audit", **claims: Any) -> tuple[str, dict[str, str]]:
    """A sign-in up to the return: where the provider sends the browser, and what it was asked."""
    sent = await world.ask.get("/sign-in/provider", params={"to": to})
    assert sent.status_code == 303, sent.text
    address = urlsplit(sent.headers["location"])
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{HOST}/sign-in/callback"
    assert asked["client_id"] == CLIENT
    of.claims = {"groups": ["support"], **claims}
    code = of.code(asked["code_challenge"], asked["nonce"])
    return f"/sign-in/callback?code={code}&state={asked['state']}", asked


def test_somebody_signs_in_with_the_provider(provider: Issuer, tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        back, _asked = await there(world, provider, "/schedules", groups=["support", "other"])
        answer = await world.ask.get(back)
        assert (answer.status_code, answer.headers["location"]) == (303, "/schedules"), answer.text
        shown = await world.ask.get("/schedules", headers=BROWSER)
        assert "You are mia" in shown.text
        made = await world.ask.put("/v1/schedules/x", json=CRON, headers={**JSON, **OWN})
        assert made.status_code == 201, made.text
        assert made.json()["schedule"]["created_by"] == "mia"
        refused = await world.ask.put("/v1/destinations/x/rate", json={"rate": 1}, headers={**JSON, **OWN})
        assert refused.json()["code"] == "role-too-low"
        hidden = await world.ask.get("/v1/schedules/x?payload=true")
        assert hidden.json()["code"] == "payload-not-allowed"
        assert world.console.audit is not None
        log = world.console.audit.page(EntryFilter(name="mia"), 9)
        assert {(one.act.who.kind, one.act.who.issuer) for one in log} == {(Kind.OIDC, provider.url)}
        # While it is away, who is in stays in, and tokens are taken; who is not is told why.
        provider.away = True
        assert (await world.ask.get("/v1/stats")).status_code == 200
        bearer = {"Authorization": f"Bearer {token('boss')}"}
        assert (await world.ask.get("/v1/stats", headers=bearer)).status_code == 200

    signing(tmp_path, story, provider)


def test_a_sign_in_that_is_not_this_browsers_or_comes_twice_is_refused(
    provider: Issuer, tmp_path: Path
) -> None:
    async def story(world: World, clock: Clocked) -> None:
        async def refused(path: str) -> str:
            answer = await world.ask.get(path)
            assert answer.status_code == 401, answer.text
            assert not any("session=" in one for one in answer.headers.get_list("set-cookie"))
            return page(answer)

        # Of another browser: the cookie is not there.
        back, _asked = await there(world, provider)
        kept = dict(world.ask.cookies)
        world.ask.cookies.clear()
        assert "unknown-sign-in" in await refused(back)
        # With another state, or none.
        for name, value in kept.items():
            world.ask.cookies.set(name, value)
        assert "unknown-sign-in" in await refused(back.partition("&state=")[0] + "&state=other")
        # That was the one attempt.
        for name, value in kept.items():
            world.ask.cookies.set(name, value)
        assert "unknown-sign-in" in await refused(back)
        # Twice.
        world.ask.cookies.clear()
        back, _asked = await there(world, provider)
        kept = dict(world.ask.cookies)
        assert (await world.ask.get(back)).status_code == 303
        world.ask.cookies.clear()
        for name, value in kept.items():
            world.ask.cookies.set(name, value)
        assert "unknown-sign-in" in await refused(back)
        # Late.
        world.ask.cookies.clear()
        back, _asked = await there(world, provider)
        clock.at_ms += 600_000
        assert "unknown-sign-in" in await refused(back)
        # With an error, which is text.
        world.ask.cookies.clear()
        back, asked = await there(world, provider)
        error = f"/sign-in/callback?error=<script>&state={asked['state']}"
        assert "<script>." not in await refused(error)
        back, asked = await there(world, provider)
        error = f"/sign-in/callback?error=access_denied&state={asked['state']}"
        assert "access_denied" in await refused(error)
        assert world.console.audit is not None
        assert len(world.console.audit.page(EntryFilter(action="sign-in", outcome="refused"), 99)) >= 6

    signing(tmp_path, story, provider)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another's nonce": ({"nonce": "other"}, "nonce differs"),
    "no nonce": ({"nonce": None}, "nonce differs"),
    "another issuer": ({"iss": "https://evil.example"}, "another issuer"),
    "another client": ({"aud": "other"}, "another audience"),
    "for another party": ({"aud": [CLIENT, "other"], "azp": "other"}, "another client"),
    "for no party": ({"aud": [CLIENT, "other"]}, "another client"),
    "expired": ({"exp": 1}, "has expired"),
    "without an end": ({"exp": None}, "does not say when"),
    "no role": ({"groups": ["nobody"]}, "no role"),
    "no list of roles": ({"groups": {"support": True}}, "no role"),
    "a token's name": ({"preferred_username": "boss"}, "A token of this console already has the name boss"),
    "nobody's name": ({"preferred_username": "console"}, "no name"),
    "a name that turns": ({"preferred_username": "mia\u202e"}, "no name"),
    "another's issuer beside": ({}, "Another provider"),
}


def test_what_the_provider_says_is_looked_at(provider: Issuer, tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        for wrong, (claims, sentence) in WRONG.items():
            back, _asked = await there(world, provider, **claims)
            if wrong == "another's issuer beside":
                back += "&iss=https%3A%2F%2Fevil.example"
            answer = await world.ask.get(back)
            assert answer.status_code in {401, 403}, wrong
            assert sentence in html.unescape(page(answer)), wrong
            assert not any("session=" in one for one in answer.headers.get_list("set-cookie")), wrong

    signing(tmp_path, story, provider)


def test_a_provider_that_is_away_is_told_and_asked_again(provider: Issuer, tmp_path: Path) -> None:
    async def story(world: World, _: Clocked) -> None:
        provider.away = True
        answer = await world.ask.get("/sign-in/provider", headers=BROWSER)
        assert answer.status_code == 503
        assert "answered 503" in answer.text
        provider.away = False
        assert (await world.ask.get("/sign-in/provider")).status_code == 303

    signing(tmp_path, story, provider)


# -- tokens of the provider ------------------------------------------------------------------------


def registered(of: Issuer, **changes: Any) -> Provider:
    said = {"issuer": of.url, "client_id": CLIENT, "client_secret": SECRET, "audience": AUDIENCE, **changes}
    return Provider(Registration(**said), lambda: of.now_s)


def test_a_service_asks_with_a_token_of_the_provider(provider: Issuer, tmp_path: Path) -> None:
    async def story(world: World, clock: Clocked) -> None:
        clock.at_ms = provider.now_s * 1_000
        bearer = {"Authorization": f"Bearer {provider.issued()}", **JSON}
        made = await world.ask.put("/v1/schedules/x", json=CRON, headers=bearer)
        assert made.status_code == 201, made.text
        assert made.json()["schedule"]["created_by"] == "jobs"
        other = await world.ask.put("/v1/schedules/x?request_topic=two", json=CRON, headers=bearer)
        assert other.json()["code"] == "unknown-request-topic"
        entrance = world.app.state.entrance
        caller = await entrance.services.service(provider.issued())
        assert await entrance.stands(caller)
        clock.at_ms += 300_000
        assert not await entrance.stands(caller)
        named = {"Authorization": f"Bearer {provider.issued(preferred_username='boss')}"}
        assert (await world.ask.get("/v1/stats", headers=named)).json()["code"] == "name-taken"

    signing(tmp_path, story, provider)


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged(of: Issuer) -> dict[str, str]:
    """Tokens that nobody may be taken for."""
    good = of.issued()
    header, payload, signature = good.split(".")
    said = {"iss": of.url, "aud": AUDIENCE, "exp": 9e12}
    public = json.dumps(of.keys[0].as_dict(private=False)).encode()
    pem = of.keys[0].as_pem(private=False)
    confused = {}
    for name, secret in (("its JSON", public), ("its PEM", pem)):
        start = f"{_part({'alg': 'HS256', 'kid': of.keys[0].kid})}.{payload}"
        mark = hmac.new(secret, start.encode(), hashlib.sha256).digest()
        confused[f"the public key as a secret: {name}"] = (
            f"{start}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"
        )
    kid = str(of.keys[0].kid)
    oct_key = OctKey.generate_key(256, {"kid": kid})
    stranger = ECKey.generate_key("P-256", {"kid": kid})
    return {
        **confused,
        "alg none": f"{_part({'alg': 'none'})}.{payload}.",
        "alg None": f"{_part({'alg': 'None'})}.{payload}.",
        "alg none with a key": f"{_part({'alg': 'none', 'kid': of.keys[0].kid})}.{payload}.{signature}",
        "HS256": jwt.encode({"alg": "HS256", "kid": of.keys[0].kid}, {"iss": of.url}, oct_key),
        "another's key": of.issued(stranger),
        "a key that it brings": of.issued(stranger, {"jwk": stranger.as_dict(private=False)}),
        "a key of elsewhere": of.issued(stranger, {"jku": "https://evil.example/keys"}),
        "changed": f"{header}.{_part({**said, 'sub': 'root'})}.{signature}",
        "without signature": f"{header}.{payload}.",
        "expired": of.issued(exp=of.now_s - 61),
        "of later": of.issued(nbf=of.now_s + 61),
        "issued later": of.issued(iat=of.now_s + 61),
        "another issuer's": of.issued(iss="https://evil.example"),
        "another audience's": of.issued(aud="other"),
        "of no audience": of.issued(aud=None),
        "of nobody": of.issued(sub=None),
        "of a number": of.issued(sub=7),
        "without end": of.issued(exp=None),
        "an end that is none": of.issued(exp=True),
        "an id_token": of.issued(nonce="n"),
        "no JSON": f"{header}.{base64.urlsafe_b64encode(b'x').decode()}.{signature}",
        "no token": "a.b.c",
        "deep": f"{base64.urlsafe_b64encode(b'[' * 9_000).decode()}.x.y",
    }


def test_a_token_that_is_not_what_it_should_be_lets_nobody_in(provider: Issuer) -> None:
    known = registered(provider)
    assert known.service(provider.issued())["sub"] == "service-7"
    assert known.service(provider.issued(exp=provider.now_s - 59))["sub"] == "service-7"
    for name, one in forged(provider).items():
        with pytest.raises(TokenRefused):
            pytest.fail(f"{name}: {known.service(one)}")
    with pytest.raises(TokenRefused, match="no audience is set"):
        registered(provider, audience=None).service(provider.issued())


def test_keys_that_change_are_asked_for_and_not_more_often_than_they_may(provider: Issuer) -> None:
    known = registered(provider)
    known.service(provider.issued())
    before = provider.issued()
    provider.rotate()
    provider.now_s += 10
    assert known.service(provider.issued(exp=provider.now_s + 9))["sub"] == "service-7"
    with pytest.raises(TokenRefused):
        known.service(before)
    count = len(provider.asked)
    for number in range(20):
        with pytest.raises(TokenRefused):
            known.service(provider.issued(None, {"kid": f"made up {number}"}))
    assert len(provider.asked) == count, "whoever makes up keys has nobody asked"
    provider.now_s += 10
    with pytest.raises(TokenRefused):
        known.service(provider.issued(None, {"kid": "made up"}))
    assert len(provider.asked) == count + 2
    # While it is away the keys that are known are used, also where they are old.
    provider.away = True
    provider.now_s += 4_000
    assert known.service(provider.issued())["sub"] == "service-7"
    assert known.problem is not None
    provider.away = False
    provider.now_s += 10
    known.service(provider.issued())
    assert known.problem is None


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"token_endpoint": "http://evil.example/token"}, "must begin with https"),
        ({"jwks_uri": "file:///etc/passwd"}, "is not an address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "is not an address"),
        ({"jwks_uri": None}, "is missing"),
        ({"jwks_uri": "https://user:password@host/keys"}, "is not an address"),
    ],
)
def test_what_the_provider_says_of_itself_is_looked_at(
    metadata: dict[str, Any], sentence: str, provider: Issuer
) -> None:
    provider.metadata = metadata
    with pytest.raises(ProviderAway, match=sentence):
        registered(provider).address(SignIn("s", "n", "v", "/"), "http://x/callback")


def test_a_private_client_s_secret_is_in_no_representation(provider: Issuer) -> None:
    assert SECRET not in repr(registered(provider).registration)


@pytest.mark.parametrize(
    "text", ["", "admin", "admin:*", "admin:*=", "root:*=x", "admin:=x", f"viewer:{'x' * 300}=y"]
)
def test_a_grant_that_is_none_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|characters"):
        parse_grant(text)


def test_roles_are_found_where_providers_have_them() -> None:
    grants = tuple(map(parse_grant, GRANTS))

    def found(claim: str, claims: dict[str, Any]) -> tuple[str, ...]:
        return Claims(issuer="i", grants=grants, roles_claim=claim).roles(claims)

    assert found("groups", {"groups": ["x", "support"]}) == ("support",)
    assert found("groups", {"groups": "support"}) == ("support",)
    assert found("realm_access.roles", {"realm_access": {"roles": ["platform"]}}) == ("platform",)
    assert found("https://a.b/roles", {"https://a.b/roles": ["platform"]}) == ("platform",)
    for nothing in ({}, {"groups": None}, {"groups": [7, {}]}, {"groups": {"support": 1}}):
        assert found("groups", nothing) == ()
    caller = Claims(issuer="i", grants=grants).caller(Kind.OIDC, "ops", "7", ["support", "guests"])
    assert caller.who.unique == "i\n7"
    assert [(one.topics, one.role.value) for one in caller.grants] == [("one", "operator"), ("tw*", "viewer")]


@pytest.mark.parametrize("foreign", ["a b=c", "j=[1,2]", '{"x":1}', "ü=1", "=", '"', 'q="open', "x"])
def test_a_cookie_that_is_another_s_and_no_cookie_locks_nobody_out(foreign: str) -> None:
    mine = new_secret()
    for cookies in (Cookies(secure=False), Cookies()):
        own = f"{cookies.name(SESSION)}={mine}"
        for header in (f"{foreign}; {own}", f"{own}; {foreign}", f"{foreign};{own} ;{foreign}"):
            assert cookies.found(SESSION, header) == mine, header


def test_of_two_cookies_of_one_name_none_is_taken() -> None:
    cookies = Cookies()
    name, mine = cookies.name(SESSION), new_secret()
    assert cookies.found(SESSION, f"{name}={mine}; {name}={mine}") == mine
    for other in (new_secret(), "", "short"):
        assert cookies.found(SESSION, f"{name}={other}; {name}={mine}") is None
    for header in (None, "", name, f"{name}=", f"x{name}={mine}", f"{name}={mine}x", f"{SESSION}={mine}"):
        assert cookies.found(SESSION, header) is None


def test_one_address_cannot_keep_others_from_signing_in_with_the_provider(
    tmp_path: Path, provider: Issuer
) -> None:
    """Sign-ins under way are bounded, and whoever begins one has shown nothing."""

    async def story(world: World, clock: Clocked) -> None:
        answers = [await world.ask.get("/sign-in/provider") for _ in range(31)]
        assert [answer.status_code for answer in answers] == [303] * 30 + [429]
        assert "Too many sign-ins were begun" in answers[-1].text
        assert "set-cookie" not in answers[-1].headers
        clock.at_ms += 2_000
        assert (await world.ask.get("/sign-in/provider")).status_code == 303

    signing(tmp_path, story, provider)
