"""The store: objects by their sha256, whole or absent."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quantmint.errors import BugError, IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry.leases import judge, release_all
from quantmint.registry.store import Blob, Store

DATA = b"some bytes" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


def staging(store: Store) -> list[str]:
    return [p.name for p in store.staging.iterdir()]


def test_put_names_by_content_and_is_read_only(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    blob = store.put(tmp_path / "x")
    assert blob == Blob(SHA, len(DATA)) == store.put_bytes(DATA) == store.find(SHA)
    path = store.path(SHA)
    assert path == store.root / "objects" / "sha256" / SHA[:2] / SHA
    assert path.read_bytes() == DATA == store.read(blob)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert staging(store) == []
    (tmp_path / "x").write_bytes(b"changed outside")
    assert path.read_bytes() == DATA


def test_a_twin_that_came_first_is_no_error(store: Store) -> None:
    with store.stage() as first, store.stage() as second:
        for folder in (first, second):
            (folder / "x").write_bytes(DATA)
        assert store.adopt(first / "x") == store.adopt(second / "x")
    assert store.read(Blob(SHA, len(DATA))) == DATA


def test_adopt_refuses_what_is_not_a_whole_file(store: Store, tmp_path: Path) -> None:
    with store.stage() as folder:
        (folder / "short").write_bytes(DATA[:-1])
        with pytest.raises(IntegrityError, match=f"{len(DATA) - 1} bytes where {len(DATA)}"):
            store.adopt(folder / "short", size=len(DATA))
        (tmp_path / "secret").write_bytes(b"outside")
        (folder / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(IntegrityError, match="no regular file"):
            store.adopt(folder / "link")
        with pytest.raises(BugError):
            store.adopt(tmp_path / "secret")
    assert list(store.blobs()) == []


def test_adopt_refuses_what_can_still_change(store: Store, tmp_path: Path) -> None:
    with store.stage() as folder:
        (folder / "x").write_bytes(DATA)
        os.link(folder / "x", tmp_path / "another name")
        with pytest.raises(BugError, match="2 names"):
            store.adopt(folder / "x")
    assert list(store.blobs()) == []


def test_a_store_that_was_not_opened_only_looks(store: Store, home: Home) -> None:
    blob = store.put_bytes(DATA)
    release_all()
    looking = Store(home.store)
    assert looking.has(blob)
    assert looking.find(SHA) == blob
    assert list(store.leases.iterdir()) == []
    assert store.has(blob)
    assert len(list(store.leases.iterdir())) == 1
    assert not Store(home.root / "none").has(blob)
    assert not (home.root / "none").exists()


def test_write_is_whole_and_can_be_first(store: Store) -> None:
    path = store.root / "records" / "deep" / "x.json"
    store.write(path, b"one", fresh=True)
    with pytest.raises(FileExistsError):
        store.write(path, b"two", fresh=True)
    assert path.read_bytes() == b"one"
    store.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    assert staging(store) == []


def test_has_sees_a_cut_object(store: Store) -> None:
    blob = store.put_bytes(DATA)
    assert store.has(blob)
    path = store.path(SHA)
    path.chmod(0o644)
    os.truncate(path, 10)
    assert not store.has(blob)
    with pytest.raises(IntegrityError):
        store.read(blob)
    assert not store.has(Blob("0" * 64, 1))
    with pytest.raises(IntegrityError, match="quantmint build"):
        store.find("0" * 64)


def test_a_hostile_digest_never_becomes_a_path(store: Store) -> None:
    for text in ("../../etc/passwd", "/etc/passwd", "", "0" * 63 + "/"):
        with pytest.raises(UserError):
            store.path(text)


def test_read_hashes_again(store: Store) -> None:
    blob = store.put_bytes(DATA)
    path = store.path(SHA)
    path.chmod(0o644)
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(IntegrityError, match="damaged"):
        store.read(blob)
    with pytest.raises(IntegrityError):
        store.read(blob, limit=10)


HELD = """
import sys
from pathlib import Path
from quantmint.registry.store import Store
store = Store(Path(sys.argv[1])).open()
with store.stage() as folder:
    (folder / "half").write_bytes(b"x")
    store.keep("ab" * 32)
    print(store.lease.name, flush=True)
    sys.stdin.read()
