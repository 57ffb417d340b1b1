"""Small answers over HTTP: capped in bytes, cut where they stall, the token for its own host alone.

Models go through `transfer`; this reads what has no digest yet: lists of files, manifests, headers.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from quantmint.errors import QuantmintError, RegistryError, UserError
from quantmint.registry.transfer import Limits, addresses
from quantmint.registry.transfer.connection import Connection
from quantmint.registry.transfer.pace import Bucket
from quantmint.registry.waiting import asked_wait

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
PATIENCE: Final = Limits(tries=4, first=1.0, longest=8.0, most=60.0, patience=20.0)
_RANGE: Final = re.compile(r"bytes ([0-9]{1,16})-[0-9]{1,16}/(?:[0-9]{1,16}|\*)")
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS: Final = {301, 302, 303, 307, 308}


class _PassingError(Exception):
    """It may go better a little later; `wait` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class UnreachableError(RegistryError):
    """The host gives no answer, or none but that something is wrong with it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its headers, its bytes."""

    status: int
    headers: httpx2.Headers
    body: bytes


@dataclass(slots=True)
class _Asked:
    """What is asked for: at most `limit` bytes, of a part those from `start` on.

    `came` of a part stays when a connection is lost: the next request goes on behind it.
    """

    limit: int
    start: int | None = None
    came: bytearray = field(default_factory=bytearray)

    @property
    def headers(self) -> dict[str, str]:
        if self.start is None:
            return {}
        return {"Range": f"bytes={self.start + len(self.came)}-{self.start + self.limit - 1}"}


