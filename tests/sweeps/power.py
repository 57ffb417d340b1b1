"""Cut the power at each system call of each operation, in a model of what a disk may keep.

    python -m sweeps.power [--states N] [--verb V]...

strace records an operation; the model replays it. Data of a file are safe once the file was
synced; a name is safe once its folder was synced after the change. What is not safe may be there
or not, in every combination (of the last seven changes of names), with files empty, cut short,
or full of zeros.
In no state may a damaged object stand under its name or a reference lead nowhere, and what an
operation said to have `done` must be there.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import itertools
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quantmint.registry.leases import release_all
from sweeps import checker, sweep, verbs

CALLS = ("openat", "close", "write", "pwrite64", "fallocate", "fsync", "rename", "link", "linkat",
         "unlink", "unlinkat", "mkdir", "rmdir", "dup", "ftruncate", "sendfile",
         "copy_file_range")  # fmt: skip
OPEN_CHANGES = 7


@dataclass(eq=False)
class File:
    """An inode: its bytes now, and those that were synced last."""

    now: bytes = b""
    safe: bytes = b""


# What may be left of a file that was not synced.
SURVIVALS: tuple[Callable[[File], bytes], ...] = (
    lambda file: file.safe,
    lambda file: file.now,
    lambda file: file.now[: len(file.now) // 2],
    lambda file: bytes(len(file.now)),
)


@dataclass(frozen=True)
class Change:
    """One change of names in one folder; a rename takes its old name away in the same stroke."""

    folder: str
    adds: tuple[str, File | None] | None = None
    removes: str | None = None


@dataclass
class Disk:
    """What there is, what is safe, and the changes of names between the two. None is a folder."""

    now: dict[str, File | None] = field(default_factory=dict)
    safe: dict[str, File | None] = field(default_factory=dict)
    open: list[Change] = field(default_factory=list)

    def change(
        self, *, adds: tuple[str, File | None] | None = None, removes: str | None = None
    ) -> None:
        path = adds[0] if adds else str(removes)
        change = Change(path.rpartition("/")[0], adds, removes)
        self.open.append(change)
        apply(self.now, change)

    def sync_folder(self, folder: str) -> None:
        for change in [change for change in self.open if change.folder == folder]:
            apply(self.safe, change)
            self.open.remove(change)

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Yield what a power cut may leave: paths and their bytes."""
        seen = set()
        free = self.open[-OPEN_CHANGES:]
        for kept in itertools.product((True, False), repeat=len(free)):
            names = dict(self.safe)
            for change in self.open[: -len(free)] if free else []:
                apply(names, change)
            for change in itertools.compress(free, kept):
                apply(names, change)
            for how in SURVIVALS:
                state = {
                    path: None
                    if file is None
                    else (file.now if file.now == file.safe else how(file))
                    for path, file in names.items()
                    if is_reachable(path, names)
                }
                key = tuple(sorted((p, -1 if b is None else hash(b)) for p, b in state.items()))
                if key not in seen:
                    seen.add(key)
                    yield state


def apply(names: dict[str, File | None], change: Change) -> None:
    """Change the names; a folder takes what is in it along."""
    old = change.removes
    if change.adds is not None:
        path, file = change.adds
        names[path] = file
        if file is None and old is not None:
            for name in [name for name in names if name.startswith(old + "/")]:
                names[path + name[len(old) :]] = names.pop(name)
    if old is not None:
        names.pop(old, None)


def is_reachable(path: str, names: dict[str, File | None]) -> bool:
    """Return whether all folders above a path, up to the store's own root, are there."""
    parts = path.split("/")
    return all("/".join(parts[:n]) in names for n in range(1, len(parts)))


def plain(text: str) -> str:
    """Return a path that strace printed in hexadecimal."""
    return bytes.fromhex(text.strip('"').replace("\\x", "")).decode("utf-8", "surrogateescape")


