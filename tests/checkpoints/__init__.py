"""Tiny real checkpoints of every Phi architecture, made in about a second each.

The weights are seeded noise; all the rest is as upstream has it: tensor names, config keys, true
vocabularies and special tokens.  The vocabularies come from the llama.cpp source tree:

- phi-3 and phi-3.5-moe: the first 32,000 pieces of `ggml-vocab-phi-3.gguf`, as SentencePiece model;
- phi-2: GPT-2's vocabulary with CodeGen's runs of spaces and tabs, which is what Phi-2 has;
- phi-4: the first 100,256 tokens of Llama 3's vocabulary, which are cl100k's, with Phi-4's own
  special tokens.  (Phi-4-mini's vocabulary, o200k, is not in the source; `make_phi4` with `mini`
  has Phi-4-mini's architecture over Phi-4's vocabulary.)

The converter knows BPE tokenizers by a digest of what they make of a test sentence, so a wrong
vocabulary would not convert.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np

from .vocabularies import (
    BYTE_LEVEL,
    CL100K,
    PHI_4_SPECIAL,
    PHI_4_TEMPLATE,
    Json,
    added_tokens,
    vocabulary,
    write_bpe_tokenizer,
    write_json,
    write_phi_3_tokenizer,
)

HIDDEN, LAYERS, HEAD, INNER = 256, 2, 64, 512
HEADS = HIDDEN // HEAD
PHI_3_IDS = {"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000, "vocab_size": 32064}
PHI_4_IDS = {"bos_token_id": 100257, "eos_token_id": 100265, "pad_token_id": 100349}
LONG_CONTEXT = {"original_max_position_embeddings": 512, "max_position_embeddings": 2048}
Shapes = dict[str, tuple[int, ...]]


def _write_weights(folder: Path, shapes: Shapes, seed: int) -> None:
    """Noise as bfloat16; norms near one, so that activations keep their size."""
    rng, at = np.random.default_rng(seed), 0
    header: Json = {}
    parts: list[bytes] = []
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        if "norm" in name and name.endswith("weight"):
            noise += 1
        bits = (noise.view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16)
        parts.append(bits.astype("<u2").tobytes())
        ends = [at, at := at + len(parts[-1])]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": ends}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    whole = [struct.pack("<Q", len(text)), text, *parts]
    (folder / "model.safetensors").write_bytes(b"".join(whole))


def _config(architecture: str, model_type: str, **own: object) -> Json:
    common: Json = {
        "architectures": [architecture],
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 4096,
        "model_type": model_type,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    return common | own


def _layers(**of_layer: tuple[int, ...]) -> Shapes:
    """The shapes of every layer's tensors; a double underscore stands for a point."""
    return {
        f"model.layers.{layer}.{name.replace('__', '.')}": shape
        for layer in range(LAYERS)
        for name, shape in of_layer.items()
    }


def _with_bias(shapes: Shapes) -> Shapes:
    biases = {name.removesuffix("weight") + "bias": (s[0],) for name, s in shapes.items()}
    return shapes | biases


def make_phi2(folder: Path, *, llama_source: Path) -> Path:
    """PhiForCausalLM.  Rotates half of each head, not 0.4: that of 64 is no even number."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = {" " * (31 - at): 50257 + at for at in range(30)}
    runs |= {"\t" * (9 - at): 50287 + at for at in range(8)}
    added = added_tokens({"<|endoftext|>": 50256}) | added_tokens(runs, special=False)
    for at in runs.values():
        added[str(at)]["normalized"] = True
    marks = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    config: Json = {"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": False} | marks
    base = vocabulary(llama_source, "gpt-2")
    write_bpe_tokenizer(folder, base, 50257, added, config, pre_tokenizer=BYTE_LEVEL)
    own: Json = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-05, "partial_rotary_factor": 0.5}
    own |= {"vocab_size": 51200, "bos_token_id": 50256, "eos_token_id": 50256}
    shape = _config("PhiForCausalLM", "phi", intermediate_size=4 * HIDDEN, **own)
    square, wide = (HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN)
    heads: Shapes = {f"self_attn__{part}_proj__weight": square for part in "qkv"}
    inner = {"mlp__fc1__weight": wide, "mlp__fc2__weight": wide[::-1]}
    layers = _layers(
        input_layernorm__weight=(HIDDEN,), self_attn__dense__weight=square, **heads, **inner
    )
    ends = {"model.final_layernorm.weight": (HIDDEN,), "lm_head.weight": (51200, HIDDEN)}
    shapes: Shapes = {"model.embed_tokens.weight": (51200, HIDDEN)} | _with_bias(layers | ends)
    write_json(folder, config=shape)
    _write_weights(folder, shapes, seed=2)
    return folder


def _phi_3_shapes(vocabulary: int, key_value_heads: int, *, tied: bool) -> Shapes:
    joined = (HEADS + 2 * key_value_heads) * HEAD
    shapes: Shapes = {
        "model.embed_tokens.weight": (vocabulary, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    shapes |= _layers(
        input_layernorm__weight=(HIDDEN,),
        post_attention_layernorm__weight=(HIDDEN,),
        self_attn__qkv_proj__weight=(joined, HIDDEN),
        self_attn__o_proj__weight=(HIDDEN, HIDDEN),
        mlp__gate_up_proj__weight=(2 * INNER, HIDDEN),
        mlp__down_proj__weight=(HIDDEN, INNER),
    )
    return shapes if tied else shapes | {"lm_head.weight": (vocabulary, HIDDEN)}


def _long_rope(rotated: int = HEAD) -> Json:
    half = rotated // 2
    long = [round(4.0 ** (at / (half - 1)), 4) for at in range(half)]
    return {"type": "longrope", "short_factor": [1.0] * half, "long_factor": long}


def make_phi3(folder: Path, *, llama_source: Path, long_rope: bool = False) -> Path:
    """Phi3ForCausalLM with Phi-3's vocabulary; LongRoPE switches at 512 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_phi_3_tokenizer(folder, llama_source)
    own: Json = LONG_CONTEXT | {"rope_scaling": _long_rope()} if long_rope else {}
    write_json(folder, config=_config("Phi3ForCausalLM", "phi3", **PHI_3_IDS, **own))
    _write_weights(folder, _phi_3_shapes(32064, HEADS, tied=False), seed=3)
    return folder


