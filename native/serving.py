"""Becomes `quantmint.registry.talking` on this machine's best kernel, building it if need be.

`quantmint run` and `serve` start it as a process, with a session as JSON in the arguments.
"""

from __future__ import annotations

import json
import os
import sys

from quantmint.errors import QuantmintError
from quantmint.home import find_home
from quantmint.native.build import Bundle, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store


def main() -> None:
    """Find or build the kernel, and hand over to the process that runs the model."""
    session = json.loads(sys.argv[1])
    try:
        bundle = _bundle()
    except QuantmintError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    session["kernel"] = str(bundle.kernel_library)
    env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(bundle.folder)}
    argv = [sys.executable, "-m", "quantmint.registry.talking", json.dumps(session)]
    os.execve(sys.executable, argv, env)  # noqa: S606 - a list, no shell


def _bundle() -> Bundle:
    home = find_home()

    def report(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    return build_kernel(home, Store(home.store).open(), host_kernel(), report)


if __name__ == "__main__":
    main()
