"""The jars of Apache Kafka: their lock (by version and SHA-256), and their cache.

A user's machine resolves no dependencies. It fetches exactly the locked coordinates, so it reads no project
description and chooses no version. jgo fetches them from Maven Central, or from the `[repositories]` in jgo's
own settings (a repository called `central` there replaces Maven Central).
"""

import fcntl
import hashlib
import os
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import requests
import truststore
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import Artifact, MavenContext

from delaystream.dev.errors import JarError
from delaystream.dev.progress import Progress, quiet

DEFAULT_VERSION = "4.3.1"
LOCKS = Path(__file__).parent / "locks"

FETCH_ATTEMPTS = 3
FETCH_TIMEOUT_S = 30
FETCHES_AT_ONCE = 4


class Jar(msgspec.Struct, frozen=True):
    """One locked jar: `group:artifact:version`, its size in bytes and its SHA-256 in hexadecimal."""

    coordinate: str
    size: int
    sha256: str

    def artifact(self, maven: MavenContext) -> Artifact:
        """Return what `maven` calls this jar."""
        group, name, version = self.coordinate.split(":")
        return maven.project(group, name).at_version(version).artifact()

    def path_in(self, repository: Path) -> Path:
        """Return the jar's file in a directory with Maven's layout; it need not exist."""
        group, name, version = self.coordinate.split(":")
        return repository.joinpath(*group.split("."), name, version, f"{name}-{version}.jar")


class Lock(msgspec.Struct, frozen=True):
    """All the jars that one program needs, in class path order."""

    root: str
    jars: tuple[Jar, ...]

    @classmethod
    def read(cls, path: Path) -> "Lock":
        """Read a lock file. Raises `JarError` when it is not one."""
        try:
            return msgspec.convert(tomllib.loads(path.read_text("utf-8")), cls)
        except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise JarError(f"The lock of jars {path} cannot be used: {error}.") from error

    @property
    def total_bytes(self) -> int:
        """The size of all jars together."""
        return sum(jar.size for jar in self.jars)


def locked_versions() -> list[str]:
    """Return the Kafka versions that can be started, oldest first."""
    versions = [path.stem.removeprefix("kafka-") for path in LOCKS.glob("kafka-*.lock")]
    return sorted(versions, key=version_key)


def version_key(version: str) -> tuple[int, ...]:
    """Return `4.3.1` as `(4, 3, 1)`, which sorts."""
    return tuple(int(part) for part in version.split("."))


def kafka_lock(version: str) -> Lock:
    """Return the lock of a Kafka version. Raises `JarError` naming the versions that there are."""
    if version not in locked_versions():
        raise JarError(f"Kafka {version} is not locked here; there are: {', '.join(locked_versions())}.")
    return Lock.read(LOCKS / f"kafka-{version}.lock")


def cache_dir() -> Path:
    """Return where downloads are kept: DELAYSTREAM_CACHE_DIR, else the user's cache directory (XDG)."""
    if own := os.environ.get("DELAYSTREAM_CACHE_DIR"):
        return Path(own).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that relative paths are ignored.
    base = Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache"
    return base / "delaystream"


def maven_context(repository: Path) -> MavenContext:
    """Return a jgo context that keeps its files in `repository` and honours the user's mirrors."""
    remotes = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(repo_cache=repository, remote_repos=remotes, timeout=FETCH_TIMEOUT_S)


def class_path(lock: Lock, *, cache: Path | None = None, progress: Progress = quiet) -> list[Path]:
    """Return the files of `lock`, after fetching missing ones; uses no network when all are there.

    Every file's SHA-256 is compared on every call (45 MB: about 0.1 s), because an interrupted download
    leaves a file behind. Such a file is fetched again. A file that is wrong right after the fetch is removed
    and raises `JarError`. So does a jar that cannot be fetched. Processes that share a cache wait for one
    another.
    """
    repository = (cache or cache_dir()) / "jars"
    with _locked(repository):
        missing = [jar for jar in lock.jars if not _is_right(jar, jar.path_in(repository))]
        if missing:
            with progress(lock.root, sum(jar.size for jar in missing)) as advance, _system_certificates():
                _fetch_all(missing, maven_context(repository), advance)
    return [jar.path_in(repository) for jar in lock.jars]


@contextmanager
def _system_certificates() -> Iterator[None]:
    """Trust the operating system's certificates, as pip does: a company's proxy has its own certificate."""
    truststore.inject_into_ssl()
    try:
        yield
    finally:
        truststore.extract_from_ssl()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(jar: Jar, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == jar.size and sha256_of(path) == jar.sha256


def _fetch_all(jars: list[Jar], maven: MavenContext, advance: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch-jar") as pool:
        fetches = [pool.submit(_fetch, jar, maven) for jar in jars]
        try:
            for jar, fetch in zip(jars, fetches, strict=True):
                fetch.result()
                advance(jar.size)
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(jar: Jar, maven: MavenContext) -> None:
    artifact = jar.artifact(maven)
    path = jar.path_in(maven.repo_cache)
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        path.unlink(missing_ok=True)
        try:
            artifact.resolve()
            break
        # jgo says RuntimeError when no repository has the file.
        except (requests.RequestException, RuntimeError) as error:
            path.unlink(missing_ok=True)
            if attempt == FETCH_ATTEMPTS:
                raise JarError(
                    f"The jar {jar.coordinate} could not be fetched ({error}). A mirror can be named under "
                    f"[repositories] in jgo's settings file, as: central = <address>."
                ) from error
    found = sha256_of(path)
    if found != jar.sha256:
        path.unlink()
        raise JarError(
            f"The jar {jar.coordinate} was fetched with SHA-256 {found}, but the lock says {jar.sha256}; it "
            f"was removed. Either the repository serves something else, or the download was damaged."
        )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise JarError(
            f"The cache {directory} cannot be written ({error.strerror}); set DELAYSTREAM_CACHE_DIR."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
