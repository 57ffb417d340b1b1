"""Our reader and llama.cpp's own over the same mutants, in a child that may die.

Run as a program (`python -m fuzz.differential LIBRARY SEED START STOP`) it prints its findings as
JSON. It forks a worker that reads each mutant with both readers and notes down what it is about
to do in memory that it shares with the parent; where the worker dies, the parent writes down the
death and forks the next one from there on.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.mutants import mutant
from quantmint.process import Command, Limits, run
from quantmint.registry import gguf

# One byte per mutant. DIED is set by the parent, all else by the worker.
DONE, GATE, HEADER, DATA, STARTED, DIED, ESCAPED, DIFFERS = (1 << n for n in range(8))
SECONDS_PER_MUTANT = 5
ADDRESS_SPACE = 2 << 30
# Where the child looks for modules: its environment holds nothing of ours but this.
PATHS = [Path(__file__).resolve().parents[1]]
Reader = Callable[[bytes, gguf.Gguf | None], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Counts over a run; each list holds the indexes of what must not be.

    `died_refused` counts mutants that ended llama.cpp's process and that we had refused.
    `unpadded` are those that we and llama.cpp's header reader accept, and its data reader not,
    since the padding after the last tensor is missing. `differs`: both accept, and see another
    number of keys, another alignment, or another name, place or size of a tensor.
    """

    mutants: int
    accepted: int
    llama_accepted: int
    died_refused: int
    unpadded: int
    died: Sequence[int]
    only_ours: Sequence[int]
    escaped: Sequence[int]
    differs: Sequence[int]

    @property
    def is_clean(self) -> bool:
        """Whether nothing that we accept is refused by llama.cpp, ends it or reads otherwise."""
        return not (self.died or self.only_ours or self.escaped or self.differs)


def compare(library: Path, seed: int, indexes: range) -> Findings:
    """Compare the readers in a child process.

    Raises:
        BuildError: the child itself (not a worker) failed.
    """
    words = [str(library), str(seed), str(indexes.start), str(indexes.stop)]
    command = Command(
        argv=[sys.executable, "-m", "fuzz.differential", *words],
        env={"PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        limits=Limits(wall_seconds=4 * 3600, file_size=1 << 20),
    )
    return Findings(**json.loads(run(command).stdout.strip().splitlines()[-1]))


class _Params(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p)))


def llama_reader(library: Path) -> Reader:
    """Return a function from bytes, and what we read of them, to llama.cpp's marks.

    HEADER and DATA say in which of its two modes it accepts; DIFFERS, that it reads other facts.
    """
    lib = ctypes.CDLL(str(library))
    lib.gguf_init_from_buffer.restype = ctypes.c_void_p
    lib.gguf_init_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_size_t, _Params]
    lib.gguf_free.argtypes = lib.ggml_free.argtypes = [ctypes.c_void_p]

    def accepts(data: bytes, header: gguf.Gguf | None, mark: int) -> int:
        tensors = ctypes.c_void_p()
        # A buffer of exactly this size: a read past its end meets the allocator's own bytes.
        held = ctypes.create_string_buffer(data, max(1, len(data)))
        params = _Params(mark == HEADER, ctypes.pointer(tensors))
        found = lib.gguf_init_from_buffer(held, len(data), params)
        if not found:
            return 0
        if header is not None and facts_of(lib, found) != our_facts(header):
            mark |= DIFFERS
        lib.ggml_free(tensors)
        lib.gguf_free(found)
        return mark

    return lambda data, header: accepts(data, header, HEADER) | accepts(data, header, DATA)


def facts_of(lib: ctypes.CDLL, found: int) -> list[object]:
    """Return what llama.cpp read, in the form of `our_facts`."""

    def ask(name: str, *words: int, kind: type[ctypes._SimpleCData[Any]] = ctypes.c_size_t) -> Any:
        function = getattr(lib, name)
        function.restype = kind
        return function(ctypes.c_void_p(found), *map(ctypes.c_int64, words))

    names = range(ask("gguf_get_n_tensors"))
    keys = [ask("gguf_get_key", n, kind=ctypes.c_char_p) for n in range(ask("gguf_get_n_kv"))]
    start = ask("gguf_get_data_offset") if names else None
    tensors = [
        (ask("gguf_get_tensor_name", n, kind=ctypes.c_char_p),
         ask("gguf_get_tensor_offset", n), ask("gguf_get_tensor_size", n))
        for n in names
    ]  # fmt: skip
    return [ask("gguf_get_version"), ask("gguf_get_alignment"), keys, start, tensors]


