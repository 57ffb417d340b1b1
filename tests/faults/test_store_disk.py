"""Disks that are really full: of bytes, or of files."""

import hashlib
import os
from pathlib import Path

import pytest

from helpers import mounted
from quantmint.errors import UserError
from quantmint.registry.gc import Policy, collect
from quantmint.registry.leases import release_all
from quantmint.registry.refs import put_ref, read_ref
from quantmint.registry.store import Store
from sweeps import checker

BIG = os.urandom(1 << 20)


@pytest.mark.parametrize("pages", range(8, 296, 12))
def test_a_disk_of_every_size(tmp_path: Path, pages: int) -> None:
    """24 sizes, from a few blocks to more than the object: it is there whole, or not at all."""
    source = tmp_path / "big"
    source.write_bytes(BIG)
    with mounted(tmp_path / "disk", f"{pages * 4}k") as disk:
        store = Store(disk / "store").open()
        small = store.put_bytes(b"small")
        first = put_ref(store, "m", "1", {"small": small})
        try:
            blob = store.put(source)
        except UserError as error:
            assert "no space left" in error.what
            assert {p.name for p in store.blobs()} == {small.sha256}
        else:
            assert blob.sha256 == hashlib.sha256(BIG).hexdigest()
            assert pages * 4096 > len(BIG)
        assert checker.faults(store.root) == []
        assert list(store.staging.iterdir()) == []
        assert read_ref(store, "m", "1") == first
        release_all()


def fill(disk: Path) -> Path:
    """Write one file until not a byte is left."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_a_full_disk_can_be_collected_and_used_again(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "4m") as disk:
        store = Store(disk / "store").open()
        garbage, needed = store.put_bytes(BIG), store.put_bytes(b"needed")
        first = put_ref(store, "m", "1", {"a": needed})
        release_all()
        fill(disk)
        with pytest.raises(UserError, match="no space left"):
            store.put_bytes(BIG[:-1])
        with pytest.raises(UserError, match="no space left"):
            put_ref(store, "m", "1", {}, body={"pad": "x" * 9000}, expected=first.revision)
        assert read_ref(store, "m", "1") == first
        release_all()
        report = collect(Store(store.root).open(), Policy(unnamed_age=0))
        assert [item.sha256 for item in report.removed] == [garbage.sha256]
        assert report.freed >= len(BIG)
        assert store.put_bytes(BIG[:-100_000]).size == len(BIG) - 100_000
        assert store.read(needed) == b"needed"
        assert checker.faults(store.root) == []
        release_all()


def test_no_room_for_another_file(tmp_path: Path) -> None:
    """The bytes are free, the inodes are not."""
    with mounted(tmp_path / "disk", "4m,nr_inodes=24") as disk:
        store = Store(disk / "store").open()
        made = []
        with pytest.raises(UserError, match="no space left"):
            for n in range(30):
                made.append(store.put_bytes(bytes([n])))
        assert len(made) > 1
        assert {p.name for p in store.blobs()} == {blob.sha256 for blob in made}
        assert checker.faults(store.root) == []
        release_all()
        assert len(collect(Store(store.root).open(), Policy(unnamed_age=0)).removed) == len(made)
        store.put_bytes(b"again")
        release_all()
