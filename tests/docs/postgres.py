"""A PostgreSQL server of a test's own, where its programs are installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REQUIRED = "QUANTMINT_REQUIRE_POSTGRES"
USER_OF_SERVER = "postgres"
PROGRAMS = ("initdb", "postgres", "psql", "pg_isready", "createdb")
USER, PASSWORD = "mint", "p%ss w@rd/:"
PASSWORD_IN_URL = "p%25ss%20w%40rd%2F%3A"


@dataclass(frozen=True)
class Server:
    """A server on a Unix socket in a folder of its own, and on no network port."""

    socket: Path
    port: int
    user: str

    @property
    def env(self) -> dict[str, str]:
        """What leads libpq's programs there, and lets them in."""
        return {"PGHOST": str(self.socket), "PGPORT": str(self.port), "PGUSER": USER,
                "PGPASSWORD": PASSWORD}  # fmt: skip

    def address(self, database: str, *, port: int | None = None) -> str:
        """Return the address of a database, with the password in it."""
        where = f"?host={self.socket}&port={port or self.port}"
        return f"postgresql://{USER}:{PASSWORD_IN_URL}@/{database}{where}"

    def sql(self, database: str, words: str) -> str:
        """Return what a query gives."""
        return subprocess.run(
            [_program("psql"), "-qAt", "-d", database, "-c", words], env={**os.environ, **self.env},
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip


def require() -> None:
    """Skip the test where no server can be started, or fail it where one has to be."""
    lacking = [name for name in PROGRAMS if _find(name) is None]
    why = f"PostgreSQL's {', '.join(lacking)} not installed: apt-get install postgresql"
    if not lacking and os.geteuid() == 0:
        lacking = [] if USER_OF_SERVER in {each.pw_name for each in pwd.getpwall()} else ["user"]
        why = f"PostgreSQL refuses root, and there is no user {USER_OF_SERVER}"
    if lacking:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(why)


def programs_path() -> str:
    """Return a PATH on which PostgreSQL's programs are: Debian keeps the server's out of it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return os.pathsep.join([*map(str, folders), os.environ["PATH"]])


def _find(name: str) -> str | None:
    return shutil.which(name, path=programs_path())


def _program(name: str) -> str:
    found = _find(name)
    assert found is not None
    return found


def _unprivileged() -> list[str]:
    """Return the words before a server's command: it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(USER_OF_SERVER)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def running() -> Iterator[Server]:
    """Start a server in a folder of its own; stop it, and remove all, in the end."""
    require()
    # Not in pytest's own folder: the server's user can't go there, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        yield from _serve(folder)
    finally:
        shutil.rmtree(folder)


def _serve(folder: Path) -> Iterator[Server]:
    initdb, postgres, drop = _program("initdb"), _program("postgres"), _unprivileged()
    if drop:
        shutil.chown(folder, USER_OF_SERVER, USER_OF_SERVER)
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    if drop:
        shutil.chown(secret, USER_OF_SERVER, USER_OF_SERVER)
    data = folder / "data"
    subprocess.run(
        [*drop, initdb, "-D", data, "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}",
         "--no-sync", "-E", "UTF8"],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    server = Server(folder, 5433, USER)
    with (folder / "log").open("w") as log, subprocess.Popen(
        [*drop, postgres, "-D", data, "-k", folder, "-p", str(server.port),
         "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=log, stderr=log, cwd=folder,
    ) as process:  # fmt: skip
        try:
            _wait(server, process, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    ready = [_program("pg_isready"), "-q", "-h", str(server.socket), "-p", str(server.port)]
    deadline = time.monotonic() + 60
    while subprocess.run(ready, check=False).returncode != 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
