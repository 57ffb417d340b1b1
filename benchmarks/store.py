"""Put and verify in GB/s, against plain sha256 of the same file, in one run.

    python benchmarks/store.py [--size 1.0] [--folder FOLDER]...

Each number is the best of three; the file's pages are in memory. A put is what makes an object
durable: copy (or clone), fsync, hash of what was stored, rename, fsync of the folders.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from quantmint.registry.leases import release_all
from quantmint.registry.store import Store

ROUNDS = 3


def best(work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Return the seconds of the quickest of a few runs."""
    times = []
    for _ in range(ROUNDS):
        prepare()
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def plain_sha256(path: Path) -> str:
    """Hash a file as the standard library does it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file and make the copy durable: what any safe put must do besides hashing."""
    target.unlink(missing_ok=True)
    with source.open("rb") as read, target.open("xb") as write:
        shutil.copyfileobj(read, write, 8 << 20)
        write.flush()
        os.fsync(write.fileno())


def measure(folder: Path, size: int) -> None:
    """Print the numbers of one folder's disk."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = Path(temporary) / "source"
        with source.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        store = Store(Path(temporary) / "store").open()

        def empty() -> None:
            shutil.rmtree(store.root)
            store.open()

        rows = {
            "sha256": best(lambda: plain_sha256(source)),
            "copy + fsync": best(lambda: copy_synced(source, source.with_name("copy"))),
        }
        source.with_name("copy").unlink()
        rows["put"] = best(lambda: store.put(source), empty)
        assert [path.name for path in store.blobs()] == [plain_sha256(source)]
        rows["verify, one object"] = best(lambda: list(store.verify()))
        other = bytearray(source.read_bytes()[: 1 << 20])
        with source.open("r+b") as file:
            file.write(bytes(reversed(other)))
        store.put(source)
        rows["verify, two objects"] = best(lambda: list(store.verify())) / 2
        assert list(store.verify()) == []
        release_all()
    for name, seconds in rows.items():
        share = rows["sha256"] / seconds
        print(f"{folder!s:12} {name:20} {size / seconds / 1e9:5.2f} GB/s  {share:4.2f} x sha256")


def main() -> None:
    """Measure each folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="of the file, in GiB")
    parser.add_argument("--folder", type=Path, action="append", help="where (memory and disk)")
    options = parser.parse_args()
    for folder in options.folder or [Path("/dev/shm"), Path.cwd()]:
        measure(folder, int(options.size * (1 << 30)) >> 20 << 20)


if __name__ == "__main__":
    main()
