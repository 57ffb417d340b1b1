"""A header read where it lies: over slow, silent and broken lines, with as few bytes as do."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evil import Evil
from gguf_builder import TEXT, File, Row, array, scalar, string, text
from quantmint.errors import RegistryError
from quantmint.home import Home
from quantmint.registry.gguf import GgufError, ShortError, parse
from quantmint.registry.machine import Machine
from quantmint.registry.pull import web
from quantmint.registry.pull.engine import Puller, Request, Resolved
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.transfer import Limits

NAME, REPO = "x-Q8_0.gguf", "somebody/large"
MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)
MIB = 1 << 20
# A second of silence cuts a connection; two failures without a piece between them are the end.
HASTY = Limits(tries=2, first=0.01, longest=0.01, patience=1.0, least=4096)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evil]:
    monkeypatch.setattr(web, "PATIENCE", HASTY)
    with Evil() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield running


def large_header(count: int = 100_000) -> bytes:
    """Return a model whose vocabulary takes 2.4 MB or so."""
    rng = random.Random(1)
    words = b"".join(text(rng.randbytes(8).hex()) for _ in range(count))
    values: list[tuple[bytes | str, bytes]] = [
        ("general.architecture", string("phi3")),
        ("phi3.context_length", scalar(4, 4096)),
        ("phi3.embedding_length", scalar(4, 32)),
        ("phi3.block_count", scalar(4, 2)),
        ("phi3.attention.head_count", scalar(4, 4)),
        ("tokenizer.ggml.tokens", array(TEXT, words, count)),
    ]
    rows = [Row("token_embd.weight", (32, 320), 8, 0, 32 * 320 // 32 * 34)]
    return File(values, rows, data=bytes(32 * 320 // 32 * 34)).build()


def resolve(home: Home, ref: str = REPO, **limits: float) -> Resolved:
    request = Request(reference=parse_reference(ref), limits=Limits(**limits))  # type: ignore[arg-type]
    return Puller(home, machine=MACHINE).resolve(request)


def ranges(evil: Evil) -> list[tuple[int, int]]:
    found = [span for path, span in evil.ranges if path.endswith(NAME) and span]
    pairs = [span.removeprefix("bytes=").split("-") for span in found]
    return [(int(first), int(last) + 1) for first, last in pairs]


def test_more_is_asked_for_behind_what_is_there(evil: Evil, home: Home) -> None:
    data = large_header()
    evil.files = {NAME: data}
    assert len(data) > 2 * MIB
    found = resolve(home)
    assert found.shape is not None
    assert found.shape.layers == 2
    assert ranges(evil) == [(0, MIB), (MIB, 2 * MIB), (2 * MIB, len(data))]


def test_a_line_that_is_lost_goes_on_where_it_stopped(evil: Evil, home: Home) -> None:
    evil.files = {NAME: large_header()}
    cuts = iter([300_000, 100_000, 40_000])
    at = {"bytes": next(cuts)}

    def pace(path: str, sent: int) -> float:
        if path.endswith(NAME) and sent > at["bytes"]:
            at["bytes"] = next(cuts, 1 << 40)
            return -1.0
        return 0.0

    evil.pace = pace
    assert resolve(home).shape is not None
    asked = ranges(evil)
    assert len(asked) == 6  # three cuts are more than the failures in a row that end it
    for (start, _), (after, _) in itertools.pairwise(asked):
        assert after > start  # nothing from the first byte again
    assert sum(end - start for start, end in asked) < 2 * len(evil.files[NAME])


def test_a_slow_line_that_moves_is_waited_for(evil: Evil, home: Home) -> None:
    """Three times as long as a silent line may take, and each request longer than that alone."""
    evil.files = {NAME: large_header(40_000)}
    evil.pace = lambda path, _: 0.05 if path.endswith(NAME) else 0.0
    began = time.monotonic()
    assert resolve(home).shape is not None
    assert time.monotonic() - began > 2 * HASTY.patience
    assert len(ranges(evil)) == 1


def test_a_silent_line_is_asked_again_and_then_given_up(evil: Evil, home: Home) -> None:
    evil.files = {NAME: large_header()}
    silent = {"left": 1}

    def pace(path: str, sent: int) -> float:
        if path.endswith(NAME) and sent >= 200_000 and silent["left"]:
            silent["left"] -= 1
            return 4.0
        return 0.0

    evil.pace = pace
    assert resolve(home).shape is not None
    first, second = ranges(evil)[:2]
    assert first[0] == 0
    assert 100_000 < second[0] <= 220_000
    evil.pace = lambda path, _: 4.0 if path.endswith(NAME) else 0.0
    with pytest.raises(RegistryError, match="can't be read"):
        resolve(home)


def test_a_server_without_ranges(evil: Evil, home: Home) -> None:
    data = large_header()
    evil.files = {NAME: data}
    evil.pages[f"/{NAME}"] = lambda: (200, {}, data)
    found = resolve(home)
    assert found.shape is not None
    assert found.shape.layers == 2


def test_the_cap_on_the_rate_counts_for_headers(evil: Evil, home: Home) -> None:
    evil.files = {NAME: large_header(20_000)}
    began = time.monotonic()
    resolve(home, rate=300e3)
    assert time.monotonic() - began > 0.8 * (len(evil.files[NAME]) / 300e3 - 0.2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"GGML" + data[4:], "instead of b'GGUF'"),
        (lambda data: data[:4] + b"\x09" + data[5:], "version 9"),
        (
            lambda data: data.replace(b"phi3.block_count", b"phi3.block count"),
            "outside the grammar",
        ),
        (lambda data: data + bytes(64), "bytes are left over"),
    ],
)
def test_a_malformed_header_is_one_error_at_once(
    evil: Evil, home: Home, change: object, said: str
) -> None:
    evil.files = {NAME: change(large_header(10_000)) + b""}  # type: ignore[operator]
    with pytest.raises(GgufError, match=said) as refused:
        resolve(home)
    assert len(ranges(evil)) == 1
    assert NAME in refused.value.what
    assert "nothing more of it was fetched" in refused.value.what


def test_another_variants_header_is_not_asked_for_a_named_one(evil: Evil, home: Home) -> None:
    evil.files = {NAME: large_header(1000), "x-Q2_K.gguf": b"GGUF" + bytes(100)}
    assert resolve(home, f"{REPO}:Q8_0").offer.variant == "Q8_0"
    with pytest.raises(GgufError, match=r"x-Q2_K\.gguf"):
        resolve(home)


def test_a_header_longer_than_is_read_asks_for_no_more(evil: Evil, home: Home) -> None:
    """Its first bytes say that it has a text of 15 MB, then an array of 90 MB."""
    head = File([("a", array(0, b"", 90 << 20))]).build()
    evil.files = {NAME: head + bytes(100)}
    size = 200 << 20
    evil.rows = [
        {"type": "file", "path": NAME, "size": size, "lfs": {"oid": "a" * 64, "size": size}}
    ]
    evil.files[NAME] = head.ljust(MIB, b"\0")
    assert resolve(home).shape is None
    assert ranges(evil) == [(0, MIB)]


def test_short_and_wrong_are_told_apart() -> None:
    data = large_header(1000)
    for end in range(24, 20_000, 997):
        with pytest.raises(ShortError) as short:
            parse(data[:end], len(data))
        assert end < short.value.needed <= len(data)
        with pytest.raises(GgufError) as whole:
            parse(data[:end], end)
        assert not isinstance(whole.value, ShortError)
