"""A provider of identities on loopback, by HTTP, that tests make lie: its tokens say what they are told."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import ECKey

CLIENT, SECRET, AUDIENCE = "console", "a secret/of the client", "delays"


class Issuer:
    """It checks the client's secret and PKCE as a real one does."""

    def __init__(self) -> None:
        self.url = ""
        self.now_s = 1_000_000
        self.keys = [_key("first")]
        self.away = False
        #: what takes the place of parts of an answer
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.codes: dict[str, tuple[str, str]] = {}
        self.asked: list[str] = []

    def issued(self, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token; claims that are None are left out."""
        key = self.keys[0] if key is None else key
        said = {
            "iss": self.url,
            "sub": "service-7",
            "aud": AUDIENCE,
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "preferred_username": "jobs",
            "groups": ["support"],
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode({"alg": "ES256", "kid": key.kid, **(header or {})}, said, key)

    def rotate(self) -> None:
        """Sign with another key from now on; the one before is taken no more."""
        self.keys = [_key(f"key {len(self.asked)}")]

    def code(self, challenge: str, nonce: str) -> str:
        """What a browser comes back with, once somebody has signed in."""
        code = f"code-{len(self.codes)}"
        self.codes[code] = (challenge, nonce)
        return code

    def get(self, path: str) -> Any:
        """The JSON of an answer."""
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                **self.metadata,
            }
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def post(self, form: dict[str, list[str]], authorization: str) -> tuple[int, Any]:
        """The answer of the endpoint of tokens."""
        quoted = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if quoted != f"{CLIENT}:a%20secret%2Fof%20the%20client":
            return 401, {"error": "invalid_client"}
        challenge, nonce = self.codes.pop(form["code"][0], ("", ""))
        verifier = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        if base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() != challenge:
            return 400, {"error": "invalid_grant"}
        said = {"sub": "mia", "aud": CLIENT, "nonce": nonce, "preferred_username": "mia", **self.claims}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.issued(**said)}


def _key(id: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": id, "use": "sig"})


@contextmanager
def issuer() -> Iterator[Issuer]:
    """One that answers."""
    made = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            self._answer(200, None if made.away else made.get(self.path))

        def do_POST(self) -> None:
            made.asked.append(self.path)
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._answer(*made.post(form, self.headers.get("Authorization", "")))

        def _answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(503 if body is None else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
