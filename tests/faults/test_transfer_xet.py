"""By xet where a hub offers it; plainly where that fails; the digest decides in both."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fault_tools import TOKEN
from hub import Hub
from hub.pages import Seen
from publishing import client_env
from quantmint.errors import UserError
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store
from quantmint.registry.transfer import Item, Limits, Progress, fetch_all
from quantmint.registry.transfer.ranges import Range, total, union, without
from transfer import client
from transfer.origin import wait_until
from transfer.xet_matrix import BEHAVIOURS, cases, run_all

NAME = "A-Q8_0.gguf"
DATA = b"GGUF" + random.Random(3).randbytes(2_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo="A-Q8_0.gguf", repo_id="org/name")
"""
CHUNK = 10_007
QUICK = {"first": 0.01, "longest": 0.05, "tries": 2}
SMALL = {**QUICK, "part": 65_536, "step": 65_536, "connections": 2}


@pytest.fixture
def offering(hub: Hub, tmp_path: Path) -> Hub:
    """A hub with one file that came by xet."""
    hub.create("org/name")
    path = tmp_path / NAME
    path.write_bytes(DATA)
    env = client_env(hub.url, TOKEN, tmp_path / "publisher", xet=True)
    subprocess.run([sys.executable, "-c", UPLOAD, str(path)], env=env, check=True, timeout=120)
    assert hub.cas.files
    return hub


@pytest.fixture
def small(hub: Hub) -> Hub:
    """A hub with one file in small chunks, so that bytes can be counted."""
    hub.create("org/name").record({NAME: hub.cas.offer(DATA, chunk=CHUNK)}, "main", "a file")
    return hub


def start(
    hub: Hub, store: Store, folder: Path, url: str = "", *, xet: bool = True,
    limits: dict[str, Any] = QUICK,
) -> subprocess.Popen[str]:  # fmt: skip
    return client.start(
        client_env(hub.url, "", folder, xet=xet),
        root=str(store.root), origins=[f"{url or hub.url}/org/name/resolve/main"], token=TOKEN,
        items=[{"sha256": SHA256, "size": len(DATA), "path": NAME}], limits=limits,
    )  # fmt: skip


def pull(hub: Hub, store: Store, *words: Any, **more: Any) -> dict[str, Any]:
    code, rows, err = client.ended(start(hub, store, *words, **more))
    assert code == 0, err
    assert err == ""
    assert store.path(SHA256).read_bytes() == DATA
    assert list(store.staging.iterdir()) == []
    return dict(rows[0])


def test_xet_brings_the_file_where_it_is_offered(
    offering: Hub, store: Store, tmp_path: Path
) -> None:
    assert pull(offering, store, tmp_path, offering.url)["way"] == "xet"
    assert offering.asked("/reconstructions/")
    assert not [one for one in offering.log if one.server == "cdn" and one.token == TOKEN]


@pytest.mark.parametrize("fails", ["token", "reconstruction", "xorb", "switched off", "elsewhere"])
def test_plain_http_brings_it_where_xet_fails(
    offering: Hub, store: Store, tmp_path: Path, fails: str
) -> None:
    asked = offering.url
    if fails == "token":
        offering.faults.refuse(500, times=99, part="xet-read-token")
    elif fails == "reconstruction":
        offering.faults.refuse(404, times=99, part="/reconstructions/")
    elif fails == "xorb":
        offering.faults.altered |= {f"xorb/{name}" for name in offering.cas.xorbs}
    elif fails == "elsewhere":  # the offer sends us, and our token, to another host
        offering.url = offering.cdn_url
    took = pull(offering, store, tmp_path, asked, xet=fails != "switched off")
    assert took["way"] == "http"
    assert not [one for one in offering.log if one.server == "cdn" and one.token == TOKEN]


def there(store: Store) -> list[Range]:
    """Return what the journal of an unfinished file says is there."""
    rows = [
        json.loads(line)
        for path in store.staging.glob("part-*/journal")
        for line in path.read_text().split("\n")[1:-1]
    ]
    return union((row["s"], row["e"]) for row in rows)


