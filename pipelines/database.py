"""Where Dagster keeps its records: SQLite in the home folder, or a PostgreSQL server.

The server's address stays in the environment, for a password may stand in it: `dagster.yaml` only
names the variable.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from quantmint.errors import UserError

DATABASE: Final = "QUANTMINT_DAGSTER_DB"
STORAGE: Final = {"storage": {"postgres": {"postgres_url": {"env": DATABASE}}}}
# libpq's two spellings, and the one that names the driver.
_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg2")
_LIBPQ: Final = "postgresql"
# SQLAlchemy takes a plain `postgresql:` for psycopg 3, which dagster-postgres does not bring.
_DRIVER: Final = "postgresql+psycopg2"
_CONNECT_SECONDS: Final = 10


def storage_config(written: Path) -> dict[str, Any]:
    """Return the part of dagster.yaml about storage; `written` is the file of the last time.

    The variable gets the spelling that Dagster needs. Empty for SQLite.

    Raises:
        UserError: the address is none, its server does not answer, or what it takes is not
            installed; or the records are in PostgreSQL and the variable is not set.
    """
    given = os.environ.get(DATABASE, "")
    if not given:
        _refuse_forgotten(written)
        return {}
    rest = _checked(given)
    if any(importlib.util.find_spec(name) is None for name in ("dagster_postgres", "psycopg2")):
        raise UserError(
            f"{DATABASE} names a PostgreSQL server, and what talks to one is not installed",
            mend="pip install 'quantmint[postgres]'",
        )
    _require_answer(f"{_LIBPQ}://{rest}")
    os.environ[DATABASE] = f"{_DRIVER}://{rest}"
    return STORAGE


def _checked(given: str) -> str:
    """Return an address without its scheme; a message repeats none, for it may hold a password."""
    mend = f"{DATABASE}=postgresql+psycopg2://USER@HOST:5432/DATABASE"
    scheme, _, rest = given.partition("://")
    if scheme not in _SCHEMES:
        raise UserError(f"{DATABASE} does not begin with postgresql://", mend=mend)
    try:
        parts = urlsplit(given)
        _ = parts.port
    except ValueError:
        raise UserError(f"{DATABASE} holds no address of a database", mend=mend) from None
    if len(parts.path) < 2:
        raise UserError(f"{DATABASE} names no database after its last slash", mend=mend)
    return rest


def _require_answer(address: str) -> None:
    """Find out at once, and in one line, what Dagster would try for long and tell in many."""
    import psycopg2

    try:
        psycopg2.connect(address, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg2.Error as error:
        said = " ".join(str(error).split())
        password = urlsplit(address).password or ""
        for secret in filter(None, (password, unquote(password))):
            said = said.replace(secret, "***")
        raise UserError(
            f"the PostgreSQL server of {DATABASE} can't be used: {said}",
            mend="start it, or correct the address; docs/operations.md says how a database is made",
        ) from None


def _refuse_forgotten(written: Path) -> None:
    """Without this, a shell that lacks the variable would begin other records unseen."""
    try:
        before = yaml.safe_load(written.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    if isinstance(before, dict) and "storage" in before:
        raise UserError(
            f"this home keeps Dagster's records in PostgreSQL, and {DATABASE} is not set",
            mend=f"set it; or, to begin with new records in SQLite: rm {written}",
        )
