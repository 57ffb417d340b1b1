"""How many of a model's layers fit into a GPU's free memory, as llama.cpp gives layers to devices.

With n layers on GPUs these are the output and the last n - 1 blocks (llama.cpp,
`llama_model_base::load_tensors`); the table of token embeddings always stays with the CPU, and is
there once more where it is the output as well. A block takes its cache along. Each device holds
compute buffers of its own, and where some blocks stay with the CPU, room for the largest tensor:
long prompts are computed on the GPU with weights that are copied there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quantmint.registry.gguf import Gguf
from quantmint.registry.pull.header import BATCH, ROUND, number, shape_of

# What a driver, its libraries and whatever else draws on the GPU take meanwhile.
RESERVE: Final = 512 << 20
SHARE: Final = 0.06
_BLOCK: Final = re.compile(r"blk\.([0-9]+)\.")
_INPUT: Final = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")
_EMBEDDING: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as its backend lists it; `free` and `total` are bytes."""

    name: str
    description: str
    free: int
    total: int

    @property
    def room(self) -> int:
        """The bytes that may be used of what is free."""
        return max(0, self.free - max(RESERVE, round(SHARE * self.total)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a model puts on GPUs, in bytes: each block with its cache, what makes logits of the
    last block's output, compute buffers per device, and the largest tensor of a block."""

    blocks: tuple[int, ...]
    output: int
    compute: int
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """`layers` of `most` go to GPUs (llama.cpp's `n_gpu_layers`) and take `size` bytes there.

    `split` has each device's share, in bytes of room for layers: none where there is too little.
    """

    layers: int
    most: int
    size: int = 0
    split: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all layers fit."""
        return self.layers == self.most


def load_of(headers: Sequence[Gguf], context: int) -> Load:
    """Return what a model takes at a context, by the headers of all its files, the first first.

    The cache holds a key and a value of 16 bits per head and token of each block.
    """
    first = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    count = number(first, "block_count")
    weights, output, embedding, has_own, largest = [0] * count, 0, 0, False, 0
    for tensor in tensors:
        found = _BLOCK.match(tensor.name)
        if found is not None and int(found[1]) < count:
            weights[int(found[1])] += tensor.size
            largest = max(largest, tensor.size)
        elif not tensor.name.startswith(_INPUT):
            output += tensor.size
            has_own = has_own or tensor.name == "output.weight"
        elif tensor.name == _EMBEDDING:
            embedding = tensor.size
    padded = -(-context // ROUND) * ROUND
    shape = shape_of(first)
    caches = _caches(first, count, padded)
    return Load(
        blocks=tuple(w + c for w, c in zip(weights, caches, strict=True)),
        output=output + (0 if has_own else embedding),
        compute=shape.compute + 2 * min(BATCH, context) * padded,
        largest=largest,
    )


def fit_layers(load: Load, devices: Sequence[Device]) -> Fit:
    """Return the most layers that fit into what is free on all devices together.

    One device is enough where it can be: that with the most room. Of several each takes whole
    layers, so one block's room is left on each.
    """
    most = len(load.blocks) + 1
    rooms = [max(0, device.room - load.compute) for device in devices]
    largest = max(rooms, default=0)
    if largest == 0 or not load.blocks:
        return Fit(layers=0, most=most)
    alone = tuple(room if at == rooms.index(largest) else 0 for at, room in enumerate(rooms))
    best = _most_layers(load, largest)
    used, split = 1, alone
    count = sum(room > 0 for room in rooms)
    if best < most and count > 1:
        together = _most_layers(load, sum(rooms) - count * max(load.blocks))
        if together > best:
            best, used, split = together, count, tuple(rooms)
    if best == 0:
        return Fit(layers=0, most=most)
    size = load.output + sum(load.blocks[most - best :]) + used * load.compute
    return Fit(layers=best, most=most, size=size, split=split)


def _most_layers(load: Load, room: int) -> int:
    """Return how many layers fit into so many bytes, beside the compute buffers."""
    most, size, best = len(load.blocks) + 1, load.output, 0
    for layers in range(1, most + 1):
        if layers > 1:
            size += load.blocks[most - layers]
        if size + (0 if layers == most else load.largest) <= room:
            best = layers
    return best


def _caches(header: Gguf, count: int, padded: int) -> list[int]:
    """Return the bytes of each block's keys and values."""
    width, heads = number(header, "embedding_length"), number(header, "attention.head_count", 1)
    key = number(header, "attention.key_length", width // heads)
    value = number(header, "attention.value_length", key)
    listed = header.values.get(f"{header.architecture}.attention.head_count_kv")
    most = number(header, "attention.head_count_kv", heads)
    per_block = [most] * count
    if not isinstance(listed, (int, str)) and listed is not None and len(listed) == count:
        per_block = [n if isinstance(n, int) and 0 <= n <= most else most for n in listed]
    return [2 * heads_kv * (key + value) * padded for heads_kv in per_block]
