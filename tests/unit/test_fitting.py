"""How many layers go to a GPU: never more than its free memory holds, never fewer than fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulling import model_bytes
from quantmint.registry import gguf
from quantmint.registry.pull.fitting import RESERVE, SHARE, Device, Load, fit_layers, load_of

MIB, GIB = 1 << 20, 1 << 30
# Shapes and sizes as those of Phi-3.5-mini-instruct Q4_K_M at a context of 4096.
MINI = Load(blocks=(66 * MIB + 48 * MIB,) * 32, output=77 * MIB, compute=83 * MIB, largest=30 * MIB)


def gpu(free: int, total: int | None = None, name: str = "CUDA0") -> Device:
    return Device(name, "A GPU", free, total or free)


def needed(load: Load, layers: int) -> int:
    """The bytes that so many layers take, the output among them, as llama.cpp places them."""
    if layers == 0:
        return 0
    blocks = load.blocks[len(load.blocks) + 1 - layers :]
    copied = 0 if layers > len(load.blocks) else load.largest
    return load.output + sum(blocks) + load.compute + copied


@pytest.mark.parametrize(
    ("free", "layers"),
    [
        (0, 0), (300 * MIB, 0), (RESERVE, 0), (700 * MIB, 0), (732 * MIB, 1), (GIB, 3),
        (2 * GIB, 12), (3 * GIB, 21), (4 * GIB, 30), (5 * GIB, 33), (24 * GIB, 33), (141 * GIB, 33),
    ],
)  # fmt: skip
def test_a_model_on_gpus_of_all_sizes(free: int, layers: int) -> None:
    fit = fit_layers(MINI, [gpu(free)])
    assert (fit.layers, fit.most) == (layers, 33)
    assert fit.is_whole == (layers == 33)
    assert fit.size <= max(0, free - RESERVE)


def test_what_others_use_is_not_ours() -> None:
    busy = fit_layers(MINI, [gpu(2 * GIB, 24 * GIB)])
    assert busy.layers < fit_layers(MINI, [gpu(2 * GIB)]).layers
    assert busy.layers == 4  # 6 % of 24 GiB stay with the driver


def test_no_gpu_no_layers() -> None:
    assert fit_layers(MINI, []).layers == 0
    assert fit_layers(Load(blocks=(), output=1, compute=1, largest=0), [gpu(GIB)]).layers == 0


def test_one_gpu_is_enough_where_it_can_be() -> None:
    pair = [gpu(3 * GIB, name="CUDA0"), gpu(8 * GIB, name="CUDA1")]
    fit = fit_layers(MINI, pair)
    assert fit.is_whole
    assert fit.split[0] == 0
    assert fit.split[1] > 0
    both = fit_layers(MINI, [gpu(3 * GIB), gpu(3 * GIB)])
    assert both.is_whole
    assert both.split[0] == both.split[1] > 0
    # A GPU that is full already takes nothing, and the other is used all the same.
    full = fit_layers(MINI, [gpu(100 * MIB, 8 * GIB), gpu(3 * GIB)])
    assert (full.layers, full.split[0]) == (fit_layers(MINI, [gpu(3 * GIB)]).layers, 0)


SIZES = st.integers(0, 400 * MIB)
LOADS = st.builds(
    lambda blocks, output, compute, share: Load(
        blocks=tuple(blocks), output=output, compute=compute,
        largest=round(share * max(blocks)),
    ),
    st.lists(SIZES, min_size=1, max_size=60), SIZES, SIZES, st.floats(0, 1),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LOADS, st.floats(0, 1.2), st.floats(1, 4))
def test_one_gpu_holds_what_it_is_given_and_not_a_layer_more(
    load: Load, share: float, times: float
) -> None:
    whole = sum(load.blocks) + load.output + load.compute + load.largest
    free = RESERVE + round(share * whole)
    device = gpu(free, round(free * times))
    fit = fit_layers(load, [device])
    room = free - max(RESERVE, round(SHARE * device.total))
    assert fit.layers == 0 or needed(load, fit.layers) <= room
    for more in range(fit.layers + 1, fit.most + 1):
        assert needed(load, more) > room or room <= load.compute


@settings(max_examples=300, deadline=None)
@given(LOADS, st.lists(st.integers(0, 12 * GIB), min_size=2, max_size=4))
def test_several_gpus_hold_what_they_are_given(load: Load, frees: list[int]) -> None:
    fit = fit_layers(load, [gpu(free) for free in frees])
    assert len(fit.split) in {0, len(frees)}
    assert fit.layers >= max(fit_layers(load, [gpu(free)]).layers for free in frees)
    if fit.layers:
        rooms = [gpu(free).room - load.compute for free in frees]
        used = [room for room, share in zip(rooms, fit.split, strict=True) if share]
        assert all(room > 0 for room in used)
        assert fit.size - len(used) * load.compute <= sum(used)


def test_a_header_says_what_each_layer_takes() -> None:
    data = model_bytes((1, 2, 3))  # token_embd, and one tensor in each of two blocks
    header = gguf.parse(data, len(data))
    load = load_of([header], 4096)
    tensor = 12000 * 34
    cache = 2 * 4 * (16 + 16) * 4096  # no count of key-value heads: all 4
    assert load.blocks == (tensor + cache, tensor + cache)
    assert load.output == tensor  # the embeddings are the output, too
    assert load.largest == tensor
    longer = load_of([header], 8192)
    assert longer.blocks[0] - tensor == 2 * cache
    assert longer.compute - load.compute == 2 * 512 * 4096
    # A model in parts: the tensors of all of them, the facts of the first.
    assert load_of([header, header], 4096).blocks[0] == 2 * tensor + cache