def our_facts(header: gguf.Gguf) -> list[object]:
    """Return what our reader read: version, alignment, keys, data section, tensors."""
    start = header.data_offset if header.tensors else None
    tensors = [(t.name.encode(), t.offset - header.data_offset, t.size) for t in header.tensors]
    keys = [key.encode() for key in header.values]
    return [header.version, header.alignment, keys, start, tensors]


def main() -> int:
    """Compare the mutants that the command line names; print `Findings` as JSON."""
    library, seed = Path(sys.argv[1]), int(sys.argv[2])
    indexes = range(int(sys.argv[3]), int(sys.argv[4]))
    marks = mmap.mmap(-1, max(1, len(indexes)))
    reader = llama_reader(library)
    at = 0
    while at < len(indexes):
        child = os.fork()
        if child == 0:
            worker(reader, marks, seed, indexes, at)
        _, status = os.waitpid(child, 0)
        at = next((n for n in range(at, len(indexes)) if not marks[n] & DONE), len(indexes))
        if at < len(indexes):
            if not marks[at] & STARTED:
                raise SystemExit(f"a worker ended with status {status} outside of any reader")
            marks[at] |= DIED
            at += 1
    print(json.dumps(findings(reader, bytes(marks[: len(indexes)]), seed, indexes)))
    return 0


def worker(reader: Reader, marks: mmap.mmap, seed: int, indexes: range, at: int) -> None:
    """Read the mutants from the `at`th on with both readers, then end the process."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a mutant that hangs ends the worker
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # llama.cpp says why it refuses, each time
    for n in range(at, len(indexes)):
        data = mutant(seed, indexes[n])
        signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_MUTANT)
        marks[n] = STARTED
        header, mark = gate(data)
        marks[n] |= mark
        marks[n] |= reader(data, header) | DONE
    os._exit(0)


def gate(data: bytes) -> tuple[gguf.Gguf | None, int]:
    """Return the facts and GATE, or 0 if our reader refuses, ESCAPED if anything else is raised."""
    try:
        return gguf.parse(data, len(data)), GATE
    except gguf.GgufError:
        return None, 0
    except Exception:  # noqa: BLE001 - what escapes is what is looked for
        return None, ESCAPED


def findings(reader: Reader, marks: bytes, seed: int, indexes: range) -> dict[str, object]:
    """Count the marks, and read what only we accept once more with its last tensor padded."""
    died = [n for n, mark in enumerate(marks) if mark & DIED]
    ours = [n for n, mark in enumerate(marks) if mark & GATE and not mark & DIED]
    differ = [n for n in ours if marks[n] & (HEADER | DATA) != HEADER | DATA]
    unpadded = {n for n in differ if marks[n] & HEADER and is_unpadded(reader, seed, indexes[n])}
    return {
        "mutants": len(marks),
        "accepted": sum(mark & GATE != 0 for mark in marks),
        "llama_accepted": sum(mark & HEADER != 0 for mark in marks),
        "died_refused": sum(not marks[n] & GATE for n in died),
        "unpadded": len(unpadded),
        "died": [indexes[n] for n in died if marks[n] & GATE],
        "only_ours": [indexes[n] for n in differ if n not in unpadded],
        "escaped": [indexes[n] for n, mark in enumerate(marks) if mark & ESCAPED],
        "differs": [indexes[n] for n, mark in enumerate(marks) if mark & DIFFERS],
    }


def is_unpadded(reader: Reader, seed: int, index: int) -> bool:
    """Whether zeros after the last tensor are all that llama.cpp's data reader misses."""
    data = mutant(seed, index)
    header = gguf.parse(data, len(data))
    if not header.tensors:
        return False
    end = max(tensor.offset + tensor.size for tensor in header.tensors)
    whole = data + bytes(-(end - header.data_offset) % header.alignment - (len(data) - end))
    return len(whole) > len(data) and reader(whole, None) == HEADER | DATA


if __name__ == "__main__":
    sys.exit(main())
