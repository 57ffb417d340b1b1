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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn

from quantmint.errors import UserError

OWN: Final = "quantmint.registry.talking"
MINT: Final = "quantmint.native.serving"
_SERVER: Final = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
# What the process gets of our environment: no token, no proxy's password.
_PASSED: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV",
    "QUANTMINT_HOME", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "OMP_WAIT_POLICY",
    "PYTHONPATH",
)  # fmt: skip
_ROOM: Final = 16 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is run. `kernel` is filled in where the mint's libraries are used."""

    task: Literal["chat", "serve"]
    model: str
    name: str
    context: int
    threads: int
    gpu_layers: int = 0
    prompt: str | None = None
    max_tokens: int | None = None
    heat: float = 0.7
    port: int = 8080
    kernel: str | None = None


def module_for(task: str) -> str:
    """Return the module that runs a session here.

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
        return OWN
    if importlib.util.find_spec("dagster") is not None and importlib.util.find_spec("cmake"):
        return MINT
    raise UserError(
        "llama-cpp-python was installed without its libraries, and the mint, which builds them, is"
        " not installed",
        mend="pip install --force-reinstall llama-cpp-python  (or: pip install 'quantmint[build]')",
    )


def start(session: Session) -> NoReturn:
    """Become the process that runs a session; its exit code is ours.

    Raises:
        UserError: nothing that could run it is installed.
    """
    module = module_for(session.task)
    sys.stdout.flush()
    sys.stderr.flush()
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    env |= {"GGML_NO_BACKTRACE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    _limit(Path(session.model))
    argv = [sys.executable, "-m", module, json.dumps(asdict(session))]
    os.execve(sys.executable, argv, env)  # noqa: S606 - a list, no shell


def _limit(model: Path) -> None:
    """Bound what the process may take, by the size of its model."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = 3 * model.stat().st_size + _ROOM
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
