"""Fetching by xet, where the server offers it and `hf_xet` is installed.

It is the Hub's own client that does it, window by window, into the same unfinished file and the
same journal as plain HTTP: each goes on where the other stopped. It is only ever a quicker way:
whatever goes wrong for good, plain HTTP fetches what is missing, and either way the digest decides.

What is known of the client (hf-xet 1.8.0): a stream gives whole terms, so a piece may be as long as
its window; a stream that was aborted ends as if it were done; and nothing can be asked of a stream
while another thread reads it. So bytes are counted here, and windows are short where the line is
slow, that progress moves and little is lost.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from quantmint.errors import RegistryError
from quantmint.registry.transfer import addresses
from quantmint.registry.transfer.connection import AGENT, Pool
from quantmint.registry.transfer.crew import Crew
from quantmint.registry.transfer.model import Limits
from quantmint.registry.transfer.pace import back_off
from quantmint.registry.transfer.partial import Partial
from quantmint.registry.transfer.ranges import Range, split, total, without
from quantmint.registry.transfer.source import Source, XetOfferedError

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetConnectionInfo, XetFileData

_YES: Final = {"1", "on", "true", "yes"}
_TRIES: Final = 2  # after so many failures in a row there is another way
_LEAST: Final = 512 << 10
# After a window that took fewer seconds the next is twice as long; after one that took more, half.
_SOON: Final = 0.5
_LATE: Final = 2.0
# A window is fetched in whole chunks, of some 64 KiB: half of one too much at each end.
_EDGES: Final = 64 << 10


class _CutError(Exception):
    """The Hub's client failed, or stopped before the end."""


def is_usable(limits: Limits) -> bool:
    """Return whether xet may be used: installed, not switched off, and able to keep the cap.

    What is read of a window can't be slowed down, only the next one be put off: a cap below that
    of one step in a second is kept by plain HTTP.
    """
    off = os.environ.get("HF_HUB_DISABLE_XET", "").lower() in _YES
    if off or not limits.xet or (limits.rate is not None and limits.rate < limits.step):
        return False
    return importlib.util.find_spec("hf_xet") is not None


