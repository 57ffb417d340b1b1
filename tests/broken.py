"""Ways to break a converted file that leave it well-formed: what only a comparison can find."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from quantmint.assets.convert import Converted
from quantmint.registry import gguf
from quantmint.registry.store import Store


def with_bytes(store: Store, made: Converted, data: bytearray) -> Converted:
    """Return the file with other bytes as if the converter had written them."""
    blob = store.put_bytes(bytes(data))
    return replace(made, blob=blob, header=gguf.read(store.path(blob.sha256)))


def bytes_of(store: Store, made: Converted) -> bytearray:
    return bytearray(Path(store.path(made.blob.sha256)).read_bytes())


def tensor_named(made: Converted, name: str) -> gguf.Tensor:
    return next(tensor for tensor in made.header.tensors if tensor.name == name)


def zeroed(store: Store, made: Converted, name: str) -> Converted:
    """Return the file with one tensor all zeros."""
    tensor, data = tensor_named(made, name), bytes_of(store, made)
    data[tensor.offset : tensor.offset + tensor.size] = bytes(tensor.size)
    return with_bytes(store, made, data)


def swapped(store: Store, made: Converted, one: str, other: str) -> Converted:
    """Return the file with the data of two tensors exchanged."""
    data = bytes_of(store, made)
    spans = [
        slice(t.offset, t.offset + t.size) for t in (tensor_named(made, n) for n in (one, other))
    ]
    data[spans[0]], data[spans[1]] = data[spans[1]], data[spans[0]]
    return with_bytes(store, made, data)


def with_number(store: Store, made: Converted, key: str, value: float) -> Converted:
    """Return the file with one float of its header changed."""
    data = bytes_of(store, made)
    field = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", 6)
    at = data.index(field) + len(field)
    data[at : at + 4] = struct.pack("<f", value)
    return with_bytes(store, made, data)


def with_text(store: Store, made: Converted, old: str, new: str) -> Converted:
    """Return the file with a text in its header replaced by one of the same length."""
    assert len(old.encode()) == len(new.encode())
    data = bytes_of(store, made)
    at = data.index(old.encode(), 0, made.header.data_offset)
    data[at : at + len(old.encode())] = new.encode()
    return with_bytes(store, made, data)


def with_floats(store: Store, made: Converted, name: str, factor: float) -> Converted:
    """Return the file with every number of an F32 tensor multiplied."""
    tensor, data = tensor_named(made, name), bytes_of(store, made)
    layout = f"<{tensor.weights}f"
    found = struct.unpack_from(layout, data, tensor.offset)
    struct.pack_into(layout, data, tensor.offset, *(factor * x for x in found))
    return with_bytes(store, made, data)
