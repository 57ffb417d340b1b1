"""The process that a model runs in: a chat on the terminal, or a server on loopback.

It is started by `runtime.start` without our environment's secrets, and bounds its own memory, for
a model file is foreign input to a native parser, and its chat template to a template engine (the
sandboxed one of llama-cpp-python). The request is one JSON object in the arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from quantmint.errors import BuildError, QuantmintError
from quantmint.files import human_bytes
from quantmint.registry.pull.fitting import Device, Fit, fit_layers, load_of

T = TypeVar("T")
_ROOM: Final = 16 << 30


def chat(request: dict[str, Any], fit: Fit) -> None:
    """Answer the prompt that was given, or all that are typed until the input ends."""
    from llama_cpp import Llama

    def load(options: dict[str, Any]) -> Any:  # noqa: ANN401
        return Llama(model_path=request["model"], **options)

    model = _on_devices(load, request, fit)
    said: list[dict[str, str]] = []
    for prompt in _prompts(request):
        said.append({"role": "user", "content": prompt})
        said.append({"role": "assistant", "content": _answer(model, said, request)})


def serve(request: dict[str, Any], fit: Fit) -> None:
    """Serve llama-cpp-python's OpenAI-compatible API on loopback until interrupted."""
    from quantmint.registry import serving

    socket = serving.bind(int(request["port"]))

    def load(options: dict[str, Any]) -> Any:  # noqa: ANN401
        return serving.make_app(request["model"], request["name"], options)

    serving.serve(_on_devices(load, request, fit), socket)


def _on_devices(load: Callable[[dict[str, Any]], T], request: dict[str, Any], fit: Fit) -> T:
    """Load the model with as many layers on GPUs as fit; with fewer where these refuse them."""
    options: dict[str, Any] = {
        "n_ctx": request["context"],
        "n_threads": request["threads"],
        "n_threads_batch": request["threads"],
        "flash_attn": True,
        "verbose": False,
    }
    if len(fit.split) > 1:
        options["tensor_split"] = [float(share) for share in fit.split]
    layers = fit.layers
    while True:
        try:
            return load({**options, "n_gpu_layers": layers})
        except ValueError:  # llama-cpp-python's word for all that does not load
            if layers == 0:
                raise
            fewer = layers * 2 // 3
            _say(f"{layers} layers were too many for the GPU: trying {fewer}")
            layers = fewer


def fitted(request: dict[str, Any]) -> Fit:
    """Return how many layers go to GPUs, and say so: always where it is not what was hoped for."""
    wanted, kernel = request["gpu_layers"], request["kernel_name"]
    if wanted == 0:
        return Fit(layers=0, most=0)
    from quantmint.registry.devices import list_gpus

    gpus = list_gpus()
    if not gpus:
        if request["is_gpu_kernel"]:
            _say(f"kernel {kernel} finds no GPU here: running on the CPU")
        elif kernel:
            _tell(f"running on the CPU, kernel {kernel}")
        return Fit(layers=0, most=0)
    fit = fit_layers(_load(request), gpus)
    if wanted is not None:
        return Fit(layers=min(wanted, fit.most), most=fit.most)
    names = ", ".join(f"{gpu.name} ({gpu.description})" for gpu in gpus)
    if fit.layers == 0:
        free = ", ".join(_free(gpu) for gpu in gpus)
        _say(f"running on the CPU: not a layer fits on {names}, with {free}")
    elif not fit.is_whole:
        _say(f"{fit.layers} of {fit.most} layers fit on {names}: the rest runs on the CPU")
    else:
        _tell(f"running on {names}: all {fit.most} layers, {human_bytes(fit.size)}")
    return fit


def _load(request: dict[str, Any]) -> Any:  # noqa: ANN401
    from quantmint.registry import gguf

    headers = [gguf.read(Path(path)) for path in request["files"]]
    return load_of(headers, request["context"])


def _free(gpu: Device) -> str:
    return f"{human_bytes(gpu.free)} of {human_bytes(gpu.total)} free"


def _bound(request: dict[str, Any]) -> None:
    """Bound the memory by the model's size; a GPU's driver maps far more than it uses."""
    size = sum(Path(path).stat().st_size for path in request["files"])
    most = 3 * size + _ROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _prompts(request: dict[str, Any]) -> Iterator[str]:
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


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _tell(line: str) -> None:
    """Say what only who watches wants to know."""
    if sys.stderr.isatty():
        _say(line)


def _prepare(request: dict[str, Any]) -> Fit:
    """Load the kernel, and decide what runs where.

    Raises:
        BuildError: the kernel does not load on this machine.
    """
    if request["kernel"] is not None:
        from quantmint.registry.devices import CPU, load_kernel

        failed = load_kernel(Path(request["kernel"]))
        if any(name.startswith(CPU) for name in failed):
            raise BuildError(
                f"kernel {failed[-1]} does not load on this machine",
                mend="quantmint kernels list  (what runs here)",
            )
    fit = fitted(request)
    if fit.layers == 0:
        _bound(request)
    return fit


def main() -> None:
    """Do what the request asks."""
    request = json.loads(sys.argv[1])
    try:
        {"chat": chat, "serve": serve}[request["task"]](request, _prepare(request))
    except KeyboardInterrupt:
        os._exit(130)
    except QuantmintError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except ValueError as error:  # llama-cpp-python's word for a file that it does not load
        raise SystemExit(f"error: {str(error).splitlines()[0][:300]}") from None


if __name__ == "__main__":
    main()
