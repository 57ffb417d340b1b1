"""Garbage collection: what is needed stays, and why; what nothing needs goes."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import Ran
from quantmint.errors import IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry import gc
from quantmint.registry.actions import Action, Outcome, lookup, record
from quantmint.registry.ages import parse_age
from quantmint.registry.gc import Policy, Report, collect
from quantmint.registry.leases import release_all
from quantmint.registry.marks import Marks
from quantmint.registry.refs import put_ref, remove_ref
from quantmint.registry.store import Blob, Store
from quantmint.registry.sweeping import Trashed, put_back, trash_path, trashed
from quantmint.registry.trees import Tree, TreeFile, checkout, load_tree, put_tree, tree_is_whole

Quantmint = Callable[..., Ran]
NOW = Policy(unnamed_age=0)
ACTION = Action(name="quantize", inputs={"fp16": "a" * 64}, tools={})


def run_gc(store: Store, policy: Policy = NOW, *folders: Path) -> Report:
    """Collect as another process would: this one needs nothing any more."""
    release_all()
    return collect(store, policy, model_folders=folders)


def make_tree(store: Store, name: str) -> Tree:
    names = [f"{name}-{n}" for n in range(3)]
    return put_tree(store, [TreeFile(n, store.put_bytes(n.encode()), n[-1] == "1") for n in names])


def here(store: Store) -> set[str]:
    return {path.name for path in store.blobs()}


def test_only_what_nothing_needs_goes(store: Store, home: Home) -> None:
    named, recorded, linked = (store.put_bytes(x) for x in (b"named", b"recorded", b"linked"))
    garbage = store.put_bytes(b"garbage" * 1000)
    tree = make_tree(store, "kept")
    put_ref(store, "m", "1", {"a": named, "tree": tree.blob})
    record(store, ACTION, Outcome(outputs={"gguf": recorded}))
    store.link(linked, home.models / "m" / "m.gguf")
    report = run_gc(store, NOW, home.models)
    assert [item.sha256 for item in report.removed] == [garbage.sha256]
    assert report.freed >= garbage.size
    why = {item.sha256: item.why.text for item in report.kept if item.why}
    parts = {file.blob.sha256 for file in tree.files}
    assert why == {
        named.sha256: "reference m/1",
        tree.sha256: "reference m/1",
        **dict.fromkeys(parts, "reference m/1"),
        recorded.sha256: "made by the action quantize",
        linked.sha256: "model file m.gguf",
    }
    assert here(store) == set(why)
    assert list(store.trash.iterdir()) == []
    (home.models / "m" / "m.gguf").unlink()
    remove_ref(store, "m", "1")
    run_gc(store, NOW, home.models)
    assert here(store) == {recorded.sha256}


def test_the_young_stay_for_a_while(store: Store) -> None:
    blob = store.put_bytes(b"not named yet")
    report = run_gc(store, Policy())
    assert [item.why and item.why.text for item in report.kept] == ["younger than 1d"]
    os.utime(store.path(blob.sha256), (1, 1))  # its inode was changed just now all the same
    assert run_gc(store, Policy()).removed == []
    assert len(run_gc(store).removed) == 1


def test_a_model_file_counts_by_its_attribute_where_it_is_no_link(
    store: Store, home: Home, tmp_path: Path
) -> None:
    blob = store.put_bytes(b"weights")
    path = home.models / "m.gguf"
    store.link(blob, path)
    copy = tmp_path / "copy"
    shutil.copyfile(path, copy)
    try:
        os.setxattr(copy, "user.quantmint.sha256", blob.sha256.encode())
    except OSError:
        pytest.skip("no extended attributes here")
    path.unlink()
    copy.rename(path)
    assert run_gc(store, NOW, home.models).removed == []
    os.setxattr(path, "user.quantmint.sha256", b"../../etc/passwd")
    assert len(run_gc(store, NOW, home.models).removed) == 1


def test_a_model_file_that_can_not_be_looked_at_stops_it(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.link(store.put_bytes(b"weights"), home.models / "m.gguf")
    (home.models / "loop").symlink_to("loop")
    (home.models / "gone").symlink_to("nowhere")
    assert run_gc(store, NOW, home.models).removed == []
    real = Path.stat

    def failing(path: Path, **how: bool) -> os.stat_result:
        if path.name == "m.gguf":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", failing)
    with pytest.raises(UserError, match=r"m\.gguf: Input/output error"):
        run_gc(store, NOW, home.models)
    assert len(here(store)) == 1


def test_work_of_no_use_is_forgotten(store: Store) -> None:
    blob = record(store, ACTION, Outcome(outputs={"gguf": store.put_bytes(b"out")})).outputs["gguf"]
    path = store.actions / f"{ACTION.key}.json"
    month = time.time() - 31 * 86400
    os.utime(path, (month, month))
    assert lookup(store, ACTION) is not None  # of use now: its age begins anew
    assert run_gc(store).removed == []
    os.utime(path, (month, month))
    assert run_gc(store, Policy(unnamed_age=0, action_age=None)).removed == []
    dry = run_gc(store, Policy(unnamed_age=0, dry_run=True))
    assert ([i.sha256 for i in dry.removed], dry.records) == ([blob.sha256], [ACTION.key])
    assert path.is_file()
    report = run_gc(store)
    assert [item.sha256 for item in report.removed] == [blob.sha256]
    assert report.records == [ACTION.key]
    assert lookup(store, ACTION) is None
    assert not path.exists()


def test_an_output_that_was_collected_is_made_again(store: Store) -> None:
    blob = store.put_bytes(b"out")
    record(store, ACTION, Outcome(outputs={"gguf": blob}))
    store.remove(blob)
    assert run_gc(store).records == []
    assert lookup(store, ACTION) is None


def test_a_checkout_goes_with_its_list_of_files(store: Store) -> None:
    keep, drop = make_tree(store, "keep"), make_tree(store, "drop")
    kept, dropped = checkout(store, keep, "k"), checkout(store, drop, "d")
    put_ref(store, "m", "1", {"tree": keep.blob})
    dry = run_gc(store, Policy(unnamed_age=0, dry_run=True))
    assert dry.folders == [drop.sha256]
    assert dropped.is_dir()
    report = run_gc(store)
    assert report.folders == [drop.sha256]
    assert len(report.removed) == 4
    assert sorted(p.name for p in kept.iterdir()) == ["keep-0", "keep-1", "keep-2"]
    assert not dropped.exists()
    assert tree_is_whole(store, load_tree(store, keep.blob))


def test_what_this_process_uses_stays(store: Store) -> None:
    used, tree = store.put_bytes(b"used"), make_tree(store, "used")
    unused = store.put_bytes(b"unused")
    folder = checkout(store, tree, "bundle")
    release_all()
    assert store.has(used)
    assert checkout(store, tree, "bundle") == folder
    report = collect(store, NOW)
    assert [item.sha256 for item in report.removed] == [unused.sha256]
    assert (folder / "used-1").is_file()
    assert {i.why.text for i in report.kept if i.why} == {
        f"in use by process {os.getpid()} on {os.uname().nodename}"
    }
    assert len(run_gc(store).removed) == 5


def test_a_damaged_reference_stops_it(store: Store) -> None:
    store.put_bytes(b"garbage")
    path = store.refs / "m" / "1.json"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="is damaged"):
        run_gc(store)
    assert len(here(store)) == 1
    path.unlink()
    (store.actions / f"{'a' * 64}.json").write_bytes(b"{")  # this is only work to do again
    assert len(run_gc(store).removed) == 1


def test_what_looks_like_a_list_of_files_and_is_none(store: Store) -> None:
    odd = store.put_bytes(b'{"files":[' * 3)
    put_ref(store, "m", "1", {"odd": odd})
    assert run_gc(store).removed == []


def moved_out(store: Store, blob: Blob, collector: str = "c" * 16) -> Path:
    """Do what a collector does before its second look."""
    path = trash_path(store, collector, "object", blob.sha256)
    store.path(blob.sha256).rename(path)
    return path


def test_who_needs_what_was_moved_out_takes_it_back(store: Store) -> None:
    blob = store.put_bytes(b"needed after all")
    release_all()
    moved_out(store, blob)
    assert store.has(blob)
    assert list(trashed(store)) == []
    moved_out(store, blob)  # now it is pinned, so no collector would
    assert store.find(blob.sha256) == blob
    moved_out(store, blob)
    assert store.put_bytes(b"needed after all") == blob
    (item,) = trashed(store)
    assert put_back(store, item)
    assert not put_back(store, item)
    assert store.read(blob) == b"needed after all"


def test_what_a_killed_collector_moved_out_is_put_back(store: Store) -> None:
    blob, tree = store.put_bytes(b"x"), make_tree(store, "t")
    folder = checkout(store, tree, "t")
    put_ref(store, "m", "1", {"x": blob, "t": tree.blob})
    moved_out(store, blob)
    (store.trees / tree.sha256).rename(trash_path(store, "c" * 16, "tree", tree.sha256))
    mine = moved_out(store, tree.files[0].blob, store.lease.name)
    store.open()
    assert store.path(blob.sha256).is_file()
    assert (folder / "t-0").is_file()
    assert [item.path for item in trashed(store)] == [mine]  # a collector that lives goes on


def test_a_pin_that_comes_after_the_first_look(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at again before anything moves: a pinned object is not away even for a moment."""
    blob = store.put_bytes(b"needed at the last moment")
    release_all()
    before = store.path(blob.sha256).stat().st_ctime_ns
    real = gc.exclusive

    @contextlib.contextmanager
    def pinned_just_before(path: Path) -> Iterator[None]:
        store.keep(blob.sha256)
        with real(path):
            yield

    monkeypatch.setattr(gc, "exclusive", pinned_just_before)
    assert collect(store, NOW).removed == []
    assert store.path(blob.sha256).stat().st_ctime_ns == before  # a rename would change it


