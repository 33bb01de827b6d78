"""What the chart renders starts real workers and a console, on a broker with TLS and ACLs.

The chart's own test passes on them.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import serialization

from delaystream.config import load
from delaystream.topics.access import users
from tests.deploy.chart import CASES, Manifest, Pod, case, console_pod, one, render, worker_pod
from tests.deploy.conftest import Tool
from tests.deploy.consoles import token as new_token
from tests.deploy.secured_broker import SecuredBroker, Way
from tests.integration.harness import Worker, command, wait
from tests.integration.harness_kafka import Kafka, Reader

#: How each case comes to Kafka, and as whom; None: by the listener without security.
WAYS: dict[str, tuple[Way, str] | None] = {
    "minimal": None,
    "no-operator": None,
    "mtls": ("MTLS", "mtls-worker"),
    "scram": ("SCRAM-SHA-512", "delaystream-worker"),
    "full": ("SCRAM-SHA-256", "delays-worker"),
    "console": ("SCRAM-SHA-512", "delaystream-worker"),
}
_CONSOLE = "delaystream-console"
_KEY_PASSWORD = b"of the key"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    names = {way[1] for way in WAYS.values() if way}
    with SecuredBroker(tmp_path_factory.mktemp("secured"), [*sorted(names), _CONSOLE]) as broker:
        yield broker


def free_port() -> int:
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def secrets(broker: SecuredBroker, name: str) -> dict[str, dict[str, bytes]]:
    """The secrets that the cases' values name, with the keys that Strimzi and cert-manager use."""
    user = broker.users[name]
    certificate, key = user.certificate.read_bytes(), user.key.read_bytes()
    encrypted = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(_KEY_PASSWORD),
    )
    return {
        "my-cluster-cluster-ca-cert": {"ca.crt": broker.authority.read_bytes()},
        "delaystream-worker": {
            "user.crt": certificate,
            "user.key": key,
            "password": user.password.encode(),
        },
        _CONSOLE: {"password": broker.users[_CONSOLE].password.encode()},
        "delays-client": {"tls.crt": certificate, "tls.key": encrypted, "tls.password": _KEY_PASSWORD},
        "delays-sasl": {"username": name.encode(), "password": user.password.encode()},
    }


@pytest.mark.parametrize("name", CASES)
def test_the_rendered_worker_becomes_ready_and_delivers(
    tool: Tool, secured: SecuredBroker, tmp_path: Path, name: str
) -> None:
    """Arguments, environment, secrets as files, probes; with exactly the rights of a worker; one delivery."""
    way = WAYS[name]
    address = secured.address(way[0]) if way else secured.kafka.bootstrap
    manifests = render(
        tool("helm"),
        *case(name),
        *("--set-string", f"kafka.bootstrapServers={address}"),
        *("--set", f"http.port={free_port()}"),
    )
    content = secrets(secured, way[1]) if way else {}
    pod = worker_pod(manifests, tmp_path, content)
    environment = pod.environment
    assert environment["DELAYSTREAM_INSTANCE_ID"] == pod.name
    assert environment["DELAYSTREAM_HTTP_HOST"] == "0.0.0.0"
    environment["DELAYSTREAM_HTTP_HOST"] = "127.0.0.1"
    settings = load(environ=environment).settings
    _prepare(secured, environment, way)

    subcommand, *arguments = pod.arguments
    assert subcommand == "worker"
    worker = Worker(environment, tmp_path / "worker.log", arguments)
    try:
        worker.wait_ready()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert worker.get(pod.probe(probe))[0] == 200, probe
        _delivers(secured.kafka, settings.request_topics[0])
        # The chart's own test is the other pod: it finds the topics right, with the workers' rights.
        _passes(_test_pod(manifests, tmp_path, content))
        assert _asks_for_readiness(manifests) == 0
        assert worker.terminate(20) == 0, worker.output()
        assert _asks_for_readiness(manifests) != 0
    finally:
        if worker.alive:
            worker.kill()


