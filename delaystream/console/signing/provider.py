"""A provider of identities, by OpenID Connect: discovery, keys, the code flow with PKCE, and its tokens.

Only what is signed by one of the provider's own keys, with an asymmetric algorithm, is believed. Its answers
are bounded, and no redirect is followed. While it is away, what it has said before stays in force: its keys
are asked for again, and those before are used meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from delaystream.console.signing.sessions import SignIn

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Of signatures. With a symmetric one (HS256) the provider's public key would be the secret."""
TIMEOUT_S: Final = 5.0
"""Of one request to the provider."""
LEEWAY_S: Final = 60
"""So much clocks may differ."""
KNOWN_FOR_S: Final = 3_600.0
"""How long addresses and keys are used before they are asked for again."""
ASKED_EVERY_S: Final = 10.0
"""Shortest time between two look-ups of the keys for an unknown key."""
_MOST_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 100
_KINDS: Final[dict[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DISCOVERY: Final = "/.well-known/openid-configuration"
_TOLD: Final = 60


class ProviderAway(Exception):
    """The provider cannot be asked now, or answers what it should not; the message is a sentence."""


class TokenRefused(Exception):
    """A token, or a sign-in, is not what it should be; the message is a sentence without its secrets."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """How the console is known to the provider."""

    issuer: str
    client_id: str
    #: None: the console is a public client, and PKCE alone tells it from others
    client_secret: str | None = None
    #: of tokens for services; None: none of those is taken
    audience: str | None = None
    scopes: tuple[str, ...] = ("openid", "profile", "email")

    def __repr__(self) -> str:
        return f"Registration(issuer={self.issuer!r}, client_id={self.client_id!r})"


Fetch = Callable[[urllib.request.Request], Any]
"""Sends a request, and returns the JSON of its answer. Raises ProviderAway."""


class _Known(msgspec.Struct, frozen=True):
    """What the provider has said, and when."""

    at_s: float
    metadata: Mapping[str, Any]
    keys: tuple[tuple[str | None, Any], ...]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: what is asked for comes from the address that was asked."""

    def redirect_request(self, *_: Any) -> None:
        """Report the redirect as an error."""


_opener: Final = urllib.request.build_opener(_NoRedirects)


def fetched(request: urllib.request.Request) -> Any:
    """The JSON of an answer. Raises ProviderAway."""
    where = f"{urlsplit(request.full_url).netloc}{urlsplit(request.full_url).path}"
    try:
        with _opener.open(request, timeout=TIMEOUT_S) as answer:
            content = answer.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ProviderAway(f"{where} answered with more than {_MOST_BYTES} bytes.")
        return json.loads(content)
    except urllib.error.HTTPError as error:
        raise ProviderAway(f"{where} answered {error.code}{_error_code(error)}.") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise ProviderAway(f"{where} cannot be asked: {str(reason)[:200]}.") from None


def _error_code(error: urllib.error.HTTPError) -> str:
    """The error's code alone (RFC 6749, section 5.2): the rest may repeat secrets."""
    try:
        return shown_code(json.loads(error.read(_MOST_BYTES))["error"], " ({})")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def shown_code(code: object, shape: str = "{}") -> str:
    """A code of an error, where it is one."""
    known = isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum()
    return shape.format(str(code)[:_TOLD]) if known else ""


class Provider:
    """One provider. Methods block for some seconds at most, and may be called from any thread."""

    def __init__(
        self, registration: Registration, now_s: Callable[[], float], fetch: Fetch = fetched
    ) -> None:
        self.registration = registration
        self._now_s = now_s
        self._fetch = fetch
        self._known: _Known | None = None
        self._asked_s = -ASKED_EVERY_S
        self._asking = threading.Lock()
        #: why it could not be asked the last time; None: it could
        self.problem: str | None = None

    # -- signing in --------------------------------------------------------------------------------

    def address(self, sign_in: SignIn, redirect_uri: str) -> str:
        """Where a browser goes to sign in. Raises ProviderAway."""
        metadata = self._said().metadata
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sign_in.verifier.encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self.registration.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.registration.scopes),
            "state": sign_in.state,
            "nonce": sign_in.nonce,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint: str = metadata["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def person(self, code: str, sign_in: SignIn, redirect_uri: str, issuer: str | None) -> Mapping[str, Any]:
        """The claims of whoever has come back with a code. Raises ProviderAway, TokenRefused.

        `issuer` is what came with it (RFC 9207).
        """
        metadata = self._said().metadata
        told = metadata.get("authorization_response_iss_parameter_supported") is True
        if (issuer is not None or told) and issuer != self.registration.issuer:
            raise TokenRefused("Another provider has answered.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": sign_in.verifier,
        }
        answer = self._fetch(self._token_request(metadata, form))
        token = answer.get("id_token") if isinstance(answer, Mapping) else None
        if not isinstance(token, str):
            raise ProviderAway("The provider gave no id_token.")
        claims = self._claims(token, self.registration.client_id)
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), sign_in.nonce.encode()):
            raise TokenRefused("The provider's token is of another sign-in: its nonce differs.")
        audience = claims["aud"]
        party = claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        if (several or party is not None) and party != self.registration.client_id:
            raise TokenRefused("The provider's token is for another client: its azp differs.")
        return claims

    def _token_request(self, metadata: Mapping[str, Any], form: dict[str, str]) -> urllib.request.Request:
        headers = {"Accept": "application/json"}
        id, secret = self.registration.client_id, self.registration.client_secret
        ways = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if secret is None:
            form["client_id"] = id
        elif isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways:
            form |= {"client_id": id, "client_secret": secret}
        else:
            # RFC 6749, section 2.3.1: each is quoted like a part of a form.
            pair = f"{quote(id, safe='')}:{quote(secret, safe='')}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return urllib.request.Request(metadata["token_endpoint"], urlencode(form).encode(), headers)

    # -- tokens ------------------------------------------------------------------------------------

    def service(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that a service was given. Raises ProviderAway, TokenRefused."""
        audience = self.registration.audience
        if audience is None:
            raise TokenRefused("Tokens of the provider are not accepted: no audience is set.")
        claims = self._claims(token, audience)
        if "nonce" in claims:
            # Whoever gets one when somebody signs in elsewhere would be taken for them here.
            raise TokenRefused("An id_token is not accepted here: send an access token.")
        return claims

    def _claims(self, token: str, audience: str) -> Mapping[str, Any]:
        """What a token says, once it is known to be the provider's, for that audience and of now."""
        claims = self._signed(token)
        if claims.get("iss") != self.registration.issuer:
            raise TokenRefused("The token is of another issuer.")
        said = claims.get("aud")
        if audience not in (said if isinstance(said, list) else [said]):
            raise TokenRefused("The token is for another audience.")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise TokenRefused("The token has no subject.")
        now_s = self._now_s()
        ends = _seconds(claims, "exp")
        if ends is None:
            raise TokenRefused("The token does not say when it expires.")
        if now_s >= ends + LEEWAY_S:
            raise TokenRefused("The token has expired.")
        for name in ("nbf", "iat"):
            begins = _seconds(claims, name)
            if begins is not None and now_s < begins - LEEWAY_S:
                raise TokenRefused("The token is not valid yet.")
        return claims

    def _signed(self, token: str) -> Mapping[str, Any]:
        key_id = _key_id(token)
        known = self._said(key_id)
        keys = [key for id, key in known.keys if key_id is None or id == key_id]
        for key in keys:
            try:
                claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
            except (JoseError, ValueError, TypeError, KeyError, RecursionError):
                continue
            return claims
        raise TokenRefused("The token is not signed by a key of the provider.")

    # -- what the provider says --------------------------------------------------------------------

    def _said(self, key_id: str | None = None) -> _Known:
        """What it has said; asked again where that is old, or a key is not known. Raises ProviderAway."""
        known, now_s = self._known, self._now_s()
        if known is not None:
            old = now_s - known.at_s >= KNOWN_FOR_S
            unknown = key_id is not None and all(id != key_id for id, _ in known.keys)
            if not (old or unknown) or now_s - self._asked_s < ASKED_EVERY_S:
                return known
            if not self._asking.acquire(blocking=False):
                # Somebody asks already; nobody else waits for a provider that hangs.
                return known
        else:
            self._asking.acquire()
            if self._known is not None:
                self._asking.release()
                return self._known
        try:
            self._asked_s = now_s
            self._known = self._asked(now_s)
            self.problem = None
        except ProviderAway as away:
            self.problem = str(away)
            if known is None:
                raise
        finally:
            self._asking.release()
        assert self._known is not None
        return self._known

    def _asked(self, now_s: float) -> _Known:
        issuer = self.registration.issuer
        metadata = self._fetch(urllib.request.Request(issuer.rstrip("/") + _DISCOVERY))
        if not isinstance(metadata, Mapping) or metadata.get("issuer") != issuer:
            raise ProviderAway("The provider's metadata names another issuer.")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            url = metadata.get(name)
            problem = url_problem(url) if isinstance(url, str) else "is missing"
            if problem is not None:
                raise ProviderAway(f"The provider's {name} {problem}.")
        said = self._fetch(urllib.request.Request(metadata["jwks_uri"]))
        found = said.get("keys") if isinstance(said, Mapping) else None
        if not isinstance(found, list):
            raise ProviderAway("The provider's jwks_uri has no keys.")
        return _Known(now_s, metadata, tuple(_keys(found[:_MOST_KEYS])))


def _keys(said: list[Any]) -> list[tuple[str | None, Any]]:
    """Public keys for signatures; what else there is, or what is not understood, is passed over."""
    keys: list[tuple[str | None, Any]] = []
    for one in said:
        kind = _KINDS.get(one.get("kty", "")) if isinstance(one, dict) else None
        if kind is None or one.get("use", "sig") != "sig":
            continue
        public = {name: value for name, value in one.items() if name != "d"}
        try:
            key = kind.import_key(public)
        except (JoseError, ValueError, TypeError, KeyError, binascii.Error):
            continue
        id = one.get("kid")
        keys.append((id if isinstance(id, str) else None, key))
    return keys


def _key_id(token: str) -> str | None:
    """Which key a token says that it is signed with. Raises TokenRefused for what is no token."""
    header, _, _ = token.partition(".")
    try:
        found = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        raise TokenRefused("The token cannot be read.") from None
    if not isinstance(found, dict) or found.get("alg") not in ALGORITHMS:
        raise TokenRefused("The token is signed with an algorithm that is not accepted.")
    id = found.get("kid")
    return id if isinstance(id, str) else None


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenRefused(f"The token's {name} is no time.")
    return float(value)


def url_problem(url: str) -> str | None:
    """The fault of a provider's address, worded to follow it; None when it is usable."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "is no address"
    if parts.username is not None or parts.fragment or not host:
        return "is not an address: expected https://host/path"
    if parts.scheme == "https" or (parts.scheme == "http" and host in _LOCAL):
        return None
    return "must begin with https:// (http:// only on this machine)"
