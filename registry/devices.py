"""Kernels and GPUs of llama.cpp's libraries in this process: loading those, listing these.

Only a process that runs a model imports this: `talking`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Final

from quantmint.registry.pull.fitting import Device

CPU: Final = "libggml-cpu"
_NAME: Final = 256
# ggml-backend.h: enum ggml_backend_dev_type.
_GPU, _INTEGRATED = 1, 2
# What ggml says while it loads a kernel is for nobody here; the object must outlive the call.
_QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def load_kernel(library: Path) -> list[str]:
    """Register the kernel of a bundle, and the CPU's beside it where it is a GPU's.

    Return the names of those that do not load here; without a CPU's nothing can run.

    Raises:
        OSError: the bundle's own libraries don't load.
    """
    ggml = ctypes.CDLL(str(library.with_name("libggml.so")))
    ggml.ggml_log_set(_QUIET, None)
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    is_cpu = library.name.startswith(CPU)
    beside = [] if is_cpu else sorted(library.parent.glob(f"{CPU}*.so"))
    return [one.name for one in (library, *beside) if not ggml.ggml_backend_load(str(one).encode())]


def list_gpus() -> list[Device]:
    """Return the GPUs that llama.cpp would use: those with memory of their own, else the CPU's."""
    from llama_cpp import llama_cpp

    try:
        lib = _typed(llama_cpp._lib)  # noqa: SLF001 - the handle knows ggml's functions as well
    except AttributeError:  # libraries of another kind than ours: they list nothing
        return []
    found: dict[int, list[Device]] = {_GPU: [], _INTEGRATED: []}
    for at in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(at)
        kind = lib.ggml_backend_dev_type(device)
        if kind in found:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            name = _text(lib.ggml_backend_dev_name(device))
            told = _text(lib.ggml_backend_dev_description(device))
            found[kind].append(Device(name, told, free.value, total.value))
    return found[_GPU] or found[_INTEGRATED]


def _typed(lib: Any) -> Any:  # noqa: ANN401
    """Give ggml's functions their types (ggml-backend.h)."""
    handle, size = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    for name, restype, argtypes in (
        ("get", handle, [ctypes.c_size_t]),
        ("type", ctypes.c_int, [handle]),
        ("name", ctypes.c_char_p, [handle]),
        ("description", ctypes.c_char_p, [handle]),
        ("memory", None, [handle, size, size]),
    ):
        function = getattr(lib, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = restype, argtypes
    return lib


def _text(raw: bytes | None) -> str:
    text = (raw or b"").decode("utf-8", "replace")[:_NAME]
    return "".join(c for c in text if c.isprintable())
