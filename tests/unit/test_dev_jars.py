"""The jars of the embedded broker: exactly what the lock names, or an error."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from delaystream.dev.errors import JarError
from delaystream.dev.jars import (
    DEFAULT_VERSION,
    LOCKS,
    Jar,
    Lock,
    cache_dir,
    class_path,
    kafka_lock,
    locked_versions,
)
from delaystream.dev.lock import write

CONTENT = b"a jar, as far as this test is concerned"


class Repository:
    """A Maven repository on the loopback interface that counts what is asked of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[str] = []

    def publish(self, coordinate: str, content: bytes = CONTENT) -> Jar:
        jar = Jar(coordinate, len(content), hashlib.sha256(content).hexdigest())
        path = jar.path_in(self.directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return jar


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    served = Repository(tmp_path / "served")
    served.directory.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            served.requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served.directory)) as server:
        settings = tmp_path / "jgo.conf"
        settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
        monkeypatch.setenv("DELAYSTREAM_CACHE_DIR", str(tmp_path / "cache"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def test_locked_jars_are_fetched_from_the_users_mirror_in_class_path_order(repository: Repository) -> None:
    lock = Lock("g:a:1", (repository.publish("g.h:b:2"), repository.publish("g:a:1")))
    paths = class_path(lock)
    assert [path.name for path in paths] == ["b-2.jar", "a-1.jar"]
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert not any(path.endswith(".pom") for path in repository.requests)


def test_a_second_time_needs_no_network(repository: Repository) -> None:
    lock = Lock("g:a:1", (repository.publish("g:a:1"),))
    class_path(lock)
    repository.requests.clear()
    class_path(lock)
    assert repository.requests == []


def test_a_jar_with_another_hash_is_an_error_and_is_removed(repository: Repository) -> None:
    right = repository.publish("g:a:1")
    repository.publish("g:a:1", CONTENT.replace(b"jar", b"bug"))
    with pytest.raises(JarError, match=f"g:a:1 was fetched with SHA-256 .* the lock says {right.sha256}"):
        class_path(Lock("g:a:1", (right,)))
    assert not right.path_in(cache_dir() / "jars").exists()


def test_a_download_that_was_cut_off_is_fetched_again(repository: Repository) -> None:
    jar = repository.publish("g:a:1")
    cached = jar.path_in(cache_dir() / "jars")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT[:10])
    [path] = class_path(Lock("g:a:1", (jar,)))
    assert path.read_bytes() == CONTENT


def test_a_jar_that_nobody_has_is_named(repository: Repository) -> None:
    jar = Jar("g:missing:1", 1, "0" * 64)
    with pytest.raises(JarError, match="g:missing:1 could not be fetched"):
        class_path(Lock("g:missing:1", (jar,)))


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DELAYSTREAM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(JarError, match="DELAYSTREAM_CACHE_DIR"):
        class_path(Lock("g:a:1", ()))


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DELAYSTREAM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "delaystream"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == Path.home() / ".cache" / "delaystream"
    monkeypatch.setenv("DELAYSTREAM_CACHE_DIR", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_there_is_a_kafka_3_9_and_a_kafka_4() -> None:
    versions = locked_versions()
    assert DEFAULT_VERSION in versions
    assert [version.rsplit(".", 1)[0] for version in versions] == ["3.9", "4.3"]


@pytest.mark.parametrize("version", locked_versions())
def test_every_locked_jar_has_a_hash_and_no_address(version: str) -> None:
    lock = kafka_lock(version)
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in lock.jars)
    assert len({jar.coordinate for jar in lock.jars}) == len(lock.jars)
    assert "://" not in (LOCKS / f"kafka-{version}.lock").read_text()


def test_a_version_that_is_not_locked_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(JarError, match=DEFAULT_VERSION):
        kafka_lock("2.0.0")


def test_a_written_lock_reads_back(tmp_path: Path) -> None:
    lock = Lock("g:a:1", (Jar("g:a:1", 3, "ab" * 32),))
    write(lock, tmp_path / "some.lock")
    assert Lock.read(tmp_path / "some.lock") == lock


def test_a_damaged_lock_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text("root = 1")
    with pytest.raises(JarError, match="cannot be used"):
        Lock.read(tmp_path / "some.lock")