class Replay:
    """Feeds the calls of a log to the model, one at a time."""

    def __init__(self, root: Path, template: Path) -> None:
        self.root = str(root)
        self.disk = Disk()
        self.files: dict[int, tuple[str, File | None]] = {}
        self.ends: dict[int, int] = {}
        self.links: dict[str, File] = {}
        inodes: dict[int, File] = {}
        for path in sorted(template.rglob("*")):
            name = str(path.relative_to(template))
            file = None
            if path.is_file():
                data = path.read_bytes()
                file = inodes.setdefault(path.stat().st_ino, File(data, data))
            self.disk.now[name] = self.disk.safe[name] = file

    def name(self, text: str) -> str | None:
        path = plain(text)
        return path[len(self.root) + 1 :] if path.startswith(self.root + "/") else None

    def feed(self, call: str, words: list[str], result: int) -> None:
        """Replay one call that succeeded."""
        handler = getattr(self, "do_" + call, None)
        if handler is None:
            raise NotImplementedError(call)
        handler(words, result)

    def do_openat(self, words: list[str], fd: int) -> None:
        name = self.name(words[1])
        if words[0] != "AT_FDCWD" and int(words[0]) in self.files:
            name = f"{self.files[int(words[0])][0]}/{plain(words[1])}"
        if name is None:
            self.files.pop(fd, None)
            return
        if "O_TMPFILE" in words[2]:
            self.files[fd] = ("", File())
            self.ends[fd] = 0
            return
        if name not in self.disk.now:
            self.disk.change(adds=(name, File()))
        self.files[fd] = (name, self.disk.now[name])
        self.ends[fd] = 0

    def do_close(self, words: list[str], _: int) -> None:
        self.files.pop(int(words[0]), None)

    def do_write(self, words: list[str], count: int) -> None:
        fd = int(words[0])
        self._store(fd, words[1], count, self.ends.get(fd, 0))
        self.ends[fd] = self.ends.get(fd, 0) + count

    def do_pwrite64(self, words: list[str], count: int) -> None:
        self._store(int(words[0]), words[1], count, int(words[3]))

    def _store(self, fd: int, text: str, count: int, offset: int) -> None:
        _, file = self.files.get(fd, ("", None))
        if file is not None:
            data = bytes.fromhex(text.strip('"').replace("\\x", ""))
            assert len(data) >= count, "strace cut the data"
            file.now = (
                file.now[:offset].ljust(offset, b"\0") + data[:count] + file.now[offset + count :]
            )

    def do_fallocate(self, words: list[str], _: int) -> None:
        _, file = self.files.get(int(words[0]), ("", None))
        if file is not None:
            file.now = file.now.ljust(int(words[2]) + int(words[3]), b"\0")

    def do_fsync(self, words: list[str], _: int) -> None:
        name, file = self.files.get(int(words[0]), ("", None))
        if file is not None:
            file.safe = file.now
        elif int(words[0]) in self.files:
            self.disk.sync_folder(name)

    def do_rename(self, words: list[str], _: int) -> None:
        old, new = self.name(words[0]), self.name(words[1])
        assert old is not None
        assert new is not None
        self.disk.change(adds=(new, self.disk.now[old]), removes=old)

    def do_link(self, words: list[str], _: int) -> None:
        old, new = self.name(words[0]), self.name(words[1])
        assert old is not None
        assert new is not None
        self.disk.change(adds=(new, self.disk.now[old]))

    def do_linkat(self, words: list[str], _: int) -> None:
        source = plain(words[1])
        _, file = self.files[int(source.rpartition("/")[2])]
        folder, _none = self.files[int(words[2])]
        name = plain(words[3])
        self.disk.change(adds=(f"{folder}/{name}", file))

    def do_unlink(self, words: list[str], _: int) -> None:
        name = self.name(words[0])
        if name is not None:
            self.disk.change(removes=name)

    do_rmdir = do_unlink

    def do_unlinkat(self, words: list[str], _: int) -> None:
        if words[0] == "AT_FDCWD":
            self.do_unlink(words[1:], 0)
        else:
            folder, _none = self.files[int(words[0])]
            name = plain(words[1])
            self.disk.change(removes=f"{folder}/{name}")

    def do_mkdir(self, words: list[str], _: int) -> None:
        name = self.name(words[0])
        if name is not None:
            self.disk.change(adds=(name, None))


_hashes: dict[bytes, str] = {}


def digest(data: bytes) -> str:
    """Return the sha256, computed once for equal bytes."""
    if data not in _hashes:
        _hashes[data] = hashlib.sha256(data).hexdigest()
    return _hashes[data]


def faults(state: dict[str, bytes | None]) -> Iterator[str]:
    """Yield what must not be visible, as `checker.faults` does for a folder."""
    whole = set()
    for path, data in state.items():
        if data is not None and path.startswith("store/objects/sha256/"):
            name = path.rpartition("/")[2]
            if digest(data) == name:
                whole.add(name)
            else:
                yield f"damaged object {name}"
    for path, data in state.items():
        if data is not None and re.fullmatch(r"store/(refs/[^/]+|actions)/[^/.]+\.json", path):
            try:
                value = json.loads(data)
            except ValueError:
                yield f"damaged record {path}"
                continue
            named = (value.get("objects") or value.get("outputs")).values()
            yield from (f"{path} names {sha}" for sha, _ in named if sha not in whole)


