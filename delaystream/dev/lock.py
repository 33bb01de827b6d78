"""Write a lock of jars: `python -m delaystream.dev.lock 4.3.1`. For maintainers; users only read locks.

Only this module resolves dependencies. It fetches into an empty directory, so that it locks the files that
the repository serves today. jgo compares each file with the repository's checksum. On a difference jgo only
warns; here it ends the run.
"""

import argparse
import logging
import tempfile
from pathlib import Path

from delaystream.dev.errors import JarError
from delaystream.dev.jars import LOCKS, Jar, Lock, maven_context, sha256_of, version_key

KAFKA = "org.apache.kafka:kafka_2.13"


def logging_jars(version: str) -> list[str]:
    """Return the jars with which a Kafka version can write a log.

    Kafka's own description of the broker names none (its archive adds them). They are locked without their
    dependencies. If they were resolved together with the broker, the versions that their parent recommends
    (of kafka-clients, among others) would win over Kafka's own.
    """
    if version_key(version) >= (4, 0):
        return ["org.apache.logging.log4j:log4j-slf4j-impl:{log4j}"]
    return ["org.slf4j:slf4j-reload4j:1.7.36", "ch.qos.reload4j:reload4j:1.2.25"]


def resolve(root: str, extra: list[str], repository: Path) -> Lock:
    """Resolve `root` (`group:artifact:version`) with its run-time dependencies, and add `extra` unchanged.

    `{log4j}` in an extra coordinate stands for the version of log4j-core that the root brings. Raises
    `JarError` when a jar is not available, has a classifier (the lock could not name it), or a Kafka jar is
    of another version.
    """
    maven = maven_context(repository)
    inputs, transitive = maven.resolver.resolve([maven.create_dependency(root)])
    artifacts = {f"{d.groupId}:{d.artifactId}": d.artifact for d in [*inputs, *transitive]}
    log4j = artifacts.get("org.apache.logging.log4j:log4j-core")
    for coordinate in extra:
        group, name, version = coordinate.format(log4j=log4j.version if log4j else "").split(":")
        artifacts[f"{group}:{name}"] = maven.project(group, name).at_version(version).artifact()

    root_version = root.rsplit(":", 1)[1]
    jars = []
    for name, artifact in artifacts.items():
        if artifact.classifier or artifact.packaging != "jar":
            raise JarError(f"{artifact} is not a plain jar, and a lock names only those.")
        if name.startswith("org.apache.kafka:") and artifact.version != root_version:
            raise JarError(f"{artifact} does not belong to version {root_version}.")
        path = artifact.resolve()
        jars.append(Jar(f"{name}:{artifact.version}", path.stat().st_size, sha256_of(path)))
    return Lock(root, tuple(jars))


def write(lock: Lock, path: Path) -> None:
    """Write a lock file for `Lock.read`, one jar a line, so that a change of version has a readable diff."""
    lines = [
        "# Written by python -m delaystream.dev.lock; not to be edited.",
        f'root = "{lock.root}"',
        "jars = [",
        *(
            f'  {{ coordinate = "{j.coordinate}", size = {j.size}, sha256 = "{j.sha256}" }},'
            for j in lock.jars
        ),
        "]",
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


class _ChecksumGuard(logging.Handler):
    """Turns jgo's warning of a wrong checksum into an error."""

    def emit(self, record: logging.LogRecord) -> None:
        if "mismatch" in record.getMessage():
            raise JarError(record.getMessage())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m delaystream.dev.lock", description=__doc__)
    parser.add_argument("what", help="a Kafka version (4.3.1), or any group:artifact:version")
    parser.add_argument("--output", type=Path, help="the file to write (default: the package's own locks)")
    arguments = parser.parse_args()

    is_kafka = ":" not in arguments.what
    root = f"{KAFKA}:{arguments.what}" if is_kafka else arguments.what
    if not is_kafka and arguments.output is None:
        parser.error("--output is needed for anything but a Kafka version")
    output = arguments.output or LOCKS / f"kafka-{arguments.what}.lock"

    logging.getLogger("jgo").addHandler(_ChecksumGuard())
    extra = logging_jars(arguments.what) if is_kafka else []
    with tempfile.TemporaryDirectory(prefix="delaystream-lock-") as repository:
        lock = resolve(root, extra, Path(repository))
    write(lock, output)
    print(f"{output}: {len(lock.jars)} jars, {lock.total_bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
