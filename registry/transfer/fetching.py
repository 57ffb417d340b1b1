"""Fetching objects whose digest and size are known, into the store."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.files import clone_or_copy, full_disk_explained
from quantmint.registry.store import Blob, Store
from quantmint.registry.transfer import addresses, xet
from quantmint.registry.transfer.connection import Pool
from quantmint.registry.transfer.delta import NOTHING, Plan, assemble, plan, wrong_pieces
from quantmint.registry.transfer.engine import Job, WholeOnlyError, no_help
from quantmint.registry.transfer.model import Fetched, Item, Limits, Origin, Progress, Report
from quantmint.registry.transfer.partial import Partial, claim, sweep_partials, twins
from quantmint.registry.transfer.ranges import total, union, without
from quantmint.registry.transfer.source import ChangedError, Source, XetOfferedError

FILE: Final = "file:"
_YES: Final = {"1", "on", "true", "yes"}
_TOLD: Final = 0.1


def fetch(
    items: Iterable[Item],
    origins: Sequence[Origin | str],
    store: Store,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    token: str | None = None,
    progress: Report | None = None,
) -> list[Blob]:
    """Bring objects into an opened store, from the first origin that has the right bytes.

    Args:
        items: what is wanted; an object that is in the store already costs a look.
        origins: where to ask, the best first; texts stand for origins without a token.
        store: each object gets its name there after it was hashed as it lies on the disk.
        limits: of connections, time, rate.
        token: for those origins that are on the host of the first one and have none.
        progress: called by this thread, at most ten times a second.

    Raises:
        RegistryError: no origin could give it. UserError: a token, the disk or the network is
            missing. IntegrityError: what came has another digest; nothing of it was kept.
    """
    return [
        one.blob
        for one in fetch_all(
            items, origins, store, limits=limits, token=token, progress=progress
        )
    ]  # fmt: skip


def fetch_all(
    items: Iterable[Item],
    origins: Sequence[Origin | str],
    store: Store,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    token: str | None = None,
    progress: Report | None = None,
) -> list[Fetched]:
    """Do as `fetch` does, and return of each item what it took.

    Raises:
        as `fetch`.
    """
    known = _with_token(origins, token)
    sweep_partials(store)
    pool = Pool(limits)
    try:
        return [
            _Fetching(item, known, store, limits, pool, progress or (lambda _: None)).run()
            for item in items
        ]
    finally:
        pool.close()


@dataclass
class _Fetching:
    """One item on its way."""

    item: Item
    origins: Sequence[Origin]
    store: Store
    limits: Limits
    pool: Pool
    report: Report
    sources: list[Source] = field(default_factory=list)
    fetched: int = 0
    reused: int = 0
    by_xet: int = 0
    restarts: int = 0
    told_at: float = 0.0

    def run(self) -> Fetched:
        """Find the object, copy it or fetch it."""
        item = self.item
        if self.store.has(item.blob):
            return Fetched(blob=item.blob, way="present", reused=item.size)
        if item.size == 0:
            with self.store.stage() as folder:
                (folder / "empty").touch()
                return Fetched(blob=self._adopted(folder / "empty"), way="http")
        trouble: QuantmintError | None = None
        for origin in self.origins:
            if origin.base.startswith(FILE):
                try:
                    return self._copied(origin)
                except (IntegrityError, RegistryError) as error:
                    trouble = trouble or error
        web = [origin for origin in self.origins if not origin.base.startswith(FILE)]
        if not web:
            raise trouble or no_help([])
        _require_network(item)
        if self._came_from_twin():
            return Fetched(blob=item.blob, way="present", reused=item.size)
        self.sources = [Source(origin, item, self.limits) for origin in web]
        return self._over_the_web()

    def _copied(self, origin: Origin) -> Fetched:
        """Copy the item out of a folder."""
        root, name = Path(origin.base.removeprefix(FILE)), origin.path(self.item)
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise RegistryError(f"{name[:80]!r} leads out of {root}", mend="tell its publisher")
        path = root / name
        with self.store.stage() as folder:
            try:
                found = path.stat()
                if not stat.S_ISREG(found.st_mode) or found.st_size != self.item.size:
                    raise IntegrityError(
                        f"{path} is no file of {self.item.size} bytes",
                        mend="copy the registry's folder again",
                    )
                self.store.require_room(self.item.size)
                clone_or_copy(path, folder / "copy")
            except OSError as error:
                raise RegistryError(
                    f"{path} can't be read: {error.strerror}", mend="check the registry's folder"
                ) from error
            return Fetched(blob=self._adopted(folder / "copy"), way="copied", reused=found.st_size)

    def _over_the_web(self) -> Fetched:
        """Fetch the item into an unfinished file, which is kept if that fails for now."""
        with full_disk_explained(self.store.root):
            partial = claim(self.store, self.item)
            try:
                self.store.require_room(self.item.size - total(union(partial.done)))
                way = self._fetched_right(partial)
            except (OSError, IntegrityError):
                partial.discard()
                raise
            except BaseException as error:
                if isinstance(error.__cause__, OSError) and isinstance(error, UserError):
                    partial.discard()  # the disk is full: make room
                partial.release()
                raise
            partial.discard()
        self._tell(self.item.size, 0.0, force=True)
        return Fetched(
            blob=self.item.blob, way=way, fetched=self.fetched, reused=self.reused,
            requests=sum(source.requests for source in self.sources), restarts=self.restarts,
        )  # fmt: skip

    def _fetched_right(self, partial: Partial) -> str:
        """Fetch until the digest is right: resumed; mended by its table; anew, origin by origin.

        Raises:
            IntegrityError: every origin's bytes are wrong.
        """
        blamed = not partial.done
        turns = list(self.sources) * (2 if partial.done else 1)  # what lay there may be to blame
        way = self._bring(partial, self.sources, resume=True)
        if self._is_adopted(partial):
            return way
        item = self.item
        if item.table is not None:
            self.restarts += 1
            wrong = wrong_pieces(item, partial.data)
            partial.keep_only(without([(0, item.size)], wrong))
            self._bring(partial, self.sources, resume=False)
            if self._is_adopted(partial):
                return "http"
        for source in turns:
            self.restarts += 1
            partial.begin_anew()
            source.forget()
            if source.error is not None:
                continue
            try:
                self._bring(partial, [source], resume=False)
            except RegistryError:
                continue
            if self._is_adopted(partial):
                return "http"
            blamed = True
        if not blamed:  # what lay there was wrong, and nothing else has come
            raise no_help(self.sources)
        names = ", ".join(source.name for source in self.sources)
        raise IntegrityError(
            f"what {names} gives as {item.path} has not the sha256 {item.sha256}; it was thrown"
            " away",
            mend="pull again, or from another registry; if it stays so, tell the publisher",
        )

    def _bring(self, partial: Partial, sources: Sequence[Source], *, resume: bool) -> str:
        """Bring what is missing, by xet or plainly; begin anew, once, if the file changes."""
        saved = self._plan().saved if resume else 0
        for source in sources:
            source.wants_xet = resume and not saved and xet.is_usable(self.limits)
        changed = False
        while True:
            try:
                self._bring_plainly(partial, sources, reuse=resume)
            except XetOfferedError as offer:
                for source in sources:
                    source.wants_xet = False
                if self._brought_by_xet(partial, offer):
                    return "xet"
            except ChangedError:
                if changed:
                    raise RegistryError(
                        f"{self.item.path} changes while it is fetched",
                        mend="wait until the registry is at rest, then run again",
                    ) from None
                changed = True
                self.restarts += 1
                self.by_xet = 0
                partial.begin_anew()
                for source in sources:
                    source.forget()
            else:
                return "http"

    def _plan(self) -> Plan:
        item = self.item
        return plan(item.table, item.local) if item.table and item.local else NOTHING

    def _bring_plainly(self, partial: Partial, sources: Sequence[Source], *, reuse: bool) -> None:
        item = self.item
        there = assemble(partial, self._plan()) if reuse else []
        there = union([*partial.done, *there])
        needed = without([(0, item.size)], there)
        if not needed:
            return
        kept = total(there)
        self.reused = max(0, kept - self.by_xet)
        job = Job(partial, sources, self.limits, self.pool)
        before = self.fetched

        def tick() -> None:
            self.fetched = before + job.meter.count
            self._tell(kept + job.meter.count - job.dropped, job.meter.rate())

        try:
            job.bring(needed, tick)
        except WholeOnlyError:
            self.fetched = before = before + job.meter.count
            self.reused = kept = 0
            self.restarts += 1
            job = Job(partial, sources, self.limits, self.pool)
            job.bring_whole(tick)
        finally:
            self.fetched = before + job.meter.count

    def _brought_by_xet(self, partial: Partial, offer: XetOfferedError) -> bool:
        """Fetch what is missing by xet; False if that fails, and what came stays."""
        done = union(partial.done)
        self.reused, before = total(done), self.fetched
        windows = xet.Windows(offer, partial, self.limits, self.pool)

        def tick() -> None:
            self.fetched = before + windows.meter.count
            self._tell(self.reused + windows.meter.count, windows.meter.rate())

        try:
            windows.bring(without([(0, self.item.size)], done), tick)
        except RegistryError:
            return False
        finally:
            self.fetched = before + windows.meter.count
            self.by_xet = total(union(partial.done)) - self.reused
        return True

    def _is_adopted(self, partial: Partial) -> bool:
        """Hash what was assembled, and give it its name; False if the bytes are wrong."""
        try:
            self._adopted(partial.finish())
        except IntegrityError:
            partial.reopen()
            return False
        return True

    def _adopted(self, staged: Path) -> Blob:
        return self.store.adopt(staged, size=self.item.size, sha256=self.item.sha256)

    def _came_from_twin(self) -> bool:
        """Wait while another process fetches the same bytes and they grow; was it done?

        This only saves the line: if it can't be told, or stands still, we fetch them, too.
        """
        mark: object = None
        since = time.monotonic()
        while files := twins(self.store, self.item.sha256):
            now = [_touched(path.with_name("data")) for path in files]
            if now != mark:
                mark, since = now, time.monotonic()
            if time.monotonic() - since > self.limits.patience:
                break
            time.sleep(_TOLD)
        return self.store.has(self.item.blob)

    def _tell(self, done: int, rate: float, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.told_at < _TOLD:
            return
        self.told_at = now
        size = self.item.size
        left = (size - done) / rate if rate > 0 else None
        self.report(
            Progress(
                path=self.item.path, size=size, done=min(done, size), fetched=self.fetched,
                reused=self.reused, rate=rate, left=0.0 if force else left,
            )
        )  # fmt: skip


def _with_token(origins: Sequence[Origin | str], token: str | None) -> list[Origin]:
    """Return the origins, with the token on those of the first one's host."""
    known = [Origin(one) if isinstance(one, str) else one for one in origins]
    if token is None:
        return known
    hosts = [_place(one.base) for one in known]
    return [
        replace(one, token=token) if one.token is None and host == hosts[0] != "" else one
        for one, host in zip(known, hosts, strict=True)
    ]


def _place(base: str) -> object:
    try:
        return addresses.place(base)
    except ValueError:
        return ""


def _require_network(item: Item) -> None:
    for name in ("QUANTMINT_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in _YES:
            raise UserError(
                f"{item.path} is not on this machine, and {name} forbids to fetch it",
                mend=f"unset {name}, and run again",
            )


def _touched(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_blocks
