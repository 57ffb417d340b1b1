"""Releases in a folder: killed, full, shared, damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers import ROOT
from publishing import contents, file_set, smoke
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.registry.publish import (
    FolderTarget,
    Options,
    Published,
    Release,
    open_target,
    publish,
)
from quantmint.registry.store import Store
from sweeps.sweep import has_strace


def go(
    store: Store, target: FolderTarget, seed: int = 1, name: str = "", **own: object
) -> Published:
    release = Release(name=name or f"v{seed}", files=file_set(store, contents(seed, 200_000)))
    test = own.pop("smoke", smoke)
    work = target.root.parent / "work"
    return publish(release, target, smoke=test, options=Options(work=work, **own))  # type: ignore[arg-type]


@pytest.fixture
def target(tmp_path: Path) -> FolderTarget:
    found = open_target(f"file:{tmp_path / 'registry'}")
    assert isinstance(found, FolderTarget)
    return found


def main_of(target: FolderTarget) -> dict[str, bytes]:
    """Read as the documentation says: main.json names each file and where it lies."""
    rows = json.loads((target.root / "main.json").read_bytes())["files"]
    return {path: (target.root / row["at"]).read_bytes() for path, row in rows.items()}


def test_releases_follow_each_other(store: Store, target: FolderTarget) -> None:
    first = go(store, target)
    assert first.changed
    assert not go(store, target).changed
    second = go(store, target, seed=2)
    assert second.supersedes == "v1"
    assert "A-Q8_0.gguf" not in second.sent  # the same bytes lie there already
    found = main_of(target)
    status = json.loads(found.pop("quantmint.status.json"))["releases"]
    assert found == contents(2, 200_000)
    assert status["v1"] == {
        "state": "superseded", "by": "v2", "commit": first.commit, "files": {}
    }  # fmt: skip
    kept = target.root / "releases"
    assert sorted(p.name.partition("-")[0] for p in kept.iterdir()) == ["v1", "v2"]
    assert list((target.root / "staging").iterdir()) == []
    assert all(p.stat().st_mode & 0o222 == 0 for p in kept.rglob("*") if p.is_file())
    objects = {path.stat().st_ino for path in store.blobs()}
    assert not objects & {path.stat().st_ino for path in kept.rglob("*")}


@pytest.mark.parametrize("words", [["--kills", "14", "--errors", "14"],
                                   ["--seam", "--kills", "30", "--errors", "30"]],
                         ids=["system calls", "python calls"])  # fmt: skip
def test_killed_or_refused_at_many_calls_the_next_run_finishes(words: list[str]) -> None:
    if "--seam" not in words and not has_strace():
        pytest.skip("strace is missing, or may not trace: the seam stands in")
    ran = subprocess.run(
        [sys.executable, "-m", "sweeps.folder", *words],
        cwd=ROOT / "tests", capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert found["wrong"] == []
    assert found["kills"] >= 14
    assert found["errors"] >= 14


def test_a_damaged_or_lost_file_is_put_back(store: Store, target: FolderTarget) -> None:
    go(store, target)
    go(store, target, seed=2)
    shared = [next(target.root.glob(f"releases/v{n}-*/A-Q8_0.gguf")) for n in (1, 2)]
    assert shared[0].samefile(shared[1])
    shared[0].chmod(0o644)
    shared[0].write_bytes(b"rotten")
    (own,) = target.root.glob("releases/v2-*/A-Q4_K_M.gguf")
    own.unlink()
    told: list[str] = []
    again = go(store, target, seed=2, report=told.append)
    assert not again.changed
    assert again.sent == ("A-Q4_K_M.gguf", "A-Q8_0.gguf")
    assert "put back A-Q8_0.gguf: it was damaged or gone" in told
    assert main_of(target)["A-Q4_K_M.gguf"] == contents(2, 200_000)["A-Q4_K_M.gguf"]
    # The release before shares the file: it is whole again too, and still the same file.
    assert shared[0].read_bytes() == contents(2, 200_000)["A-Q8_0.gguf"]
    assert shared[0].samefile(shared[1])
    assert shared[0].stat().st_mode & 0o222 == 0
    assert go(store, target, seed=2).sent == ()


def test_a_damaged_file_is_not_carried_on(store: Store, target: FolderTarget) -> None:
    go(store, target)
    (old,) = target.root.glob("releases/v1-*/A-Q8_0.gguf")
    old.chmod(0o644)
    old.write_bytes(b"x" * old.stat().st_size)
    assert "A-Q8_0.gguf" in go(store, target, seed=2).sent
    assert main_of(target)["A-Q8_0.gguf"] == contents(2, 200_000)["A-Q8_0.gguf"]


def test_what_a_killed_publisher_left_is_swept(store: Store, target: FolderTarget) -> None:
    go(store, target)
    left = target.root / "staging" / f".v2-0123456789ab.{'a' * 16}.part"
    (left / "tensors").mkdir(parents=True)
    (left / "tensors" / "a.json").write_bytes(b"[]")
    go(store, target)
    assert left.is_dir()  # it may be somebody's work of this minute
    os.utime(left, (1, 1))
    go(store, target)
    assert not left.exists()


def test_bytes_that_lie_there_otherwise_are_never_promoted(
    store: Store, target: FolderTarget
) -> None:
    go(store, target)

    def damage(path: str, local: Path) -> None:
        later = local.parent / "README.md"
        if path == "A-Q8_0.gguf":
            later.chmod(0o644)
            later.write_bytes(b"x" * later.stat().st_size)

    with pytest.raises(IntegrityError, match=r"README\.md came back .* with other bytes"):
        go(store, target, seed=2, smoke=damage)
    assert main_of(target)["README.md"] == contents(1)["README.md"]
    go(store, target, seed=2)
    assert main_of(target)["README.md"] == contents(2)["README.md"]


def test_two_publishers_at_once(store: Store, target: FolderTarget) -> None:
    """One of them wins, the other is told; then it is its turn."""
    go(store, target)
    both = threading.Barrier(2, timeout=20)
    ended: dict[int, object] = {}

    def one(seed: int) -> None:
        def wait(path: str, local: Path) -> None:
            if path == "README.md":
                both.wait()

        try:
            ended[seed] = go(store, target, seed=seed, smoke=wait)
        except QuantmintError as error:
            ended[seed] = error

    threads = [threading.Thread(target=one, args=(seed,)) for seed in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = sorted(type(value).__name__ for value in ended.values())
    assert kinds == ["Published", "RegistryError"]
    loser = next(seed for seed, value in ended.items() if isinstance(value, RegistryError))
    assert "somebody else committed" in str(ended[loser])
    go(store, target, seed=loser)
    assert main_of(target)["README.md"] == contents(loser)["README.md"]
    assert len(list((target.root / "commits").iterdir())) == 3


def test_a_full_disk(store: Store, small_disk: Path) -> None:
    target = FolderTarget(small_disk / "registry")
    go(store, target)
    files = file_set(store, {**contents(2), "quantmint.json": b"{}"})
    with pytest.raises(UserError, match="no space left on the disk"):
        publish(Release(name="v2", files=files), target, smoke=smoke,
                options=Options(work=store.root.parent / "work"))  # fmt: skip
    assert main_of(target)["README.md"] == contents(1)["README.md"]
    for path in (target.root / "staging").iterdir():
        target.drop(path.name)
    go(store, target, seed=2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "commits" / "00000001.json").write_bytes(b"{"),
        lambda root: (root / "commits" / "00000001.json").write_bytes(
            b'{"format":1,"files":{"x":{"at":"../../etc/passwd","sha256":"","size":1}}}'
        ),
        lambda root: (root / "tags" / "v1.json").write_bytes(b"[]"),
    ],
)  # fmt: skip
def test_records_that_cannot_be_read(store: Store, target: FolderTarget, damage: object) -> None:
    go(store, target)
    damage(target.root)  # type: ignore[operator]
    with pytest.raises(QuantmintError) as failed:
        go(store, target, seed=2)
    assert failed.value.exit_code == 6


def test_no_registry_there(tmp_path: Path, store: Store) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="can't be used: Not a directory"):
        go(store, FolderTarget(tmp_path / "file" / "registry"))
    with pytest.raises(UserError, match="is no registry"):
        FolderTarget(tmp_path / "none").at("main")
