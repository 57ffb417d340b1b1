"""What goes into a ladder and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_MEMORY: Final = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderOptions:
    """What llama-quantize takes beside its positional arguments; the names are its own.

    `tensor_types` are pairs of a regular expression and a type. `source_digest` may stand for the
    input's content where the caller knows it; else its size, time and header do. With `sync` off
    the files are left to the page cache.
    """

    tensor_types: tuple[tuple[str, str], ...] = ()
    override_kv: tuple[str, ...] = ()
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    leave_output_tensor: bool = False
    pure: bool = False
    allow_requantize: bool = False
    keep_split: bool = False
    source_digest: str | None = None
    sync: bool = True

    def arguments(self) -> list[str]:
        """Return the options as the engine's command line has them."""
        words: list[str] = []
        for pattern, kind in self.tensor_types:
            words += ["--tensor-type", f"{pattern}={kind}"]
        for option, values in (
            ("--override-kv", self.override_kv),
            ("--include-weights", self.include_weights),
            ("--exclude-weights", self.exclude_weights),
            ("--output-tensor-type", (self.output_tensor_type,)),
            ("--token-embedding-type", (self.token_embedding_type,)),
            ("--source-digest", (self.source_digest,)),
        ):
            for value in values:
                words += [] if value is None else [option, value]
        for switch, on in (
            ("--leave-output-tensor", self.leave_output_tensor),
            ("--pure", self.pure),
            ("--allow-requantize", self.allow_requantize),
            ("--keep-split", self.keep_split),
            ("--no-sync", not self.sync),
        ):
            words += [switch] if on else []
        return words


AS_LLAMA_QUANTIZE: Final = LadderOptions()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pass is: bytes of tensor data in all files, and seconds since it began."""

    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TensorFact:
    """One tensor of a file: `offset` counts from the start of the file, both in bytes."""

    name: str
    type: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFile:
    """One finished file.

    `fallbacks` counts the tensors whose rows do not fit the type that the recipe wants, and which
    got another one. `reused` files were finished by an earlier run with the same inputs.
    """

    variant: str
    path: Path
    size: int
    sha256: str
    weights: int
    bits_per_weight: float
    fallbacks: int
    tensors: tuple[TensorFact, ...]
    reused: bool
