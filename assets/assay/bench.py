"""Where a model is assayed: texts, contexts, tasks, and FP16's logits for all to share."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.errors import UserError
from quantmint.files import digest_of, sha256_of
from quantmint.native.build import Bundle
from quantmint.native.evaluation.facts import number, original_context, rope_factors
from quantmint.native.evaluation.jobs import Basing, Reading, Setup, Talk, Task
from quantmint.native.evaluation.tasks import load_task

# Two short questions beside the model file's own: an answer to them ends soon, so a model that
# never ends its turn is seen.
SHORT_PROMPTS: Final = ("What is 2 + 2?", "Answer with one word: what color is grass?")
ANSWER_TOKENS: Final = 96
LEAST_CHUNKS: Final = 2
EMBEDDED: Final = Path(str(resources.files("quantmint.assets"))) / "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every measurement of one model has in common.

    `lineage` holds what the records repeat: llama.cpp's commit, and the digests of the source and
    of the calibration text.
    """

    mint: Mint
    recipe: Recipe
    text: Path
    tasks: tuple[Task, ...]
    fp16: Converted
    bundle: Bundle
    lineage: Mapping[str, str] = field(default_factory=dict)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The contexts to measure at, each with about the same number of tokens."""
        assay, header = self.recipe.assay, self.fp16.header
        tokens = assay.chunks * assay.contexts[0]
        contexts = list(assay.contexts)
        switch = original_context(header)
        if switch is not None:  # LongRoPE: below and above it are two different models
            sides = {rope_factors(header, context) for context in contexts}
            longest = min(2 * switch, number(header, "context_length", 2 * switch))
            contexts += [switch] if "short" not in sides else []
            contexts += [longest] if "long" not in sides and longest > switch else []
        return tuple(Reading(c, max(LEAST_CHUNKS, tokens // c)) for c in contexts)

    @property
    def talk(self) -> Talk:
        """The prompts that every variant answers."""
        assay = self.recipe.assay
        return Talk(
            prompts=(assay.prompt, *SHORT_PROMPTS), format=assay.format, max_tokens=ANSWER_TOKENS
        )

    @property
    def setup(self) -> Setup:
        """How the children run."""
        return Setup(threads=self.mint.threads, gpu_layers=self.recipe.assay.gpu_layers)

    @property
    def inputs(self) -> dict[str, str]:
        """The digests that every measurement depends on beside the file itself."""
        return {"fp16": self.fp16.blob.sha256, "text": sha256_of(self.text)}

    @property
    def arguments(self) -> dict[str, Any]:
        """What else changes the numbers."""
        return {
            "readings": [asdict(reading) for reading in self.readings],
            "tasks": digest_of([asdict(task) for task in self.tasks]),
            "talk": asdict(self.talk),
            "gpu": self.recipe.assay.gpu_layers,
        }

    def log(self, name: str, bundle: Bundle | None = None) -> Path:
        """Return where a child's output goes."""
        kernel = (bundle or self.bundle).kernel.name
        return self.mint.log(self.recipe.model, f"assay-{name}+{kernel}")

    def basing(self, folder: Path) -> Basing:
        """Return the job that writes FP16's logits into `folder`."""
        return Basing(text=self.text, readings=self.readings, folder=folder)

    @property
    def logits_folder(self) -> Path:
        """Where FP16's logits lie while variants are measured."""
        key = digest_of([self.inputs, self.arguments, self.bundle.tree.sha256])
        return self.mint.home.work / "logits" / f"{self.recipe.model}-{key[:16]}"


def open_bench(
    mint: Mint,
    recipe: Recipe,
    base: Path,
    fp16: Converted,
    bundle: Bundle,
    *,
    lineage: Mapping[str, str] | None = None,
) -> Bench:
    """Return the bench of one model on the kernel that quality is measured on.

    Raises:
        UserError: the model file's text is not there, or a task file is malformed.
    """
    return Bench(
        mint=mint, recipe=recipe, text=assay_text(recipe, base),
        tasks=bundled_tasks() if recipe.assay.tasks else (), fp16=fp16, bundle=bundle,
        lineage=lineage or {},
    )  # fmt: skip


def assay_text(recipe: Recipe, base: Path) -> Path:
    """Return the text that divergence is measured on.

    Raises:
        UserError: the model file names one that is not there.
    """
    if recipe.assay.text == "default":
        return EMBEDDED / "texts" / "assay.txt"
    path = (base / Path(recipe.assay.text).expanduser()).absolute()
    if not path.is_file():
        raise UserError(
            f"the assay text {path} is no file",
            mend="correct `assay: {text: ...}` in the model file (relative to that file)",
        )
    return path


def bundled_tasks() -> tuple[Task, ...]:
    """Return the multiple-choice sets that come with the package."""
    return tuple(load_task(path) for path in sorted((EMBEDDED / "tasks").glob("*.yaml")))


@functools.cache
def tasks_digest() -> str:
    """Return the digest of the multiple-choice sets: for code versions."""
    return digest_of([sha256_of(path) for path in sorted((EMBEDDED / "tasks").glob("*.yaml"))])


@contextmanager
def shared_logits(bench: Bench) -> Iterator[Path]:
    """Give the folder of FP16's logits; other texts' and contexts' of this model are removed.

    They stay after a failure, for the next run; after success they are removed.
    """
    folder = bench.logits_folder
    parent = folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    for other in parent.glob(f"{bench.recipe.model}-????????????????"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    yield folder
    # Renamed first: a kill in between must not leave a folder that looks whole.
    gone = parent / f".gone.{os.getpid()}"
    if folder.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def have_logits(folder: Path, readings: Sequence[Reading]) -> bool:
    """Return whether the logits of every reading are there (each file appears whole)."""
    from quantmint.native.evaluation.child.divergence import base_path

    return all(base_path(folder, reading.context).is_file() for reading in readings)
