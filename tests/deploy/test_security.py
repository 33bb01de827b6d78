"""A Kafka that asks everybody for a name: how workers come in, what they must be allowed, what they hide."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import trustme

from delaystream.config import Settings
from delaystream.exit_codes import ExitCode
from delaystream.topics.access import Acl, users
from tests.deploy.secured_broker import WAYS, SecuredBroker, Way
from tests.deploy.secured_deployment import SecuredDeployment
from tests.integration.harness import command, wait
from tests.integration.harness_console import ConsoleProcess, ask
from tests.integration.test_console_writes import send

Secured = Callable[..., SecuredDeployment]

NEEDED = next(
    user.acls
    for user in users(Settings(app_id="app", destinations_allow=("app.out", "app.more-*")))
    if user.role == "worker"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    directory = tmp_path_factory.mktemp("secured")
    with SecuredBroker(directory, ["worker", "requester", "reader", "console", "operator"]) as broker:
        yield broker


@pytest.fixture
def secured(broker: SecuredBroker, tmp_path: Path) -> Iterator[Secured]:
    """Make applications on the secured broker, their topics and destination there."""
    with ExitStack() as stack:

        def make(*, way: Way = "SCRAM-SHA-512", **settings: str) -> SecuredDeployment:
            app = SecuredDeployment(broker, tmp_path, way=way, user="worker", **settings)
            stack.enter_context(app)
            app.as_super_user().apply_topics()
            app.destination("out")
            return app

        yield make


# -- how they come in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [way for way in WAYS if way != "TLS"])
def test_a_worker_with_exactly_the_documented_rights_delivers(secured: Secured, way: Way) -> None:
    """By certificate, by password, by token; at once, later, by id, and to the dead letters."""
    app = secured(way=way)
    app.allow(app.rights("worker"))
    worker = app.worker().wait_ready()
    out = app.topic("out")
    app.request(b"at once", {"destination": out, "delay": "0"})
    app.request(b"later", {"destination": out, "delay": "500ms"})
    app.request(b"by id", {"destination": out, "delay": "0", "id": "x"})
    app.request(b"refused", {"destination": "elsewhere", "delay": "0"})
    assert {delivery.value for delivery in app.kafka.read(out, 3)} == {b"at once", b"later", b"by id"}
    assert [letter.value for letter in app.kafka.read(app.dead_letters, 1)] == [b"refused"]
    assert worker.terminate() == 0


def test_sessions_that_the_broker_ends_cost_a_moment_and_no_delivery(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As when a token ends (KIP-368): aiokafka does not log in anew on a connection that is open."""
    every_3_s = {"connections.max.reauth.ms": "3000"}
    ways: dict[str, Way] = {"by-token": "OAUTHBEARER", "by-password": "SCRAM-SHA-512"}
    with ExitStack() as stack:
        broker = stack.enter_context(SecuredBroker(tmp_path_factory.mktemp("reauth"), ways, every_3_s))
        apps = [
            stack.enter_context(SecuredDeployment(broker, tmp_path, way=way, user=user))
            for user, way in ways.items()
        ]
        for app in apps:
            app.as_super_user().apply_topics()
            app.destination("out")
            app.allow(app.rights("worker"))
            app.worker()
        for app in apps:
            app.workers[0].wait_ready()
            for number in range(10):
                app.request(b"%d" % number, {"destination": app.topic("out"), "delay": f"{number}s"})
        for app in apps:
            delivered = app.kafka.read(app.topic("out"), 10)
            assert [delivery.value for delivery in delivered] == [b"%d" % number for number in range(10)]
            lateness = [d.timestamp_ms - int(d.text("delaystream-due-at")) for d in delivered]
            assert max(lateness) < 3_000
            assert app.workers[0].terminate() == 0


def test_requester_reader_and_operator_need_no_more_than_is_documented(secured: Secured) -> None:
    """Each does its work by `delaystream` itself, with the rights of its role alone."""
    app = secured(DELAYSTREAM_SESSION_TIMEOUT_MS="6000")
    out = app.topic("out")
    app.allow(app.rights("worker"))
    app.worker().wait_ready()
    for role, arguments in (
        ("requester", ["send", "hello", "--to", out, "--delay", "0"]),
        ("requester", ["send", "later", "--to", out, "--delay", "1h", "--id", "x"]),
        ("requester", ["cancel", "x"]),
        ("reader", ["watch", out, "--from-beginning", "--count", "1", "--timeout", "30"]),
        ("operator", ["topics", "check", "--environment", "single-node", "--partitions", "1"]),
        ("operator", ["watch", app.dead_letters, "--from-beginning", "--timeout", "1"]),
        ("operator", ["watch", app.receipts, "--from-beginning", "--count", "1", "--timeout", "30"]),
        ("worker", ["export"]),
    ):
        app.user = role
        app.allow(app.rights(role))  # type: ignore[arg-type]
        done = app.run(*arguments)
        assert done.returncode == 0, (role, done.stdout, done.stderr)
    app.user = "requester"
    refused = app.run("watch", app.requests, "--from-beginning", "--count", "1", "--timeout", "5")
    assert refused.returncode != 0
    assert b"authorization" in refused.stderr.lower()


