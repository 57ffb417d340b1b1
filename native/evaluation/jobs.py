"""What can be asked of one model file: the jobs that one child process does after one load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BUDGET = 4 << 30


@dataclass(frozen=True, slots=True)
class Reading:
    """A context length in tokens, and how many chunks of the text are read at it at most."""

    context: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Basing:
    """Write the FP16 file's log-probabilities on `text` at each reading into `folder`.

    `budget` bounds the bytes of all of them together: chunks are left out to keep it.
    """

    text: Path
    readings: tuple[Reading, ...]
    folder: Path
    budget: int = BUDGET


@dataclass(frozen=True, slots=True)
class Item:
    """One question: what comes before, the options that could follow, and which one is right."""

    stem: str
    options: tuple[str, ...]
    right: int


@dataclass(frozen=True, slots=True)
class Task:
    """A set of multiple-choice questions of one kind."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """Prompts to answer in the model's own template.

    `format` serves models without a template: `{prompt}` stands in it.
    """

    prompts: tuple[str, ...]
    format: str = "{prompt}"
    max_tokens: int = 64
    context: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Write the logits of the first `tokens` tokens of `text` to `target` as an .npy file.

    The tokens are read twice, all at once (as prompts are) and one by one (as text is
    generated): kernels use other code for each. Then `again` repeats it and `threads` tries
    other thread counts, and only the digests are kept.
    """

    text: str
    target: Path
    tokens: int = 32
    again: int = 1
    threads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Weighing:
    """Measure resident memory with a context of `context` tokens after reading `tokens`."""

    context: int
    tokens: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """All that is to be measured on one model file; what is None or empty is left out.

    `divergence` names a folder that a `Basing` filled.
    """

    basing: Basing | None = None
    divergence: Path | None = None
    tasks: tuple[Task, ...] = ()
    talk: Talk | None = None
    probe: Probe | None = None
    weighing: Weighing | None = None
    accounting: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the child runs. `wall_seconds` ends it; `address_space` None follows the files' sizes.

    `patient` threads sleep while they wait: right wherever the machine has other work.
    """

    threads: int
    gpu_layers: int = 0
    wall_seconds: float = 24 * 3600.0
    address_space: int | None = None
    patient: bool = True
