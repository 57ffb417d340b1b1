"""What the tests of publishing share: releases to publish, and publishing as a process of its own.

A process knows its token, its way of uploading (xet or not) and its cache from its environment,
which the Hub's client reads once, when it is imported: `python tests/publishing.py JSON`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantmint.errors import IntegrityError, QuantmintError
from quantmint.home import find_home
from quantmint.registry.publish import FileSet, Options, Release, open_target, publish, yank
from quantmint.registry.store import Blob, Store

SMALL = 1 << 16
CARD = "---\nlicense: mit\n---\n# A model\n"


def contents(seed: int = 1, size: int = 1_300_000) -> dict[str, bytes]:
    """Return a release's files: two large ones, of which `seed` changes only the second."""
    return {
        "README.md": f"{CARD}{seed}\n".encode(),
        "quantmint.json": json.dumps({"release": seed}).encode(),
        "tensors/a.json": b"[]",
        "A-Q8_0.gguf": b"GGUF" + random.Random(0).randbytes(size),
        "A-Q4_K_M.gguf": b"GGUF" + random.Random(seed).randbytes(size // 2),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a release's files to a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def without_status(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return what is served without what the publisher keeps beside a release."""
    kept = (".gitattributes", "quantmint.status.json")
    return {name: data for name, data in files.items() if name not in kept}


def file_set(store: Store, files: dict[str, bytes]) -> FileSet:
    """Return files as a set: large ones out of the store, small ones as bytes."""
    found: dict[str, Blob | bytes] = {
        name: data if len(data) <= SMALL else store.put_bytes(data) for name, data in files.items()
    }
    return FileSet.of(store, found)


def smoke(path: str, local: Path) -> None:
    """Refuse what says that it is bad."""
    if b"BAD" in local.read_bytes()[:64]:
        raise IntegrityError(f"the smoke test of {path} failed")


@dataclass(frozen=True)
class Ended:
    """A process that has ended; `result` is what it printed, if it printed anything."""

    code: int
    result: dict[str, Any]
    err: str


def start(env: dict[str, str], **asked: Any) -> subprocess.Popen[str]:
    """Start this module as a process."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(asked)],
        env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(env: dict[str, str], **asked: Any) -> Ended:
    """Run this module as a process: `run(env, target=..., release="v1", folder=...)`."""
    with start(env, **asked) as process:
        out, err = process.communicate(timeout=120)
    return Ended(process.returncode, json.loads(out or "{}"), err)


def client_env(endpoint: str, token: str, folder: Path, *, xet: bool) -> dict[str, str]:
    """Return the environment of a client that knows no hub but this one."""
    return {
        "HF_ENDPOINT": endpoint, "HF_TOKEN": token, "HF_HOME": str(folder / "hf"),
        "HF_XET_CACHE": str(folder / "xet"), "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_XET_TELEMETRY_ENABLED": "0", "QUANTMINT_HOME": str(folder / "home"),
    }  # fmt: skip


def main(asked: dict[str, Any]) -> None:
    """Do what is asked, and print the result as JSON."""
    home = find_home()
    store = Store(home.store).open()

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    target = open_target(asked["target"], report=report)
    options = Options(work=home.work, report=report, **asked.get("options", {}))
    if "yank" in asked:
        done = yank(asked["release"], target, reason=asked["yank"], options=options)
    else:
        folder = Path(asked["folder"])
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        release = Release(name=asked["release"], files=file_set(store, files))
        done = publish(release, target, smoke=smoke, options=options)
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except QuantmintError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