def test_a_console_needs_no_more_than_is_documented(secured: Secured, tmp_path: Path) -> None:
    """It follows, keeps dead letters, says of a request where its partition ends, writes, and sends again."""
    app = secured()
    app.allow(app.rights("worker"))
    app.worker().wait_ready()
    out = app.topic("out")
    partition, offset = app.request(b"later", {"destination": out, "delay": "1h", "id": "x"})
    app.request(b"refused", {"destination": "elsewhere", "delay": "0"})
    app.user = "console"
    app.allow(app.rights("console"))
    console = ConsoleProcess(app, tmp_path / "console")
    url = console.wait_ready()
    wait(lambda: bool(ask(f"{url}/v1/dead-letters")["items"]), "the dead letter")
    wait(lambda: bool(ask(f"{url}/v1/schedules/x")), "the schedule")
    [ahead] = ask(f"{url}/v1/where", q=f"{app.requests}/{partition}/{offset + 100}")["items"]
    assert "there is no such record" in ahead["detail"]
    health = ask(f"{url}/v1/health")
    assert health["problems"] == [], health
    patient = {"Prefer": "wait=60"}
    body = {"destination": out, "every": "1d", "value": "v"}
    made = send(f"{url}/v1/schedules", "POST", body, patient)
    assert made.status == 201, made
    rate = send(f"{url}/v1/destinations/{out}/rate", "PUT", {"rate": 50}, patient)
    assert (rate.status, rate.body["outcome"]) == (200, "rate-set"), rate
    [letter] = ask(f"{url}/v1/dead-letters")["items"]
    place = f"{url}/v1/dead-letters/{letter['place']}"
    told = send(f"{place}/redrive", "POST", {"destination": out}, patient)
    assert (told.status, told.body["standing"]) == (200, "accepted"), told
    assert console.terminate() == 0
    # What it does without, it may not: others deliver, and nobody reads requests for it.
    for topic, why in ((out, b"or this user may not see it"), (app.requests, b"authorization")):
        refused = app.run("watch", topic, "--from-beginning", "--count", "1", "--timeout", "5")
        assert refused.returncode != 0
        assert why in refused.stderr.lower(), refused


def test_the_operator_may_create_the_topics(broker: SecuredBroker, tmp_path: Path) -> None:
    """`topics apply`, with the rights of its role alone."""
    with SecuredDeployment(broker, tmp_path, user="operator") as app:
        app.allow(app.rights("operator"))
        assert app.apply_topics()


# -- one right short -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lacking", [pytest.param(n, id=str(acl)) for n, acl in enumerate(NEEDED)])
def test_a_worker_one_right_short_says_which(secured: Secured, lacking: int) -> None:
    """The operation and the resource, in its last line; for a destination, in a warning."""
    app = secured()
    needed = app.rights("worker")
    assert len(needed) == len(NEEDED)
    missing = needed[lacking]
    app.allow(acl for acl in needed if acl is not missing)
    worker = app.worker()
    if missing.name.startswith(app.topic("")):
        own = {app.requests, app.commands, app.changelog, app.events, app.dead_letters}
        if missing.name == app.receipts:
            return _test_commands_are_carried_out_without_receipts(app, missing)
        if missing.name not in own:
            if missing.operation == "DescribeConfigs":
                return _test_settings_unseen(app, missing)
            return _test_a_destination_is_set_aside(app, missing)
    assert worker.wait_exit() == ExitCode.CONFIGURATION
    assert f"missing ACL: {missing.operation} on {missing.resource}" in worker.reason
    assert missing.name in worker.reason
    assert all(str(acl) not in worker.reason for acl in needed if acl is not missing)
    return None


def _test_settings_unseen(app: SecuredDeployment, missing: Acl) -> None:
    """It is written to all the same; the worker says so at its start, of those that it knows by name."""
    [worker] = app.workers
    worker.wait_ready()
    unseen = app.destination("more-1") if missing.prefixed else app.topic("out")
    app.request(b"goes out", {"destination": unseen, "delay": "0"})
    assert [delivery.value for delivery in app.kafka.read(unseen, 1)] == [b"goes out"]
    assert missing.prefixed or f"missing ACL: DescribeConfigs on topic {unseen}" in worker.output()