def asked_for(hub: Hub, part: str) -> list[Range]:
    """Return the ranges of the file that were asked for."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", one.range or "") for one in hub.asked(part)]
    return [(int(one[1]), int(one[2]) + 1) for one in found if one]


def plain_bytes(hub: Hub) -> int:
    return hub.sent[NAME]


def xet_bytes(hub: Hub) -> int:
    return sum(count for name, count in hub.sent.items() if name.startswith("xorb/"))


@pytest.mark.parametrize(("first", "then"), [("xet", "xet"), ("xet", "http"), ("http", "xet")])
def test_a_killed_pull_goes_on_where_it_stopped(
    small: Hub, store: Store, tmp_path: Path, first: str, then: str
) -> None:
    small.faults.slow("/cas/xorb/" if first == "xet" else NAME, 0.15, times=9999)
    running = start(small, store, tmp_path, xet=first == "xet", limits=SMALL)
    wait_until(lambda: total(there(store)) > len(DATA) * 0.6)
    running.kill()
    with running:
        running.wait()
    was = there(store)
    assert len(DATA) * 0.6 < total(was) < len(DATA)
    assert (xet_bytes(small) > 0, plain_bytes(small) > 0) == (first == "xet", first == "http")
    small.faults.clear()
    time.sleep(0.5)  # what the dead process asked for is answered, and counted
    small.log.clear()
    small.sent.clear()
    took = pull(small, store, tmp_path, xet=then == "xet", limits=SMALL)
    missing = len(DATA) - total(was)
    assert (took["way"], took["reused"], took["fetched"]) == (then, total(was), missing)
    assert took["restarts"] == 0
    windows = asked_for(small, "/reconstructions/" if then == "xet" else f"/{NAME}")
    assert without(windows, without([(0, len(DATA))], was)) == []
    if then == "http":
        assert (plain_bytes(small), xet_bytes(small)) == (missing, 0)
    else:  # whole chunks: less than one too many at each end of a window
        packed = missing + 2 * CHUNK * len(windows)
        assert plain_bytes(small) == 0
        assert missing < xet_bytes(small) < packed + 8 * (packed // CHUNK + 2 * len(windows))


def test_plain_http_goes_on_where_xet_dies(small: Hub, store: Store, tmp_path: Path) -> None:
    asked = iter(range(12))

    def die(seen: Seen) -> None:
        if "/cas/xorb/" in seen.path and next(asked, None) is None and not small.faults.rules:
            small.faults.drop("/cas/", times=9999)

    small.on_request = die
    took = pull(small, store, tmp_path, limits=SMALL)
    assert (took["way"], took["fetched"], took["reused"]) == ("http", len(DATA), 0)
    assert took["restarts"] == 0
    assert 0 < plain_bytes(small) < len(DATA) - 5 * 65_536
    assert total(asked_for(small, f"/{NAME}")) > 0


def test_a_stream_that_is_cut_is_gone_on_from_over_xet(
    small: Hub, store: Store, tmp_path: Path
) -> None:
    for name in list(small.cas.xorbs)[:3]:
        small.faults.cut[f"xorb/{name}"] = 3
    took = pull(small, store, tmp_path, limits={**SMALL, "connections": 1})
    assert (took["way"], took["fetched"]) == ("xet", len(DATA))
    assert plain_bytes(small) == 0


def test_an_interrupt_is_obeyed_at_once_and_keeps_what_came(
    small: Hub, store: Store, tmp_path: Path
) -> None:
    asked = iter(range(8))

    def stall(seen: Seen) -> None:
        if "/cas/xorb/" in seen.path and next(asked, None) is None and not small.faults.rules:
            small.faults.slow("/cas/xorb/", 60.0, times=9999)

    small.on_request = stall
    running = start(small, store, tmp_path, limits=SMALL)
    wait_until(lambda: bool(small.faults.rules) and total(there(store)) >= 4 * 65_536)
    time.sleep(0.3)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    code, _, err = client.ended(running)
    assert time.monotonic() - began < 10
    assert code != 0
    assert "KeyboardInterrupt" in err
    assert [path.name.split(".")[1] for path in store.staging.iterdir()] == ["0" * 16]
    small.faults.clear()
    small.on_request = lambda _: None
    was = total(there(store))
    assert pull(small, store, tmp_path, limits=SMALL)["reused"] == was > 0


@pytest.fixture
def reader(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process know no hub but ours."""
    for name, value in client_env(hub.url, "", tmp_path, xet=True).items():
        monkeypatch.setenv(name, value)


def fetched_here(hub: Hub, store: Store, limits: Limits) -> tuple[str, list[Progress], list[float]]:
    """Fetch in this process; return the way, what was told, and after how many seconds."""
    told: list[Progress] = []
    times: list[float] = []
    began = time.monotonic()

    def tell(progress: Progress) -> None:
        told.append(progress)
        times.append(time.monotonic() - began)

    (took,) = fetch_all(
        [Item(sha256=SHA256, size=len(DATA), path=NAME)], [f"{hub.url}/org/name/resolve/main"],
        store, limits=limits, token=TOKEN, progress=tell,
    )  # fmt: skip
    return took.way, told, times