def checkout_faults(state: dict[str, bytes | None]) -> Iterator[str]:
    """Yield files of a checkout that are missing, or are not what its list says."""
    for path, data in state.items():
        match = re.fullmatch(r"store/trees/(([0-9a-f]{2})[0-9a-f]{62})/[^/]+", path)
        listed = state.get(f"store/objects/sha256/{match[2]}/{match[1]}") if match else None
        if data is None and listed is not None:
            for name, sha, *_ in json.loads(listed)["files"]:
                found = state.get(f"{path}/{name}")
                if found is None or digest(found) != sha:
                    yield f"checkout without {name}"


def promised(state: dict[str, bytes | None], verb: str) -> Iterator[str]:
    """Yield what an operation that said `done` promised and a power cut took."""
    wanted = {"put": [("outside", 2_500_000)], "put_tree": [("a", 1500), ("b/t", 1500)],
              "remove_ref": [], "gc": [("k0", 1500), ("acted", 1500), ("linked", 1500)],
              "checkout": [("a", 1500)], "mend": [("k0", 1500)],
              }.get(verb, [("new", 1500)])  # fmt: skip
    for name, size in wanted:
        sha = digest(verbs.data(name, size))
        if f"store/objects/sha256/{sha[:2]}/{sha}" not in state:
            yield f"object {name} is lost"
    files = {"put_ref": "store/refs/other/2.json", "link": "models/deep/new.gguf"}
    if verb in files and files[verb] not in state:
        yield f"{files[verb]} is lost"
    ref = state.get("store/refs/model/1.json")
    if (ref is None) != (verb == "remove_ref"):
        yield "the release is there, or lost, by mistake"
    if verb == "replace_ref" and (ref is None or b'"body":{"n":3}' not in ref):
        yield "the old release is back"
    if verb == "link" and state.get("models/linked.gguf") != verbs.data("newer"):
        yield "the old model file is back"


class Power:
    """Runs through the states of operations and gathers what is wrong in them."""

    def __init__(self, scratch: Path, sample: int) -> None:
        self.sweep = sweep.Sweep(scratch, sweep.Strace())
        self.scratch = scratch
        self.sample = sample
        self.wrong: collections.Counter[str] = collections.Counter()
        self.states = self.recovered = 0

    def run(self, verb: str) -> None:
        root = self.sweep.fresh()
        template = self.scratch / "before"
        shutil.rmtree(template, ignore_errors=True)
        shutil.copytree(root, template)
        replay = Replay(root, root)
        log = self.scratch / "log"
        ran = sweep._run([
            "strace", "-f", "-qq", "-xx", "-s", "4000000", "-o", str(log), "-e",
            f"trace={','.join(CALLS)}", *sweep.Strace().child(root, verb),
        ])  # fmt: skip
        assert ran.stdout == "done\n", ran.stdout + ran.stderr
        done = False
        for line in log.read_text().splitlines():
            match = re.match(r"\d+ +(\w+)\((.*)\) += (-?\d+)", line)
            if match is None or int(match[3]) < 0:
                continue
            words = match[2].split(", ")
            replay.feed(match[1], words, int(match[3]))
            done = done or (match[1] == "write" and words[0] == "1")
            if match[1] not in {"openat", "close"} or replay.disk.open:
                self._look(replay.disk, verb, done=done, after=line[:90])

    def _look(self, disk: Disk, verb: str, *, done: bool, after: str) -> None:
        for state in disk.states():
            self.states += 1
            found = [*faults(state), *(checkout_faults(state) if verb != "mend" else ())]
            for fault in found:
                self.wrong[f"{verb}: {fault} (after {after})"] += 1
            if done:
                for fault in promised(state, verb):
                    self.wrong[f"{verb}: {fault} though it said done"] += 1
            if self.states % self.sample == 0:
                self._recover(state, verb)

    def _recover(self, state: dict[str, bytes | None], verb: str) -> None:
        """Make the state real, run the operation again, and judge what it made."""
        root = self.scratch / "after"
        shutil.rmtree(root, ignore_errors=True)
        for path, data in sorted(state.items()):
            if data is None:
                (root / path).mkdir(parents=True, exist_ok=True)
            else:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
        self.recovered += 1
        verbs.VERBS[verb](verbs.World(root))
        release_all()
        for fault in checker.faults(root / "store"):
            self.wrong[f"{verb} run again: {fault}"] += 1


def main() -> int:
    """Run through all states and print how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=50, help="run again in each N-th state")
    parser.add_argument("--verb", action="append", choices=verbs.VERBS, help="only this operation")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        power = Power(Path(scratch), options.sample)
        for verb in options.verb or list(verbs.VERBS):
            power.run(verb)
    for problem, count in power.wrong.most_common(40):
        print(f"{count} x {problem}")
    print(
        f"power: {power.states} states, {power.recovered} of them run again, "
        f"{sum(power.wrong.values())} findings, {time.monotonic() - started:.0f} s"
    )
    return 1 if power.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
