"""Tiny GGUF models that llama.cpp's quantizer accepts, with weights that look like weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """A model's dimensions; the defaults make a model of 1.4 M weights."""

    arch: str = "llama"
    layers: int = 3
    width: int = 256
    inner: int = 512
    heads: int = 4
    kv_heads: int = 4
    vocabulary: int = 192
    experts: int = 0
    tied: bool = False
    rows: int = 1 << 30  # most rows of a block's matrices: the quantizer does not mind
    fused: bool = False  # one attn_qkv and one ffn_up tensor, as Phi-3 has them


def gaussian(rng: np.random.Generator, *shape: int) -> Weights:
    """Normal weights with a few outliers in each tensor, as trained ones have."""
    values = rng.normal(0.0, 0.02, shape).astype(np.float32)
    outliers = rng.random(shape) < 0.002
    return np.where(outliers, values * 8, values).astype(np.float32)


def tensors(shape: Shape, rng: np.random.Generator) -> dict[str, Weights]:
    """Every tensor of the model, norms included, in the order a converter writes them."""
    width, inner = shape.width, shape.inner
    kv = width // shape.heads * shape.kv_heads
    made = {"token_embd.weight": gaussian(rng, shape.vocabulary, width)}
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        made[block + "attn_norm.weight"] = 1 + gaussian(rng, width)
        if shape.fused:
            made[block + "attn_qkv.weight"] = gaussian(rng, width + 2 * kv, width)
        else:
            made[block + "attn_q.weight"] = gaussian(rng, width, width)
            made[block + "attn_k.weight"] = gaussian(rng, kv, width)
            made[block + "attn_v.weight"] = gaussian(rng, kv, width)
        made[block + "attn_output.weight"] = gaussian(rng, width, width)
        made[block + "ffn_norm.weight"] = 1 + gaussian(rng, width)
        if shape.experts:
            made[block + "ffn_gate_inp.weight"] = gaussian(rng, shape.experts, width)
            for part, size in (
                ("gate", (inner, width)),
                ("up", (inner, width)),
                ("down", (width, inner)),
            ):
                made[f"{block}ffn_{part}_exps.weight"] = gaussian(rng, shape.experts, *size)
        elif shape.fused:
            made[block + "ffn_up.weight"] = gaussian(rng, 2 * inner, width)
            made[block + "ffn_down.weight"] = gaussian(rng, width, inner)
        else:
            made[block + "ffn_gate.weight"] = gaussian(rng, inner, width)
            made[block + "ffn_up.weight"] = gaussian(rng, inner, width)
            made[block + "ffn_down.weight"] = gaussian(rng, width, inner)
    for name, values in made.items():
        if name.startswith("blk.") and values.ndim > 1:
            made[name] = np.ascontiguousarray(values[..., : shape.rows, :])
    made["output_norm.weight"] = 1 + gaussian(rng, width)
    if not shape.tied:
        made["output.weight"] = gaussian(rng, shape.vocabulary, width)
    return made


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("tiny")
    writer.add_file_type(1)  # before others: the quantizer moves it to the end
    writer.add_context_length(512)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    if shape.arch in {"phi3", "phimoe"}:
        writer.add_rope_scaling_orig_ctx_len(512)
        writer.add_sliding_window(256)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
    pieces = [f"piece{i}".encode() for i in range(shape.vocabulary)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(shape.vocabulary)])
    writer.add_token_types([1] * shape.vocabulary)
    writer.add_quantization_version(2)


def stored(values: Weights, kind: str) -> tuple[NDArray[np.generic], gguf.GGMLQuantizationType]:
    """The weights as `kind` (f32, f16, bf16) has them; vectors stay 32-bit, as converters do."""
    if kind == "f32" or values.ndim == 1:
        return values, gguf.GGMLQuantizationType.F32
    if kind == "f16":
        return values.astype(np.float16), gguf.GGMLQuantizationType.F16
    bits = (values.view(np.uint32) + 0x8000) >> 16
    return bits.astype(np.uint16).view(np.uint8), gguf.GGMLQuantizationType.BF16


def write_model(
    path: Path,
    shape: Shape = Shape(),
    *,
    kind: str = "f16",
    seed: int = 1,
    replace: dict[str, Weights] | None = None,
    tensors_per_part: int = 0,
) -> Path:
    """Write a model and return the path of the file, or of its first part when it is split."""
    writer = gguf.GGUFWriter(path, shape.arch, split_max_tensors=tensors_per_part)
    _describe(writer, shape)
    made = tensors(shape, np.random.default_rng(seed)) | (replace or {})
    for name, values in made.items():
        data, raw_type = stored(values, kind)
        writer.add_tensor(name, data, raw_dtype=raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not tensors_per_part:
        return path
    return next(iter(sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))))


def write_imatrix(path: Path, shape: Shape = Shape(), *, seed: int = 2, skip: str = "") -> Path:
    """Write an importance matrix as llama-imatrix does, without the tensors named by `skip`."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    writer.add_array("imatrix.datasets", ["calibration text"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in tensors(shape, rng).items():
        if (
            values.ndim == 1
            or name in {"token_embd.weight", "output.weight"}
            or (skip and skip in name)
        ):
            continue
        experts = values.shape[0] if values.ndim == 3 else 1
        sums = (rng.gamma(0.7, 3.0, (experts, values.shape[-1])) * 100).astype(np.float32)
        counts = np.full((experts, 1), 3584.0, dtype=np.float32)
        if experts > 1:
            counts[-1] = 0.0  # an expert that the text never reached
            sums[-1] = 0.0
        writer.add_tensor(name + ".in_sum2", sums)
        writer.add_tensor(name + ".counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