def _test_commands_are_carried_out_without_receipts(app: SecuredDeployment, missing: Acl) -> None:
    """The worker starts, and says what it lacks."""
    [worker] = app.workers
    worker.wait_ready()
    assert f"missing ACL: {missing}" in worker.output()
    app.request(b"no", {"destination": app.topic("out"), "delay": "5s", "id": "x"})
    app.request(None, {"action": "cancel", "id": "x", "reply-to": app.receipts})
    app.request(b"after", {"destination": app.topic("out"), "delay": "6s", "id": "y"})
    assert [delivery.value for delivery in app.kafka.read(app.topic("out"), 1)] == [b"after"]
    written = missing.operation != "Write"
    assert (sum(app.kafka.end_offsets(app.receipts)) > 0) == written


def _test_a_destination_is_set_aside(app: SecuredDeployment, missing: Acl) -> None:
    """The worker serves all others meanwhile, and this one once it may."""
    [worker] = app.workers
    worker.wait_ready()
    denied = app.destination("more-1") if missing.prefixed else app.topic("out")
    served = app.topic("out") if missing.prefixed else app.destination("more-1")
    app.request(b"waits", {"destination": denied, "delay": "0"})
    app.request(b"goes out", {"destination": served, "delay": "0"})
    assert [delivery.value for delivery in app.kafka.read(served, 1)] == [b"goes out"]
    assert f"missing ACL: Write on topic {denied}" in worker.output()
    assert app.kafka.end_offsets(denied) == [0]
    app.broker.allow(app.user, [missing])
    assert [delivery.value for delivery in app.kafka.read(denied, 1)] == [b"waits"]


# -- one right taken away --------------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "at work"])
def test_a_worker_whose_right_to_its_group_is_taken_away_ends_with_its_name(
    secured: Secured, idle: bool
) -> None:
    """With 78, because no restart gives the right back: at its next heartbeat, or its next step."""
    app = secured(DELAYSTREAM_FAILURE_TIMEOUT_MS="5000", DELAYSTREAM_SESSION_TIMEOUT_MS="6000")
    app.allow(app.rights("worker"))
    worker = app.worker().wait_ready()
    app.request(b"goes out", {"destination": app.topic("out"), "delay": "0"})
    assert [delivery.value for delivery in app.kafka.read(app.topic("out"), 1)] == [b"goes out"]
    [taken] = [acl for acl in app.rights("worker") if acl.resource == "group" and acl.operation == "Read"]
    app.broker.take_away(app.user, taken)
    if not idle:
        app.request(b"comes to nothing", {"destination": app.topic("out"), "delay": "0"})
    assert worker.wait_exit(60) == ExitCode.CONFIGURATION, worker.output()
    assert f"missing ACL: Read on group {app.app_id}" in worker.reason


# -- what they never tell --------------------------------------------------------------------------------


