"""Fetching objects: resumed, from mirrors, refused in words; tokens stay at home."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.registry.leases import release_all
from quantmint.registry.store import Store
from quantmint.registry.transfer import (
    Fetched,
    Item,
    Limits,
    Origin,
    Progress,
    fetch,
    fetch_all,
    sweep_partials,
)
from quantmint.registry.transfer.addresses import redirected
from quantmint.registry.waiting import asked_wait
from transfer import client
from transfer.origin import Asked, FaultyOrigin, Reply, wait_until

SIZE = 400_000
DATA = random.Random(1).randbytes(SIZE)
LIMITS = Limits(
    part=65_536, step=16_384, patience=5.0, least=1024, connect=2.0, tries=2, first=0.01,
    longest=0.05, most=1.0,
)  # fmt: skip
TOKEN = "hf_" + "S3cret" * 6


def item_of(data: bytes = DATA, path: str = "f") -> Item:
    return Item(sha256=hashlib.sha256(data).hexdigest(), size=len(data), path=path)


def get(
    store: Store, *origins: Origin | FaultyOrigin | str, limits: Limits = LIMITS,
    token: str | None = None,
) -> Fetched:  # fmt: skip
    where = [one.url if isinstance(one, FaultyOrigin) else one for one in origins]
    return fetch_all([item_of()], where, store, limits=limits, token=token)[0]


def assert_there(store: Store, data: bytes = DATA) -> None:
    assert store.path(item_of(data).sha256).read_bytes() == data
    assert list(store.staging.iterdir()) == []


def after(
    count: int, change: Callable[[Asked, Reply], Reply | None]
) -> Callable[..., Reply | None]:
    """Return a fault that lets so many answers pass before it begins."""
    seen = iter(range(count))

    def fault(_: FaultyOrigin, asked: Asked, reply: Reply) -> Reply | None:
        return reply if next(seen, None) is not None else change(asked, reply)

    return fault


def status(code: int, **headers: str) -> Callable[..., Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda *_: Reply(code, named, b"no")


def test_a_file_comes_in_parts_and_is_there_once(store: Store) -> None:
    with FaultyOrigin({"f": DATA}) as origin:
        took = get(store, origin)
        assert (took.way, took.fetched, took.reused) == ("http", SIZE, 0)
        assert sorted(one.range or () for one in origin.log) == [
            (at, min(at + 65_536, SIZE)) for at in range(0, SIZE, 65_536)
        ]
        assert all(one.headers["accept-encoding"] == "identity" for one in origin.log)
        asked = len(origin.log)
        assert get(store, origin).way == "present"
        assert len(origin.log) == asked
    assert_there(store)


def test_what_came_is_not_fetched_again(store: Store) -> None:
    with FaultyOrigin({"f": DATA}, fault=after(3, status(503))) as origin:
        with pytest.raises(RegistryError, match="HTTP 503") as error:
            get(store, origin, limits=replace(LIMITS, connections=1))
        assert error.value.mend is not None
        assert [path.name[:5] for path in store.staging.iterdir()] == ["part-"]
        origin.fault = None
        origin.log.clear()
        took = get(store, origin)
        assert (took.reused, took.fetched) == (3 * 65_536, SIZE - 3 * 65_536)
        assert min(one.range[0] for one in origin.log if one.range) == 3 * 65_536
    assert_there(store)


def test_a_damaged_range_of_what_came_is_fetched_again_alone(store: Store) -> None:
    with FaultyOrigin({"f": DATA}, fault=after(3, status(503))) as origin:
        with pytest.raises(RegistryError):
            get(store, origin, limits=replace(LIMITS, connections=1))
        (left,) = store.staging.glob("*/data")
        with left.open("r+b") as file:
            file.seek(20_000)
            file.write(b"\0\1\2\3")
        origin.fault = None
        took = get(store, origin)
        assert (took.restarts, took.reused + took.fetched) == (0, SIZE)
        assert 0 < took.reused < 3 * 65_536
    assert_there(store)


def test_a_killed_process_is_gone_on_from(store: Store) -> None:
    item = item_of()
    with FaultyOrigin({"f": DATA}) as origin:
        asked = {
            "root": str(store.root), "origins": [origin.url],
            "items": [{"sha256": item.sha256, "size": SIZE, "path": "f"}],
            "limits": {"part": 65_536, "step": 8192, "rate": 150_000.0, "connections": 2},
        }  # fmt: skip
        process = client.start(**asked)
        wait_until(lambda: any(p.stat().st_size > 300 for p in store.staging.glob("*/journal")))
        process.kill()
        with process:
            process.wait()
        store.open()  # sweeps what dead processes left, and leaves this
        took = get(store, origin)
    assert took.reused > 0
    assert took.reused + took.fetched == SIZE
    assert_there(store)


def test_an_interrupt_keeps_what_came(store: Store) -> None:
    item = item_of()
    with FaultyOrigin({"f": DATA}) as origin:
        process = client.start(
            root=str(store.root), origins=[origin.url],
            items=[{"sha256": item.sha256, "size": SIZE, "path": "f"}],
            limits={"part": 65_536, "step": 8192, "rate": 150_000.0},
        )  # fmt: skip
        wait_until(lambda: any(p.stat().st_size > 300 for p in store.staging.glob("*/journal")))
        process.send_signal(signal.SIGINT)
        code, _, err = client.ended(process)
        assert code != 0
        assert "KeyboardInterrupt" in err
        assert [path.name.split(".")[1] for path in store.staging.iterdir()] == ["0" * 16]
        assert get(store, origin).reused > 0
    assert_there(store)


def test_two_processes_fetch_the_same_bytes_over_the_line_once(store: Store) -> None:
    item = item_of()
    with FaultyOrigin({"f": DATA}) as origin:
        asked = {
            "root": str(store.root), "origins": [origin.url],
            "items": [{"sha256": item.sha256, "size": SIZE, "path": "f"}],
            "limits": {"part": 65_536, "rate": 400_000.0},
        }  # fmt: skip
        first = client.start(**asked)
        wait_until(lambda: any(p.stat().st_size > 0 for p in store.staging.glob("*/data")))
        rest = [client.start(**asked) for _ in range(2)]
        ended = [client.ended(one) for one in (first, *rest)]
        assert [code for code, _, _ in ended] == [0, 0, 0], ended
        assert sorted(rows[0]["way"] for _, rows, _ in ended) == ["http", "present", "present"]
        assert origin.sent == SIZE
    assert_there(store)


def test_many_that_begin_at_once_do_not_harm_each_other(store: Store) -> None:
    item = item_of()
    with FaultyOrigin({"f": DATA}) as origin:
        running = [
            client.start(
                root=str(store.root), origins=[origin.url], limits={"part": 65_536},
                items=[{"sha256": item.sha256, "size": SIZE, "path": "f"}],
            )
            for _ in range(4)
        ]  # fmt: skip
        assert [client.ended(one)[0] for one in running] == [0] * 4
    assert_there(store)


@pytest.mark.parametrize(
    "fault", [status(404), status(401), status(503), lambda *_: None, "altered", "short", "gone"]
)
def test_a_mirror_helps_out(store: Store, fault: Callable[..., Reply | None] | str) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    files = {"altered": {"f": wrong}, "short": {"f": DATA[:-1]}}.get(str(fault), {"f": DATA})
    with FaultyOrigin(files) as bad, FaultyOrigin({"other": DATA}) as good:
        bad.fault = None if isinstance(fault, str) else fault
        where = "http://127.0.0.1:1" if fault == "gone" else bad.url
        took = get(store, where, Origin(good.url, paths={"f": "other"}))
        assert took.blob == item_of().blob
        assert good.sent == SIZE
    assert_there(store)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (status(401), UserError, "asks for a token"),
        (status(403, X_Error_Code="GatedRepo"), UserError, "agreement"),
        (status(404), RegistryError, "has no f"),
        (status(410), RegistryError, "has no f"),
        (status(418), RegistryError, "HTTP 418"),
        (status(503), RegistryError, "HTTP 503"),
        (status(429, Retry_After="3600"), RegistryError, "3600 s"),
        (status(302, Location="http://192.0.2.1/f"), RegistryError, "192.0.2.1"),
        (status(302, Location="ftp://127.0.0.1/f"), RegistryError, "not followed"),
        (status(302, Location="/f"), RegistryError, "without an end"),
        (lambda *_: None, RegistryError, "connection failed"),
        (lambda _o, _a, reply: replace(reply, body=bytes(SIZE)), IntegrityError, "sha256"),
    ],
)
def test_a_refusal_says_who_must_act(
    store: Store, fault: Callable[..., Reply | None], kind: type[QuantmintError], said: str
) -> None:
    with FaultyOrigin({"f": DATA}, fault=fault) as origin:
        with pytest.raises(kind, match=said) as error:
            get(store, origin, limits=replace(LIMITS, part=SIZE))
        assert error.value.mend
    assert not store.path(item_of().sha256).exists()


def test_an_endless_answer_is_cut_at_the_size(store: Store) -> None:
    with FaultyOrigin(
        {"f": DATA}, fault=lambda _o, _a, reply: replace(reply, endless=True)
    ) as origin:
        took = get(store, origin)
        assert took.fetched == SIZE
        assert origin.sent < 100 << 20  # what the system's buffers take
    assert_there(store)


@pytest.mark.parametrize(
    "said",
    [
        {"Content-Range": f"bytes 7-65542/{SIZE}"},
        {"Content-Range": f"bytes 0-65535/{SIZE + 1}"},
        {"Content-Range": "bytes 0-65535"},
        {"Content-Encoding": "gzip"},
        {"Content-Length": "65535"},
    ],
)
def test_bytes_are_written_where_the_answer_says_or_not_at_all(
    store: Store, said: dict[str, str]
) -> None:
    def lie(reply: Reply) -> Reply:
        body = DATA[7:65_543]
        return replace(reply, body=body, headers={**reply.headers, **said}, cut_at=len(body))

    lies = iter([lie])
    with FaultyOrigin(
        {"f": DATA}, fault=lambda _o, _a, reply: next(lies, lambda same: same)(reply)
    ) as origin:
        took = get(store, origin)
        assert (took.restarts, took.fetched) == (0, SIZE)
    assert_there(store)


def test_a_short_wait_that_the_server_asks_for_is_kept(store: Store) -> None:
    calls = iter([Reply(429, {"Retry-After": "0"}, b""), Reply(503, {"Retry-After": "0"}, b"")])
    with FaultyOrigin({"f": DATA}, fault=lambda _o, _a, reply: next(calls, reply)) as origin:
        get(store, origin, limits=replace(LIMITS, first=1000.0, longest=1000.0))
    assert_there(store)


def waiting_time(text: str) -> float | None:
    return asked_wait({"Retry-After": text}, is_limited=False)


def test_the_hubs_own_way_to_say_it() -> None:
    """`RateLimit`, where a limit was met and nothing is left of it."""
    said = {"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}
    assert asked_wait(said, is_limited=True) == 55.0
    assert asked_wait(said, is_limited=False) is None
    assert asked_wait({**said, "Retry-After": "7"}, is_limited=True) == 7.0
    for text in ('"api";r=3;t=55', '"api"', "", "9" * 5000, '"api";r=0;t=' + "9" * 400):
        assert asked_wait({"RateLimit": text}, is_limited=True) is None


def test_a_date_is_a_time_to_wait_too() -> None:
    assert waiting_time("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert waiting_time("12") == 12.0
    assert [waiting_time(text) for text in ("", "soon", "-1", "1" * 40)] == [None] * 4


HOSTILE_TIMES = (
    "Fri, 31 Dec 9999 23:59:59 -2359", "Fri, 31 Dec 9999 23:59:59 GMT",
    "Wed, 21 Oct 2015 07:28:00 +99999999999999999999", "Wed, 21 Oct 2015 07:28:00 -9999",
    "Wed, 21 Oct 99999999999 07:28:00 GMT", "Wed, 99 Oct 2015 07:28:00 GMT", "999999999",
    "9" * 400, "\u0663", "1e308", "inf", "nan", "0x10", "1,2", "+5", "Wed,", ", : :", "-" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE_TIMES)
def test_a_time_to_wait_without_sense_is_none(text: str) -> None:
    assert waiting_time(text) is None


def test_times_at_the_edges_are_past_or_none() -> None:
    for year in ("0001", "1900", "1969", "69", "0"):
        for zone in ("GMT", "+2359", "-2359", "-0000", ""):
            assert waiting_time(f"Mon, 01 Jan {year} 00:00:00 {zone}") in {0.0, None}


@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(
            r"[A-Z][a-z]{2}, \d{1,3} (Jan|Feb|Dec) \d{1,12} \d{1,3}:\d\d:\d\d [+-]?[A-Z0-9]{0,25}",
            fullmatch=True,
        ),
    )
)
def test_any_text_is_a_time_or_none(text: str) -> None:
    wait = waiting_time(text)
    assert wait is None or 0 <= wait <= 31 * 86_400


def test_a_server_that_asks_for_absurd_times_is_asked_again(store: Store) -> None:
    times = iter(text for text in HOSTILE_TIMES[:6])

    def later(_: FaultyOrigin, _asked: Asked, reply: Reply) -> Reply:
        text = next(times, None)
        return reply if text is None else Reply(503, {"Retry-After": text}, b"")

    with FaultyOrigin({"f": DATA}, fault=later) as origin:
        get(store, origin, limits=replace(LIMITS, tries=8, connections=1))
    assert_there(store)


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_server_that_drips_is_cut_off(store: Store, where: str) -> None:
    def drip(_: FaultyOrigin, _asked: Asked, reply: Reply) -> Reply:
        return replace(reply, **{"drip_head" if where == "head" else "drip": 0.05})

    with FaultyOrigin({"f": DATA}, fault=drip) as slow, FaultyOrigin({"f": DATA}) as good:
        get(store, slow, good, limits=replace(LIMITS, patience=0.3, connections=1, tries=0))
    assert_there(store)


def test_the_token_goes_to_its_own_host_alone(store: Store) -> None:
    with FaultyOrigin({"f": DATA}) as storage, FaultyOrigin({"f": DATA}) as mirror:
        away = status(302, Location=f"{storage.url}/f?signature=1")
        with FaultyOrigin({"f": DATA, "f?signature=1": DATA}, fault=away) as hub:
            storage.files["f?signature=1"] = DATA[:-1] + b"x"
            with pytest.raises(IntegrityError) as error:
                get(store, hub, token=TOKEN)
            assert TOKEN + "signature" not in str(error.value)
            storage.files["f?signature=1"] = DATA
            get(store, hub, mirror, token=TOKEN)
            tokens = [one.headers.get("authorization") for one in hub.log]
            assert set(tokens) == {f"Bearer {TOKEN}"}
        for seen in (*storage.log, *mirror.log):
            assert "authorization" not in seen.headers
            assert TOKEN not in str(seen)


def test_a_token_is_not_sent_in_the_clear(store: Store) -> None:
    with pytest.raises(UserError, match="in the clear"):
        get(store, Origin("http://192.0.2.1", token=TOKEN))
    assert TOKEN not in repr(Origin("https://example.org", token=TOKEN))
    with pytest.raises(UserError, match="password") as error:
        get(store, "https://me:secret@example.org")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "location", "leads"),
    [
        ("https://a/x", "/y", "https://a/y"),
        ("https://a/x", "https://b/y", "https://b/y"),
        ("https://a/x", "http://a/y", None),
        ("https://a/x", "http://127.0.0.1/y", None),
        ("https://a/x", "https://127.0.0.1/y", None),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y"),
        ("http://127.0.0.1/x", "http://[::1]/y", "http://[::1]/y"),
        ("http://127.0.0.1/x", "http://b/y", None),
        ("http://a/x", "http://b/y", None),
        ("http://a/x", "http://a:81/y", "http://a:81/y"),
        ("https://a/x", "file:///etc/passwd", None),
        ("https://a/x", "https://name:word@b/y", None),
        ("https://a/x", "https://[/", None),
    ],
)
def test_where_a_redirect_may_lead(url: str, location: str, leads: str | None) -> None:
    assert redirected(url, location) == leads


def test_offline_what_is_here_is_found_and_the_rest_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with FaultyOrigin({"f": DATA}) as origin:
        with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
            get(store, origin)
        (tmp_path / "f").write_bytes(DATA)
        assert get(store, f"file:{tmp_path}").way == "copied"
        assert get(store, origin).way == "present"
        assert origin.log == []


def test_a_folder_with_other_bytes_is_passed_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA[:-1] + b"?")
    (tmp_path / "real").write_bytes(DATA)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "f")
    folders = [f"file:{tmp_path}", f"file:{tmp_path}/none", f"file:{tmp_path}/pipe"]
    with pytest.raises(IntegrityError):
        get(store, *folders)
    assert list(store.blobs()) == []
    out = Origin(f"file:{tmp_path}/pipe", paths={"f": "../real"})
    with pytest.raises(RegistryError, match="leads out"):
        get(store, out)
    with FaultyOrigin({"f": DATA}) as origin:
        assert get(store, *folders, out, origin).way == "http"
    assert_there(store)


def test_the_environments_proxy_is_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with FaultyOrigin({"http://registry.invalid/f": DATA}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        get(store, "http://registry.invalid")
        assert proxy.log
    assert_there(store)


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    big = random.Random(2).randbytes(3_000_000)
    item = item_of(big)
    store = Store(small_disk / "store").open()
    with FaultyOrigin({"f": big}) as origin:
        with pytest.raises(UserError, match="no space left"):
            fetch([item], [origin.url], store, limits=LIMITS)
        assert origin.log == []  # said before anything was fetched
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "require_room", lambda *_: None)
            with pytest.raises(UserError, match="no space left"):
                fetch([item], [origin.url], store, limits=LIMITS)
    assert list(store.staging.iterdir()) == []
    assert list(store.blobs()) == []
    release_all()


def test_progress_is_told_and_ends_at_the_size(store: Store) -> None:
    told: list[Progress] = []
    with FaultyOrigin({"f": DATA}) as origin:
        limits = replace(LIMITS, rate=800_000.0)
        fetch([item_of()], [origin.url], store, limits=limits, progress=told.append)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert (told[-1].done, told[-1].fetched, told[-1].left) == (SIZE, SIZE, 0.0)
    assert any(one.rate > 0 and one.left for one in told[:-1])


def test_old_unfinished_files_are_swept_and_fresh_ones_kept(store: Store) -> None:
    fault = after(1, status(503))
    with FaultyOrigin({"f": DATA}, fault=fault) as origin, pytest.raises(RegistryError):
        get(store, origin, limits=replace(LIMITS, connections=1))
    assert sweep_partials(store) == []
    (left,) = store.staging.iterdir()
    assert sweep_partials(store, older_than=-1.0) == [left]
    assert list(store.staging.iterdir()) == []


def test_an_empty_file_is_a_file(store: Store) -> None:
    with FaultyOrigin({}) as origin:
        assert fetch([item_of(b"")], [origin.url], store) == [item_of(b"").blob]
        wrong = replace(item_of(b""), sha256="0" * 64)
        with pytest.raises(IntegrityError):
            fetch([wrong], [origin.url], store)
    assert_there(store, b"")
