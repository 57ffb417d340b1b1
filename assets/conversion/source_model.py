"""A child process that computes logits with transformers, in float32 on the CPU.

Reads `{"folder", "tokens", "targets": [[first position, file], ...], "threads"}` from standard
input; writes one .npy file of shape (tokens, vocabulary) per target. Only safetensors are read,
nothing is fetched, and code out of the checkpoint is never run.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    """Answer the one request on standard input."""
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    request = json.load(sys.stdin)
    torch.set_num_threads(int(request["threads"]))
    torch.set_grad_enabled(False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        request["folder"],
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="eager",
    )
    model.eval()
    tokens = torch.tensor([request["tokens"]])
    for start, target in request["targets"]:
        # Rotary positions are relative: where a text begins changes nothing but which of LongRoPE's
        # factors are in use, and those are looked up by the highest position.
        places = torch.arange(start, start + tokens.shape[1])[None]
        found = model(input_ids=tokens, position_ids=places, use_cache=False).logits[0]
        np.save(target, found.float().numpy(), allow_pickle=False)
    sys.stdout.write("\n" + json.dumps({"tokens": len(request["tokens"])}) + "\n")


if __name__ == "__main__":
    main()