def test_the_rendered_console_shows_what_is_there_to_whom_it_knows(
    tool: Tool, secured: SecuredBroker, tmp_path: Path
) -> None:
    """Beside a worker, as a user who may read and nothing else; probes, tokens, and no answer without one."""
    user = "delaystream-worker"
    manifests = render(
        tool("helm"),
        *case("console"),
        *("--set-string", f"kafka.bootstrapServers={secured.address('SCRAM-SHA-512')}"),
        *("--set", f"http.port={free_port()},console.http.port={free_port()}"),
    )
    token, known = new_token()
    content = {**secrets(secured, user), "delaystream-console-tokens": {"tokens.toml": known.encode()}}
    worker_environment = worker_pod(manifests, tmp_path, content).environment
    worker_environment["DELAYSTREAM_HTTP_HOST"] = "127.0.0.1"
    _prepare(secured, worker_environment, ("SCRAM-SHA-512", user))
    pod = console_pod(manifests, tmp_path, content)
    environment = pod.environment
    assert environment["DELAYSTREAM_CONSOLE_HTTP_HOST"] == "0.0.0.0"
    environment["DELAYSTREAM_CONSOLE_HTTP_HOST"] = "127.0.0.1"
    settings = load(environ=environment).settings
    [console] = [one for one in users(settings, {"console": _CONSOLE}) if one.role == "console"]
    secured.allow(_CONSOLE, console.acls)
    [requests] = settings.request_topics

    worker = Worker(worker_environment, tmp_path / "worker.log")
    with (tmp_path / "console.log").open("wb") as log:
        process = subprocess.Popen(command(*pod.arguments), env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{settings.console_http_port}"
    try:
        worker.wait_ready()
        _delivers(secured.kafka, requests)
        wait(lambda: _asked(address + pod.probe("readinessProbe"))[0] == 200, "the console", 60)
        assert _asked(address + pod.probe("startupProbe"))[0] == 200
        assert _asked(address + pod.probe("livenessProbe"))[0] == 200
        for path in ("/v1/stats", "/v1/schedules", "/metrics"):
            assert _asked(address + path)[0] == 401, path
            assert _asked(address + path, token)[0] == 200, path
        # Where a request topic ends is all that it needs to know of one.
        places = (f"{address}/v1/where?q={requests}/{partition}/999999" for partition in (0, 1))
        found = [_asked(place, token)[1] for place in places]
        assert any("there is no such record" in text for text in found), found
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)
        worker.kill()


def _asked(url: str, token: str = "") -> tuple[int, str]:
    """Status and body; status 0 while nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _prepare(broker: SecuredBroker, environment: dict[str, str], way: tuple[Way, str] | None) -> None:
    """Topics, by the super user; and the worker's rights, those of `topics/topics.json`."""
    plain = {key: value for key, value in environment.items() if not key.startswith("DELAYSTREAM_KAFKA_")}
    plain["DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS"] = broker.kafka.bootstrap
    apply = ("topics", "apply", "--environment", "single-node", "--partitions", "2")
    done = subprocess.run(command(*apply), env=plain, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    if "orders" not in broker.kafka.admin.list_topics(timeout=10).topics:
        broker.kafka.create("orders", 1)
    if way:
        settings = load(environ=plain).settings
        [worker] = [user for user in users(settings, {"worker": way[1]}) if user.role == "worker"]
        broker.allow(way[1], worker.acls)


def _delivers(kafka: Kafka, requests: str) -> None:
    control = [("delaystream-destination", b"orders"), ("delaystream-delay", b"50ms")]
    value = uuid4().bytes
    kafka.produce(requests, [(b"key", value, control)])
    with Reader(kafka.bootstrap, {"orders": 1}) as reader:
        deadline = time.monotonic() + 30
        while value not in [record.value for record in reader.poll(1.0)]:
            assert time.monotonic() < deadline, "ready, but it delivers nothing"


def _test_pod(manifests: list[Manifest], directory: Path, content: dict[str, dict[str, bytes]]) -> Pod:
    manifest = one(manifests, "Pod")
    assert manifest["metadata"]["annotations"]["helm.sh/hook"] == "test"
    return Pod(manifest["metadata"]["name"], manifest["spec"], "topics", directory / "test", content)


def _asks_for_readiness(manifests: list[Manifest]) -> int:
    """Exit code of the other container of the chart's test, which asks each address of the service."""
    containers = {each["name"]: each for each in one(manifests, "Pod")["spec"]["containers"]}
    [python, option], [script, _, port] = containers["ready"]["command"], containers["ready"]["args"]
    assert (python, option) == ("python", "-c")
    words = [sys.executable, option, script, "127.0.0.1", port]
    return subprocess.run(words, capture_output=True, check=False, timeout=30).returncode


def _passes(pod: Pod) -> None:
    done = subprocess.run(
        command(*pod.arguments), env=pod.environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
