"""Login and TLS from Kafka's client settings: `sasl.*` and `ssl.*` by the Java client's names."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from delaystream.adapters.security.oauth_tokens import TokenLogin, checked_url, source_of
from delaystream.config.errors import ConfigurationError

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", TokenLogin.mechanism)

_TOKEN_URL = "sasl.oauthbearer.token.endpoint.url"
_CLIENT = "sasl.oauthbearer.client.credentials.client"

_JAAS_MODULE = re.compile(
    r"\s*[\w.]*?(Plain|Scram|OAuthBearer)LoginModule\s+(?:required|requisite|sufficient|optional)\b"
)
_JAAS_OPTION = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'|([^\s;"\']+))')


@dataclass(frozen=True, repr=False)
class Pem:
    """A PEM document: in a file, or inline."""

    path: Path | None = None
    text: str | None = None

    def read(self) -> str:
        """The text. Raises ConfigurationError when the file cannot be read."""
        if self.path is None:
            return self.text or ""
        try:
            return self.path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise ConfigurationError(
                [f"{self.path}, of Kafka's TLS settings, cannot be read: {error.strerror or error}."]
            ) from None


@dataclass(frozen=True, repr=False)
class Login:
    """SASL with user name and password."""

    mechanism: str
    username: str
    password: str


@dataclass(frozen=True, repr=False)
class Tls:
    """The authorities to trust (None: the system's), and our own certificate (None: we show none)."""

    authorities: Pem | None
    certificate: Pem | None
    key: Pem | None
    key_password: str | None
    check_hostname: bool

    def context(self) -> ssl.SSLContext:
        """A TLS client context. Raises ConfigurationError when the PEM data cannot be used."""
        try:
            pem = None if self.authorities is None else self.authorities.read()
            context = ssl.create_default_context(cadata=pem)
            context.check_hostname = self.check_hostname
            if self.certificate is not None and self.key is not None:
                self._load_chain(context, self.certificate, self.key)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError([f"Kafka's TLS settings are not usable: {error}."]) from None
        return context

    def _load_chain(self, context: ssl.SSLContext, certificate: Pem, key: Pem) -> None:
        texts = [certificate.read()] if key == certificate else [certificate.read(), key.read()]
        # Python takes key and certificate from files only. Only we can read this file, and it is deleted at
        # once.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write("\n".join(texts))
            file.flush()
            # Without a password an encrypted key would make OpenSSL ask on the terminal.
            context.load_cert_chain(file.name, password=self.key_password or "")


class SecurityReading:
    """Reads the security settings; adds one sentence to `problems` for each fault."""

    def __init__(self, properties: Mapping[str, str], protocol: str, problems: list[str]) -> None:
        self._properties = properties
        self._protocol = protocol
        self._problems = problems

    def login(self) -> Login | TokenLogin | None:
        """User name and password, or tokens, where `security.protocol` asks for a login."""
        if not self._protocol.startswith("SASL_"):
            if given := [name for name in self._properties if name.startswith("sasl.")]:
                self._problems.append(
                    f"Kafka's {given[0]} is set, but security.protocol is {self._protocol}: no login would "
                    "take place; set it to SASL_SSL (or SASL_PLAINTEXT)."
                )
            return None
        mechanism = self._properties.get("sasl.mechanism")
        if mechanism not in MECHANISMS:
            found = (
                "is missing (the Java client would take GSSAPI)" if mechanism is None else f"is {mechanism!r}"
            )
            self._problems.append(
                f"Kafka's sasl.mechanism {found}: it must be one of {', '.join(MECHANISMS)}."
            )
            return None
        if mechanism == TokenLogin.mechanism:
            return self._tokens()
        if given := [name for name in self._properties if name.startswith("sasl.oauthbearer.")]:
            self._problems.append(f"Kafka's {given[0]} is for OAUTHBEARER; sasl.mechanism is {mechanism}.")
        username, password = self._names(mechanism)
        if not username or password is None:
            self._problems.append(
                f"security.protocol={self._protocol} asks for a login: set Kafka's sasl.jaas.config, "
                "or sasl.username and sasl.password."
            )
            return None
        return Login(mechanism, username, password)

    def _names(self, mechanism: str) -> tuple[str | None, str | None]:
        username = self._properties.get("sasl.username")
        password = self._properties.get("sasl.password")
        jaas = self._properties.get("sasl.jaas.config")
        if jaas is None:
            return username, password
        if username is not None or password is not None:
            self._problems.append("Kafka's sasl.jaas.config and sasl.username/sasl.password are both set.")
        options = self._jaas(
            jaas, "Plain" if mechanism == "PLAIN" else "Scram", 'username="..." password="..."', mechanism
        )
        return ("?", "?") if options is None else (options.get("username"), options.get("password"))

    def _jaas(self, line: str, expected: str, example: str, mechanism: str) -> dict[str, str] | None:
        """The options of a JAAS line. For another mechanism: None, and a problem is added."""
        module = _JAAS_MODULE.match(line)
        if module is None or module[1] != expected:
            self._problems.append(
                f"Kafka's sasl.jaas.config does not fit sasl.mechanism={mechanism}: expected "
                f"{expected}LoginModule required {example};"
            )
            return None
        return {
            name: re.sub(r"\\(.)", r"\1", double or single) or bare
            for name, double, single, bare in _JAAS_OPTION.findall(line[module.end() :])
        }

    def _tokens(self) -> TokenLogin | None:
        if given := [name for name in ("sasl.username", "sasl.password") if name in self._properties]:
            self._problems.append(f"Kafka's {given[0]} is not for OAUTHBEARER, which logs in with tokens.")
        url = self._properties.get(_TOKEN_URL)
        if url is None:
            self._problems.append(
                f"sasl.mechanism=OAUTHBEARER needs Kafka's {_TOKEN_URL}: where tokens are issued (https://), "
                "or a file that holds one (file:///)."
            )
            return None
        if problem := checked_url(url):
            self._problems.append(f"Kafka's {_TOKEN_URL} = {url}: it {problem}.")
            return None
        options: dict[str, str] = {}
        if (line := self._properties.get("sasl.jaas.config")) is not None:
            options = (
                self._jaas(line, "OAuthBearer", 'clientId="..." clientSecret="..."', "OAUTHBEARER") or {}
            )
        client_id = self._properties.get(f"{_CLIENT}.id") or options.get("clientId") or ""
        secret = self._properties.get(f"{_CLIENT}.secret") or options.get("clientSecret") or ""
        scope = self._properties.get("sasl.oauthbearer.scope") or options.get("scope")
        if not url.startswith("file:") and not (client_id and secret):
            self._problems.append(
                f"OAUTHBEARER with a token endpoint: set Kafka's {_CLIENT}.id and {_CLIENT}.secret."
            )
        return TokenLogin(source_of(url, client_id, secret, scope))

    def tls(self) -> Tls | None:
        """TLS, where `security.protocol` asks for it."""
        if not self._protocol.endswith("SSL"):
            if given := [name for name in self._properties if name.startswith("ssl.")]:
                self._problems.append(
                    f"Kafka's {given[0]} is set, but security.protocol is {self._protocol}: nothing would be "
                    "encrypted; set it to SSL or SASL_SSL."
                )
            return None
        for store in ("truststore", "keystore"):
            self._require_pem(store)
        certificate = self._pem(
            "ssl.keystore.location", "ssl.keystore.certificate.chain", "ssl.certificate.location"
        )
        key = self._pem("ssl.keystore.location", "ssl.keystore.key", "ssl.key.location")
        if (certificate is None) != (key is None):
            self._problems.append("Kafka's TLS settings: a certificate and its private key come together.")
        identification = self._properties.get("ssl.endpoint.identification.algorithm", "https").lower()
        if identification not in {"https", "none", ""}:
            self._problems.append(
                f"Kafka's ssl.endpoint.identification.algorithm is {identification!r}: https or empty."
            )
        return Tls(
            authorities=self._pem(
                "ssl.truststore.location", "ssl.truststore.certificates", "ssl.ca.location"
            ),
            certificate=certificate,
            key=key,
            key_password=self._properties.get("ssl.key.password"),
            check_hostname=identification == "https",
        )

    def _require_pem(self, store: str) -> None:
        kind_name = f"ssl.{store}.type"
        used = [name for name in self._properties if name.startswith(f"ssl.{store}.") and name != kind_name]
        kind = self._properties.get(kind_name, "JKS")
        if used and kind.upper() != "PEM":
            self._problems.append(
                f"Kafka's {used[0]}: Python's TLS cannot read {kind} stores; convert it to PEM "
                f"(keytool -importkeystore to PKCS12, then openssl pkcs12) and set {kind_name}=PEM."
            )

    def _pem(self, java_file: str, java_text: str, librdkafka_file: str) -> Pem | None:
        given = [name for name in (java_file, java_text, librdkafka_file) if self._properties.get(name)]
        if not given:
            return None
        if len(given) > 1:
            self._problems.append(f"Kafka's {given[0]} and {given[1]} are both set: only one can hold.")
        value = self._properties[given[0]]
        if given[0] == java_text:
            return Pem(text=value)
        if not Path(value).is_file():
            self._problems.append(f"Kafka's {given[0]}: there is no file {value}.")
        return Pem(path=Path(value))
