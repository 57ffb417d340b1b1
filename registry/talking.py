"""The process that a model runs in: a chat on the terminal, or a server on loopback.

It is started by `runtime.start` with memory limits and without our environment's secrets, for a
model file is foreign input to a native parser, and its chat template to a template engine (the
sandboxed one of llama-cpp-python). The request is one JSON object in the arguments.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

HOSTS = ("127.0.0.1", "localhost")
# What ggml says while it loads a kernel is for nobody here; the object must outlive the call.
_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def load_kernel(library: str) -> None:
    """Register the kernel of a bundle, and the CPU's beside it where it is a GPU's."""
    path = Path(library)
    ggml = ctypes.CDLL(str(path.with_name("libggml.so")))
    ggml.ggml_log_set(_QUIET, None)
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    beside = [] if "ggml-cpu" in path.name else sorted(path.parent.glob("libggml-cpu*.so"))
    for each in (path, *beside):
        if not ggml.ggml_backend_load(str(each).encode()):
            raise SystemExit(f"error: kernel {each.name} does not load on this machine")


def chat(request: dict[str, Any]) -> None:
    """Answer the prompt that was given, or all that are typed until the input ends."""
    model = _model(request)
    said: list[dict[str, str]] = []
    for prompt in _prompts(request):
        said.append({"role": "user", "content": prompt})
        said.append({"role": "assistant", "content": _answer(model, said, request)})


def serve(request: dict[str, Any]) -> None:
    """Serve llama-cpp-python's OpenAI-compatible API on loopback until interrupted.

    Host names are checked, so that no web page's name can stand for this machine; no other
    origin's scripts are let in.
    """
    import uvicorn
    from fastapi.middleware.cors import CORSMiddleware
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    host, port = HOSTS[0], int(request["port"])
    app = create_app(
        server_settings=ServerSettings(host=host, port=port),
        model_settings=[
            ModelSettings(
                model=request["model"],
                model_alias=request["name"],
                n_ctx=request["context"],
                n_gpu_layers=request["gpu_layers"],
                n_threads=request["threads"],
                n_threads_batch=request["threads"],
                verbose=False,
            )
        ],
    )
    app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    print(f"http://{host}:{port}/v1", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _model(request: dict[str, Any]) -> Any:  # noqa: ANN401
    from llama_cpp import Llama

    return Llama(
        model_path=request["model"],
        n_ctx=request["context"],
        n_gpu_layers=request["gpu_layers"],
        n_threads=request["threads"],
        n_threads_batch=request["threads"],
        verbose=False,
    )


def _prompts(request: dict[str, Any]) -> Any:  # noqa: ANN401
    if request["prompt"] is not None:
        yield request["prompt"]
        return
    if not sys.stdin.isatty():
        text = sys.stdin.read(1 << 20)
        if text.strip():
            yield text
        return
    with contextlib.suppress(ImportError):
        __import__("readline")
    while True:
        try:
            text = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        if text.strip():
            yield text


def _answer(model: Any, said: list[dict[str, str]], request: dict[str, Any]) -> str:  # noqa: ANN401
    parts = []
    stream = model.create_chat_completion(
        messages=said, stream=True, max_tokens=request["max_tokens"], temperature=request["heat"]
    )
    for event in stream:
        text = event["choices"][0]["delta"].get("content") or ""
        parts.append(text)
        sys.stdout.write(_shown(text))
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(parts)


def _shown(text: str) -> str:
    """Return what a model says without what would steer a terminal."""
    if not sys.stdout.isatty():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def main() -> None:
    """Do what the request asks."""
    request = json.loads(sys.argv[1])
    if request["kernel"] is not None:
        load_kernel(request["kernel"])
    try:
        {"chat": chat, "serve": serve}[request["task"]](request)
    except KeyboardInterrupt:
        os._exit(130)
    except ValueError as error:  # llama-cpp-python's word for a file that it does not load
        raise SystemExit(f"error: {str(error).splitlines()[0][:300]}") from None


if __name__ == "__main__":
    main()
