"""The fault matrix: where a transfer is cut x what the server then does x what lies there before.

Each case runs twice: the server misbehaves once and is good again, which must end in the right
bytes; or it stays so, which may end in a typed refusal instead. Wrong bytes are a failure always,
in the store or under it.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import shutil
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import IntegrityError, RegistryError, UserError
from quantmint.registry.store import Store
from quantmint.registry.transfer import Item, Limits, Progress, fetch_all
from quantmint.registry.transfer.partial import claim

from .origin import Asked, FaultyOrigin, Reply

SIZE, PART = 300_000, 65_536
LIMITS = Limits(
    connections=3, part=PART, step=16_384, patience=0.5, least=4096, connect=2.0, tries=3,
    first=0.01, longest=0.02, most=0.5, enough=1e12,
)  # fmt: skip
CUTS = {
    "before the first byte": 0,
    "after the first byte": 1,
    "inside the first part": 20_000,
    "before a part's end": PART - 1,
    "at a part's end": PART,
    "behind a part's end": PART + 1,
    "in the middle": SIZE // 2,
    "before the last byte": SIZE - 1,
}
PARTIALS = ("none", "good", "corrupt", "too long", "another object's")
BEHAVIOURS = (
    "200 for a range", "wrong Content-Range", "416", "403 after expiry", "redirect to another host",
    "wrong Content-Length", "chunked", "gzip", "stall", "drip", "reset", "wrong bytes",
    "changed ETag", "5xx", "429", "no TLS", "endless",
)  # fmt: skip
# Bytes that are right, however they come: the transfer ends well even if the server stays so.
HARMLESS = {"200 for a range", "chunked", "redirect to another host"}
TOKEN = "hf_" + "S3cret" * 6


@dataclass(frozen=True)
class Case:
    """One case of the matrix."""

    cut: str
    behaviour: str
    partial: str
    stays: bool

    def __str__(self) -> str:
        stays = "stays" if self.stays else "once"
        return f"{self.behaviour}, {stays}; cut {self.cut}; partial {self.partial}"


def cases() -> list[Case]:
    """Return all cases: 8 x 17 x 5, each once and lasting."""
    return crossed(CUTS, BEHAVIOURS)


def crossed(cuts: Iterable[str], behaviours: Collection[str]) -> list[Case]:
    """Return every cut with every behaviour and partial file, each once and lasting."""
    return [
        Case(cut, behaviour, partial, stays)
        for cut in cuts
        for behaviour in behaviours
        for partial in PARTIALS
        for stays in (False, True)
    ]


def sample(seed: int, count: int) -> list[Case]:
    """Return some cases; every behaviour is among them, once and lasting."""
    every = cases()
    random.Random(seed).shuffle(every)
    firsts = {(case.behaviour, case.stays): case for case in reversed(every)}
    rest = [case for case in every if case not in firsts.values()]
    return [*firsts.values(), *rest][: max(count, len(firsts))]


DATA = random.Random(7).randbytes(SIZE)
OTHER = random.Random(8).randbytes(SIZE)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Misbehaviour:
    """Cuts the first answer that reaches the cut point, then misbehaves: once, or from then on."""

    def __init__(self, case: Case, elsewhere: str) -> None:
        self.case = case
        self.elsewhere = elsewhere
        self.cut = CUTS[case.cut]
        self.was_cut = False
        self.left = 1_000_000 if case.stays else 1

    def __call__(self, origin: FaultyOrigin, asked: Asked, reply: Reply) -> Reply | None:
        start, end = asked.range or (0, SIZE)
        if self.case.behaviour == "403 after expiry" and asked.path == "f":
            return Reply(302, {"Location": "/signed?secret=1"}, b"")
        if not self.was_cut and start <= self.cut < end:
            self.was_cut = True
            reply.cut_at = self.cut - start
            return reply
        if not self.was_cut or self.left <= 0:
            return reply
        self.left -= 1
        return self._spoiled(origin, asked, reply)

    def _spoiled(self, origin: FaultyOrigin, asked: Asked, reply: Reply) -> Reply | None:  # noqa: PLR0911, PLR0912, C901 - one line for each behaviour
        start, end = asked.range or (0, SIZE)
        match self.case.behaviour:
            case "200 for a range":
                return Reply(200, {"ETag": origin.etag}, DATA)
            case "wrong Content-Range":
                reply.headers["Content-Range"] = f"bytes {start + 7}-{end + 6}/{SIZE}"
                reply.status = 206
            case "416":
                return Reply(416, {"Content-Range": f"bytes */{start}"}, b"")
            case "403 after expiry":
                return Reply(403, {}, b"expired")
            case "redirect to another host":
                return Reply(302, {"Location": f"{self.elsewhere}/{asked.path}"}, b"")
            case "wrong Content-Length":
                off = -1 if self.left % 2 else 1
                reply.headers["Content-Length"] = str(len(reply.body) + off)
                reply.cut_at = len(reply.body)
            case "chunked":
                reply.chunked = True
            case "gzip":
                reply.headers["Content-Encoding"] = "gzip"
                reply.body = gzip.compress(reply.body, 1)
            case "stall":
                reply.cut_at, reply.stall = len(reply.body) // 2, 30.0
            case "drip":
                reply.drip = 0.02
            case "reset":
                reply.cut_at, reply.reset = len(reply.body) // 2, True
            case "wrong bytes":
                middle = len(reply.body) // 2
                wrong = reply.body[middle] ^ 1
                reply.body = reply.body[:middle] + bytes([wrong]) + reply.body[middle + 1 :]
            case "changed ETag":
                origin.etag = f'"{len(origin.log)}"'
                reply.headers["ETag"] = origin.etag
            case "5xx":
                return Reply((500, 502, 503, 504)[start % 4], {}, b"later")
            case "429":
                return Reply(429, {"Retry-After": "0" if not self.case.stays else "3600"}, b"")
            case "no TLS":
                return Reply(302, {"Location": origin.url.replace("http:", "https:") + "/f"}, b"")
            case "endless":
                reply.endless = True
                reply.headers.pop("Content-Length", None)
        return reply


def leave_partial(store: Store, item: Item, kind: str) -> None:
    """Leave what an earlier transfer left: journal and bytes, as this engine writes them."""
    if kind == "none":
        return
    partial = claim(store, item)
    data = OTHER if kind == "another object's" else DATA
    for start in (0, 32_768, 131_072):
        partial.write(data[start : start + 16_384], start)
        crc = partial.crc(start, start + 16_384)
        assert crc is not None
        partial.record(start, start + 16_384, crc)
    if kind == "corrupt":
        partial.write(b"\0\1\2\3", 33_000)
    if kind == "too long":
        partial.write(b"x" * 100_000, SIZE - 1000)
        partial.record(SIZE - 1000, SIZE + 99_000, 0)
    partial.release()


@dataclass(frozen=True)
class Ended:
    """How a case ended: `right` or the kind of error; `problem` says what must not be."""

    case: Case
    how: str
    problem: str | None


def run(case: Case, root: Path) -> Ended:
    """Run one case in a store of its own."""
    store = Store(root).open()
    item = Item(sha256=SHA256, size=SIZE, path="f")
    leave_partial(store, item, case.partial)
    with (
        FaultyOrigin({"f": DATA}) as elsewhere,
        FaultyOrigin({"f": DATA, "signed?secret=1": DATA}) as origin,
    ):
        origin.fault = Misbehaviour(case, elsewhere.url)
        how, taken = "right", 0

        def told(progress: Progress) -> None:
            nonlocal taken
            taken = progress.fetched

        try:
            fetch_all([item], [origin.url], store, limits=LIMITS, token=TOKEN, progress=told)
        except (RegistryError, IntegrityError, UserError) as error:
            how = type(error).__name__
            if TOKEN in str(error) or "secret" in str(error) or error.mend is None:
                return Ended(case, how, f"a poor message: {error}")
        leaked = any("authorization" in asked.headers for asked in elsewhere.log)
    problem = problem_of(store, how, taken, leaked=leaked)
    if problem is None and how != "right" and (not case.stays or case.behaviour in HARMLESS):
        problem = f"refused ({how}) where the right bytes could be had"
    shutil.rmtree(root, ignore_errors=True)
    return Ended(case, how, problem)


def problem_of(  # noqa: PLR0911 - one line for each law
    store: Store, how: str, taken: int, *, leaked: bool
) -> str | None:
    """Look at the disk with nothing but sha256: what is there that must not be?"""
    found = {path.name: path.read_bytes() for path in store.objects.rglob("*") if path.is_file()}
    if any(hashlib.sha256(data).hexdigest() != name for name, data in found.items()):
        return "an object has other bytes than its name says"
    if set(found) - {SHA256}:
        return "an object that nobody asked for"
    if (how == "right") != (SHA256 in found):
        return f"it ended {how}, and the object is {'' if found else 'not '}there"
    left = [path.name for path in store.staging.iterdir()]
    if how in {"right", "IntegrityError"} and left:
        return f"staging holds {left}"
    if leaked:
        return "the token went to another host"
    if taken > 20 * SIZE:
        return f"{taken} bytes were taken for {SIZE}"
    return None


def run_all(chosen: list[Case], root: Path) -> Iterator[Ended]:
    """Run cases, eight at a time: most of them wait."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(run, chosen, (root / str(index) for index in range(len(chosen))))
