"""One service per home folder: a lock that the kernel frees when its holders are gone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from quantmint.errors import UserError
from quantmint.files import full_disk_explained
from quantmint.home import Home
from quantmint.pipelines.strays import is_alive

# A killed service's guard ends what is left within this time.
WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class First:
    """The service that a home folder's lock names: who it is, and its pages."""

    service: str
    pages: str


@contextmanager
def only_one(home: Home, service: str, pages: Mapping[str, str]) -> Iterator[int]:
    """Be the home folder's only service inside the block; yields the lock's file descriptor.

    Raises:
        UserError: there is one already; the message says where its pages are.
    """
    with full_disk_explained(home.root):
        home.root.mkdir(parents=True, exist_ok=True)
    with home.service.open("a+", encoding="utf-8") as file:
        _take(file, home)
        file.truncate(0)
        file.write(json.dumps({"service": service, "pages": dict(pages)}))
        file.flush()
        try:
            yield file.fileno()
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _take(file: IO[str], home: Home) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            first = _first(file)
            # One that was killed leaves the lock with its guard for some seconds.
            if (first is not None and is_alive(first.service)) or time.monotonic() > deadline:
                raise _refusal(first, home) from None
            time.sleep(0.2)
        else:
            return


def _first(file: IO[str]) -> First | None:
    file.seek(0)
    try:
        value = json.loads(file.read(10_000))
        pages = ", ".join(f"{name} {url}" for name, url in value["pages"].items())
        return First(str(value["service"]), pages)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None  # it is just being written


def _refusal(first: First | None, home: Home) -> UserError:
    pid = first.service.partition("-")[0] if first else ""
    who = f" (process {pid}: {first.pages})" if first else ""
    return UserError(
        f"`quantmint ui` serves {home.root} already{who}; two would run every schedule twice",
        mend=f"use that one; or stop it ({f'kill {pid}' if pid else 'Ctrl-C where it runs'}); "
        "or set QUANTMINT_HOME to another folder",
    )
