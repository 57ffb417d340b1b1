"""Fetching the missing ranges of one unfinished file, over several connections and origins.

Threads take parts from a list; the thread that called watches over them (`crew`): it opens
connections while they are too few to fill the line, cuts those that stall or drip, tells the
progress and has the disk write behind. A part that is cut off goes on where it stopped.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quantmint.errors import QuantmintError, RegistryError
from quantmint.registry.transfer.connection import Connection, Pool
from quantmint.registry.transfer.crew import Crew
from quantmint.registry.transfer.model import Item, Limits
from quantmint.registry.transfer.partial import Partial
from quantmint.registry.transfer.ranges import Range, split
from quantmint.registry.transfer.source import AGAIN, Answer, PassingError, Source

_HELPED: Final = 1 << 20


class WholeOnlyError(Exception):
    """No origin that is left serves parts of the file."""


@dataclass(slots=True)
class _Span:
    """What a thread has still to bring: `at` moves on with the bytes that were written.

    `first` is where what is not in the journal yet begins, `crc` its check sum.
    """

    at: int
    end: int
    first: int
    crc: int = 0


class Job(Crew):
    """One item's missing ranges, to be brought into `partial`.

    `meter` counts what came over the wire, `dropped` how much of that was thrown away again.
    """

    def __init__(
        self, partial: Partial, sources: Sequence[Source], limits: Limits, pool: Pool
    ) -> None:
        super().__init__(partial, limits, pool)
        self.item: Item = partial.item
        self.sources = sources
        self.dropped = 0
        self._parts: deque[Range] = deque()

    def bring(self, ranges: Sequence[Range], on_tick: Callable[[], None]) -> None:
        """Fetch the ranges in parts.

        Raises:
            WholeOnlyError: see there. ChangedError, XetOfferedError: see `Source.open`.
            QuantmintError: no origin can help. OSError: the disk is full, or it failed.
        """
        self._parts.extend(split(ranges, self._limits.part))
        most = min(self._limits.connections, len(self._parts))
        self._run(self._lent(self._take_parts), on_tick, most)

    def bring_whole(self, on_tick: Callable[[], None]) -> None:
        """Fetch the file from its first byte to its last in one answer, as often as it takes.

        Raises:
            as `bring`.
        """
        self._parts.append((0, self.item.size))
        self._run(self._lent(self._take_whole), on_tick, 1)

    def _has_more(self) -> bool:
        return bool(self._parts)

    def _lent(self, work: Callable[[Connection], None]) -> Callable[[], None]:
        def with_connection() -> None:
            with self._pool.lend() as connection:
                work(connection)

        return with_connection

    def _take_parts(self, connection: Connection) -> None:
        while True:
            try:
                start, end = self._parts.popleft()
            except IndexError:
                return
            span = _Span(start, end, start)
            while span.at < span.end:
                self._attempt(self._pick(lambda one: one.serves_ranges), connection, span)

    def _take_whole(self, connection: Connection) -> None:
        self._parts.clear()
        span = _Span(0, self.item.size, 0)
        while span.at < span.end:
            source = self._pick(lambda _: True)
            self.partial.begin_anew()
            self.dropped = self.meter.count
            span = _Span(0, self.item.size, 0)
            self._attempt(source, connection, span)

    def _attempt(self, source: Source, connection: Connection, span: _Span) -> None:
        """Ask once for what a span lacks; a failure is noted, and the journal kept up."""
        began = time.monotonic()
        try:
            with source.open(connection, span.at, span.end) as answer:
                if answer.whole and (span.at, span.end) != (0, self.item.size):
                    source.serves_ranges = False
                else:
                    self._copy(answer, connection, span, source)
        except PassingError as error:
            self._check()  # cut by ourselves: no failure of the origin's
            source.failed(error, began)
        except QuantmintError:
            if source.error is None:
                raise
        finally:
            self._note(span)

    def _copy(self, answer: Answer, connection: Connection, span: _Span, source: Source) -> None:
        """Write an answer's body to its place; what would come beyond its end is not read."""
        began = span.at
        for chunk in answer.response.iter_raw():
            self._check()
            room = answer.end - span.at
            self.partial.write(chunk[:room], span.at)
            span.crc = zlib.crc32(chunk[:room], span.crc)
            count = min(len(chunk), room)
            span.at += count
            connection.count += count
            self.meter.add(count)
            if span.at - span.first >= self._limits.step:
                self._note(span)
            if span.at - began >= _HELPED:
                source.helped()
            if span.at == answer.end and not answer.has_length:
                break  # it may have no end
            self._pause(connection, count)
        if span.at < answer.end:
            raise PassingError(f"the answer ended {answer.end - span.at} bytes early")
        source.helped()

    def _note(self, span: _Span) -> None:
        if span.at > span.first:
            self.partial.record(span.first, span.at, span.crc)
        span.first, span.crc = span.at, 0

    def _pause(self, connection: Connection, count: int) -> None:
        wait = self._bucket.take(count)
        if wait > 0:
            with connection.unwatched():
                self._stop.wait(wait)

    def _pick(self, fits: Callable[[Source], bool]) -> Source:
        """Return the first origin that may be asked now, waiting for one if need be.

        Raises:
            QuantmintError: none is left. WholeOnlyError: none is left that fits.
        """
        while True:
            self._check()
            living = [source for source in self.sources if source.error is None]
            if not living:
                raise no_help(self.sources)
            fit = [source for source in living if fits(source)]
            if not fit:
                raise WholeOnlyError
            now = time.monotonic()
            ready = [source for source in fit if source.ready_at <= now]
            if ready:
                return ready[0]
            self._stop.wait(min(source.ready_at for source in fit) - now)


def no_help(sources: Sequence[Source]) -> QuantmintError:
    """Return the first origin's error, with what the others said."""
    errors = [source.error for source in sources if source.error is not None]
    if not errors:
        return RegistryError("there is no origin to fetch from", mend=AGAIN)
    first = errors[0]
    more = [error.what for error in errors[1:]]
    if not more:
        return first
    return type(first)("; ".join([first.what, *more]), mend=first.mend)