"""


def held(store: Store) -> subprocess.Popen[str]:
    """Start a process that has a staging folder and a pin; it says its lease's name first."""
    return subprocess.Popen(
        [sys.executable, "-c", HELD, store.root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_sweep_takes_dead_processes_alone(store: Store) -> None:
    for name in ("notes", "\u00b2.x", f"{os.getpid()}.{'a' * 12}", "c" * 16):
        (store.staging / name).mkdir()
    theirs = {p.name for p in store.staging.iterdir()}
    with held(store) as other, store.stage() as mine:
        assert other.stdout is not None
        lease = other.stdout.readline().strip()
        store.open()
        staged = {p.name for p in store.staging.iterdir()} - theirs
        assert {name.partition(".")[0] for name in staged} == {lease, store.lease.name}
        assert judge(store.leases / lease) == "alive"
        other.kill()
        other.wait()
        assert judge(store.leases / lease) == "dead"
        store.open()
        assert {p.name for p in store.staging.iterdir()} == theirs | {mine.name}
        assert [p.name for p in store.leases.iterdir()] == [store.lease.name]


def test_old_staging_goes_with_age(store: Store) -> None:
    """Folders of the time before leases carry a process id, which says nothing on a shared disk."""
    old = store.staging / f"12345.{'a' * 12}"
    old.mkdir()
    os.utime(old, (1, 1))
    young = store.staging / f"12345.{'b' * 12}"
    young.mkdir()
    store.open()
    assert staging(store) == [young.name]


def test_a_stage_is_gone_when_its_block_ends(store: Store) -> None:
    with pytest.raises(RuntimeError), store.stage() as folder:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError
    assert staging(store) == []


def test_verify_gives_its_three_verdicts(store: Store) -> None:
    good, bad = store.put_bytes(b"good"), store.put_bytes(b"bad")
    store.path(bad.sha256).chmod(0o644)
    store.path(bad.sha256).write_bytes(b"BAD")
    (store.objects / "readme.txt").write_bytes(b"")
    (store.objects / "ab").mkdir(exist_ok=True)
    (store.objects / "ab" / "note").write_bytes(b"")
    misplaced = store.objects / "ab" / good.sha256
    shutil.copy(store.path(good.sha256), misplaced)
    folder = store.objects / "cd" / ("cd" * 32)
    folder.mkdir(parents=True)
    os.mkfifo(store.objects / "ab" / ("ab" * 32))
    found = {fault.path: fault.verdict for fault in store.verify()}
    assert found == {
        store.objects / "ab" / ("ab" * 32): "unreadable",
        store.path(bad.sha256): "corrupt",
        store.objects / "readme.txt": "unknown",
        store.objects / "ab" / "note": "unknown",
        misplaced: "unknown",
        folder: "unreadable",
    }


def test_link_replaces_and_shares(store: Store, tmp_path: Path) -> None:
    blob = store.put_bytes(DATA)
    target = tmp_path / "models" / "m.gguf"
    store.link(blob, target)
    store.link(blob, target)
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["m.gguf"]
    with pytest.raises(IntegrityError):
        store.link(Blob("1" * 64, 3), target)
    assert target.read_bytes() == DATA
    assert store.remove(blob)
    assert not store.remove(blob)
    assert target.read_bytes() == DATA


def test_a_full_disk_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    store = Store(small_disk / "store").open()
    (tmp_path / "big").write_bytes(os.urandom(4 << 20))
    with pytest.raises(UserError, match="no space left"):
        store.put(tmp_path / "big")
    with pytest.raises(UserError, match="no space left"):
        store.put_bytes(bytes(4 << 20))
    assert list(store.blobs()) == []
    assert staging(store) == []
    store.put_bytes(b"small")
    with pytest.raises(UserError, match=r"1\.0 TB needed|1\.00 TB needed"):
        store.require_room(10**12)


def test_a_home_that_can_not_be_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="can't be written"):
        Store(tmp_path / "file" / "store").open()
