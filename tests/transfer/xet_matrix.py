"""The matrix of xet: what its store does x when that begins x what lies there before.

Plain HTTP is good in every case, so each must end in the right bytes, whether xet misbehaves once
or from then on; and unless wrong bytes came, nothing may come twice over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from hub import Hub
from hub.pages import Seen
from quantmint.errors import QuantmintError
from quantmint.registry.store import Store
from quantmint.registry.transfer import Fetched, Item, Limits, Progress, fetch_all

from .matrix import (
    DATA,
    LIMITS,
    OTHER,
    SHA256,
    SIZE,
    TOKEN,
    Case,
    Ended,
    crossed,
    leave_partial,
    problem_of,
)

# The number of xorbs that were asked for before it begins.
CUTS = {"at once": 0, "after the first answer": 1, "in the middle": 5}
ALWAYS = 1_000_000
XET_LIMITS: Limits = replace(LIMITS, connect=1.0)


def _refuse(status: int, part: str) -> Callable[[Hub, int], None]:
    return lambda hub, times: hub.faults.refuse(status, times=times, part=part)


def _drop(part: str) -> Callable[[Hub, int], None]:
    return lambda hub, times: hub.faults.drop(part, times=times)


def _stall(part: str) -> Callable[[Hub, int], None]:
    return lambda hub, times: hub.faults.slow(part, 3.0, times=times)


def _cut(hub: Hub, times: int) -> None:
    for name in hub.cas.xorbs:
        hub.faults.cut[f"xorb/{name}"] = times


def _alter(hub: Hub, times: int) -> None:
    names = sorted(f"xorb/{name}" for name in hub.cas.xorbs)
    hub.faults.altered |= set(names if times == ALWAYS else names[-1:])


def _other_terms(hub: Hub, times: int) -> None:
    """Give another file's terms, from now on or for one answer."""
    _replace_terms(hub, times, hub.cas.files[str(hub.cas.offer(OTHER).xet)])


def _fewer_terms(hub: Hub, times: int) -> None:
    (entry,) = hub.repos["org/name"].commits[str(hub.repos["org/name"].at("main"))].files.values()
    _replace_terms(hub, times, hub.cas.files[str(entry.xet)][:-1])


def _replace_terms(hub: Hub, times: int, wrong: tuple[object, ...]) -> None:
    (entry,) = hub.repos["org/name"].commits[str(hub.repos["org/name"].at("main"))].files.values()
    name = str(entry.xet)
    right = hub.cas.files[name]
    hub.cas.files[name] = wrong  # type: ignore[assignment]
    left = times

    def restore(seen: Seen) -> None:
        nonlocal left
        if "/reconstructions/" in seen.path:
            left -= 1
            if left < 0:
                hub.cas.files[name] = right

    hub.on_request = restore


BEHAVIOURS: dict[str, Callable[[Hub, int], None]] = {
    "no token": _refuse(500, "xet-read-token"),
    "token stalls": _stall("xet-read-token"),
    "no terms": _refuse(404, "/reconstructions/"),
    "terms later": _refuse(503, "/reconstructions/"),
    "terms without sense": _refuse(200, "/reconstructions/"),
    "terms stall": _stall("/reconstructions/"),
    "another file's terms": _other_terms,
    "fewer terms": _fewer_terms,
    "expired address": _refuse(403, "/cas/xorb/"),
    "5xx": _refuse(502, "/cas/xorb/"),
    "dropped": _drop("/cas/xorb/"),
    "cut": _cut,
    "wrong bytes": _alter,
    "stall": _stall("/cas/xorb/"),
}  # fmt: skip
# One failure of these is one too many, or may be where the machine is busy.
FATAL = {"no token", "token stalls", "terms stall", "stall"}
# Bytes that are wrong, or that may be.
LYING = {"wrong bytes", "another file's terms", "fewer terms"}


def cases() -> list[Case]:
    """Return all cases: 3 x 14 x 5, each once and lasting."""
    return crossed(CUTS, BEHAVIOURS)


def run(case: Case, root: Path) -> Ended:
    """Run one case in a store and with a hub of its own."""
    store = Store(root).open()
    item = Item(sha256=SHA256, size=SIZE, path="f.gguf")
    leave_partial(store, item, case.partial)
    with Hub(tokens=(TOKEN,)) as hub:
        hub.create("org/name").record({"f.gguf": hub.cas.offer(DATA)}, "main", "a file")
        _misbehave(hub, case)
        took: Fetched | None = None
        told: list[Progress] = []
        how = "right"
        try:
            (took,) = fetch_all(
                [item], [f"{hub.url}/org/name/resolve/main"], store, limits=XET_LIMITS,
                token=TOKEN, progress=told.append,
            )  # fmt: skip
        except QuantmintError as error:
            how = f"{type(error).__name__}: {error}"
        leaked = any(seen.server == "cdn" and seen.token == TOKEN for seen in hub.log)
    taken = max((one.fetched for one in told), default=0)
    problem = problem_of(store, how, taken, leaked=leaked) or _more(case, how, took, hub)
    shutil.rmtree(root, ignore_errors=True)
    return Ended(case, how, problem)


def _misbehave(hub: Hub, case: Case) -> None:
    begin = BEHAVIOURS[case.behaviour]
    times = ALWAYS if case.stays else 1
    before = CUTS[case.cut]
    if before == 0:
        begin(hub, times)
        return
    asked = iter(range(before))

    def count(seen: Seen) -> None:
        if "/cas/xorb/" in seen.path and next(asked, None) == before - 1:
            hub.on_request = lambda _: None
            begin(hub, times)

    hub.on_request = count


def _more(case: Case, how: str, took: Fetched | None, hub: Hub) -> str | None:
    """Return what is wrong beyond what must never be: plain HTTP was good all the time."""
    if took is None:
        return f"refused ({how}) where the right bytes could be had"
    if not hub.asked("xet-read-token"):
        return "xet was not tried"
    right = case.behaviour not in LYING and case.partial != "another object's"
    if right and not case.stays and case.behaviour not in FATAL and took.way != "xet":
        return "xet was given up after one failure"
    if right and (took.restarts or took.fetched + took.reused != SIZE):
        return f"{took.fetched} bytes came, and {took.reused} were there, of {SIZE}"
    if case.partial == "good" and took.restarts == 0 and took.reused != 3 * 16_384:
        return f"{took.reused} bytes were there"
    return None


def run_all(chosen: list[Case], root: Path) -> Iterator[Ended]:
    """Run cases, four at a time: most of them wait."""
    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(run, chosen, (root / str(index) for index in range(len(chosen))))
