"""A checkpoint with the tensors of Phi-3.5-mini: its shapes, its vocabulary, noise for weights."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkpoints.vocabularies import write_phi_3_tokenizer  # noqa: E402

HIDDEN, INNER, VOCABULARY, HEADS, CONTEXT = 3072, 8192, 32064, 32, 131072
LAYERS_PER_SHARD = 8


def make_phi_35_mini_shaped(folder: Path, *, llama_source: Path, layers: int = 32) -> Path:
    """Write the checkpoint (119 M weights a layer and 197 M around them, as bfloat16).

    One random layer is written again and again: making noise would take longer than the benchmark,
    and neither conversion nor quantization is quicker for it.
    """
    folder.mkdir(parents=True)
    write_phi_3_tokenizer(folder, llama_source)
    (folder / "config.json").write_text(json.dumps(config(layers)), encoding="utf-8")
    rng = np.random.default_rng(1)
    norm = np.full(HIDDEN, 0x3F80, "<u2").tobytes()
    made = {
        "self_attn.qkv_proj.weight": (3 * HIDDEN, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "mlp.gate_up_proj.weight": (2 * INNER, HIDDEN),
        "mlp.down_proj.weight": (HIDDEN, INNER),
    }
    layer = {name: (shape, noise(rng, shape)) for name, shape in made.items()}
    layer["input_layernorm.weight"] = layer["post_attention_layernorm.weight"] = ((HIDDEN,), norm)
    table = noise(rng, (VOCABULARY, HIDDEN))
    ends = {
        "model.embed_tokens.weight": ((VOCABULARY, HIDDEN), table),
        "lm_head.weight": ((VOCABULARY, HIDDEN), table),
        "model.norm.weight": ((HIDDEN,), norm),
    }
    shards = [ends]
    for first in range(0, layers, LAYERS_PER_SHARD):
        numbers = range(first, min(first + LAYERS_PER_SHARD, layers))
        shards.append({f"model.layers.{n}.{k}": v for n in numbers for k, v in layer.items()})
    mapping = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / name, tensors)
        mapping |= dict.fromkeys(tensors, name)
    index = json.dumps({"metadata": {}, "weight_map": mapping})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    return folder


def config(layers: int) -> dict[str, object]:
    """Return Phi-3.5-mini's own configuration, LongRoPE included."""
    half = HIDDEN // HEADS // 2
    return {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "num_hidden_layers": layers, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT, "original_max_position_embeddings": 4096,
        "rope_theta": 10000.0, "rms_norm_eps": 1e-05, "sliding_window": 262144,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0 + i / 100 for i in range(half)],
                         "long_factor": [1.0 + i for i in range(half)]},
        "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip


def noise(rng: np.random.Generator, shape: tuple[int, int]) -> bytes:
    """Return normal noise of deviation 0.02 as bfloat16."""
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def write_shard(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> None:
    """Write one safetensors file."""
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            file.write(data)
