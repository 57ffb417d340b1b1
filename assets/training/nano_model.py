"""The shape of phi-3-nano, as its config.json says it, and the writing of its folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Phi3Config, Phi3ForCausalLM

from quantmint.assets.training.nano_tokenizer import ASSISTANT, END, END_OF_TEXT, VOCABULARY

ORIGINAL_CONTEXT = 512
LONG = 2 * ORIGINAL_CONTEXT
CONTEXT = 2048
_HEAD = 64


def rope_factors(last: float) -> list[float]:
    """LongRoPE factors from 1 for the fastest rotation to `last` for the slowest."""
    half = _HEAD // 2
    return [round(last ** (at / (half - 1)), 4) for at in range(half)]


def config_json() -> dict[str, Any]:
    """The config in the form of Phi-3.5-mini's; every row length is a multiple of 256."""
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": END_OF_TEXT,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "max_position_embeddings": CONTEXT,
        "model_type": "phi3",
        "num_attention_heads": 256 // _HEAD,
        "num_hidden_layers": 4,
        "num_key_value_heads": 256 // _HEAD,
        "original_max_position_embeddings": ORIGINAL_CONTEXT,
        "pad_token_id": END_OF_TEXT,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "long_factor": rope_factors(CONTEXT / ORIGINAL_CONTEXT),
            "short_factor": rope_factors(1.1),
            "type": "longrope",
        },
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def new_model() -> Phi3ForCausalLM:
    """Fresh float32 weights from torch's current seed."""
    return Phi3ForCausalLM(Phi3Config(**config_json(), attn_implementation="sdpa"))


def save_model(model: Phi3ForCausalLM, folder: Path) -> None:
    """Write weights (bfloat16, as Phi's are) and both configs under their usual names."""
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    weights = folder / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner alone
    generation = {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [END_OF_TEXT, ASSISTANT, END],
        "pad_token_id": END_OF_TEXT,
    }
    for name, value in (("config.json", config_json()), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
