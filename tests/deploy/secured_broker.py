"""A real broker that lets nobody in without a name: TLS, client certificates, SASL, and ACLs.

Whoever is not in an ACL may do nothing. The broker's own listener without security is the super user's, and
this machine's alone: tests make topics, users and ACLs there.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from delaystream.dev import EmbeddedBroker, Listener
from delaystream.topics.access import Acl
from tests.integration.harness_kafka import Kafka

Way = Literal["TLS", "MTLS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
"""How a client says who it is: `TLS` not at all, `MTLS` by its certificate, the others by SASL over TLS."""

WAYS: tuple[Way, ...] = get_args(Way)

_CLASSES = "org.apache.kafka.common.security"
_AUDIENCE = "kafka"
_ISSUER = "https://issuer.test"
_VISIBLE_SECONDS = 20.0


@dataclass(frozen=True)
class User:
    """Somebody that the broker knows, by any of the ways but `TLS`; the principal is `User:<name>`."""

    name: str
    password: str
    certificate: Path
    """PEM, with the chain."""
    key: Path
    """PEM."""


class SecuredBroker:
    """Use it as a context. `names` are those of the users; each gets a password and a certificate.

    `properties` are further ones of the broker.
    """

    def __init__(
        self, directory: Path, names: Iterable[str], properties: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self._properties = dict(properties or {})
        directory.mkdir(parents=True, exist_ok=True)
        certificates = trustme.CA()
        self.authority = directory / "ca.pem"
        certificates.cert_pem.write_to_path(self.authority)
        store = directory / "broker.pem"
        store.write_bytes(_with_pkcs8_key(certificates.issue_cert("127.0.0.1", "localhost")))
        self.users = {name: _user(directory, name, certificates) for name in names}
        self._signer = rsa.generate_private_key(65_537, 2_048)
        self.broker = self._describe(store)

    def __enter__(self) -> SecuredBroker:
        self.broker.start()
        self.kafka = Kafka(self.broker.bootstrap_servers)
        for user in self.users.values():
            self._add_scram(user)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.broker.kill()

    # -- what a client needs --------------------------------------------------------------------------

    def address(self, way: Way) -> str:
        """The bootstrap server for clients that come this way."""
        return self.broker.address(way if way in {"TLS", "MTLS"} else "SASL")

    def properties(self, way: Way, name: str) -> dict[str, str]:
        """Kafka's client settings, by the Java client's names, of a user that comes this way."""
        user = self.users[name]
        base = {"bootstrap.servers": self.address(way), "ssl.ca.location": str(self.authority)}
        match way:
            case "TLS":
                return {**base, "security.protocol": "SSL"}
            case "MTLS":
                return {
                    **base,
                    "security.protocol": "SSL",
                    "ssl.certificate.location": str(user.certificate),
                    "ssl.key.location": str(user.key),
                }
            case "OAUTHBEARER":
                return {
                    **base,
                    "security.protocol": "SASL_SSL",
                    "sasl.mechanism": way,
                    "sasl.oauthbearer.token.endpoint.url": self.token_file(name).as_uri(),
                }
            case _:
                return {
                    **base,
                    "security.protocol": "SASL_SSL",
                    "sasl.mechanism": way,
                    "sasl.username": name,
                    "sasl.password": user.password,
                }

    def environment(self, way: Way, name: str) -> dict[str, str]:
        """The same as delaystream's environment variables."""
        return {
            "DELAYSTREAM_KAFKA_" + key.upper().replace(".", "_"): value
            for key, value in self.properties(way, name).items()
        }

    def token(self, name: str, lifetime_seconds: int = 3_600) -> str:
        """A signed token for OAUTHBEARER, as an identity provider would issue it."""
        now = int(time.time())
        claims = {"sub": name, "aud": _AUDIENCE, "iss": _ISSUER, "iat": now, "exp": now + lifetime_seconds}
        signed = b".".join(
            _base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1"}, claims)
        )
        signature = self._signer.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _base64url(signature)).decode()

    def token_file(self, name: str, lifetime_seconds: int = 3_600) -> Path:
        """A file that holds a new token, as Kubernetes projects it for a service account."""
        path = self._directory / f"{name}.token"
        path.write_text(self.token(name, lifetime_seconds))
        return path

    # -- who may do what ------------------------------------------------------------------------------

    def allow(self, name: str, acls: Iterable[Acl]) -> None:
        """Give a user these rights, and wait until the broker knows them."""
        bindings = [_binding(name, acl) for acl in acls]
        for future in self.kafka.admin.create_acls(bindings).values():
            future.result(30)
        self._await(name, len({str(binding) for binding in bindings}))

    def forbid(self, name: str) -> None:
        """Take away every right of a user."""
        for future in self.kafka.admin.delete_acls([_everything_of(name)]).values():
            future.result(30)
        self._await(name, 0)

    def take_away(self, name: str, acl: Acl) -> None:
        """Take one right away, and wait until the broker knows that it is gone."""
        there = len(self.kafka.admin.describe_acls(_everything_of(name)).result(30))
        for future in self.kafka.admin.delete_acls([_only(name, acl)]).values():
            assert len(future.result(30)) == 1
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while len(self.kafka.admin.describe_acls(_everything_of(name)).result(30)) >= there:
            assert time.monotonic() < deadline, f"{acl} of {name} is still there"
            time.sleep(0.05)

    def rights(self, name: str) -> set[tuple[str, str, bool, str]]:
        """Resource, name, whether that is a prefix, and operation of each ACL of a user."""
        kinds = {kind: resource for resource, kind in _RESOURCES.items()}
        return {
            (
                kinds[binding.restype],
                binding.name,
                binding.resource_pattern_type is ResourcePatternType.PREFIXED,
                binding.operation.name.title().replace("_", ""),
            )
            for binding in self.kafka.admin.describe_acls(_everything_of(name)).result(30)
        }

    def _await(self, name: str, count: int) -> None:
        deadline = time.monotonic() + _VISIBLE_SECONDS
        while True:
            found = self.kafka.admin.describe_acls(_everything_of(name)).result(30)
            if len(found) >= count if count else not found:
                return
            assert time.monotonic() < deadline, f"{len(found)} ACLs of {name}, not {count}"
            time.sleep(0.05)

    def _add_scram(self, user: User) -> None:
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            credential = UserScramCredentialUpsertion(
                user.name, ScramCredentialInfo(mechanism, 4_096), user.password.encode()
            )
            for future in self.kafka.admin.alter_user_scram_credentials([credential]).values():
                future.result(30)

    # -- the broker -----------------------------------------------------------------------------------

    def _describe(self, store: Path) -> EmbeddedBroker:
        keys = self._directory / "jwks.json"
        keys.write_text(json.dumps({"keys": [_jwk(self._signer.public_key())]}))
        tls = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority),
        }
        known = " ".join(f'user_{user.name}="{user.password}"' for user in self.users.values())
        sasl = {
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "plain.sasl.jaas.config": f"{_CLASSES}.plain.PlainLoginModule required {known};",
            "scram-sha-256.sasl.jaas.config": f"{_CLASSES}.scram.ScramLoginModule required;",
            "scram-sha-512.sasl.jaas.config": f"{_CLASSES}.scram.ScramLoginModule required;",
            "oauthbearer.sasl.jaas.config": f"{_CLASSES}.oauthbearer.OAuthBearerLoginModule required;",
            "oauthbearer.sasl.server.callback.handler.class": (
                f"{_CLASSES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            ),
            "oauthbearer.sasl.oauthbearer.jwks.endpoint.url": keys.as_uri(),
            "oauthbearer.sasl.oauthbearer.expected.audience": _AUDIENCE,
            "oauthbearer.sasl.oauthbearer.expected.issuer": _ISSUER,
        }
        by_name = {"ssl.client.auth": "required", "ssl.principal.mapping.rules": r"RULE:^.*CN=([^,]+).*$/$1/"}
        return EmbeddedBroker(
            self._directory / "kafka",
            listeners=[
                Listener("TLS", "SSL", tls),
                Listener("MTLS", "SSL", {**tls, **by_name}),
                Listener("SASL", "SASL_SSL", {**tls, **sasl}),
            ],
            properties={
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Who comes by the listener without security, and by TLS without a certificate.
                "super.users": "User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "false",
                **self._properties,
            },
            java_options=[
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys.as_uri()}",
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files={keys}",
            ],
        )


