"""One origin's answers for one item: which of them hold the bytes that were asked for.

Nothing is written that an answer's own words (status, `Content-Range`, length, encoding, `ETag`)
don't place exactly; what they say is still only said: the digest decides.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from quantmint.errors import QuantmintError, RegistryError, UserError
from quantmint.registry.transfer import addresses
from quantmint.registry.transfer.connection import Connection
from quantmint.registry.transfer.model import Item, Limits, Origin
from quantmint.registry.transfer.pace import back_off
from quantmint.registry.waiting import asked_wait

if TYPE_CHECKING:
    import httpx2

AGAIN: Final = "run the same command again: what came already is kept"
_RANGE: Final = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)")
_PASSING: Final = frozenset({408, 416, 421, 425, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class PassingError(Exception):
    """It may work a little later; `wait` is what the server asks for, in seconds.

    `unheard` says that there was no answer, or none to its end.
    """

    def __init__(self, what: str, wait: float | None = None, *, unheard: bool = False) -> None:
        super().__init__(what)
        self.unheard = unheard
        self.what = what
        self.wait = wait


class ChangedError(Exception):
    """The origin serves another file than it did a moment ago."""


class XetOfferedError(Exception):
    """The origin has the file in xet, too: its answer, already closed."""

    def __init__(self, source: Source, response: httpx2.Response) -> None:
        super().__init__()
        self.source = source
        self.response = response


class Answer:
    """An answer whose body begins at `start` and ends before `end` of the item."""

    def __init__(self, response: httpx2.Response, start: int, end: int, *, whole: bool) -> None:
        self.response = response
        self.start = start
        self.end = end
        self.whole = whole
        self.has_length = "Content-Length" in response.headers


class Source:
    """An origin as the place of one item; all threads share it."""

    def __init__(self, origin: Origin, item: Item, limits: Limits) -> None:
        self.origin = origin
        self.item = item
        self.url = addresses.address(origin, item)
        self.place = addresses.place(self.url)
        self.serves_ranges = True
        self.wants_xet = False
        self.error: QuantmintError | None = None
        self.ready_at = 0.0
        self.requests = 0
        self._limits = limits
        self._lock = threading.Lock()
        self._final: str | None = None
        self._etag: str | None = None
        self._served = False
        self._failures = 0
        self._failed_at = -1.0

    @property
    def name(self) -> str:
        """What messages call it."""
        return addresses.shown(self.url)

    @contextlib.contextmanager
    def open(self, connection: Connection, start: int, end: int) -> Iterator[Answer]:
        """Ask for a range; the answer may begin earlier than that (`whole`), never later.

        Raises:
            PassingError: try again. ChangedError: what came from here before is of another file.
            XetOfferedError: see `wants_xet`. QuantmintError: this origin can't help.
        """
        import httpx2

        response = None
        try:
            with connection.watched():
                response = self._follow(connection, start, end)
                yield self._checked(response, start, end)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise PassingError(f"the connection failed: {_brief(error)}", unheard=True) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self.error = RegistryError(f"{self.name} can't be asked: {_brief(error)}")
            raise self.error from error
        finally:
            if response is not None:
                with contextlib.suppress(httpx2.HTTPError, OSError):
                    response.close()

    def failed(self, error: PassingError, began: float) -> None:
        """Note a failure of a request that began then; threads that fail together count once."""
        with self._lock:
            if began < self._failed_at:
                return
            self._failures += 1
            self._failed_at = time.monotonic()
            wait = back_off(self._limits, self._failures) if error.wait is None else error.wait
            self.ready_at = self._failed_at + wait
            if wait > self._limits.most:
                self.error = RegistryError(
                    f"{self.name} asks to come back in {wait:.0f} s", mend=f"wait, then {AGAIN}"
                )
            elif self._failures > self._tries(error):
                self.error = RegistryError(
                    f"{self.item.path} can't be fetched from {self.name}: {error.what}",
                    mend=f"check the network and the proxy settings; then {AGAIN}",
                )

    def _tries(self, error: PassingError) -> int:
        """Who never answered may not be there at all: that is said soon."""
        nobody = error.unheard and not self._served
        return min(self._limits.tries, 2) if nobody else self._limits.tries

    def helped(self) -> None:
        """Note that bytes came: failures before that count no longer."""
        with self._lock:
            self._failures = 0

    def forget(self) -> None:
        """Take whatever file it serves from now on as the same one."""
        with self._lock:
            self._etag = self._final = None
            self._failures = 0

    def _follow(self, connection: Connection, start: int, end: int) -> httpx2.Response:
        """Ask, following redirects; where they led is asked at once the next time."""
        known = self._final
        url = known or self.url
        headers = (
            {} if (start, end) == (0, self.item.size) else {"Range": f"bytes={start}-{end - 1}"}
        )
        for _ in range(addresses.MOST_REDIRECTS + 1):
            own = dict(headers)
            if self.origin.token is not None and addresses.place(url) == self.place:
                own["Authorization"] = f"Bearer {self.origin.token}"
            response = connection.send(url, own)
            self.requests += 1
            if self.wants_xet and "X-Xet-Hash" in response.headers and url == self.url:
                response.close()
                raise XetOfferedError(self, response)
            if response.status_code not in _REDIRECTS:
                self._judge(response, fresh=url != known)
                self._final = url if url != self.url else None
                return response
            location = response.headers.get("Location", "")
            response.close()
            target = addresses.redirected(url, location)
            if target is None:
                raise self._give_up(
                    f"{self.name} redirects to {addresses.shown(location)}, which is not followed"
                )
            url = target
        raise self._give_up(f"{self.name} redirects without an end")

    def _give_up(self, what: str) -> RegistryError:
        self.error = RegistryError(what, mend="tell who runs it, or use another registry")
        return self.error

    def _judge(self, response: httpx2.Response, *, fresh: bool) -> None:
        """Raise unless the answer is the file or a part of it."""
        status = response.status_code
        if status in {200, 206}:
            return
        response.close()
        if status in _PASSING or status >= 500:
            wait = asked_wait(response.headers, is_limited=status == 429)
            raise PassingError(f"it answers HTTP {status}", wait)
        if not fresh:  # a signed address has expired: the first one gives a new one
            self._final = None
            raise PassingError(f"it answers HTTP {status}", 0.0)
        if self._served:
            raise PassingError(f"it answers HTTP {status}, after it gave a part")
        self.error = self._refused(status, response.headers.get("X-Error-Code", ""))
        raise self.error

    def _refused(self, status: int, code: str) -> QuantmintError:
        if code == "GatedRepo":
            return UserError(
                f"{self.name} asks for an agreement before it gives {self.item.path}",
                mend="accept it on the model's page, and run again",
            )
        if status in {401, 403}:
            has = "does not accept the token" if self.origin.token else "asks for a token"
            return UserError(
                f"{self.name} {has} for {self.item.path} (HTTP {status})",
                mend="hf auth login  (or set HF_TOKEN to a token that may read it)",
            )
        gone = "has no" if status in {404, 410} else f"refuses (HTTP {status})"
        return RegistryError(
            f"{self.name} {gone} {self.item.path}", mend="check the name and the release"
        )

    def _checked(self, response: httpx2.Response, start: int, end: int) -> Answer:
        """Place an answer by what it says of itself."""
        headers = response.headers
        if headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise PassingError("it packed the file, which nobody asked for")
        size = self.item.size
        whole = response.status_code == 200
        first, last = 0, size - 1
        if not whole:
            match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
            if match is None:
                raise PassingError("it does not say which part of the file it sends")
            first, last = int(match[1]), int(match[2])
            if match[3] not in {str(size), "*"}:
                raise PassingError(f"its file has {match[3]} bytes, not {size}")
            if first != start or not start <= last < end:
                raise PassingError(f"it sends bytes {first}-{last}, not {start}-{end - 1}")
            if last + 1 < end and last + 1 - first < self._limits.least:
                raise PassingError(f"it sends {last + 1 - first} bytes of {end - start}")
        length = headers.get("Content-Length")
        if length is not None and length.strip() != str(last - first + 1):
            raise PassingError(f"it announces {length[:20]} bytes where {last - first + 1} are due")
        self._compare(headers.get("ETag"))
        self._served = True
        return Answer(response, first, last + 1, whole=whole)

    def _compare(self, etag: str | None) -> None:
        with self._lock:
            if self._etag is None:
                self._etag = etag
            elif etag is not None and etag != self._etag:
                raise ChangedError


def _brief(error: Exception) -> str:
    """Return an error's first line, without addresses: they may be signed."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    return re.sub(r"https?://\S+", "...", text)[:160]
