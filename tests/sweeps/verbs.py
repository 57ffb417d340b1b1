"""The operations that are swept, each as a process of its own: `verbs.py SRC ROOT VERB`.

It prints `done`, or the class of a typed error. Started with `-I -S -B`: nothing but the operation
itself differs from run to run. Nothing outside the standard library is imported.

A seam (`KILL:3`, `EIO:3`, `COUNT:0`) is the fallback where strace is missing: Python's audit
events, and fsync, stand for system calls.
"""

import contextlib
import errno
import fcntl  # noqa: F401 - imported here, so that its file is not read while calls are counted
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK = "/quantmint-sweep-begins"
EVENTS = {
    "open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime",
    "os.listdir", "os.scandir", "shutil.rmtree", "fcntl.flock", "fcntl.ioctl", "os.setxattr",
}  # fmt: skip


def data(name: str, size: int = 1500) -> bytes:
    """Bytes of that name, the same in each run."""
    return random.Random(name).randbytes(size)


class World:
    """A store, its model folder and a file outside; made anew for each point."""

    def __init__(self, root: Path) -> None:
        from quantmint.registry.store import Store

        self.root = root
        self.store = Store(root / "store")
        self.models = root / "models"
        self.outside = root / "outside.bin"

    def begin(self) -> None:
        """What is there before an operation: a release, garbage, a checkout of each."""
        from quantmint.registry import actions, refs, trees

        self.root.mkdir(parents=True)
        self.outside.write_bytes(data("outside", 20_000_000 // 8))
        store = self.store.open()
        kept = [trees.TreeFile(f"k{i}", store.put_bytes(data(f"k{i}")), i == 0) for i in range(2)]
        dead = [trees.TreeFile(f"d{i}", store.put_bytes(data(f"d{i}")), i == 0) for i in range(3)]
        keep, drop = trees.put_tree(store, kept), trees.put_tree(store, dead)
        trees.checkout(store, keep, "kept")
        trees.checkout(store, drop, "dropped")
        refs.put_ref(store, "model", "1", {"tree": keep.blob}, body={"n": 1})
        store.link(store.put_bytes(data("linked")), self.models / "linked.gguf")
        outcome = actions.Outcome(outputs={"out": store.put_bytes(data("acted"))})
        actions.record(store, self.action("before"), outcome)
        lost = store.put_bytes(data("lost"))
        # What a killed writer and a killed collector left.
        (store.staging / f"{'a' * 16}.{'b' * 12}").mkdir()
        store.path(lost.sha256).rename(store.trash / f"{'a' * 16}.object.{lost.sha256}")

    def action(self, name: str) -> Any:
        from quantmint.registry.actions import Action

        return Action(name=name, inputs={"in": "a" * 64}, tools={})

    def tree(self) -> Any:
        from quantmint.registry.trees import TreeFile, put_tree

        files = [TreeFile(n, self.store.put_bytes(data(n)), n == "b/t") for n in ("a", "b/t")]
        return put_tree(self.store, files)


def put(world: World) -> None:
    world.store.open().put(world.outside)


def put_bytes(world: World) -> None:
    world.store.open().put_bytes(data("new"))


def put_tree(world: World) -> None:
    world.store.open()
    world.tree()


def checkout(world: World) -> None:
    from quantmint.registry.trees import checkout as check_out

    world.store.open()
    check_out(world.store, world.tree(), "new")


def mend(world: World) -> None:
    """A checkout is damaged: it is made again and swapped in."""
    from quantmint.registry.refs import read_ref
    from quantmint.registry.trees import checkout as check_out
    from quantmint.registry.trees import load_tree

    store = world.store.open()
    tree = load_tree(store, read_ref(store, "model", "1").objects["tree"])
    with contextlib.suppress(OSError):  # the damage is no operation of the store
        (store.trees / tree.sha256 / "kept" / "k1").unlink()
    check_out(store, tree, "kept")


def link(world: World) -> None:
    store = world.store.open()
    store.link(store.put_bytes(data("new")), world.models / "deep" / "new.gguf")
    store.link(store.put_bytes(data("newer")), world.models / "linked.gguf")


def act(world: World) -> None:
    from quantmint.registry.actions import Outcome, perform

    store = world.store.open()
    outcome = perform(store, world.action("new"),
                      lambda: Outcome(outputs={"out": store.put_bytes(data("new"))}))  # fmt: skip
    assert store.read(outcome.outputs["out"]) == data("new")


def put_ref(world: World) -> None:
    from quantmint.registry.refs import put_ref as make

    store = world.store.open()
    make(store, "other", "2", {"f": store.put_bytes(data("new"))}, body={"n": 2})


def replace_ref(world: World) -> None:
    from quantmint.registry.refs import put_ref as make
    from quantmint.registry.refs import read_ref

    store = world.store.open()
    old = read_ref(store, "model", "1")
    objects = {**old.objects, "new": store.put_bytes(data("new"))}
    make(store, "model", "1", objects, body={"n": 3}, expected=old.revision)


def remove_ref(world: World) -> None:
    from quantmint.registry.refs import remove_ref as remove

    remove(world.store.open(), "model", "1")


def gc(world: World) -> None:
    from quantmint.registry.gc import Policy, collect

    collect(world.store.open(), Policy(unnamed_age=0), model_folders=[world.models])


VERBS: dict[str, Callable[[World], None]] = {
    verb.__name__: verb
    for verb in (
        put, put_bytes, put_tree, checkout, mend, link, act, put_ref, replace_ref, remove_ref, gc,
    )
}  # fmt: skip


def install_seam(kind: str, when: int) -> Callable[[], int]:
    """Kill, or raise, at the `when`-th event; return what tells how many there were."""
    seen = 0

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal seen
        if event in EVENTS:
            seen += 1
            if seen == when:
                if kind == "KILL":
                    os._exit(137)
                code = getattr(errno, kind)
                raise OSError(code, os.strerror(code))

    real = os.fsync

    def fsync(fd: int) -> None:
        hook("open", ())
        real(fd)

    os.fsync = fsync
    sys.addaudithook(hook)
    return lambda: seen


def perform(root: Path, verb: str, seam: str = "") -> int:
    """Do it; write `done`, or the typed error, to standard output; return the exit code."""
    from quantmint.errors import QuantmintError
    from quantmint.registry import gc as imported_before_the_mark  # noqa: F401

    world = World(root)
    kind, _, when = seam.partition(":")
    with contextlib.suppress(FileNotFoundError):
        Path(MARK).rmdir()
    count = install_seam(kind, int(when)) if seam else None
    try:
        VERBS[verb](world)
    except QuantmintError as error:
        os.write(1, f"typed {type(error).__name__}: {error}\n".encode())
        return error.exit_code
    os.write(1, b"done\n" if kind != "COUNT" or count is None else f"done\n{count()}".encode())
    return 0


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    sys.exit(perform(Path(sys.argv[2]), sys.argv[3]))


if __name__ == "__main__":
    main()
