"""A fetch as a process of its own: `python tests/transfer/client.py JSON` prints what it took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantmint.errors import QuantmintError
from quantmint.registry.store import Store
from quantmint.registry.transfer import Item, Limits, Progress, fetch_all


def start(env: dict[str, str] | None = None, **asked: Any) -> subprocess.Popen[str]:
    """Start this module: `start(root=..., items=[{...}], origins=[...], limits={...})`."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(asked)],
        env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    """Wait for it; return its exit code, what it took, and what it said."""
    with process:
        out, err = process.communicate(timeout=120)
    rows = json.loads(out.splitlines()[-1]) if process.returncode == 0 else []
    return process.returncode, rows, err


def main(asked: dict[str, Any]) -> None:
    """Fetch, and print."""

    def told(progress: Progress) -> None:
        print(progress.done, flush=True)

    took = fetch_all(
        [Item(**item) for item in asked["items"]],
        asked["origins"],
        Store(Path(asked["root"])).open(),
        limits=Limits(**asked.get("limits", {})),
        token=asked.get("token"),
        progress=told,
    )
    print(json.dumps([asdict(one) for one in took]), flush=True)


if __name__ == "__main__":
    # Where the tests were started in the background, an interrupt is ignored unless we ask for it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(json.loads(sys.argv[1]))
    except QuantmintError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
