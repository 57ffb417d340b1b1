"""Leases: alive, dead, or not to be judged; and pins that survive whatever happens to the file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantmint.registry import leases
from quantmint.registry.leases import judge, own_lease, read_pins, release_all
from quantmint.registry.store import Store

SHA = "a" * 64


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def forged(store: Store, **changes: object) -> Path:
    """Write the lease of a process that can't hold a lock any more."""
    path = store.leases / ("f" * 16)
    lease = own_lease(store.root)
    mine = json.loads((store.leases / lease.name).read_bytes().partition(b"\n")[0])
    path.write_bytes(json.dumps({**mine, **changes}).encode() + b"\n" + SHA.encode() + b"\n\0\0")
    return path


def test_a_lease_says_who_and_what(store: Store) -> None:
    lease = own_lease(store.root)
    for n in range(600):  # more than the reserved room
        lease.pin(f"{n:064x}")
    path = store.leases / lease.name
    who, pins = read_pins(path)
    assert who == f"process {os.getpid()} on {os.uname().nodename}"
    assert pins == {f"{n:064x}" for n in range(600)}
    assert judge(path) == "alive"
    lease.close()
    assert not path.exists()
    assert judge(path) == "dead"


def test_a_lease_that_someone_removed_is_written_again(store: Store) -> None:
    lease = own_lease(store.root)
    lease.pin(SHA)
    (store.leases / lease.name).unlink()
    lease.pin(SHA)
    lease.pin("b" * 64)
    (path,) = store.leases.iterdir()
    assert read_pins(path)[1] == {SHA, "b" * 64}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "dead"),  # our own process, but whoever holds it lost the lock: the lock is proof
        ({"locked": False}, "alive"),
        ({"locked": False, "pid": 0}, "dead"),
        ({"locked": False, "started": "1"}, "dead"),  # the process id was given to another
        ({"locked": False, "namespace": "pid:[1]"}, "unknown"),
        ({"locked": False, "boot": "another"}, "unknown"),
        ({"boot": "another"}, "dead"),  # ext4 and tmpfs have one machine at a time
        ({"pid": "1"}, "unknown"),
        ({"more": 1}, "unknown"),
    ],
)
def test_judging(store: Store, changes: dict[str, object], verdict: str) -> None:
    path = forged(store, **changes)
    if changes.get("pid") == 0:
        path = forged(store, **{**changes, "pid": dead_pid()})
    assert judge(path) == verdict
    old = time.time() - leases.AGE_BOUND - 60
    os.utime(path, (old, old))
    assert judge(path) == ("alive" if verdict == "alive" else "dead")


def test_on_a_network_disk_another_boot_can_not_be_judged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = forged(store, boot="another")
    assert leases._file_system(path) in leases._ONE_MACHINE
    monkeypatch.setattr(leases, "_file_system", lambda _: "nfs4")
    assert judge(path) == "unknown"


def test_locks_that_lie_prove_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On some disks everybody gets every lock."""
    lease = own_lease(store.root)
    path = store.leases / lease.name
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    assert judge(path) == "alive"  # by process id and start time
    assert judge(forged(store, locked=True, namespace="pid:[1]")) == "unknown"


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"{", b"[]", b"5", b"\xff\xfe", b"[" * 100_000]
)
def test_what_can_not_be_read_is_left_alone(store: Store, content: bytes) -> None:
    path = store.leases / ("e" * 16)
    path.write_bytes(content)
    assert judge(path) == "unknown"
    assert read_pins(path)[1] == set()
    store.open()
    assert path.exists()
    os.utime(path, (1, 1))
    store.open()
    assert not path.exists()


def test_a_child_has_a_lease_of_its_own(store: Store) -> None:
    own_lease(store.root).pin(SHA)
    pid = os.fork()
    if pid == 0:
        store.keep("b" * 64)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    lease = own_lease(store.root)
    assert judge(store.leases / lease.name) == "alive"
    held = {path.name: read_pins(path)[1] for path in store.leases.iterdir()}
    assert held.pop(lease.name) == {SHA}
    assert list(held.values()) == [{"b" * 64}]
    store.open()
    assert [path.name for path in store.leases.iterdir()] == [lease.name]


def test_a_store_that_can_not_be_written_is_read_without_a_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.put_bytes(b"x")
    release_all()

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(leases, "_nameless", refuse)
    assert store.has(blob)
    assert list(store.leases.iterdir()) == []


def test_a_collector_that_hangs_does_not_stop_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LOCK_WAIT", 0.01)
    with leases.exclusive(store.root / "gc.lock"):
        assert store.has(store.put_bytes(b"x"))
        with (
            pytest.raises(Exception, match="another process holds"),
            leases.exclusive(store.root / "gc.lock"),
        ):
            pass


def test_without_nameless_files_a_lease_is_made_by_rename(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # refused: EISDIR
    lease = own_lease(store.root)
    lease.pin(SHA)
    assert [p.name for p in store.leases.iterdir()] == [lease.name]
    assert judge(store.leases / lease.name) == "alive"