def test_a_reference_that_comes_while_it_is_moved_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks don't work the second look finds it, and puts the objects back."""
    tree = make_tree(store, "t")
    put_ref(store, "m", "1", {"tree": tree.blob})
    path = store.refs / "m" / "1.json"
    data = path.read_bytes()
    path.unlink()
    checkout(store, tree, "t")
    real = gc._Collection._remove

    def referenced_meanwhile(self: gc._Collection, moved: list[Trashed]) -> None:
        assert len(moved) == 5
        path.write_bytes(data)
        real(self, moved)

    monkeypatch.setattr(gc._Collection, "_remove", referenced_meanwhile)
    report = run_gc(store)
    assert (report.removed, report.folders, report.freed) == ([], [], 0)
    assert tree_is_whole(store, tree)
    assert (store.trees / tree.sha256 / "t" / "t-0").is_file()


def test_pins_wait_while_things_move(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_bytes(b"garbage")
    locked = []
    real = Marks.update

    def update(self: Marks) -> None:
        with (store.root / "gc.lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                locked.append(False)
            except BlockingIOError:
                locked.append(True)
        real(self)

    monkeypatch.setattr(Marks, "update", update)
    assert len(run_gc(store).removed) == 1
    assert locked == [False, True, False]


def test_old_temporaries_go_on_any_host(store: Store, home: Home) -> None:
    home.models.mkdir()
    old = [home.models / f".m.gguf.{'a' * 16}.part", store.actions / f".x.json.77.{'b' * 12}"]
    others = [home.models / ".keep", home.models / f".n.gguf.{'a' * 16}.part"]
    for path in (*old, *others):
        path.write_bytes(b"x")
    for path in (*old, others[0]):
        os.utime(path, (1, 1))
    assert sorted(run_gc(store, NOW, home.models).temporaries) == sorted(old)
    assert [path.exists() for path in others] == [True, True]


def test_the_command_says_what_it_frees_and_keeps(store: Store, quantmint: Quantmint) -> None:
    named, garbage = store.put_bytes(b"named"), store.put_bytes(b"garbage")
    put_ref(store, "m", "1", {"a": named})
    ran = quantmint("gc", "--dry-run", "--older-than", "0")
    assert "would remove 0 objects" in ran.out  # this process still holds both
    assert f"in use by process {os.getpid()}" in ran.out
    release_all()
    ran = quantmint("gc", "--json")
    facts = json.loads(ran.out)
    assert [(r["sha256"], r["kind"]) for r in facts["kept"]] == sorted(
        [(named.sha256, "reference"), (garbage.sha256, "young")]
    )
    ran = quantmint("gc", "--older-than", "0")
    assert ran.code == 0, ran.err
    assert "removed 1 objects" in ran.out
    assert "reference m/1        1   5 B" in ran.out
    assert here(store) == {named.sha256}
    assert quantmint("gc", "--older-than", "1 week").code == 2


def test_verify_has_one_number_for_its_verdicts(store: Store, quantmint: Quantmint) -> None:
    blob = store.put_bytes(b"good")
    put_ref(store, "m", "1", {"a": blob})
    assert quantmint("verify").out == "1 objects, 0 faults\n"
    assert json.loads(quantmint("verify", "--json").out)["bits"] == 0
    store.path(blob.sha256).chmod(0o644)
    store.path(blob.sha256).write_bytes(b"BAD!")
    ran = quantmint("verify", "--json")
    assert (ran.code, json.loads(ran.out)["bits"]) == (5, 1)
    store.remove(blob)
    (store.objects / "readme").write_bytes(b"")
    ran = quantmint("verify", "--json")
    assert (ran.code, json.loads(ran.out)["bits"]) == (5, 2 + 4)
    assert "a of the release m/1 is not there" in ran.out


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90s", 90), ("30min", 1800), ("2d", 172800)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "-1d", "1.5h", "1 d", "d", "1w", "9" * 12 + "d", "\u00b2d"]
)
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UserError, match="is no age"):
        parse_age(text)
