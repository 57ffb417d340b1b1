"""Pulling against `hf download`: the same file from the same server on loopback, in one run.

    python benchmarks/pull.py [--size 1.0] [--rounds 3] [--folder FOLDER]

Both are whole processes, started afresh in turns. Ours checks the release's signature, fetches, and
hashes every byte as it is stored and synced; `hf download` does none of that. Then two deltas:
another chat template (all tensors are here), and a variant of which half the tensors are here.
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
from pathlib import Path
from statistics import median
from typing import Any

from gguf_builder import TEXT, File, Row, array, string, text
from quantmint.registry.manifest.release import ENVELOPE_FILE
from quantmint.registry.tensors import make_table, table_bytes
from releases import make_release

ROOT = Path(__file__).resolve().parents[1]
TENSOR = 4 << 20
BASE, TEMPLATE, HALF = "Q8_0", "Q6_K", "Q4_K_M"
PULL = """
import json, sys
from pathlib import Path
import httpx2
from quantmint.registry.signing.release import Expect, accept_release
from quantmint.registry.store import Store
from quantmint.registry.tensors import read_table
from quantmint.registry.transfer import Item, LocalFile, Origin, fetch_all
from quantmint.registry.trust_root import TrustRoot

asked = json.loads(sys.argv[1])
base = asked["base"]
envelope = httpx2.get(f"{base}/quantmint.dsse.json", follow_redirects=True).content
release = accept_release(TrustRoot(Path(asked["keys"])), envelope, expect=Expect("phi-3-nano"))
assert release.signer is not None
store = Store(Path(asked["store"])).open()
rows = {row.variant: row for row in release.manifest.variants}
wanted = rows[asked["variant"]]
table, local = None, ()
if asked["after"]:
    old = rows[asked["after"]]
    origin = Origin(base, paths={row.tensors.path: Path(row.tensors.path).name for row in rows.values()})
    items = [Item(sha256=r.tensors.sha256, size=r.tensors.size, path=r.tensors.path) for r in (wanted, old)]
    fetch_all(items, [origin], store)
    table, known = (read_table(store.path(i.sha256).read_bytes(), what="table") for i in items)
    local = (LocalFile(store.path(old.file.sha256), known),)
item = Item(sha256=wanted.file.sha256, size=wanted.file.size, path=wanted.file.path, table=table, local=local)
(took,) = fetch_all([item], [base], store)
print(json.dumps([took.way, took.fetched, took.reused, took.requests]))
"""  # noqa: E501


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of one process, its peak memory in bytes, and what it printed."""

    wall: float
    cpu: float
    memory: int
    said: list[Any]


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
    served.mkdir()
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
        (served / f"{name}.json").write_bytes(table)
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
    release.resign(lambda value: value.update(variants=variants))
    shutil.copy(release.path(ENVELOPE_FILE), served)
    return served


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder's files as the repository `org/name`; yield the hub's address."""
    command = [sys.executable, "-m", "tests.hub", "--port", "0", "--no-xet"]
    with subprocess.Popen(
        [*command, "--repo", f"org/name={folder}"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
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
    is_json = said.startswith("[")
    return Took(
        wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10,
        json.loads(said) if is_json else [],
    )  # fmt: skip


def hf_download(url: str, folder: Path) -> Took:
    """Download the base file with the Hub's own command."""
    target = folder / "hf"
    hf = Path(sys.executable).with_name("hf")
    name = f"Phi-3-nano-{BASE}.gguf"
    env = {
        "HF_ENDPOINT": url, "HF_HOME": str(folder / "hf-home"), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_TOKEN": "",
    }  # fmt: skip
    took = timed([str(hf), "download", "org/name", name, "--local-dir", str(target)], env)
    shutil.rmtree(target)
    shutil.rmtree(folder / "hf-home", ignore_errors=True)
    return took


def pull(url: str, folder: Path, variant: str, after: str = "") -> Took:
    """Pull a variant into the store below `folder`."""
    asked = {
        "base": f"{url}/org/name/resolve/main", "keys": str(folder / "keys"),
        "store": str(folder / "store"), "variant": variant, "after": after,
    }  # fmt: skip
    return timed([sys.executable, "-c", PULL, json.dumps(asked)], {})


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
    way, fetched, reused, requests = took.said
    print(
        f"{name:34} {took.wall:6.2f} s ({full / took.wall:.1f} x as fast as in full)  fetched "
        f"{fetched:,} bytes in {requests} requests, {reused:,} were here ({way})",
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
                shutil.rmtree(folder / "store", ignore_errors=True)
                ours.append(pull(url, folder, BASE))
                template.append(pull(url, folder, TEMPLATE, after=BASE))
                half.append(pull(url, folder, HALF, after=BASE))
            show("hf download", theirs, size)
            show("quantmint, signature and hashes", ours, size)
            ratio = min(t.wall for t in theirs) / min(t.wall for t in ours)
            middle = median(t.wall for t in theirs) / median(t.wall for t in ours)
            print(f"speed against hf download: best {ratio:.2f} x, median {middle:.2f} x")
            full = min(t.wall for t in ours)
            show_delta("another chat template", template, full)
            show_delta("half of the tensors are here", half, full)


if __name__ == "__main__":
    main()
