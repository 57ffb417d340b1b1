"""What can run a model here, and starting it: llama-cpp-python, on its own libraries or on ours.

The libraries that the mint builds are found by the mint itself, in a process of its own
(`quantmint.native.serving`): this package knows nothing of it but that name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

from quantmint.errors import UserError

OWN: Final = "quantmint.registry.talking"
MINT: Final = "quantmint.native.serving"
_SERVER: Final = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
# What the process gets of our environment: no token, no proxy's password.
_PASSED: Final = frozenset({
    "PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV",
    "QUANTMINT_HOME", "PYTHONPATH",
    # Where libraries of GPUs lie that no loader knows of, and by what a kernel was built.
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDACXX", "ROCM_PATH", "MKLROOT", "VULKAN_SDK",
    "CC", "CXX", "NVIDIA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
})  # fmt: skip
# Which devices and threads are used, and how: families of names, none of which holds a secret.
_FAMILIES: Final = (
    "OMP_", "GOMP_", "KMP_", "GGML_", "CUDA_", "HIP_", "ROCR_", "HSA_", "VK_", "ONEAPI_", "ZE_",
    "SYCL_",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is run. `files` are the model's parts, the first of them `model`.

    `gpu_layers` is how many go to GPUs, None for as many as fit. `kernel_name` is the kernel that
    is wanted, None for the best at hand; `kernel`, its library, and `is_gpu_kernel` are filled in
    where the mint's libraries are used.
    """

    task: Literal["chat", "serve"]
    model: str
    files: tuple[str, ...]
    name: str
    context: int
    threads: int
    gpu_layers: int | None = None
    kernel_name: str | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    heat: float = 0.7
    port: int = 8080
    kernel: str | None = None
    is_gpu_kernel: bool = False


def module_for(task: str, kernel: str | None = None) -> str:
    """Return the module that runs a session here; `kernel` is one of the mint's, by name.

    Raises:
        UserError: nothing that could is installed.
    """
    found = importlib.util.find_spec("llama_cpp")
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise UserError(
            "nothing here can run a model: llama-cpp-python is not installed",
            mend="pip install llama-cpp-python, or the mint with its own kernels: "
            "CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install 'quantmint[build]'",
        )
    if task == "serve":
        lacking = [name for name in _SERVER if importlib.util.find_spec(name) is None]
        if lacking:
            raise UserError(
                f"llama-cpp-python's server lacks {', '.join(lacking)}",
                mend="pip install 'llama-cpp-python[server]'  (or the packages that are named)",
            )
    if any(any((Path(folder) / "lib").glob("*llama.*")) for folder in folders):
        if kernel is not None:
            raise UserError(
                "llama-cpp-python runs on the libraries that it was installed with here, and on no"
                " kernel of the mint",
                mend="leave --kernel out",
            )
        return OWN
    if importlib.util.find_spec("dagster") is not None and importlib.util.find_spec("cmake"):
        return MINT
    raise UserError(
        "llama-cpp-python was installed without its libraries, and the mint, which builds them, is"
        " not installed",
        mend="pip install --force-reinstall llama-cpp-python  (or: pip install 'quantmint[build]')",
    )


def passed_on(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment the process that runs a model gets."""
    return {
        name: value for name, value in env.items() if name in _PASSED or name.startswith(_FAMILIES)
    }


def start(session: Session) -> NoReturn:
    """Become the process that runs a session; its exit code is ours.

    Raises:
        UserError: nothing that could run it is installed.
    """
    module = module_for(session.task, session.kernel_name)
    sys.stdout.flush()
    sys.stderr.flush()
    env = passed_on(os.environ)
    env |= {"GGML_NO_BACKTRACE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    argv = [sys.executable, "-m", module, json.dumps(asdict(session))]
    os.execve(sys.executable, argv, env)  # noqa: S606 - a list, no shell
