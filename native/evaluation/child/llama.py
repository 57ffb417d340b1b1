"""llama.cpp through llama-cpp-python's low-level functions: a model, its contexts, its tokens."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quantmint.errors import BuildError, IntegrityError

Logits = npt.NDArray[np.float32]
BATCH = 2048
CPU = "libggml-cpu-"
MICRO_BATCH = 512
# `llama_kv_cache: size = 96.00 MiB (4096 cells, ...` and `CPU compute buffer size = 12.50 MiB`
_SIZE = re.compile(r"(?P<what>kv_cache\w*: size|compute buffer size) =\s*(?P<mib>[\d.]+) MiB")
_WARNING, _ERROR = 3, 4


def load_kernel(library: Path) -> None:
    """Register the one kernel, and the CPU's beside it where it is a GPU's.

    Without a kernel llama.cpp finds no device at all.

    Raises:
        BuildError: this machine can't execute it.
    """
    ggml = ctypes.CDLL(str(library.with_name("libggml.so")))
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    beside = [] if library.name.startswith(CPU) else sorted(library.parent.glob(f"{CPU}*.so"))
    for kernel in (library, *beside):
        if not ggml.ggml_backend_load(str(kernel).encode()):
            raise BuildError(f"kernel {kernel.name} does not load on this machine")


class Journal:
    """Listens to llama.cpp's log: keeps its warnings and the buffer sizes that it reports."""

    def __init__(self, lib: Any) -> None:  # noqa: ANN401
        self.warnings: list[str] = []
        self.sizes: list[tuple[str, float]] = []

        @lib.llama_log_callback  # type: ignore[untyped-decorator]
        def listen(level: int, text: bytes, _: object) -> None:
            self.hear(level, text.decode("utf-8", "replace"))

        self._kept = listen  # ctypes keeps no reference of its own
        lib.llama_log_set(listen, None)

    def hear(self, level: int, line: str) -> None:
        """Take one line of the log."""
        if level in {_WARNING, _ERROR} and len(self.warnings) < 1000:
            self.warnings.append(line.strip())
        found = _SIZE.search(line)
        if found is not None:
            what = "compute" if found["what"].startswith("compute") else "cache"
            self.sizes.append((what, float(found["mib"])))

    def take_sizes(self) -> dict[str, int]:
        """Return the bytes of each kind of buffer reported since the last call."""
        total: dict[str, int] = {}
        for what, mib in self.sizes:
            total[what] = total.get(what, 0) + round(mib * (1 << 20))
        self.sizes.clear()
        return total


class Model:
    """A loaded model file."""

    def __init__(self, path: Path, *, gpu_layers: int, simulate: bool = False) -> None:
        from llama_cpp import llama_cpp as lib

        self.lib: Any = lib
        self.journal = Journal(lib)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if simulate:
            params.no_alloc, params.load_mode = True, lib.LLAMA_LOAD_MODE_NONE
        self.handle = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise IntegrityError(
                f"llama.cpp does not load it: {' '.join(self.journal.warnings[-3:])}",
                mend="the file is unusable: convert and quantize the source again",
            )
        self.vocab = lib.llama_model_get_vocab(self.handle)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.add_bos = bool(lib.llama_vocab_get_add_bos(self.vocab))
        self.bos = int(lib.llama_vocab_bos(self.vocab))

    def tokenize(self, text: bytes, *, special: bool, parse: bool) -> npt.NDArray[np.int32]:
        """Return the token ids of `text`; `special` adds BOS where the vocabulary wants one."""
        room = len(text) + 16
        ids = np.empty(room, dtype=np.int32)
        target = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = self.lib.llama_tokenize(self.vocab, text, len(text), target, room, special, parse)
        if count < 0:
            raise IntegrityError(f"a text of {len(text)} bytes became {-count} tokens")
        return ids[:count]

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of one token; those of special tokens only if asked for."""
        room = ctypes.create_string_buffer(4096)
        count = self.lib.llama_token_to_piece(self.vocab, token, room, len(room), 0, special)
        return room.raw[: max(0, count)]

    def ends_turn(self, token: int) -> bool:
        """Whether the token ends a text or a turn."""
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def template(self) -> str | None:
        """Return the file's own chat template."""
        raw = self.lib.llama_model_chat_template(self.handle, None)
        return None if raw is None else raw.decode("utf-8", "replace")

    def trained_context(self) -> int:
        """Return how many tokens of context the model was trained on."""
        return int(self.lib.llama_model_n_ctx_train(self.handle))