@pytest.mark.usefixtures("reader")
def test_progress_moves_with_a_rate_and_the_time_that_is_left(small: Hub, store: Store) -> None:
    small.faults.slow("/cas/xorb/", 0.1, times=9999)
    limits = Limits(part=65_536, step=65_536, connections=1)
    way, told, _ = fetched_here(small, store, limits)
    assert way == "xet"
    done = [one.done for one in told]
    assert done == sorted(done)
    assert len(set(done)) >= 8
    halfway = next(one for one in told if one.done >= len(DATA) // 2)
    assert 0 < halfway.rate < len(DATA) / 0.5
    assert halfway.left == pytest.approx((len(DATA) - halfway.done) / halfway.rate)
    assert (told[-1].done, told[-1].fetched, told[-1].left) == (len(DATA), len(DATA), 0.0)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("step", "way"), [(100_000, "xet"), (2_000_000, "http")])
def test_a_cap_is_kept(small: Hub, store: Store, step: int, way: str) -> None:
    """Where a step in a second is more than the cap allows, plain HTTP keeps it better."""
    rate = 1_000_000.0
    limits = Limits(part=200_000, step=step, rate=rate)
    came, told, times = fetched_here(small, store, limits)
    assert came == way
    assert times[-1] > 0.9 * len(DATA) / rate
    early = [(one.fetched, after) for one, after in zip(told, times, strict=True)]
    assert all(fetched <= rate * (after + 0.3) for fetched, after in early)


def test_damage_to_what_xet_brought_is_found_and_mended(
    small: Hub, store: Store, tmp_path: Path
) -> None:
    small.faults.slow("/cas/xorb/", 0.15, times=9999)
    running = start(small, store, tmp_path, limits=SMALL)
    wait_until(lambda: total(there(store)) > 400_000)
    running.kill()
    with running:
        running.wait()
    small.faults.clear()
    was = there(store)
    (left,) = store.staging.glob("part-*/data")
    with left.open("r+b") as file:
        file.seek(was[0][0] + 70_000)
        file.write(b"\0\1\2\3")
    took = pull(small, store, tmp_path, limits=SMALL)
    assert took["restarts"] == 0
    assert total(was) - 2 * 65_536 <= took["reused"] < total(was)
    assert took["reused"] + took["fetched"] == len(DATA)


@pytest.mark.usefixtures("reader")
def test_a_sample_of_the_matrix_of_xet_ends_right(tmp_path: Path) -> None:
    """The seed stands here; a case that fails names itself."""
    every = cases()
    assert len(every) == 420
    random.Random(4).shuffle(every)
    firsts = {(case.behaviour, case.stays): case for case in every}
    ended = list(run_all(list(firsts.values()), tmp_path))
    release_all()
    assert [f"{one.case}: {one.problem}" for one in ended if one.problem] == []
    assert {one.case.behaviour for one in ended} == set(BEHAVIOURS)


def test_two_processes_fetch_the_same_bytes_by_xet_once(
    small: Hub, store: Store, tmp_path: Path
) -> None:
    small.faults.slow("/cas/xorb/", 0.4, times=9999)
    first = start(small, store, tmp_path, limits=SMALL)
    wait_until(lambda: total(there(store)) > 0)
    # Its patience is shorter than the first one's work: it waits as it sees the bytes grow.
    second = start(small, store, tmp_path, limits={**SMALL, "patience": 1.0})
    ended = [client.ended(one) for one in (first, second)]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert [rows[0]["way"] for _, rows, _ in ended] == ["xet", "present"]
    assert store.path(SHA256).read_bytes() == DATA


@pytest.mark.usefixtures("reader")
def test_a_full_disk_is_said_and_leaves_nothing(
    hub: Hub, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = random.Random(2).randbytes(3_000_000)
    hub.create("org/name").record({NAME: hub.cas.offer(big)}, "main", "a file")
    item = Item(sha256=hashlib.sha256(big).hexdigest(), size=len(big), path=NAME)
    store = Store(small_disk / "store").open()
    monkeypatch.setattr(Store, "require_room", lambda *_: None)
    with pytest.raises(UserError, match="no space left"):
        fetch_all(
            [item], [f"{hub.url}/org/name/resolve/main"], store, limits=Limits(part=65_536),
            token=TOKEN,
        )  # fmt: skip
    assert (xet_bytes(hub) > 0, plain_bytes(hub)) == (True, 0)
    assert list(store.staging.iterdir()) == []
    release_all()