def make_phi4(folder: Path, *, llama_source: Path, mini: bool = False) -> Path:
    """Phi3ForCausalLM with Phi-4's vocabulary.  `mini`: tied embeddings, partial rotation, LongRoPE
    and fewer key heads, as Phi-4-mini has."""
    folder.mkdir(parents=True, exist_ok=True)
    free = sorted(set(range(100256, 100352)) - set(PHI_4_SPECIAL.values()))
    added = added_tokens(
        PHI_4_SPECIAL | {f"<|dummy_{at}|>": token for at, token in enumerate(free)}
    )
    config: Json = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>"}
    config |= {"eos_token": "<|im_end|>", "pad_token": "<|dummy_85|>"}
    config |= {"add_prefix_space": False, "chat_template": PHI_4_TEMPLATE}
    split: Json = {
        "type": "Split",
        "pattern": {"Regex": CL100K},
        "behavior": "Removed",
        "invert": True,
    }
    steps: Json = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]}
    base = vocabulary(llama_source, "llama-bpe")
    write_bpe_tokenizer(folder, base, 100256, added, config, pre_tokenizer=steps)
    own: Json = PHI_4_IDS | {"vocab_size": 100352, "num_key_value_heads": 2}
    if mini:
        own |= {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}
        own |= LONG_CONTEXT | {"rope_scaling": _long_rope(HEAD * 3 // 4)}
    write_json(folder, config=_config("Phi3ForCausalLM", "phi3", **own))
    _write_weights(folder, _phi_3_shapes(100352, 2, tied=mini), seed=4)
    return folder


def make_phimoe(folder: Path, *, llama_source: Path, experts: int = 4) -> Path:
    """PhiMoEForCausalLM, two experts of `experts` per token, biases and LongRoPE as upstream."""
    folder.mkdir(parents=True, exist_ok=True)
    write_phi_3_tokenizer(folder, llama_source)
    scale = math.sqrt(1 + math.log(4) / math.log(512))
    rope = _long_rope() | {"short_mscale": scale, "long_mscale": scale}
    rope["original_max_position_embeddings"] = 512
    own: Json = PHI_3_IDS | LONG_CONTEXT | {"rope_scaling": rope, "num_key_value_heads": 2}
    own |= {"num_local_experts": experts, "num_experts_per_tok": 2, "sliding_window": 2048}
    own |= {"attention_bias": True, "lm_head_bias": True}
    write_json(folder, config=_config("PhiMoEForCausalLM", "phimoe", **own))
    heads: Shapes = {f"self_attn__{part}_proj__weight": (HIDDEN, HIDDEN) for part in "qo"}
    heads |= {f"self_attn__{part}_proj__weight": (2 * HEAD, HIDDEN) for part in "kv"}
    norms = {f"{n}_layernorm__weight": (HIDDEN,) for n in ("input", "post_attention")}
    ends = {"model.norm.weight": (HIDDEN,), "lm_head.weight": (32064, HIDDEN)}
    shapes: Shapes = {"model.embed_tokens.weight": (32064, HIDDEN)}
    shapes |= _with_bias(_layers(**heads, **norms) | ends)
    moe: Shapes = {"block_sparse_moe__gate__weight": (experts, HIDDEN)}
    for at in range(experts):
        name = f"block_sparse_moe__experts__{at}"
        moe |= {f"{name}__w{n}__weight": (INNER, HIDDEN) for n in (1, 3)}
        moe[f"{name}__w2__weight"] = (HIDDEN, INNER)
    _write_weights(folder, shapes | _layers(**moe), seed=5)
    return folder


def make_llama_with_a_wrong_tokenizer(folder: Path, *, llama_source: Path) -> Path:
    """LlamaForCausalLM whose byte-level BPE is declared a Llama tokenizer with byte fallback.

    It converts without a word, and then has no token for a byte.
    """
    make_phi2(folder, llama_source=llama_source)
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_bytes())
    whole["model"]["byte_fallback"] = True
    whole["decoder"] = {"type": "Sequence", "decoders": [whole["decoder"]]}
    declared = json.loads((folder / "tokenizer_config.json").read_bytes())
    declared["tokenizer_class"] = "LlamaTokenizer"
    shape = _config("LlamaForCausalLM", "llama", vocab_size=51200, bos_token_id=50256,
                    eos_token_id=50256)  # fmt: skip
    square, wide = (HIDDEN, HIDDEN), (INNER, HIDDEN)
    layers = _layers(
        input_layernorm__weight=(HIDDEN,),
        post_attention_layernorm__weight=(HIDDEN,),
        mlp__gate_proj__weight=wide,
        mlp__up_proj__weight=wide,
        mlp__down_proj__weight=wide[::-1],
        **{f"self_attn__{part}_proj__weight": square for part in "qkvo"},
    )
    table = (51200, HIDDEN)
    ends: Shapes = {"model.embed_tokens.weight": table, "model.norm.weight": (HIDDEN,)}
    write_json(folder, config=shape, tokenizer=whole, tokenizer_config=declared)
    _write_weights(folder, ends | layers | {"lm_head.weight": table}, seed=6)
    return folder