class Windows(Crew):
    """One item's missing ranges, to be brought into `partial` by xet.

    `meter` counts bytes of the file; packed, fewer of them came over the wire.
    """

    def __init__(
        self, offered: XetOfferedError, partial: Partial, limits: Limits, pool: Pool
    ) -> None:
        super().__init__(partial, limits, pool)
        self._offered = offered
        self._missing: deque[Range] = deque()
        self._lock = threading.Lock()
        self._client: _Client | None = None
        self._most = 2 * limits.part
        self._threads_most = limits.connections
        if limits.rate is not None:
            self._most, self._threads_most = min(self._most, int(limits.rate)), 1
        self._size = min(limits.step, self._most)
        self._failures = 0
        self._failed_at = -1.0
        self._moved = (0, time.monotonic())
        self._farewell = limits.patience

    def bring(self, ranges: Sequence[Range], on_tick: Callable[[], None]) -> None:
        """Fetch the ranges.

        Raises:
            RegistryError: xet can't bring them; what came is in `partial`, and noted there.
            OSError: the disk is full, or it failed.
        """
        self._missing.extend(ranges)
        most = min(self._threads_most, -(-total(ranges) // self._size))
        try:
            self._run(self._take_windows, on_tick, most)
        finally:
            self._cut()

    def _has_more(self) -> bool:
        return bool(self._missing)

    def _watch(self) -> None:
        super()._watch()
        if self.meter.count != self._moved[0]:
            self._moved = (self.meter.count, time.monotonic())
        if time.monotonic() - self._moved[1] > 2 * self._limits.patience:
            raise RegistryError(f"{self._offered.source.name} is silent over xet")

    def _cut(self) -> None:
        super()._cut()
        client, self._client = self._client, None
        if client is not None:
            client.abort()

    def _take_windows(self) -> None:
        client = self._opened()
        while (window := self._next()) is not None:
            start, end = window
            began = time.monotonic()
            came: list[Range] = []
            why = "it ended early"
            try:
                for at, data in client.pieces(start, end):
                    came.append(self._keep(data, at, end))
            except _CutError as error:
                why = str(error)
            self._check()  # a stream that we aborted ends like one that is done
            left = without([window], came)
            if left:
                self._failed(left, began, why)
            else:
                self._succeeded(end - start, time.monotonic() - began)

    def _opened(self) -> _Client:
        """Return the one client of all threads; the first of them makes it."""
        with self._lock:
            self._check()
            if self._client is None:
                source = self._offered.source
                try:
                    self._client = _Client(self._offered, self._limits, self._pool)
                except RegistryError:
                    raise
                except BaseException as error:
                    kind = type(error).__name__
                    raise RegistryError(f"{source.name} offers xet in vain: {kind}") from error
            return self._client

    def _next(self) -> Range | None:
        """Take a window off what is missing, and wait until the cap allows it."""
        with self._lock:
            self._check()
            if not self._missing:
                return None
            start, end = self._missing.popleft()
            if end - start > self._size:
                self._missing.appendleft((start + self._size, end))
                end = start + self._size
        self._stop.wait(self._bucket.take(end - start + _EDGES))
        self._check()
        return start, end

    def _keep(self, data: bytes, at: int, end: int) -> Range:
        """Write a piece to its place and note it; what would lie behind the window is left."""
        self._check()
        view = memoryview(data)[: max(0, end - at)]
        self.partial.write(view, at)
        self.meter.add(len(view))
        for first, last in split([(at, at + len(view))], self._limits.step):
            self.partial.record(first, last, zlib.crc32(view[first - at : last - at]))
        return at, at + len(view)

    def _succeeded(self, count: int, took: float) -> None:
        with self._lock:
            self._failures = 0
            if took < _SOON and count >= self._size:
                self._size = min(2 * self._size, self._most)
            elif took > _LATE:
                self._size = min(self._size, max(count // 2, _LEAST))

    def _failed(self, left: Sequence[Range], began: float, why: str) -> None:
        """Put back what did not come; threads that fail together count once.

        Raises:
            RegistryError: it was one failure too many.
        """
        with self._lock:
            self._missing.extendleft(reversed(left))
            if began >= self._failed_at:
                self._failures += 1
                self._failed_at = time.monotonic()
            failures = self._failures
        if failures > min(self._limits.tries, _TRIES):
            raise RegistryError(f"{self._offered.source.name} fails over xet: {why}")
        self._stop.wait(back_off(self._limits, failures))


class _Client:
    """The Hub's client for one file of one offer."""

    def __init__(self, offered: XetOfferedError, limits: Limits, pool: Pool) -> None:
        from hf_xet import XetFileInfo, XetSession  # type: ignore[import-untyped]
        from huggingface_hub.utils._xet import (
            parse_xet_file_data_from_response,
            xet_headers_without_auth,
        )

        source = offered.source
        offer = parse_xet_file_data_from_response(offered.response, endpoint=source.origin.base)
        if offer is None or addresses.place(offer.refresh_route) != source.place:
            raise RegistryError(f"{source.name} offers xet, but not by itself")
        headers = {"User-Agent": AGENT}
        if source.origin.token is not None:
            headers["authorization"] = f"Bearer {source.origin.token}"
        info = _admitted(source, offer, pool, headers)
        self._session = XetSession(config=_config(limits))
        self._group = self._session.new_download_stream_group(
            endpoint=info.endpoint,
            token=info.access_token,
            token_expiry_unix_secs=info.expiration_unix_epoch,
            token_refresh_url=offer.refresh_route,
            token_refresh_headers=headers,
            custom_headers=xet_headers_without_auth(headers),
        )
        self._file = XetFileInfo(offer.file_hash, source.item.size)

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of a window, each piece with its place in the file, in any order.

        Raises:
            _CutError: the client failed.
        """
        try:
            stream = self._group.download_unordered_stream(self._file, start, end)
            for offset, data in stream:  # the offset counts from `start`
                if not 0 <= offset < end - start:
                    raise _CutError("a piece lies elsewhere")
                yield start + offset, data
        except (GeneratorExit, _CutError):
            raise
        except BaseException as error:  # its panics are no `Exception`
            raise _CutError(type(error).__name__) from error

    def abort(self) -> None:
        """End all streams now, in whatever they wait for; there is no way back."""
        with contextlib.suppress(Exception):
            self._session.sigint_abort()


def _config(limits: Limits) -> Any:  # noqa: ANN401 - the client has no types
    """Return the client's settings, with our limits: it tries once more, then we do.

    A setting that another version does not know is left as it is.
    """
    from hf_xet import XetConfig

    config = XetConfig()
    for name, value in (
        ("client.retry_max_attempts", 1),
        ("client.retry_base_delay", f"{limits.first}s"),
        ("client.connect_timeout", f"{limits.connect}s"),
        ("client.read_timeout", f"{limits.patience}s"),
    ):
        with contextlib.suppress(Exception):
            config = config.with_config(name, value)
    return config


def _admitted(
    source: Source, offer: XetFileData, pool: Pool, headers: dict[str, str]
) -> XetConnectionInfo:
    """Ask the hub for a token for its xet store; once, as there is another way."""
    from huggingface_hub.utils._xet import parse_xet_connection_info_from_headers

    with pool.lend() as connection, connection.watched():
        response = connection.send(offer.refresh_route, headers)
        response.close()
    info = parse_xet_connection_info_from_headers(response.headers)
    if response.status_code != 200 or info is None:
        raise RegistryError(f"{source.name} gives no token for xet (HTTP {response.status_code})")
    return info
