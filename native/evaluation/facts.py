"""What a GGUF header says about contexts and memory, without loading anything."""

from __future__ import annotations

from collections.abc import Sequence

from quantmint.native.evaluation.results import MemoryAt
from quantmint.registry.gguf import Gguf

PLAIN_CONTEXT = 2048
MICRO_BATCH = 512
PADDING = 256  # llama.cpp rounds a context up to a multiple of this
HALF = 2  # bytes of a key or a value in the cache


def number(header: Gguf, key: str, default: int = 0) -> int:
    """Return a whole number out of the architecture's own keys; of a list the largest."""
    value = header.values.get(f"{header.architecture}.{key}", default)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = max((item for item in value if isinstance(item, int)), default=default)
    return value if isinstance(value, int) else default


def original_context(header: Gguf) -> int | None:
    """Return the context up to which LongRoPE's short factors hold; None for other models."""
    long = any(tensor.name == "rope_factors_long.weight" for tensor in header.tensors)
    original = number(header, "rope.scaling.original_context_length")
    return original if long and original > 0 else None


def rope_factors(header: Gguf, context: int) -> str:
    """Return which rotary factors llama.cpp uses at a context: `short`, `long` or `plain`."""
    original = original_context(header)
    if original is None:
        return "plain"
    return "long" if -(-context // PADDING) * PADDING > original else "short"


def default_contexts(header: Gguf, memory: int) -> tuple[int, ...]:
    """Return the contexts to measure at: both sides of LongRoPE's switch, as `memory` bytes allow.

    Other models get one of 2048 tokens, or what they were trained on. A context whose predicted
    memory is larger than `memory` is halved until it fits, and left out where it then no longer
    lies on its side of the switch.
    """
    trained = number(header, "context_length", PLAIN_CONTEXT)
    original = original_context(header)
    if original is None:
        wanted = [min(PLAIN_CONTEXT, trained)]
    else:
        wanted = [original, min(2 * original, trained)]
    found: list[int] = []
    for context in wanted:
        side = rope_factors(header, context)
        while context > PADDING and predict_memory(header, context).total > memory:
            context //= 2  # noqa: PLW2901
        if rope_factors(header, context) == side and context not in found:
            found.append(context)
    return tuple(found)


def predict_memory(header: Gguf, context: int) -> MemoryAt:
    """Return the bytes that llama.cpp will take on a CPU, with a 16-bit cache, by the header alone.

    Weights are the tensors' bytes. The cache holds a key and a value per layer, head and token.
    Compute buffers are those of one micro-batch of 512 tokens: its attention mask, and the larger
    of its logits and a layer's activations. docs/assay.md tells how far that is from llama.cpp's
    own sizes.
    """
    heads = number(header, "attention.head_count", 1)
    width = number(header, "embedding_length")
    key = number(header, "attention.key_length", width // heads if heads else 0)
    value = number(header, "attention.value_length", key)
    kv_heads = number(header, "attention.head_count_kv", heads)
    layers = number(header, "block_count")
    padded = -(-context // PADDING) * PADDING
    rows = min(MICRO_BATCH, context)
    vocabulary = next((t.shape[-1] for t in header.tensors if t.name == "token_embd.weight"), 0)
    hidden = number(header, "feed_forward_length", 4 * width)
    logits = 4 * rows * (vocabulary + 4 * width)
    layer = 4 * rows * (3 * width + 3 * hidden)
    mask = 2 * rows * padded
    return MemoryAt(
        context=context,
        weights=sum(tensor.size for tensor in header.tensors),
        cache=layers * kv_heads * (key + value) * HALF * padded,
        compute=max(logits, layer) + mask,
    )
