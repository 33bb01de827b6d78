"""Kafka's client settings: understood once, and the same for every client."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, Producer

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.config import ConfigurationError

PLAIN_JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="alice" password="pa\\"ss;=x" serviceName="kafka";'
)


TOKENS = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauthbearer_token_endpoint_url": "https://idp.test/token",
    "sasl_oauthbearer_client_credentials_client_id": "worker",
    "sasl_oauthbearer_client_credentials_client_secret": "s3cret",
}


def parsed(**properties: str | None) -> ClientConfig:
    named = {name.replace("_", "."): value for name, value in properties.items() if value is not None}
    return ClientConfig.parse({"bootstrap.servers": "localhost:9092", **named})


def problem(**properties: str | None) -> str:
    with pytest.raises(ConfigurationError) as failure:
        parsed(**properties)
    return str(failure.value)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_plaintext_is_the_default() -> None:
    """As in every Kafka client."""
    config = parsed()
    assert config.aiokafka() == {
        "bootstrap_servers": ["localhost:9092"],
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }


@pytest.mark.parametrize("servers", ["", "localhost", "localhost:x", "localhost:0", ":9092", "a:1,b"])
def test_servers_are_host_and_port(servers: str) -> None:
    """A missing port would only show as a timeout."""
    assert "bootstrap.servers" in problem(bootstrap_servers=servers)


def test_a_jaas_line_is_understood_with_its_quotes_and_escapes() -> None:
    """Users copy it from their Java services."""
    config = parsed(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_jaas_config=PLAIN_JAAS)
    assert config.login is not None
    assert (config.login.username, config.login.password) == ("alice", 'pa"ss;=x')


def test_a_login_reaches_both_clients() -> None:
    """With the same mechanism, name and password."""
    config = parsed(
        security_protocol="sasl_plaintext",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="alice",
        sasl_password="secret",
    )
    aiokafka = config.aiokafka()
    assert aiokafka["security_protocol"] == "SASL_PLAINTEXT"
    assert aiokafka["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (aiokafka["sasl_plain_username"], aiokafka["sasl_plain_password"]) == ("alice", "secret")
    confluent = config.confluent()
    assert confluent["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (confluent["sasl.username"], confluent["sasl.password"]) == ("alice", "secret")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"sasl_mechanism": "PLAIN"}, "no login would take place"),
        ({"security_protocol": "SASL_SSL"}, "sasl.mechanism is missing"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "must be one of PLAIN"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}, "asks for a login"),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-256",
                "sasl_jaas_config": PLAIN_JAAS,
            },
            "ScramLoginModule",
        ),
        ({**TOKENS, "sasl_oauthbearer_token_endpoint_url": None}, "where tokens are issued"),
        ({**TOKENS, "sasl_oauthbearer_token_endpoint_url": "http://idp.test/token"}, "would be readable"),
        ({**TOKENS, "sasl_oauthbearer_token_endpoint_url": "file:token"}, "file:///path"),
        ({**TOKENS, "sasl_oauthbearer_client_credentials_client_secret": None}, "client.secret"),
        ({**TOKENS, "sasl_password": "x"}, "logs in with tokens"),
        ({**TOKENS, "sasl_jaas_config": PLAIN_JAAS}, "OAuthBearerLoginModule"),
        ({**TOKENS, "sasl_mechanism": "PLAIN"}, "is for OAUTHBEARER"),
        ({"security_protocol": "SASL"}, "is not one of PLAINTEXT"),
        ({"ssl_ca_location": "ca.pem"}, "nothing would be encrypted"),
        ({"security_protocol": "SSL", "ssl_truststore_location": "trust.jks"}, "JKS"),
        ({"security_protocol": "SSL", "ssl_ca_location": "/absent.pem"}, "there is no file"),
        ({"security_protocol": "SSL", "ssl_endpoint_identification_algorithm": "ldap"}, "https or empty"),
        ({"request_timeout_ms": "30s"}, "not a whole number"),
        ({"compression_type": "lz5"}, "is not one of none, gzip"),
    ],
)
def test_settings_that_would_not_do_what_they_say_are_refused(
    properties: dict[str, str | None], said: str
) -> None:
    """One sentence that names the setting and what to do."""
    assert said.lower() in problem(**properties).lower()


def test_secrets_are_not_in_the_text_of_the_configuration() -> None:
    """They would end up in logs."""
    config = parsed(
        security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="a", sasl_password="s3cret"
    )
    assert "s3cret" not in repr(config) + repr(config.login)


def test_tls_trusts_the_given_authority_and_checks_names(authority: trustme.CA, tmp_path: Path) -> None:
    """From a PEM file by librdkafka's name, or inline by the Java client's."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    text = file.read_text()
    for config in (
        parsed(security_protocol="SSL", ssl_ca_location=str(file)),
        parsed(security_protocol="SSL", ssl_truststore_type="PEM", ssl_truststore_certificates=text),
    ):
        context = config.aiokafka()["ssl_context"]
        assert len(context.get_ca_certs()) == 1
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        Consumer({**config.confluent(), "group.id": "x"}).close()


def test_names_are_not_checked_when_the_algorithm_is_empty() -> None:
    """As the Java client has it."""
    config = parsed(security_protocol="SSL", ssl_endpoint_identification_algorithm="")
    assert not config.aiokafka()["ssl_context"].check_hostname
    assert config.confluent()["ssl.endpoint.identification.algorithm"] == "none"


def test_our_own_certificate_is_taken_from_files_and_inline(authority: trustme.CA, tmp_path: Path) -> None:
    """One file for key and chain, two files, or text: the forms of KIP-651 and of librdkafka."""
    issued = authority.issue_cert("localhost")
    both, chain, key = tmp_path / "both.pem", tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(both))
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    for config in (
        parsed(security_protocol="SSL", ssl_keystore_type="PEM", ssl_keystore_location=str(both)),
        parsed(security_protocol="SSL", ssl_certificate_location=str(chain), ssl_key_location=str(key)),
        parsed(
            security_protocol="SSL",
            ssl_keystore_type="PEM",
            ssl_keystore_certificate_chain=chain.read_text(),
            ssl_keystore_key=key.read_text(),
        ),
    ):
        assert config.aiokafka()["ssl_context"] is not None
        Consumer({**config.confluent(), "group.id": "x"}).close()


def test_a_certificate_without_key_or_of_nonsense_is_refused(tmp_path: Path) -> None:
    """At start, with a sentence; not at the first connection."""
    file = tmp_path / "x.pem"
    file.write_text("nonsense")
    assert "come together" in problem(security_protocol="SSL", ssl_certificate_location=str(file))
    config = parsed(security_protocol="SSL", ssl_certificate_location=str(file), ssl_key_location=str(file))
    with pytest.raises(ConfigurationError, match="not usable"):
        config.aiokafka()


def test_every_client_takes_what_it_is_given() -> None:
    """A renamed argument would only show at start."""
    config = parsed(
        client_id="c",
        client_rack="r",
        compression_type="zstd",
        request_timeout_ms="31000",
        retry_backoff_ms="50",
        metadata_max_age_ms="60000",
        connections_max_idle_ms="60000",
        heartbeat_interval_ms="2000",
        max_poll_interval_ms="200000",
        max_partition_fetch_bytes="2000000",
    )

    async def construct() -> None:
        AIOKafkaProducer(**config.aiokafka_producer())
        AIOKafkaConsumer(**config.aiokafka_consumer())

    asyncio.run(construct())
    Producer(config.confluent_producer()).flush(0)
