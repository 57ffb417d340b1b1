"""Small answers over HTTP: capped in bytes and time, the token for its own host alone.

Models go through `transfer`; this reads what has no digest yet: lists of files, manifests.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from quantmint.errors import QuantmintError, RegistryError, UserError
from quantmint.registry.transfer import Limits, addresses
from quantmint.registry.transfer.connection import Connection
from quantmint.registry.waiting import asked_wait

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
PATIENCE: Final = Limits(tries=4, first=1.0, longest=8.0, most=60.0, patience=20.0)
# One answer may take this many seconds at most, however it drips.
LONGEST: Final = 60.0
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS: Final = {301, 302, 303, 307, 308}


class _PassingError(Exception):
    """It may go better a little later; `wait` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its headers, its bytes."""

    status: int
    headers: httpx2.Headers
    body: bytes


@dataclass
class Web:
    """Reads from one host. `base` is its address without a `/` behind."""

    base: str
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=lambda: PATIENCE)
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        addresses.refuse_unsafe(self.base, has_token=self.token is not None)

    def get(self, url: str, limit: int, *, first: int | None = None) -> Reply:
        """Return what an address answers, of at most `limit` bytes.

        With `first` only that many bytes are asked for, and more than that is cut off.

        Raises:
            RegistryError: it can't be reached, or answers with more or with an error.
            UserError: the token is missing or refused.
        """
        wait, trouble = self.limits.first, ""
        for turn in range(self.limits.tries):
            try:
                return self._once(url, limit, first)
            except _PassingError as error:
                trouble = str(error)
                pause = wait if error.wait is None else error.wait
                if pause > self.limits.most:
                    raise RegistryError(
                        f"{self.name} asks to come back in {pause:.0f} s",
                        mend="wait, then run the same command again",
                    ) from error
                if turn + 1 < self.limits.tries:
                    time.sleep(pause)
                wait = min(2 * wait, self.limits.longest)
        raise RegistryError(
            f"{self.name} can't be read: {trouble}",
            mend="check the network, HF_ENDPOINT and the proxy settings; then run again",
        )

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

    def _once(self, url: str, limit: int, first: int | None) -> Reply:
        import httpx2

        connection = self._connection()
        late = threading.Event()

        def cut() -> None:  # what is cut may look like an answer that has ended
            late.set()
            connection.cut()

        watch = threading.Timer(LONGEST, cut)
        watch.daemon = True
        watch.start()
        try:
            response = self._follow(connection, url, first)
            try:
                reply = self._read(response, limit, first)
            finally:
                response.close()
            if late.is_set():
                raise _PassingError(f"an answer took longer than {LONGEST:.0f} s")
            return reply  # noqa: TRY300 - raised above, and not to be caught here
        except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise _PassingError(f"the connection failed ({said})") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise RegistryError(f"{self.name} can't be asked: {type(error).__name__}") from error
        finally:
            watch.cancel()
            connection.client.close()

    def _connection(self) -> Connection:
        import httpx2

        if self._context is None:
            self._context = httpx2.create_ssl_context()
        return Connection(self.limits, self._context)

    def _follow(self, connection: Connection, url: str, first: int | None) -> httpx2.Response:
        headers = {} if first is None else {"Range": f"bytes=0-{first - 1}"}
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

    def _read(self, response: httpx2.Response, limit: int, first: int | None) -> Reply:
        status = response.status_code
        if status in _PASSING or status >= 500:
            wait = asked_wait(response.headers, is_limited=status == 429)
            raise _PassingError(f"it answers HTTP {status}", wait)
        if status not in {200, 206}:
            raise self._refused(status, response.headers.get("X-Error-Code", ""))
        if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise RegistryError(f"{self.name} packs its answers, which nobody asked for")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if first is not None and len(body) >= first:
                break
            if len(body) > limit:
                raise RegistryError(
                    f"{self.name} answers with more than {limit} bytes where so many are allowed",
                    mend="tell who runs it, or use another registry",
                )
        return Reply(status, response.headers, bytes(body[:first]))

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
