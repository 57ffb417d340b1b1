"""A child process that uses llama-cpp-python on libraries that this project built.

Reads one JSON request from standard input and writes one JSON answer as the last line of
standard output. The parent sets LLAMA_CPP_LIB_PATH, memory limits and its own death as ours: a
model file is foreign input to a native parser, and its chat template to a template engine, so
neither is touched in the parent.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from pathlib import Path
from typing import Any


def load_kernel(library: Path) -> None:
    """Register the one kernel; without it the bindings find no device at all."""
    ggml = ctypes.CDLL(str(library.with_name("libggml.so")))
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    if not ggml.ggml_backend_load(str(library).encode()):
        raise SystemExit(f"kernel {library.name} does not load on this machine")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what the request's `task` names."""
    tasks = {"tokenize": tokenize, "round_trip": round_trip, "chat": chat}
    return tasks[request["task"]](request)


def tokenize(request: dict[str, Any]) -> dict[str, Any]:
    """Return the token ids of each text, special tokens in the text parsed, no BOS added."""
    from llama_cpp import Llama

    model = Llama(model_path=request["model"], vocab_only=True, verbose=False)
    ids = [model.tokenize(text.encode(), add_bos=False, special=True) for text in request["texts"]]
    return {"ids": ids}


def round_trip(request: dict[str, Any]) -> dict[str, Any]:
    """Return each text after tokenizing it and back."""
    from llama_cpp import Llama

    model = Llama(model_path=request["model"], vocab_only=True, verbose=False)
    texts = []
    for text in request["texts"]:
        ids = model.tokenize(text.encode(), add_bos=False, special=False)
        texts.append(model.detokenize(ids).decode("utf-8", "replace"))
    return {"texts": texts}


def chat(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one prompt in the model's own format, greedily.

    Returns the text, why it ended (`stop` or `length`), the prompt as the model saw it and
    whether every logit was finite.
    """
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        model_path=request["model"],
        n_ctx=request["context"],
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        n_gpu_layers=request["gpu_layers"],
        logits_all=False,
        seed=0,
        verbose=False,
    )
    prompt, stops = _prompt(model, request)
    tokens = model.tokenize(prompt.encode(), add_bos=True, special=True)
    model.eval(tokens)
    logits = np.ctypeslib.as_array(model._ctx.get_logits(), shape=(model.n_vocab(),))  # noqa: SLF001
    finite = bool(np.isfinite(logits).all())
    made = model.create_completion(
        prompt, max_tokens=request["max_tokens"], temperature=0.0, stop=stops
    )
    choice = made["choices"][0]
    return {
        "text": choice["text"],
        "ended": choice["finish_reason"],
        "prompt": prompt,
        "tokens": made["usage"]["completion_tokens"],
        "finite": finite and math.isfinite(float(logits.max())),
    }


def _prompt(model: Any, request: dict[str, Any]) -> tuple[str, list[str]]:  # noqa: ANN401
    """Render the file's own chat template, or the model file's plain format where it has none."""
    template = model.metadata.get("tokenizer.chat_template")
    if template is None:
        return request["format"].format(prompt=request["prompt"]), []
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    def piece(token: int) -> str:
        return model._model.token_get_text(token) if token >= 0 else ""  # noqa: SLF001

    formatter = Jinja2ChatFormatter(
        template=template, bos_token=piece(model.token_bos()), eos_token=piece(model.token_eos())
    )
    made = formatter(messages=[{"role": "user", "content": request["prompt"]}])
    prompt = made.prompt
    bos = piece(model.token_bos())
    stops = [made.stop] if isinstance(made.stop, str) else list(made.stop or [])
    # create_completion adds the BOS itself when the vocabulary asks for one.
    return prompt.removeprefix(bos) if bos else prompt, stops


def main() -> None:
    """Answer the one request on standard input."""
    request = json.load(sys.stdin)
    load_kernel(Path(request["kernel"]))
    result = answer(request)
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