@dataclass
class Web:
    """Reads from one host. `base` is its address without a `/` behind."""

    base: str
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=lambda: PATIENCE)
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _bucket: Bucket = field(init=False, repr=False)

    def __post_init__(self) -> None:
        addresses.refuse_unsafe(self.base, has_token=self.token is not None)
        self._bucket = Bucket(self.limits.rate)

    def get(self, url: str, limit: int) -> Reply:
        """Return what an address answers, of at most `limit` bytes.

        Raises:
            UnreachableError: it can't be reached, or has nothing but errors of its own.
            RegistryError: it answers with more, or refuses.
            UserError: the token is missing or refused.
        """
        return self._patiently(url, _Asked(limit))

    def part(self, url: str, start: int, count: int) -> bytes:
        """Return so many bytes of a file from `start` on; fewer where it ends before.

        Raises:
            as `get`.
        """
        asked = _Asked(count, start)
        self._patiently(url, asked)
        return bytes(asked.came)

    def _patiently(self, url: str, asked: _Asked) -> Reply:
        """Ask until an answer is whole; tries that brought a part of one do not count."""
        wait, failures = self.limits.first, 0
        while True:
            before = len(asked.came)
            try:
                return self._once(url, asked)
            except _PassingError as error:
                if asked.start is None:
                    asked.came.clear()
                elif len(asked.came) - before >= self.limits.least:
                    wait, failures = self.limits.first, 0
                failures += 1
                pause = wait if error.wait is None else error.wait
                if pause > self.limits.most:
                    raise UnreachableError(
                        f"{self.name} asks to come back in {pause:.0f} s",
                        mend="wait, then run the same command again",
                    ) from error
                if failures >= self.limits.tries:
                    raise UnreachableError(
                        f"{self.name} can't be read: {error}",
                        mend="check the network, HF_ENDPOINT and the proxy settings; then run"
                        " again",
                    ) from error
                time.sleep(pause)
                wait = min(2 * wait, self.limits.longest)

    def json(self, url: str, limit: int, check: Callable[[Any], T]) -> T:
        """Return what `check` makes of an answer in JSON.

        Raises:
            as `get`; RegistryError too where `check` finds no sense in it.
        """
        body = self.get(url, limit).body
        try:
            return check(json.loads(body))
        except QuantmintError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RegistryError(
                f"{self.name} answers with what no registry says ({type(error).__name__})",
                mend="check HF_ENDPOINT; try again later, or tell who runs it",
            ) from error

    @property
    def name(self) -> str:
        """What messages call it."""
        return addresses.shown(self.base)

    def _once(self, url: str, asked: _Asked) -> Reply:
        import httpx2

        connection = self._connection()
        try:
            with self._watched(connection) as late:
                response = self._follow(connection, url, asked.headers)
                try:
                    reply = self._read(response, connection, asked)
                finally:
                    response.close()
            if late.is_set():  # what is cut may look like an answer that has ended
                raise self._late()
            return reply  # noqa: TRY300 - raised above, and not to be caught here
        except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
            if late.is_set():
                raise self._late() from error
            said = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise _PassingError(f"the connection failed ({said})") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RegistryError(f"{self.name} can't be asked: {type(error).__name__}") from error
        finally:
            connection.client.close()

    def _late(self) -> _PassingError:
        least, patience = self.limits.least, self.limits.patience
        return _PassingError(
            f"an answer took longer than it may: less than {least} bytes in {patience:g} s"
        )

    @contextlib.contextmanager
    def _watched(self, connection: Connection) -> Iterator[threading.Event]:
        """Cut the connection when it brings too little: a line that moves is not hurried."""
        done, late = threading.Event(), threading.Event()

        def look() -> None:
            while not done.wait(min(1.0, self.limits.patience / 4)):
                if connection.is_slow(self.limits):
                    late.set()
                    connection.cut()

        watch = threading.Thread(target=look, name="watch", daemon=True)
        watch.start()
        try:
            with connection.watched():
                yield late
        finally:
            done.set()

    def _connection(self) -> Connection:
        import httpx2

        if self._context is None:
            self._context = httpx2.create_ssl_context()
        return Connection(self.limits, self._context)

    def _follow(
        self, connection: Connection, url: str, headers: Mapping[str, str]
    ) -> httpx2.Response:
        own = addresses.place(self.base)
        for _ in range(addresses.MOST_REDIRECTS + 1):
            mine = dict(headers)
            if self.token is not None and addresses.place(url) == own:
                mine["Authorization"] = f"Bearer {self.token}"
            response = connection.send(url, mine)
            if response.status_code not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.close()
            target = addresses.redirected(url, location)
            if target is None:
                raise RegistryError(
                    f"{self.name} redirects to {addresses.shown(location)}, which is not followed",
                    mend="tell who runs it, or use another registry",
                )
            url = target
        raise RegistryError(f"{self.name} redirects without an end", mend="use another registry")

    def _read(self, response: httpx2.Response, connection: Connection, asked: _Asked) -> Reply:
        self._judge(response)
        body = asked.came
        skip = self._before(response, asked)
        for chunk in response.iter_raw():
            connection.count += len(chunk)
            fresh = chunk[skip:]
            skip -= len(chunk) - len(fresh)
            body += fresh
            if asked.start is not None and len(body) >= asked.limit:
                del body[asked.limit :]
                break
            if len(body) > asked.limit:
                raise RegistryError(
                    f"{self.name} answers with more than {asked.limit} bytes where so many are"
                    " allowed",
                    mend="tell who runs it, or use another registry",
                )
            wait = self._bucket.take(len(chunk))
            if wait > 0:
                with connection.unwatched():
                    time.sleep(wait)
        return Reply(response.status_code, response.headers, bytes(body))

    def _judge(self, response: httpx2.Response) -> None:
        """Raise unless an answer holds what was asked for."""
        status = response.status_code
        if status in _PASSING or status >= 500:
            wait = asked_wait(response.headers, is_limited=status == 429)
            raise _PassingError(f"it answers HTTP {status}", wait)
        if status not in {200, 206}:
            raise self._refused(status, response.headers.get("X-Error-Code", ""))
        if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise RegistryError(f"{self.name} packs its answers, which nobody asked for")

    def _before(self, response: httpx2.Response, asked: _Asked) -> int:
        """Return how many bytes of an answer lie before those that are wanted."""
        if asked.start is None:
            return 0
        wanted = asked.start + len(asked.came)
        if response.status_code == 200:  # it knows no ranges
            return wanted
        match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None or int(match[1]) != wanted:
            raise _PassingError("it sends another part of a file than was asked for")
        return 0

    def _refused(self, status: int, code: str) -> QuantmintError:
        if code == "GatedRepo":
            return UserError(
                "the repository is gated: its owner asks for an agreement first",
                mend=f"accept it on the model's page at {self.name}, and run again",
            )
        if code == "RevisionNotFound":
            return UserError(f"{self.name} has no such revision", mend="check what stands behind @")
        if code == "EntryNotFound":
            return RegistryError(f"{self.name} lists a file that it does not have")
        if status in {401, 403, 404}:
            hidden = "" if self.token else ", or it is hidden from who has no token"
            return UserError(
                f"{self.name} has no such repository{hidden} (HTTP {status})",
                mend="check the name; for a private one: hf auth login",
            )
        return RegistryError(f"{self.name} refuses (HTTP {status})", mend="try again later")
