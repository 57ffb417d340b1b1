"""Running the ladder engine, the native program `quantmint-ladder`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from quantmint.errors import (
    BugError,
    BuildError,
    QuantmintError,
    SourceError,
    UserError,
    nearest,
)
from quantmint.native.ladder.model import (
    AS_LLAMA_QUANTIZE,
    DEFAULT_MEMORY,
    LadderOptions,
    Progress,
    TensorFact,
    VariantFile,
)
from quantmint.native.ladder.naming import file_name
from quantmint.process import Command, Finished, describe_exit, run

ERRORS: Final[Mapping[int, type[QuantmintError]]] = {
    error.exit_code: error for error in (UserError, SourceError, BuildError, BugError)
}
# The instruction set may be forced for measurements; see docs/ladder.md.
ISA_VARIABLE: Final = "QUANTMINT_QUANT_ISA"


def quantize(  # noqa: PLR0913  (most callers give the first four)
    source: Path,
    out_dir: Path,
    variants: Sequence[str],
    *,
    program: Path,
    imatrix: Path | None = None,
    cwd: Path | None = None,
    threads: int | None = None,
    memory: int = DEFAULT_MEMORY,
    options: LadderOptions = AS_LLAMA_QUANTIZE,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[VariantFile, ...]:
    """Make every variant of `source` in one pass over it; return the files in the order asked for.

    `source` is a GGUF file or the first part of a split one, `threads` defaults to the processors
    this process may use, `memory` bounds the engine's buffers in bytes. A file's header repeats the
    path of `imatrix` as it is given here, relative to `cwd`. Files get their names only when they
    are whole. Run again after a kill, it goes on where it was.

    Raises:
        UserError: a name or option that llama-quantize refuses, no space, too little memory.
        SourceError: the input is damaged, or some variant cannot hold its weights.
        BuildError: the program is missing or crashed.
    """
    check_variants(variants, program)
    words: list[str | Path] = [program, source, "--out", out_dir, "--memory", str(memory)]
    if threads is not None:
        words += ["--threads", str(threads)]
    if imatrix is not None:
        words += ["--imatrix", imatrix]
    for variant in variants:
        words += ["--variant", f"{variant}={file_name(source, variant)}"]
    listener = _Listener(progress)
    command = Command(argv=[*words, *options.arguments()], cwd=cwd, pass_env=(ISA_VARIABLE,))
    finished = run(command, on_line=listener.hear, check=False)
    if finished.code != 0:
        raise _failure(command, finished, listener)
    if listener.broken is not None:
        raise listener.broken
    order = {variant: place for place, variant in enumerate(variants)}
    made = (_variant_file(event, out_dir) for event in listener.files)
    return tuple(sorted(made, key=lambda file: (order[file.variant], file.path.name)))


def legal_variants(program: Path) -> tuple[str, ...]:
    """Return the names that llama-quantize takes, as compiled into the engine.

    Raises:
        BuildError: the program is missing or does not run.
    """
    return tuple(run(Command(argv=[program, "--list-types"])).stdout.split())


def check_variants(variants: Sequence[str], program: Path) -> None:
    """Check names before any work.

    Raises:
        UserError: none is given, one is unknown (the nearest is named) or given twice.
    """
    if not variants:
        raise UserError("no variant is asked for", mend="name at least one: -t Q4_K_M")
    legal = legal_variants(program)
    for variant in variants:
        if variant not in legal:
            raise UserError(
                f"there is no variant {variant[:40]!r}{nearest(variant, legal)}",
                mend="use a variant that llama-quantize knows",
            )
    if len(set(variants)) < len(variants):
        raise UserError(
            f"a variant is asked for twice: {', '.join(variants)}", mend="name each once"
        )


@dataclass(slots=True)
class _Listener:
    """Sorts the engine's events; called from the threads that read its output."""

    progress: Callable[[Progress], None] | None
    files: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    broken: Exception | None = None

    def hear(self, line: str) -> None:
        if not line.startswith('{"event":'):
            return
        event = json.loads(line)
        kind = event["event"]
        with self.lock:
            if kind == "progress":
                self.tell(Progress(event["done"], event["total"], event["seconds"]))
            elif kind == "file":
                self.files.append(event)
            elif kind == "failed":
                self.failed.append(event)
            elif kind == "error":
                self.errors.append(event)

    def tell(self, now: Progress) -> None:
        """Call the listener; one that fails may not stop the thread that empties the pipe."""
        if self.progress is None or self.broken is not None:
            return
        try:
            self.progress(now)
        except Exception as error:  # noqa: BLE001  (any: it is raised again when the run has ended)
            self.broken = error


def _variant_file(event: dict[str, Any], out_dir: Path) -> VariantFile:
    facts = event["file"]
    return VariantFile(
        variant=facts["variant"],
        path=out_dir / facts["name"],
        size=facts["size"],
        sha256=facts["sha256"],
        weights=facts["weights"],
        bits_per_weight=facts["tensor_bytes"] * 8 / max(1, facts["weights"]),
        fallbacks=facts["fallbacks"],
        tensors=tuple(TensorFact(**tensor) for tensor in facts["tensors"]),
        reused=event["reused"],
    )


def _failure(command: Command, finished: Finished, listener: _Listener) -> QuantmintError:
    if listener.failed:
        return _partial_failure(listener)
    if listener.errors:
        error = listener.errors[-1]
        kind = ERRORS.get(error["code"], BugError)
        return kind(f"{error['message']}\n    $ {command.line}", mend=_mend(error["message"]))
    if finished.code in ERRORS:  # before its first event: the command line itself
        return ERRORS[finished.code](finished.last_lines, mend="quantmint quantize --help")
    return BuildError(
        f"quantmint-ladder {describe_exit(finished.code)}\n    $ {command.line}\n"
        f"{finished.last_lines}",
        mend="read the lines above; the same command goes on where this one ended",
    )


def _partial_failure(listener: _Listener) -> SourceError:
    made = ", ".join(event["file"]["variant"] for event in listener.files) or "none"
    lines = "\n".join(f"    {e['variant']}: {e['message']}" for e in listener.failed)
    return SourceError(
        f"some variants cannot hold the weights of this model; finished are: {made}\n{lines}",
        mend="leave these variants out: llama-quantize fails on them as well",
    )


def _mend(message: str) -> str:
    hints = {
        "imatrix": "give an importance matrix that fits the model: --imatrix FILE",
        "importance matrix": "give an importance matrix that fits the model: --imatrix FILE",
        "requantizing": "start from an F16, BF16 or F32 file, or add --allow-requantize",
        "No space left": "free some space or choose another folder; all files are written at once",
        "cannot reserve": "free some space or choose another folder; all files are written at once",
        "--memory": "raise --memory",
        "another ladder": "wait for the other run to end, or write to another folder",
        "has invalid data": "make the input again from its checkpoint",
        "truncated": "make the input again from its checkpoint",
    }
    return next((hint for sign, hint in hints.items() if sign in message), "read the message above")
