"""Choosing a variant, references, sizes: pure functions and tables."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulling import MEMORY, SPEED, model_bytes, variant_row
from quantmint.errors import UserError
from quantmint.native.matrix import load_matrix
from quantmint.registry import gguf, machine
from quantmint.registry.commands.pulling import size_of
from quantmint.registry.machine import Gpu, Machine
from quantmint.registry.manifest.measured import OnKernel, SpeedAt
from quantmint.registry.manifest.types import FileEntry
from quantmint.registry.pull.choose import (
    KEPT,
    Choice,
    NoChoiceError,
    NoVariantError,
    Wishes,
    choose,
    memory_of,
)
from quantmint.registry.pull.fitting import Device, Load, fit_layers
from quantmint.registry.pull.header import Shape, shape_of
from quantmint.registry.pull.offers import Offer
from quantmint.registry.pull.places import File, check_name
from quantmint.registry.pull.reference import Reference, parse_reference
from quantmint.registry.stops import stop_texts

GIB = 1 << 30
NAMES = ("Q8_0", "Q4_K_M", "Q2_K")


def this(memory: int = 64 * GIB, cores: int = 4, *gpus: Gpu, cpu: str = "A CPU") -> Machine:
    return Machine(cpu=cpu, cores=cores, kernels=("x64", "haswell"), memory=memory,
                   available=memory, gpus=gpus)  # fmt: skip


def offer(name: str, **own: object) -> Offer:
    file = FileEntry(path=f"X-{name}.gguf", size=MEMORY.get(name, 8 * GIB), sha256="a" * 64)
    table = FileEntry(path=f"tensors/{name}.json", size=1, sha256="b" * 64)
    row = variant_row(name, file, table, **own)
    return Offer(name, (File(file.path, file.size, file.sha256),), row)


def bare(name: str, size: int) -> Offer:
    return Offer(name, (File(f"X-{name}.gguf", size, "a" * 64),))


def taken(choice: Choice) -> str:
    return choice.taken.offer.variant


def why(choice: Choice, variant: str) -> str:
    return next(row.why for row in choice.candidates if row.offer.variant == variant)


OFFERS = tuple(offer(name) for name in NAMES)


@pytest.mark.parametrize(
    ("memory", "context", "expected"),
    [
        (64 * GIB, 4096, "Q8_0"),
        (3 * GIB, 4096, "Q4_K_M"),
        (2 * GIB, 4096, "Q2_K"),
        (5 * GIB, 4096, "Q8_0"),
        (5 * GIB, 32768, "Q4_K_M"),  # the cache alone takes 2 GiB there
        (4 * GIB, 32768, "Q2_K"),
    ],
)
def test_the_least_divergence_that_fits(memory: int, context: int, expected: str) -> None:
    choice = choose(OFFERS, this(memory), Wishes(context=context))
    assert taken(choice) == expected
    assert [row.taken for row in choice.candidates].count(True) == 1
    for row in choice.candidates:
        assert row.fits == (row.memory <= (1 - KEPT) * memory)
        assert row.why


def test_a_speed_floor() -> None:
    choice = choose(OFFERS, this(), Wishes(min_speed=15))
    assert taken(choice) == "Q4_K_M"
    assert why(choice, "Q8_0") == "too slow: 10.0 tokens/s, the floor is 15"
    with pytest.raises(UserError, match=r"the fastest, Q2_K, would reach 25\.0") as refused:
        choose(OFFERS, this(), Wishes(min_speed=100))
    assert "--min-speed 23.8" in str(refused.value.mend)


def test_the_floor_of_ours_gives_way() -> None:
    slow = [offer(n, kernels=(kernel(n, SPEED[n] / 100),)) for n in NAMES]
    choice = choose(slow, this(), Wishes())
    assert taken(choice) == "Q2_K"
    assert any("reaches 4 tokens/s" in note for note in choice.notes)


def kernel(name: str, rate: float, threads: int = 1, *, kind: str = "x64",
           cpu: str = "A CPU", gpu: str | None = None) -> OnKernel:  # fmt: skip
    speed = SpeedAt(tokens=128, repetitions=5, median=rate, low=rate, high=rate)
    return OnKernel(kernel=kind, cpu=cpu, threads=threads, gpu=gpu, generation=(speed,))


def test_speeds_are_scaled_down_and_never_up() -> None:
    eight = [offer("Q8_0", kernels=(kernel("Q8_0", 40.0, threads=8),))]
    two = choose(eight, this(cores=2), Wishes()).taken.speed
    assert two is not None
    assert two.rate == pytest.approx(10.0)
    assert "x 0.25 for 2 cores" in two.source
    many = choose(eight, this(cores=64), Wishes()).taken.speed
    assert many is not None
    assert many.rate == pytest.approx(40.0)


def test_only_kernels_that_run_here_count_and_the_same_cpu_first() -> None:
    rows = (
        kernel("Q8_0", 90.0, kind="sapphirerapids"),
        kernel("Q8_0", 30.0, kind="haswell", cpu="Another"),
        kernel("Q8_0", 20.0, kind="x64", cpu="A CPU"),
    )
    found = choose([offer("Q8_0", kernels=rows)], this(), Wishes()).taken.speed
    assert found is not None
    assert found.rate == 20.0
    elsewhere = choose([offer("Q8_0", kernels=rows)], this(cpu="New"), Wishes()).taken.speed
    assert elsewhere is not None
    assert elsewhere.rate == 30.0
    assert "another CPU than this one" in elsewhere.source
    none = choose([offer("Q8_0", kernels=rows[:1])], this(), Wishes())
    assert none.taken.speed is None
    assert any("no speed was measured" in note for note in none.notes)


def test_a_gpu_is_used_where_all_of_it_fits() -> None:
    gpu = Gpu("A GPU", 8 * GIB)
    rows = (kernel("Q8_0", 10.0), kernel("Q8_0", 99.0, kind="cuda", gpu="A GPU"))
    found = choose([offer("Q8_0", kernels=rows)], this(2 * GIB, 4, gpu), Wishes()).taken
    assert (found.on, found.fits) == ("A GPU", True)
    assert found.speed is not None
    assert found.speed.rate == 99.0
    small = choose([offer("Q8_0", kernels=rows)], this(64 * GIB, 4, Gpu("A GPU", GIB)), Wishes())
    assert small.taken.on == "CPU"


def test_a_gpu_and_the_memory_hold_together_what_neither_holds() -> None:
    both = choose(OFFERS, this(3 * GIB, 4, Gpu("A GPU", 3 * GIB)), Wishes()).taken
    assert (both.offer.variant, both.on, both.fits) == ("Q8_0", "A GPU and CPU", True)
    assert both.speed is not None
    assert both.speed.rate == SPEED["Q8_0"]  # what the CPU alone reaches
    less = choose(OFFERS, this(2 * GIB, 4, Gpu("A GPU", 2 * GIB)), Wishes()).taken
    assert less.offer.variant == "Q4_K_M"
    assert taken(choose(OFFERS, this(3 * GIB), Wishes())) == "Q4_K_M"


def test_the_cpu_says_nothing_of_a_gpu_that_was_not_measured() -> None:
    slow = [offer(n, kernels=(kernel(n, SPEED[n] / 10),)) for n in NAMES]  # Q8_0: 1 token/s
    assert taken(choose(slow, this(), Wishes(min_speed=2))) == "Q2_K"
    choice = choose(slow, this(64 * GIB, 4, Gpu("A GPU", 24 * GIB)), Wishes(min_speed=2))
    assert (choice.taken.offer.variant, choice.taken.on) == ("Q8_0", "A GPU")
    assert choice.taken.speed is None
    assert any("no speed was measured" in note for note in choice.notes)
    # Measured, and too slow: then it is known.
    rows = {n: (kernel(n, 1.0, kind="cuda", gpu="A GPU"),) for n in NAMES}
    with pytest.raises(UserError, match="nothing that fits reaches 2 tokens/s"):
        choose([offer(n, kernels=rows[n]) for n in NAMES],
               this(64 * GIB, 4, Gpu("A GPU", 24 * GIB)), Wishes(min_speed=2))  # fmt: skip


def test_a_part_on_a_gpu_is_judged_by_what_stays_with_the_cpu() -> None:
    slow = [offer(n, kernels=(kernel(n, SPEED[n] / 10),)) for n in NAMES]
    # Three quarters of Q8_0 fit on the GPU: four times the CPU's 1 token/s at best.
    partly = this(64 * GIB, 4, Gpu("A GPU", 4 * GIB))
    choice = choose(slow[:1], partly, Wishes(min_speed=3))
    assert choice.taken.on == "A GPU and CPU"
    assert choice.taken.speed is not None
    assert choice.taken.speed.rate == 1.0
    assert 3 < choice.taken.speed.most < 6
    with pytest.raises(UserError, match="nothing that fits reaches 8 tokens/s"):
        choose(slow[:1], partly, Wishes(min_speed=8))


def test_all_gpus_count() -> None:
    pair = (Gpu("A GPU", 3 * GIB), Gpu("A GPU", 3 * GIB))
    one = choose(OFFERS, this(2 * GIB, 4, pair[0]), Wishes()).taken
    assert (one.offer.variant, one.on) == ("Q4_K_M", "A GPU")
    both = choose(OFFERS, this(2 * GIB, 4, *pair), Wishes()).taken
    assert (both.offer.variant, both.on) == ("Q8_0", "2 x A GPU")
    mixed = choose(OFFERS, this(2 * GIB, 4, pair[0], Gpu("B", 4 * GIB)), Wishes()).taken
    assert (mixed.offer.variant, mixed.on) == ("Q8_0", "B + A GPU")
    # One that has no room but for the buffers takes nothing.
    tiny = choose(OFFERS, this(2 * GIB, 4, pair[0], Gpu("B", 600 << 20)), Wishes()).taken
    assert tiny.offer.variant == "Q4_K_M"


def test_several_gpus_are_as_fast_as_their_slowest() -> None:
    rows = (kernel("Q8_0", 90.0, kind="cuda", gpu="Fast"),
            kernel("Q8_0", 20.0, kind="cuda", gpu="Slow"))  # fmt: skip
    both = this(2 * GIB, 4, Gpu("Fast", 3 * GIB), Gpu("Slow", 3 * GIB))
    found = choose([offer("Q8_0", kernels=rows)], both, Wishes()).taken.speed
    assert found is not None
    assert found.rate == 20.0
    assert choose([offer("Q8_0", kernels=rows[:1])], both, Wishes()).taken.speed is None


@given(st.floats(0.5, 1), st.lists(st.integers(GIB, 24 * GIB), min_size=1, max_size=4),
       st.integers(1, 64))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_what_is_said_to_fit_on_gpus_is_put_there_whole(
    share: float, memories: list[int], layers: int
) -> None:
    """The choice before the download, and the layers that `run` puts on GPUs, are of one mind."""
    shape = Shape(cache=0, layers=layers, compute=64 << 20, trained=None)
    gpus = [Gpu(f"{n}", memory) for n, memory in enumerate(memories)]
    size = round(share * sum(memories))
    try:
        choice = choose((bare("Q8_0", size),), this(1 << 20, 4, *gpus), Wishes(), shape)
    except UserError:
        return
    if "CPU" in choice.taken.on:
        return
    weights = -(-size // layers)
    load = Load(blocks=(weights,) * layers, output=0, compute=shape.compute + 2 * 512 * 4096,
                largest=0)  # fmt: skip
    fit = fit_layers(load, [Device(g.name, "", g.memory, g.memory) for g in gpus])
    assert fit.is_whole


def test_a_refusal_carries_the_table() -> None:
    for wishes, memory in ((Wishes(min_speed=100), 64 * GIB), (Wishes(), GIB // 2),
                           (Wishes(variant="Q9"), 64 * GIB)):  # fmt: skip
        with pytest.raises(NoChoiceError) as refused:
            choose(OFFERS, this(memory), wishes)
        error = pickle.loads(pickle.dumps(refused.value))
        assert [row.offer.variant for row in error.candidates] == list(NAMES)
        assert all(row.why for row in error.candidates)
        assert error.machine.memory == memory
    assert isinstance(error, NoVariantError)


def test_nothing_fits_and_what_would() -> None:
    with pytest.raises(UserError, match="no variant fits: the smallest, Q2_K, needs") as refused:
        choose(OFFERS, this(2 * GIB), Wishes(context=32768))
    assert refused.value.mend == "--context 8192 fits Q2_K"
    with pytest.raises(UserError) as refused:
        choose(OFFERS, this(GIB // 2), Wishes())
    assert "use a machine with" in str(refused.value.mend)


def test_sixteen_bits_only_on_request() -> None:
    offers = (*OFFERS, offer("F16"))
    choice = choose(offers, this(), Wishes())
    assert taken(choice) == "Q8_0"
    assert "only when it is asked for" in why(choice, "F16")
    assert taken(choose(offers, this(), Wishes(variant="F16"))) == "F16"


def test_without_a_manifest_size_decides() -> None:
    shape = shape_of(gguf.parse(model_bytes(), len(model_bytes())))
    offers = (bare("Q8_0", 8 * GIB), bare("Q4_K_M", 4 * GIB), bare("F16", 16 * GIB))
    assert taken(choose(offers, this(64 * GIB), Wishes(), shape)) == "Q8_0"
    assert taken(choose(offers, this(6 * GIB), Wishes(), shape)) == "Q4_K_M"
    assert any("no quality" in n for n in choose(offers, this(), Wishes(), shape).notes)


def test_a_named_variant() -> None:
    with pytest.raises(UserError, match="did you mean 'Q4_K_M'"):
        choose(OFFERS, this(), Wishes(variant="Q4_KM"))
    choice = choose(OFFERS, this(GIB), Wishes(variant="Q8_0"))
    assert taken(choice) == "Q8_0"
    assert "Q8_0 needs" in choice.notes[0]


def test_the_header_gives_the_cache() -> None:
    shape = shape_of(gguf.parse(model_bytes(), len(model_bytes())))
    assert (shape.layers, shape.trained) == (2, 4096)
    assert shape.cache == 2 * 2 * 4 * (16 + 16)  # bytes x layers x heads x (key + value)


@given(st.integers(1 << 20, 1 << 40), st.integers(128, 1 << 20), st.floats(0, 50))
@settings(max_examples=150, deadline=None)
def test_what_is_taken_fits_and_nothing_better_does(
    memory: int, context: int, floor: float
) -> None:
    try:
        choice = choose(OFFERS, this(memory), Wishes(context=context, min_speed=floor))
    except UserError as error:
        fits = [memory_of(o, context, None) <= (1 - KEPT) * memory for o in OFFERS]
        assert error.mend
        assert not any(fits) or max(SPEED[o.variant] for o, f in zip(OFFERS, fits, strict=True)
                                    if f) < floor  # fmt: skip
        return
    best = choice.taken
    assert best.fits
    assert best.kld is not None
    for row in choice.candidates:
        if row.fits and row.speed is not None and row.speed.rate >= floor:
            assert row.kld is not None
            assert best.kld <= row.kld


def test_the_kernels_are_those_of_the_matrix() -> None:
    for kind, rows in machine.KERNELS.items():
        built = {
            k.name: tuple(k.run.cpu)
            for k in load_matrix().kernels
            if k.kind == "cpu" and kind in k.machines and k.system == "linux"
        }
        assert {name: tuple(flags) for name, flags in rows.items()} == built
        assert list(rows) == list(built)


def test_this_machine_is_read() -> None:
    found = machine.this_machine()
    assert found.cores >= 1
    assert found.memory >= found.available > 0
    assert found.kernels


def test_nvidia_smi_is_read() -> None:
    table = "NVIDIA H200, 143771\nNVIDIA RTX, A, 100\n, 5\nbroken, n/a\n"
    assert machine.nvidia_gpus(table) == [
        Gpu("NVIDIA H200", 143771 << 20), Gpu("NVIDIA RTX, A", 100 << 20),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phi-3.5-mini-instruct", Reference("model", "phi-3.5-mini-instruct")),
        ("phi-2:q4_k_m@3", Reference("model", "phi-2", "Q4_K_M", 3)),
        ("phi-2@3", Reference("model", "phi-2", None, 3)),
        ("org/Name-GGUF", Reference("hub", "org/Name-GGUF")),
        ("hub:org/Name:Q8_0@main", Reference("hub", "org/Name", "Q8_0", None, "main")),
        ("org/Name@2", Reference("hub", "org/Name", None, 2)),
        ("org/Name@refs/pr/1", Reference("hub", "org/Name", None, None, "refs/pr/1")),
        ("file:/no/such/dir:Q8_0@3", Reference("file", "/no/such/dir", "Q8_0", 3)),
        ("file:/no/such:dir/x", Reference("file", "/no/such:dir/x")),
        ("sha256:" + "a" * 64, Reference("digest", "a" * 64)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    found = parse_reference(text)
    assert found == expected
    assert parse_reference(str(found)) == expected


def test_a_folder_that_is_there_is_taken_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "odd@3:Q8_0"
    folder.mkdir()
    assert parse_reference(f"file:{folder}") == Reference("file", str(folder))
    assert parse_reference(f"file:{folder}:Q4_0@2") == Reference("file", str(folder), "Q4_0", 2)


@pytest.mark.parametrize(
    "text",
    [
        "", "../../etc", "hub:../../etc", "org/..", "a/b/c", "org/na me", "phi@../x", "phi@main",
        "phi:Q4/../x", "org/n@a..b", "sha256:abc", "sha256:" + "A" * 64, "phi\n", "ph\u202ei",
        "file:", "x" * 5000, "-v", "hub:org", "org/n@/x", "org--x/y", "phi:", "phi@", "PHI",
    ],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UserError):
        parse_reference(text)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_reference_in_its_grammar_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except UserError:
        return
    if found.kind in {"model", "hub"}:
        assert re.fullmatch(r"[A-Za-z0-9./_-]+", found.name)
        assert ".." not in found.name.split("/")


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_listed_name_stays_in_its_folder(text: str) -> None:
    if check_name(text):
        inside = (Path("/folder") / text).resolve()
        assert inside.is_relative_to("/folder")
        assert not any(part.startswith(".") for part in text.split("/"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GB", 8 * 10**9), ("6GiB", 6 << 30), ("500kB", 500_000), ("1.5 M", 1_500_000), ("7", 7)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size_of(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8XB", "0", "1e9", "8GBps"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="is no size"):
        size_of(text)


def test_stop_tokens_are_of_the_vocabulary() -> None:
    data = model_bytes(template="<|end|><|user|><|im_end|>")
    header = gguf.parse(data, len(data))
    assert stop_texts(header) == ("</s>", "<|end|>", "<|user|>")