def _user(directory: Path, name: str, certificates: trustme.CA) -> User:
    issued = certificates.issue_cert(f"{name}.test", common_name=name)
    user = User(name, f"{name}-secret", directory / f"{name}.crt", directory / f"{name}.key")
    user.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(user.key)
    return user


def _with_pkcs8_key(issued: trustme.LeafCert) -> bytes:
    """Key and chain as Kafka's PEM stores want them: the key in PKCS #8."""
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem + b"".join(blob.bytes() for blob in issued.cert_chain_pems)


def _jwk(key: rsa.RSAPublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    modulus, exponent = (
        _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()
        for number in (numbers.n, numbers.e)
    )
    return {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": modulus, "e": exponent}


def _base64url(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def _binding(name: str, acl: Acl) -> AclBinding:
    return AclBinding(
        _RESOURCES[acl.resource],
        acl.name,
        ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL,
        f"User:{name}",
        "*",
        AclOperation[_constant(acl.operation)],
        AclPermissionType.ALLOW,
    )


def _constant(operation: str) -> str:
    """`DescribeConfigs` as DESCRIBE_CONFIGS."""
    return "".join(
        "_" + letter if letter.isupper() and place else letter for place, letter in enumerate(operation)
    ).upper()


def _only(name: str, acl: Acl) -> AclBindingFilter:
    binding = _binding(name, acl)
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _everything_of(name: str) -> AclBindingFilter:
    return AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type]  # any: the stub knows of no such thing
        ResourcePatternType.ANY,
        f"User:{name}",
        None,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