class Planted:
    """Secrets that occur nowhere else, and everything that was said meanwhile."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.said: dict[str, str] = {}

    def secret(self) -> str:
        self.secrets.append(f"planted{secrets.token_hex(8)}")
        return self.secrets[-1]

    def leaks(self) -> list[str]:
        return [where for where, text in self.said.items() if any(secret in text for secret in self.secrets)]


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_secrets_are_told_nowhere(secured: Secured, tmp_path: Path, log_format: str) -> None:
    """Not in logs at any level, settings, metrics, health answers, errors: right ones nor wrong ones."""
    app = secured(DELAYSTREAM_LOG_LEVEL="debug", DELAYSTREAM_LOG_FORMAT=log_format)
    app.allow(app.rights("worker"))
    planted = Planted()
    planted.secrets.append(app.broker.users["worker"].password)
    file = tmp_path / "password"
    file.write_text(app.broker.users["worker"].password + "\n")
    by_file = {"DELAYSTREAM_KAFKA_SASL_PASSWORD_FILE": str(file)}

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments),
            env={k: v for k, v in {**app.environment(), **environment}.items() if v},
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        planted.said[name] = done.stdout + done.stderr
        return done

    worker = app.worker("", **by_file, DELAYSTREAM_KAFKA_SASL_PASSWORD="")
    # An empty variable beside the file is refused, rather than taken for no password.
    assert worker.wait_exit() == ExitCode.CONFIGURATION
    environment = {k: v for k, v in app.environment().items() if k != "DELAYSTREAM_KAFKA_SASL_PASSWORD"}
    app.environment = lambda name="": environment | by_file  # type: ignore[method-assign]
    worker = app.worker("-right").wait_ready()
    for path in ("/metrics", "/health/ready", "/health/live"):
        status, planted.said[path] = worker.get(path)
        assert status == 200
    worker.terminate()
    planted.said["log"] = worker.output()
    assert "kafka.sasl.password" in run("config", "config").stdout
    run("config --json", "config", "--json")
    run("config --describe", "config", "--describe")

    # Wrong ones, each at the place where it is looked at.
    wrong = {"DELAYSTREAM_KAFKA_SASL_PASSWORD_FILE": "", "DELAYSTREAM_KAFKA_SASL_PASSWORD": planted.secret()}
    jaas = "org.apache.kafka.common.security.plain.PlainLoginModule required username=a password={};"
    key = "-----BEGIN PRIVATE KEY-----\n" + planted.secret() + "\n-----END PRIVATE KEY-----"
    pem = {
        "DELAYSTREAM_KAFKA_SSL_KEYSTORE_TYPE": "PEM",
        "DELAYSTREAM_KAFKA_SSL_KEYSTORE_KEY": key,
        "DELAYSTREAM_KAFKA_SSL_KEYSTORE_CERTIFICATE_CHAIN": app.broker.users[
            "worker"
        ].certificate.read_text(),
    }
    oauth = {
        "DELAYSTREAM_KAFKA_SASL_PASSWORD_FILE": "",
        "DELAYSTREAM_KAFKA_SASL_USERNAME": "",
        "DELAYSTREAM_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "DELAYSTREAM_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": "http://127.0.0.1:9/token",
        "DELAYSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_ID": "worker",
        "DELAYSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_SECRET": planted.secret(),
    }
    attempts = {
        "worker, wrong password": (["worker"], wrong),
        "send, wrong password": (["send", "x", "--to", app.topic("out"), "--delay", "0"], wrong),
        "topics check, wrong password": (["topics", "check"], wrong),
        "jaas of another mechanism": (
            ["worker"],
            {**wrong, "DELAYSTREAM_KAFKA_SASL_PASSWORD": "", "DELAYSTREAM_KAFKA_SASL_USERNAME": "",
             "DELAYSTREAM_KAFKA_SASL_JAAS_CONFIG": jaas.format(planted.secret())},
        ),
        "key that is none": (["worker"], pem),
        "worker, token endpoint away": (["worker"], oauth),
        "topics check, token endpoint away": (["topics", "check"], oauth),
        "password by a flag": (["config", "-X", f"sasl.password={planted.secret()}"], {}),
        "password in both places": (["config"], {"DELAYSTREAM_KAFKA_SASL_PASSWORD": planted.secret()}),
        "secret of the wrong mechanism": (
            ["config"],
            {"DELAYSTREAM_KAFKA_SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT_SECRET": planted.secret()},
        ),
        "misspelt variable": (["config"], {"DELAYSTREAM_KAFKA_SASL_PASSWORT": planted.secret()}),
        "misspelt flag": (["config", "-X", f"sasl.passwort={planted.secret()}"], {}),
        "flag without =": (["config", "-X", planted.secret()], {}),
        "as a setting": (["config", "--set", f"sasl_password={planted.secret()}"], {}),
    }  # fmt: skip
    for name, (arguments, more) in attempts.items():
        if log_format == "human" and arguments != ["worker"]:
            continue  # errors of the command line are the same whatever the log looks like
        done = run(name, *arguments, **more)
        if name != "password by a flag":
            assert done.returncode not in {0, 1}, (name, planted.said[name])
        if "token endpoint" in name:
            assert "the token endpoint http://127.0.0.1:9/token gave no token" in planted.said[name]
    assert planted.leaks() == []


def test_a_wrong_password_is_named_as_what_it_is(secured: Secured) -> None:
    """Not as a Kafka that does not answer."""
    app = secured()
    worker = app.worker("", DELAYSTREAM_KAFKA_SASL_PASSWORD="wrong")
    assert worker.wait_exit() != 0
    assert "authentication" in worker.reason.lower()
    done = app.run("topics", "check", "-X", "sasl.password=wrong", timeout=120)
    assert b"authentication" in done.stderr.lower()


def test_a_broker_that_somebody_else_vouches_for_is_not_trusted(secured: Secured, tmp_path: Path) -> None:
    """And the sentence says that it is the certificate."""
    other = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other)
    worker = secured().worker("", DELAYSTREAM_KAFKA_SSL_CA_LOCATION=str(other))
    assert worker.wait_exit() != 0
    assert "certificate" in worker.reason.lower()


# -- who hears them --------------------------------------------------------------------------------------


def test_a_worker_listens_on_the_loopback_interface_unless_told_otherwise(secured: Secured) -> None:
    """Metrics and health have no login of their own."""
    app = secured()
    app.allow(app.rights("worker"))
    worker = app.worker().wait_ready()
    listening = [c.laddr.ip for c in worker.usage.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    worker.terminate()
    everywhere = app.worker("-open", DELAYSTREAM_HTTP_HOST="0.0.0.0").wait_ready()
    assert [
        c.laddr.ip for c in everywhere.usage.net_connections("inet") if c.status == psutil.CONN_LISTEN
    ] == ["0.0.0.0"]
    assert json.loads(everywhere.get("/health/ready")[1])
    assert socket.gethostname()
