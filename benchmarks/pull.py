"""Pulling against `hf download`: the same file from the same server on loopback, in one run.

    python benchmarks/pull.py [--size 1.0] [--rounds 3] [--folder FOLDER]

Both are the commands that people use, started afresh in turns. `quantmint pull --strict` checks the
release's signature, fetches, hashes every byte as it is stored and synced, and reads the header;
`hf download` does none of that. Then two deltas: another chat template (all tensors are here), and
a variant of which half the tensors are here.
The server keeps the files in memory and speaks the Hub's protocol, without xet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from gguf_builder import TEXT, File, Row, array, string, text
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE
from quantmint.registry.manifest.types import time_text
from quantmint.registry.tensors import make_table, table_bytes
from releases import make_release

ROOT = Path(__file__).resolve().parents[1]
TENSOR = 4 << 20
BASE, TEMPLATE, HALF = "Q8_0", "Q6_K", "Q4_K_M"
REPO = "my-org/Phi-3-nano-GGUF"


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of one process, its peak memory in bytes, and what it printed."""

    wall: float
    cpu: float
    memory: int
    said: dict[str, Any]


def write_gguf(path: Path, template: str, seeds: list[int]) -> None:
    """Write a file with one F32 tensor per seed and a vocabulary like Phi-3's in its header."""
    words = b"".join(text(f"token{index}") for index in range(32_064))
    values = [
        ("general.architecture", string("phi3")),
        ("tokenizer.ggml.tokens", array(TEXT, words, 32_064)),
        ("tokenizer.chat_template", string(template)),
    ]
    rows = [
        Row(f"blk.{at}.weight", (TENSOR // 4,), 0, at * TENSOR, TENSOR) for at in range(len(seeds))
    ]
    header = File(values, rows).header()
    with path.open("wb") as file:
        file.write(header + b"\0" * (-len(header) % 32))
        for seed in seeds:
            file.write(random.Random(seed).randbytes(TENSOR))


def make_files(folder: Path, size: int) -> Path:
    """Make a signed release of three large variants, and serve all of it from one folder."""
    release = make_release(folder)
    served = folder / "served"
    (served / "tensors").mkdir(parents=True)
    seeds = list(range(size // TENSOR))
    half = [seed + (1 << 20) * (seed % 2) for seed in seeds]
    recipes = {BASE: ("old", seeds), TEMPLATE: ("new" * 900, seeds), HALF: ("old", half)}
    rows = {}
    for name, (template, parts) in recipes.items():
        path = served / f"Phi-3-nano-{name}.gguf"
        write_gguf(path, template, parts)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        table = table_bytes(make_table(path, path.name, sha256))
        (served / "tensors" / f"{name}.json").write_bytes(table)
        rows[name] = {
            "file": {"path": path.name, "size": path.stat().st_size, "sha256": sha256},
            "tensors": {
                "path": f"tensors/{name}.json",
                "size": len(table),
                "sha256": hashlib.sha256(table).hexdigest(),
            },
        }
    like = release.manifest["variants"][0]
    variants = [{**like, "variant": name, **row} for name, row in rows.items()]
    ends = time_text(datetime.now(UTC) + timedelta(days=30))
    release.resign(lambda value: value.update(variants=variants, files=[], expires=ends))
    for name in (ENVELOPE_FILE, MANIFEST_FILE):
        shutil.copy(release.path(name), served)
    return served


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder's files as one repository; yield the hub's address."""
    command = [sys.executable, "-m", "tests.hub", "--port", "0", "--no-xet"]
    with subprocess.Popen(
        [*command, "--repo", f"{REPO}={folder}"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            yield line.split()[0].removeprefix("HF_ENDPOINT=")
        finally:
            server.terminate()


def timed(command: list[str], env: dict[str, str]) -> Took:
    """Run a process to its end.

    Raises:
        SystemExit: it failed.
    """
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    said = process.stdout.read().decode().strip()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed: {process.returncode}")
    cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10
    return Took(wall, cpu, memory, json.loads(said) if said.startswith("{") else {})


def hf_download(url: str, folder: Path) -> Took:
    """Download the base file with the Hub's own command."""
    target = folder / "hf"
    hf = Path(sys.executable).with_name("hf")
    name = f"Phi-3-nano-{BASE}.gguf"
    env = {
        "HF_ENDPOINT": url, "HF_HOME": str(folder / "hf-home"), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_TOKEN": "",
    }  # fmt: skip
    took = timed([str(hf), "download", REPO, name, "--local-dir", str(target)], env)
    shutil.rmtree(target)
    shutil.rmtree(folder / "hf-home", ignore_errors=True)
    return took


def pull(url: str, folder: Path, variant: str) -> Took:
    """Pull a variant into the home below `folder`."""
    command = [str(Path(sys.executable).with_name("quantmint")), "pull", f"{REPO}:{variant}"]
    env = {
        "HF_ENDPOINT": url, "HF_HOME": str(folder / "hf-home"), "HF_TOKEN": "",
        "QUANTMINT_HOME": str(folder / "home"),
    }  # fmt: skip
    return timed([*command, "--strict", "--json"], env)


def fresh_home(folder: Path) -> None:
    """Make an empty home that trusts the publisher."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    (folder / "home").mkdir()
    shutil.copytree(folder / "keys", folder / "home" / "keys")


def show(name: str, took: list[Took], size: int) -> None:
    """Print one row."""
    best, middle = min(t.wall for t in took), median(t.wall for t in took)
    print(
        f"{name:34} best {best:6.2f} s  median {middle:6.2f} s  {size / best / 1e6:6.0f} MB/s  "
        f"cpu {min(t.cpu for t in took):5.2f} s  peak {max(t.memory for t in took) / 1e6:4.0f} MB",
        flush=True,
    )


def show_delta(name: str, runs: list[Took], full: float) -> None:
    """Print what the quickest pull took that found bytes here."""
    took = min(runs, key=lambda one: one.wall)
    fetched, reused = took.said["fetched"], took.said["reused"]
    print(
        f"{name:34} {took.wall:6.2f} s ({full / took.wall:.1f} x as fast as in full)  fetched "
        f"{fetched:,} bytes, {reused:,} were here ({took.said['ways'][0]})",
        flush=True,
    )


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="of the file, in GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written")
    options = parser.parse_args()
    size = int(options.size * (1 << 30)) // TENSOR * TENSOR
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        served = make_files(folder, size)
        with serving(served) as url:
            theirs, ours, template, half = [], [], [], []
            for _ in range(options.rounds):
                theirs.append(hf_download(url, folder))
                fresh_home(folder)
                ours.append(pull(url, folder, BASE))
                template.append(pull(url, folder, TEMPLATE))
                half.append(pull(url, folder, HALF))
            show("hf download", theirs, size)
            show("quantmint pull", ours, size)
            ratio = min(t.wall for t in theirs) / min(t.wall for t in ours)
            middle = median(t.wall for t in theirs) / median(t.wall for t in ours)
            print(f"speed against hf download: best {ratio:.2f} x, median {middle:.2f} x")
            full = min(t.wall for t in ours)
            show_delta("another chat template", template, full)
            show_delta("half of the tensors are here", half, full)


if __name__ == "__main__":
    main()
