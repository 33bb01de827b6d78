"""Kafka's client settings, by the Java client's names: those that are supported, and why others are not.

Source: Kafka's producer, consumer and common client configurations; the `ssl.*.location` of librdkafka are
accepted beside the PEM forms of KIP-651.
"""

from collections.abc import Mapping
from typing import Final

SUPPORTED: Final[dict[str, str]] = {
    "bootstrap.servers": "host:port of one or more brokers, comma-separated",
    "client.id": "shown in the brokers' logs and metrics",
    "client.rack": "rack of this client, to fetch from the nearest replica",
    "security.protocol": "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    "sasl.mechanism": "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
    "sasl.username": "user name (or sasl.jaas.config)",
    "sasl.password": "password (or sasl.jaas.config)",
    "sasl.jaas.config": "a PlainLoginModule or ScramLoginModule line with username and password, or an "
    "OAuthBearerLoginModule line with clientId, clientSecret and scope",
    "sasl.oauthbearer.token.endpoint.url": "OAUTHBEARER: https:// address that issues tokens for a client id "
    "and secret, or file:/// of a token that something else renews",
    "sasl.oauthbearer.client.credentials.client.id": "OAUTHBEARER: client id (or sasl.jaas.config)",
    "sasl.oauthbearer.client.credentials.client.secret": "OAUTHBEARER: client secret (or sasl.jaas.config)",
    "sasl.oauthbearer.scope": "OAUTHBEARER: scope to ask for",
    "ssl.ca.location": "PEM file of the authorities to trust",
    "ssl.certificate.location": "PEM file of our certificate chain",
    "ssl.key.location": "PEM file of our private key",
    "ssl.key.password": "password of our private key",
    "ssl.truststore.type": "PEM",
    "ssl.truststore.location": "PEM file of the authorities to trust, with ssl.truststore.type=PEM",
    "ssl.truststore.certificates": "PEM text of the authorities to trust, with ssl.truststore.type=PEM",
    "ssl.keystore.type": "PEM",
    "ssl.keystore.location": "PEM file of our key and certificate chain, with ssl.keystore.type=PEM",
    "ssl.keystore.certificate.chain": "PEM text of our certificate chain, with ssl.keystore.type=PEM",
    "ssl.keystore.key": "PEM text of our private key, with ssl.keystore.type=PEM",
    "ssl.endpoint.identification.algorithm": "https (default) checks the broker's host name, empty does not",
    "request.timeout.ms": "longest wait for a broker's answer",
    "retry.backoff.ms": "wait before a failed request is sent again",
    "metadata.max.age.ms": "how long metadata is used before it is fetched anew",
    "connections.max.idle.ms": "idle connections are closed after this",
    "heartbeat.interval.ms": "time between heartbeats to the group coordinator",
    "max.poll.interval.ms": "longest time between two polls of a member",
    "max.partition.fetch.bytes": "most bytes of one partition in one fetch",
    "compression.type": "codec of delaystream's records: none, gzip, snappy, lz4 or zstd",
}
"""Name -> meaning."""

SECRET: Final = frozenset(
    {
        "sasl.jaas.config",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.key",
        "ssl.keystore.password",
        "ssl.truststore.password",
    }
)
"""Settings whose values are never shown."""

_DECIDED = "is set by delaystream, because its guarantees rest on it"
_JAVA = "names a Java class, and this is not the Java client"
_ABSENT = "has no counterpart in the Kafka client that delaystream uses (aiokafka)"
_TICKETS = (
    "is for Kerberos, which is not supported: use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or TLS "
    "certificates"
)
_BROKERS = "is a broker's setting: it says how brokers check tokens"
_ASSERTION = (
    "is for a way to get tokens that is not supported: use a client id and secret, or a file that something "
    "else renews"
)
_PEM = "is for Java key stores, which Python's TLS cannot read: use PEM (ssl.{store}.type=PEM)"

REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            "acks",
            "allow.auto.create.topics",
            "auto.commit.interval.ms",
            "auto.offset.reset",
            "batch.size",
            "buffer.memory",
            "enable.auto.commit",
            "enable.idempotence",
            "fetch.max.bytes",
            "fetch.max.wait.ms",
            "fetch.min.bytes",
            "group.protocol",
            "isolation.level",
            "key.deserializer",
            "key.serializer",
            "linger.ms",
            "max.in.flight.requests.per.connection",
            "max.poll.records",
            "partition.assignment.strategy",
            "partitioner.class",
            "transactional.id",
            "value.deserializer",
            "value.serializer",
        ],
        _DECIDED,
    ),
    **dict.fromkeys(
        [
            "interceptor.classes",
            "metric.reporters",
            "sasl.client.callback.handler.class",
            "sasl.login.callback.handler.class",
            "sasl.login.class",
            "security.providers",
            "ssl.engine.factory.class",
        ],
        _JAVA,
    ),
    **dict.fromkeys(
        [
            "client.dns.lookup",
            "default.api.timeout.ms",
            "delivery.timeout.ms",
            "max.block.ms",
            "metadata.max.idle.ms",
            "metrics.num.samples",
            "receive.buffer.bytes",
            "reconnect.backoff.max.ms",
            "reconnect.backoff.ms",
            "retries",
            "retry.backoff.max.ms",
            "send.buffer.bytes",
            "socket.connection.setup.timeout.max.ms",
            "socket.connection.setup.timeout.ms",
            "ssl.cipher.suites",
            "ssl.enabled.protocols",
            "ssl.keymanager.algorithm",
            "ssl.protocol",
            "ssl.provider",
            "ssl.secure.random.implementation",
            "ssl.trustmanager.algorithm",
        ],
        _ABSENT,
    ),
    **dict.fromkeys(
        [
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.min.time.before.relogin",
            "sasl.kerberos.service.name",
            "sasl.kerberos.ticket.renew.jitter",
            "sasl.kerberos.ticket.renew.window.factor",
        ],
        _TICKETS,
    ),
    **dict.fromkeys(
        [
            "sasl.oauthbearer.clock.skew.seconds",
            "sasl.oauthbearer.expected.audience",
            "sasl.oauthbearer.expected.issuer",
            "sasl.oauthbearer.jwks.endpoint.refresh.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
            "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
            "sasl.oauthbearer.jwks.endpoint.url",
            "sasl.oauthbearer.scope.claim.name",
            "sasl.oauthbearer.sub.claim.name",
        ],
        _BROKERS,
    ),
    **dict.fromkeys(
        [
            "sasl.oauthbearer.assertion.algorithm",
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.template.file",
            "sasl.oauthbearer.header.urlencode",
            "sasl.oauthbearer.jwt.retriever.class",
            "sasl.oauthbearer.jwt.validator.class",
        ],
        _ASSERTION,
    ),
    **dict.fromkeys(
        [
            "sasl.login.connect.timeout.ms",
            "sasl.login.read.timeout.ms",
            "sasl.login.refresh.buffer.seconds",
            "sasl.login.refresh.min.period.seconds",
            "sasl.login.refresh.window.factor",
            "sasl.login.refresh.window.jitter",
            "sasl.login.retry.backoff.max.ms",
            "sasl.login.retry.backoff.ms",
        ],
        _ABSENT,
    ),
    "ssl.keystore.password": _PEM.format(store="keystore"),
    "ssl.truststore.password": _PEM.format(store="truststore"),
    "group.id": "is the setting app_id (DELAYSTREAM_APP_ID)",
    "group.instance.id": "is the setting instance_id (DELAYSTREAM_INSTANCE_ID)",
    "session.timeout.ms": "is the setting session_timeout_ms (DELAYSTREAM_SESSION_TIMEOUT_MS)",
    "transaction.timeout.ms": "is the setting transaction_timeout_ms (DELAYSTREAM_TRANSACTION_TIMEOUT_MS)",
    "max.request.size": "follows from max_value_bytes and max_header_bytes (DELAYSTREAM_MAX_VALUE_BYTES)",
}
"""Name -> why it is refused, worded to follow the name in a sentence."""

SUGGESTED: Final = (*SUPPORTED, *[name for name, why in REFUSED.items() if why.startswith("is the setting ")])
"""Names to suggest for a mistyped one: those that can be set, here or as a setting of ours."""


def variable_names() -> Mapping[str, str]:
    """`KAFKA_BOOTSTRAP_SERVERS` -> `bootstrap.servers`, for every setting that Kafka's clients have."""
    return {"KAFKA_" + name.upper().replace(".", "_"): name for name in (*SUPPORTED, *REFUSED)}
