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
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from quantmint.errors import BugError, BuildError, QuantmintError, UserError
from quantmint.files import human_bytes
from quantmint.registry import gguf
from quantmint.registry.chatting import OWN_TEMPLATE, Talk, template_fails
from quantmint.registry.pull.fitting import Device, Fit, Load, fit_layers, load_of
from quantmint.registry.pull.header import ROUND, shape_of
from quantmint.registry.stops import TEMPLATE

T = TypeVar("T")
_ROOM: Final = 16 << 30


def chat(request: dict[str, Any], fit: Fit) -> None:
    """Answer the prompt that was given, or all that are typed until the input ends.

    Raises:
        UserError: the file has no chat template, or a prompt is longer than the context.
        BuildError: llama.cpp does not load the model here.
        IntegrityError: the model's template fails.
    """
    from llama_cpp import Llama

    if not _has_template(request):
        raise UserError(
            f"{request['name']} has no chat template: it is not made for chats",
            mend=f"quantmint serve {request['name']}  (and ask /v1/completions for plain text)",
        )

    def load(options: dict[str, Any]) -> Any:  # noqa: ANN401
        return Llama(model_path=request["model"], chat_format=OWN_TEMPLATE, **options)

    talk = Talk(
        _loaded(load, request, fit), max_tokens=request["max_tokens"], heat=request["heat"],
        report=_say,
    )  # fmt: skip
    is_typed = request["prompt"] is None and sys.stdin.isatty()
    if is_typed:
        _tell("each line is answered; Ctrl-D ends the talk")
    for prompt in _prompts(request):
        try:
            _show(talk.ask(prompt))
        except UserError as error:  # what was said before stays
            if not is_typed:
                raise
            _say(f"error: {error}")


def serve(request: dict[str, Any], fit: Fit) -> None:
    """Serve llama-cpp-python's OpenAI-compatible API on loopback until interrupted.

    Raises:
        UserError: the port is taken.
        BuildError: llama.cpp does not load the model here.
        IntegrityError: the model's template does not compile.
    """
    from quantmint.registry import serving

    socket = serving.bind(int(request["port"]))
    template = OWN_TEMPLATE
    if not _has_template(request):
        template = "none, for the model has no chat template"
        _say(
            f"warning: {request['name']} has no chat template: /v1/chat/completions is refused,"
            " /v1/completions works"
        )

    def load(options: dict[str, Any]) -> Any:  # noqa: ANN401
        options = {**options, "chat_format": template}
        return serving.make_app(request["model"], request["name"], options)

    serving.serve(_loaded(load, request, fit), socket)


def _has_template(request: dict[str, Any]) -> bool:
    value = gguf.read(Path(request["model"])).values.get(TEMPLATE)
    return isinstance(value, str) and bool(value.strip())


def _loaded(load: Callable[[dict[str, Any]], T], request: dict[str, Any], fit: Fit) -> T:
    """Load the model, and say in our words where that fails."""
    from jinja2 import TemplateError

    try:
        return _on_devices(load, request, fit)
    except TemplateError as error:
        raise template_fails(error) from None
    except ValueError as error:
        raise BuildError(
            f"llama.cpp does not load {request['name']} here: {_line(error)}",
            mend="--context with a smaller number where memory is short; else another variant, or"
            " a newer llama-cpp-python",
        ) from None


def _on_devices(load: Callable[[dict[str, Any]], T], request: dict[str, Any], fit: Fit) -> T:
    """Load the model with as many layers on GPUs as fit; with fewer where these refuse them."""
    options: dict[str, Any] = {
        # As llama.cpp rounds it: llama-cpp-python keeps no more tokens than were asked for.
        "n_ctx": -(-request["context"] // ROUND) * ROUND,
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


def _load(request: dict[str, Any]) -> Load:
    headers = [gguf.read(Path(path)) for path in request["files"]]
    return load_of(headers, request["context"])


def _free(gpu: Device) -> str:
    return f"{human_bytes(gpu.free)} of {human_bytes(gpu.total)} free"


def memory_bound(request: dict[str, Any]) -> int:
    """Return the most bytes that a process on the CPU may map.

    The weights are mapped, and may be there once more in the kernel's own order; beside them lie
    the cache and the compute buffers of this context, libraries and threads.
    """
    size = sum(Path(path).stat().st_size for path in request["files"])
    shape = shape_of(gguf.read(Path(request["model"])))
    return 3 * size + shape.beside_weights(request["context"]) + _ROOM


def _bound(request: dict[str, Any]) -> None:
    """Bound the memory of a process that runs on the CPU; a GPU's driver maps far more."""
    most = memory_bound(request)
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


def _show(pieces: Iterator[str]) -> None:
    for text in pieces:
        sys.stdout.write(_shown(text))
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


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
    """Load the kernel and the bindings, and decide what runs where.

    Raises:
        BuildError: the kernel or the bindings do not load on this machine.
    """
    if request["kernel"] is not None:
        from quantmint.registry.devices import CPU, load_kernel

        failed = load_kernel(Path(request["kernel"]))
        if any(name.startswith(CPU) for name in failed):
            raise BuildError(
                f"kernel {failed[-1]} does not load on this machine",
                mend="quantmint kernels list  (what runs here)",
            )
    try:
        __import__("llama_cpp")
    except Exception as error:  # noqa: BLE001 - its libraries are loaded by this, and it says so in many ways
        raise BuildError(
            f"llama-cpp-python does not load: {_line(error)}",
            mend="add the folder of the library that is missing to LD_LIBRARY_PATH, or:"
            " pip install --force-reinstall --no-cache-dir llama-cpp-python",
        ) from None
    fit = fitted(request)
    if fit.layers == 0:
        _bound(request)
    return fit


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


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
    except Exception:  # noqa: BLE001 - as in `quantmint.__main__`: nothing ends without its exit code
        traceback.print_exc()
        _say("error: this is a bug in quantmint or llama-cpp-python; please report the lines above")
        sys.exit(BugError.exit_code)


if __name__ == "__main__":
    main()
