"""What a GGUF header says of memory: how files without a manifest are judged.

Formula: docs/pull.md; weights are the file's bytes, the cache holds a key and a value of 16 bits
per layer, head and token, and the compute buffers are those of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quantmint.registry.gguf import Gguf, GgufError, ShortError, parse
from quantmint.registry.pull.places import File, Listing, Place, nonsense

_FIRST: Final = 1 << 20
_MOST: Final = 64 << 20
BATCH: Final = 512
ROUND: Final = 256  # llama.cpp rounds a context up to a multiple of this


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory depends on beside the weights. `cache` is bytes per token of context."""

    cache: int
    layers: int
    compute: int
    trained: int | None

    def beside_weights(self, context: int) -> int:
        """Return the bytes of cache and compute buffers at a context length."""
        padded = -(-context // ROUND) * ROUND
        return self.cache * padded + self.compute + 2 * min(BATCH, context) * padded


def shape_of(header: Gguf) -> Shape:
    """Return what a header says; keys that are missing or odd count as the usual ones."""
    width = number(header, "embedding_length")
    heads = number(header, "attention.head_count", 1)
    key = number(header, "attention.key_length", width // heads)
    value = number(header, "attention.value_length", key)
    kv_heads = number(header, "attention.head_count_kv", heads)
    layers = number(header, "block_count")
    rows = [t.shape[-1] for t in header.tensors if t.name == "token_embd.weight"]
    words = len(header.values.get("tokenizer.ggml.tokens", ())) or (rows[0] if rows else 0)
    hidden = number(header, "feed_forward_length", 4 * width)
    return Shape(
        cache=2 * layers * kv_heads * (key + value),
        layers=layers,
        compute=4 * BATCH * max(words + 4 * width, 3 * width + 3 * hidden),
        trained=number(header, "context_length") or None,
    )


def number(header: Gguf, key: str, default: int = 0) -> int:
    """Return a positive whole number out of the architecture's keys; of a list the largest."""
    value = header.values.get(f"{header.architecture}.{key}", default)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = max((item for item in value if isinstance(item, int)), default=default)
    return value if isinstance(value, int) and 0 < value < 1 << 40 else default


def read_header(place: Place, listing: Listing, file: File) -> Gguf | None:
    """Read the header of a file where it lies, with as few bytes as will do; None if it is long.

    What came stays, and more is asked for only while what is there is right as far as it goes.
    A header longer than 64 MiB is not read: the strict reader sees the whole file later anyway.

    Raises:
        GgufError: it is malformed: no more of the file need be fetched.
    """
    data, wanted = b"", _FIRST
    while wanted <= _MOST:
        wanted = min(wanted, file.size)
        more = place.part(listing, file.path, len(data), wanted - len(data))
        data += more
        try:
            return parse(data, file.size)
        except ShortError as short:
            if len(data) < wanted:
                raise nonsense(
                    place.name, f"{file.path} ends at byte {len(data)}, and has {file.size}"
                ) from None
            wanted = max(2 * len(data), short.needed)
        except GgufError as error:
            raise GgufError(
                f"{file.path} of {place.name} is no well-formed GGUF file: {error.what}; nothing"
                " more of it was fetched",
                mend="tell its publisher; or name another variant: --variant NAME",
            ) from None
    return None
