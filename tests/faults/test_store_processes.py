"""Many processes at one store: writers of one object, and all kinds beside two collectors."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from quantmint.registry.leases import release_all
from quantmint.registry.store import Store
from sweeps import checker

# 64 processes, forked from one and let go at once, put the same file.
WRITERS = """
import os, sys
from pathlib import Path
from quantmint.registry.store import Store
root, source = map(Path, sys.argv[1:])
read, write = os.pipe()
pids = []
for _ in range(64):
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        try:
            Store(root).open().put(source)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    pids.append(pid)
os.close(write)
sys.exit(sum(os.waitpid(pid, 0)[1] != 0 for pid in pids))
"""


def test_64_writers_of_one_object(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4096)
    ran = subprocess.run(
        [sys.executable, "-c", WRITERS, store.root, source],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    (path,) = store.blobs()
    assert path.name == hashlib.sha256(source.read_bytes()).hexdigest()
    assert checker.faults(store.root) == []
    store.open()
    assert [list(f.iterdir()) for f in (store.staging, store.leases, store.trash)] == [[], [], []]


# Puts, finds, references and forgets a few objects over and over, while they are collected.
WORKER = """
import random, sys
from pathlib import Path
from quantmint.registry import leases
from quantmint.registry.refs import ANY, put_ref, read_ref, remove_ref
from quantmint.registry.store import Blob, Store
import hashlib
root, seed, locks = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "locks"
if not locks:
    def no_locks(*_):
        raise OSError(37, "No locks available")
    leases.fcntl.flock = no_locks
rng = random.Random(seed)
store = Store(root).open()
datas = [f"object {n}".encode() * 50 for n in range(4)]
blobs = [Blob(hashlib.sha256(d).hexdigest(), len(d)) for d in datas]
def look(n):
    assert store.has(blobs[n]), "a pinned object is gone"
    assert store.read(blobs[n]) == datas[n]
    if locks:  # with locks it is not away even for a moment
        assert store.path(blobs[n].sha256).read_bytes() == datas[n]
for turn in range(int(sys.argv[4])):
    n = rng.randrange(4)
    assert store.put_bytes(datas[n]) == blobs[n]
    look(n)
    leases.release_all()
    n = rng.randrange(4)
    if store.has(blobs[n]):
        look(n)
        put_ref(store, "worker" + seed, "1", {"x": blobs[n]}, body={"turn": turn})
        leases.release_all()
        look(n)
        remove_ref(store, "worker" + seed, "1")
    leases.release_all()
"""

COLLECTOR = """
import sys
from pathlib import Path
from quantmint.registry import leases
from quantmint.registry.gc import Policy, collect
from quantmint.registry.store import Store
if sys.argv[2] != "locks":
    def no_locks(*_):
        raise OSError(37, "No locks available")
    leases.fcntl.flock = no_locks
store, removed = Store(Path(sys.argv[1])).open(), 0
print("ready", flush=True)
while not (store.root / "stop").exists():
    removed += len(collect(store, Policy(unnamed_age=0)).removed)
    leases.release_all()
print(removed)
"""


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_nothing_in_use_is_collected(store: Store, locks: str) -> None:
    """Two collectors and three workers on four objects, so that they always meet."""
    release_all()
    collectors = [
        subprocess.Popen([sys.executable, "-c", COLLECTOR, store.root, locks],
                         stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    try:
        for collector in collectors:
            assert collector.stdout is not None
            assert collector.stdout.readline() == "ready\n"
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, store.root, str(n), locks, "60"],
                             stderr=subprocess.PIPE, text=True)
            for n in range(3)
        ]  # fmt: skip
        said = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        (store.root / "stop").touch()
        removed = [int(collector.communicate(timeout=60)[0]) for collector in collectors]
    assert said == ["", "", ""]
    assert [collector.returncode for collector in collectors] == [0, 0]
    assert sum(removed) > 20, "they hardly met"
    assert checker.faults(store.root) == []
    store.open()
    assert list(store.trash.iterdir()) == []