class Context:
    """A key-value cache over a model, and one batch to fill. Use it in a `with` block."""

    def __init__(
        self, model: Model, size: int, *, threads: int, sequences: int = 1, unified: bool = False
    ) -> None:
        lib = model.lib
        self.model, self.lib = model, lib
        params = lib.llama_context_default_params()
        self.batch_size = min(BATCH, size)
        params.n_ctx, params.n_seq_max = size, sequences
        params.n_batch, params.n_ubatch = self.batch_size, min(MICRO_BATCH, self.batch_size)
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified, params.swa_full, params.no_perf = unified, False, True
        self.handle = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise BuildError(
                f"a context of {size} tokens can't be made: "
                f"{' '.join(model.journal.warnings[-3:])}",
                mend="ask for a smaller context, or free memory",
            )
        self.memory = lib.llama_get_memory(self.handle)
        self.batch = lib.llama_batch_init(self.batch_size, 0, sequences)
        self._tokens = np.ctypeslib.as_array(self.batch.token, shape=(self.batch_size,))
        self._places = np.ctypeslib.as_array(self.batch.pos, shape=(self.batch_size,))
        self._counts = np.ctypeslib.as_array(self.batch.n_seq_id, shape=(self.batch_size,))
        self._wanted = np.ctypeslib.as_array(self.batch.logits, shape=(self.batch_size,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lib.llama_batch_free(self.batch)
        self.lib.llama_free(self.handle)

    def clear(self) -> None:
        """Forget all that was read."""
        self.lib.llama_memory_clear(self.memory, True)
        self.batch.n_tokens = 0

    def add(
        self, tokens: Sequence[int] | npt.NDArray[np.int32], at: int, *,
        sequences: Iterable[int] = (0,), wanted: npt.NDArray[np.bool_] | bool = False,
    ) -> None:  # fmt: skip
        """Append tokens at positions from `at` on to the batch; `wanted` asks for their logits."""
        start, count = self.batch.n_tokens, len(tokens)
        rows = slice(start, start + count)
        listed = tuple(sequences)
        self._tokens[rows] = tokens
        self._places[rows] = np.arange(at, at + count)
        self._counts[rows] = len(listed)
        self._wanted[rows] = wanted
        for row in range(start, start + count):
            ids = self.batch.seq_id[row]
            for index, sequence in enumerate(listed):
                ids[index] = sequence
        self.batch.n_tokens = start + count

    def decode(self) -> Logits:
        """Run the batch, empty it and return its wanted logits, (wanted tokens, vocabulary).

        The rows are llama.cpp's own memory: they hold until the next call.
        """
        count = self.batch.n_tokens
        outputs = int(np.count_nonzero(self._wanted[:count]))
        code = self.lib.llama_decode(self.handle, self.batch)
        self.batch.n_tokens = 0
        if code != 0:
            raise BuildError(f"llama.cpp could not decode {count} tokens (code {code})")
        if outputs == 0:
            self.lib.llama_synchronize(self.handle)
            return np.empty((0, self.model.n_vocab), dtype=np.float32)
        rows = self.lib.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(rows, shape=(outputs, self.model.n_vocab))

    def set_threads(self, threads: int) -> None:
        """Use so many threads from now on."""
        self.lib.llama_set_n_threads(self.handle, threads, threads)
