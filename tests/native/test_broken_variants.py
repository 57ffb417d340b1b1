"""Deliberately broken variants, each caught by the gate that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import seed
from quantmint.assets.assay.bench import EMBEDDED, Bench, open_bench
from quantmint.assets.assay.record import Assayed, load
from quantmint.assets.assay.stage import assay
from quantmint.assets.convert import make_fp16
from quantmint.assets.mint import Mint
from quantmint.assets.planned import check_header
from quantmint.assets.recipe import Assay, Recipe, Source
from quantmint.assets.source import fetch_source
from quantmint.assets.variants import Struck, strike_variants
from quantmint.home import Home
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry import gguf
from quantmint.registry.store import Store

pytestmark = pytest.mark.native

VARIANT = "Q8_0"
Breaking = Callable[[bytearray, gguf.Gguf], None]


@dataclass(frozen=True)
class Workshop:
    """A bench of the small model, with the sound variants on it."""

    bench: Bench
    bundle: Bundle
    struck: dict[str, Struck]

    def judged(self, struck: Struck) -> Assayed:
        """Assay one variant; read its record back from the store."""
        bench = self.bench
        planned = {struck.variant: check_header(bench.recipe, struck, bench.fp16)}
        (made,) = assay(bench, [struck], [self.bundle], None, planned)
        record = load(bench.mint.store, made.blob)
        assert record == made.record
        return record

    def broken(self, breaking: Breaking) -> Struck:
        """Return the sound Q8_0 variant after its bytes were changed."""
        sound, store = self.struck[VARIANT], self.bench.mint.store
        data = bytearray(store.path(sound.blob.sha256).read_bytes())
        breaking(data, sound.header)
        blob = store.put_bytes(bytes(data))
        header = gguf.read(store.path(blob.sha256))
        return Struck(VARIANT, blob, header, sound.fallbacks, sound.plan, cached=False)


@pytest.fixture(scope="module")
def workshop(
    built_home: Home, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Workshop:
    home = seed(Home(tmp_path_factory.mktemp("broken") / "home"), built_home)
    mint = Mint(home, Store(home.store).open(), 2, print)
    recipe = Recipe(
        model="phi-3-nano", source=Source(embedded="phi-3-nano"), variants=(VARIANT, "TQ1_0"),
        assay=Assay(chunks=4),
    )  # fmt: skip
    ours = build_kernel(home, mint.store, host_kernel(), print)
    source = fetch_source(mint, recipe, EMBEDDED)
    fp16 = make_fp16(mint, recipe, source, ours)
    struck = {s.variant: s for s in strike_variants(mint, recipe, fp16, ours, recipe.variants)}
    return Workshop(open_bench(mint, recipe, Path(), fp16, ours), ours, struck)


def tensor(header: gguf.Gguf, name: str) -> slice:
    """Return where a tensor's bytes are."""
    (found,) = (t for t in header.tensors if t.name == name)
    return slice(found.offset, found.offset + found.size)


def zeroed(data: bytearray, header: gguf.Gguf) -> None:
    where = tensor(header, "blk.1.ffn_down.weight")
    data[where] = bytes(where.stop - where.start)


def swapped(data: bytearray, header: gguf.Gguf) -> None:
    one, other = (tensor(header, f"blk.{n}.attn_output.weight") for n in (0, 2))
    data[one], data[other] = data[other], data[one]


def wrong_rope_factors(data: bytearray, header: gguf.Gguf) -> None:
    """Only contexts beyond the switch use them."""
    import numpy as np

    where = tensor(header, "rope_factors_long.weight")
    factors = np.frombuffer(bytes(data[where]), dtype="<f4") * 16
    data[where] = factors.astype("<f4").tobytes()


def not_a_number(data: bytearray, header: gguf.Gguf) -> None:
    where = tensor(header, "blk.0.attn_norm.weight")
    data[where] = b"\x00\x00\xc0\x7f" * ((where.stop - where.start) // 4)


def other_template(data: bytearray, header: gguf.Gguf) -> None:
    at = data.index(b"<|assistant|>", data.index(b"tokenizer.chat_template"))
    data[at : at + 13] = b"<|assistent|>"


def no_stop_token(data: bytearray, header: gguf.Gguf) -> None:
    key = b"tokenizer.ggml.eos_token_id"
    at = data.index(key) + len(key) + 4  # past the value's type
    data[at : at + 4] = (1 << 30).to_bytes(4, "little")


def other_types(data: bytearray, header: gguf.Gguf) -> None:
    """Two F32 norms of the same size trade places: same names, other offsets in the table."""
    import struct

    names = [b"blk.0.attn_norm.weight", b"blk.0.ffn_norm.weight"]
    ends = [data.index(name) + len(name) + 4 + 8 + 4 for name in names]  # dimensions, shape, type
    one, other = (bytes(data[end : end + 8]) for end in ends)
    assert struct.unpack("<Q", one) != struct.unpack("<Q", other)
    data[ends[0] : ends[0] + 8], data[ends[1] : ends[1] + 8] = other, one


TABLE: dict[str, tuple[Breaking, str, str]] = {
    "a zeroed tensor": (zeroed, "divergence", "KL divergence"),
    "a swapped pair of tensors": (swapped, "divergence", "KL divergence"),
    "wrong long rope factors": (wrong_rope_factors, "divergence", "at context 1024"),
    "a norm of NaN": (not_a_number, "loads", "NaN"),
    "another chat template": (other_template, "header", "tokenizer.chat_template"),
    "no stop token": (no_stop_token, "header", "tokenizer.ggml.eos_token_id"),
}


def test_a_sound_variant_passes_every_gate(workshop: Workshop) -> None:
    record = workshop.judged(workshop.struck[VARIANT])
    assert record.withheld == ()
    assert {v.check for v in record.verdicts} == {
        "header", "loads", "divergence", "tasks", "chat",
    }  # fmt: skip


@pytest.mark.parametrize("what", TABLE)
def test_each_fault_is_caught_by_the_gate_meant_for_it(workshop: Workshop, what: str) -> None:
    breaking, gate, said = TABLE[what]
    record = workshop.judged(workshop.broken(breaking))
    failed = {v.check: v.reason for v in record.verdicts if not v.passed}
    assert gate in failed, (failed, record)
    assert said in failed[gate]


def test_wrong_long_factors_show_beyond_the_switch_alone(workshop: Workshop) -> None:
    record = workshop.judged(workshop.broken(wrong_rope_factors))
    short, long = record.divergences
    assert (short.rope, long.rope) == ("short", "long")
    assert short.kld_mean < 0.02 < long.kld_mean


def test_swapped_places_in_the_table_are_not_as_planned(workshop: Workshop) -> None:
    """Tensors that trade places tile the data section still, in another order."""
    with pytest.raises(gguf.GgufError):
        workshop.broken(other_types)


def test_a_truncated_file_is_shown_to_no_native_parser(workshop: Workshop) -> None:
    store = workshop.bench.mint.store
    whole = store.path(workshop.struck[VARIANT].blob.sha256).read_bytes()
    blob = store.put_bytes(whole[:-1])
    with pytest.raises(gguf.GgufError, match="truncated"):
        gguf.read(store.path(blob.sha256))


def test_ternary_types_of_a_model_not_trained_so_are_refused(workshop: Workshop) -> None:
    record = workshop.judged(workshop.struck["TQ1_0"])
    failed = {v.check for v in record.verdicts if not v.passed}
    assert "divergence" in failed
    assert record.divergences[0].kld_mean > 1.0
