"""The smoke test of a variant: its header, its answer to a prompt, its perplexity, its speed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.variants import Struck
from quantmint.assets.verdict import Verdict, judge
from quantmint.errors import IntegrityError, UserError
from quantmint.files import sha256_of
from quantmint.native import bindings, tools
from quantmint.native.build import Bundle
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob

CHECKS = ("header", "chat", "perplexity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a smoke test runs: the recipe, its text on disk, the kernel's bundle."""

    mint: Mint
    recipe: Recipe
    text: Path
    bundle: Bundle

    def log(self, name: str, what: str) -> Path:
        """Return where a tool's output goes."""
        return self.mint.log(self.recipe.model, f"{what}-{name}+{self.bundle.kernel.name}")


def assay_text(recipe: Recipe, base: Path) -> Path:
    """Return the text that perplexity is measured on.

    Raises:
        UserError: the model file names one that is not there.
    """
    if recipe.assay.text == "default":
        folder = Path(str(resources.files("quantmint.assets"))) / "embedded" / "texts"
        return folder / "assay.txt"
    path = (base / Path(recipe.assay.text).expanduser()).absolute()
    if not path.is_file():
        raise UserError(
            f"the assay text {path} is no file",
            mend="correct `assay: {text: ...}` in the model file (relative to that file)",
        )
    return path


def perplexity(bench: Bench, name: str, blob: Blob) -> tools.Perplexity:
    """Measure perplexity on the assay's text, once per bytes, kernel and text.

    Raises:
        BuildError: the model does not load, or the text is too short.
    """
    assay = bench.recipe.assay
    action = Action(
        name="measure-perplexity",
        inputs={"gguf": blob.sha256, "text": sha256_of(bench.text)},
        tools={"bundle": bench.bundle.tree.sha256},
        arguments={"context": assay.contexts[0], "chunks": assay.chunks, "gpu": assay.gpu_layers},
    )

    def measure() -> Outcome:
        job = tools.Reading(
            text=bench.text,
            context=assay.contexts[0],
            chunks=assay.chunks,
            threads=bench.mint.threads,
            gpu_layers=assay.gpu_layers,
        )
        path = bench.mint.store.path(blob.sha256)
        log = bench.log(name, "perplexity")
        return Outcome(facts=asdict(tools.perplexity(bench.bundle, path, job, log=log)))

    return tools.Perplexity(**perform(bench.mint.store, action, measure).facts)


def speed(bench: Bench, name: str, blob: Blob) -> tools.Speed:
    """Measure tokens per second, once per bytes, kernel, CPU and thread count.

    Raises:
        BuildError: the model does not load.
    """
    mint, layers = bench.mint, bench.recipe.assay.gpu_layers
    action = Action(
        name="measure-speed",
        inputs={"gguf": blob.sha256},
        tools={"bundle": bench.bundle.tree.sha256},
        arguments={"cpu": cpu_name(), "threads": mint.threads, "gpu": layers},
    )

    def measure() -> Outcome:
        path, log = mint.store.path(blob.sha256), bench.log(name, "bench")
        found = tools.bench(bench.bundle, path, threads=mint.threads, gpu_layers=layers, log=log)
        return Outcome(facts=asdict(found))

    return tools.Speed(**perform(mint.store, action, measure).facts)


def cpu_name() -> str:
    """Return the processor's name, by which speeds can be told apart."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def check_header(recipe: Recipe, struck: Struck, fp16: Converted) -> Verdict:
    """Compare a variant's header with the FP16 file it was struck from."""
    problems = []
    ours, theirs = struck.header, fp16.header
    if ours.architecture != theirs.architecture:
        problems.append(f"architecture {ours.architecture!r}, not {theirs.architecture!r}")
    if {t.name: t.shape for t in ours.tensors} != {t.name: t.shape for t in theirs.tensors}:
        problems.append("its tensors have other names or shapes than the FP16 file's")
    allowed = recipe.gates.max_fallback_tensors
    if struck.fallbacks > allowed:
        problems.append(
            f"{struck.fallbacks} tensors fell back to another type, {allowed} are allowed "
            "(gates: max_fallback_tensors)"
        )
    facts = {"tensors": len(ours.tensors), "fallback_tensors": struck.fallbacks}
    if problems:
        return Verdict("header", False, "; ".join(problems), facts)
    reason = f"{len(ours.tensors)} tensors as in the FP16 file, {struck.fallbacks} fallbacks"
    return Verdict("header", True, reason, facts)


def check_chat(bench: Bench, struck: Struck) -> Verdict:
    """Load the variant and let it answer the recipe's prompt in the model's own format."""
    assay = bench.recipe.assay
    action = Action(
        name="chat",
        inputs={"gguf": struck.blob.sha256},
        tools={"bundle": bench.bundle.tree.sha256},
        arguments={
            "prompt": assay.prompt,
            "format": assay.format,
            "gpu": assay.gpu_layers,
            "gate": bench.recipe.gates.chat,
        },
    )
    return judge(bench.mint, action, lambda: _chat(bench, struck))


def _chat(bench: Bench, struck: Struck) -> tuple[str, Mapping[str, Any]]:
    assay = bench.recipe.assay
    job = bindings.Chat(
        prompt=assay.prompt,
        format=assay.format,
        threads=bench.mint.threads,
        gpu_layers=assay.gpu_layers,
    )
    path = bench.mint.store.path(struck.blob.sha256)
    answer = bindings.chat(bench.bundle, path, job, log=bench.log(struck.variant, "chat"))
    mend = "the variant is unusable: compare with a wider one, then check source and converter"
    if not answer.finite:
        raise IntegrityError("its logits hold NaN or infinity", mend=mend)
    if bench.recipe.gates.chat and not any(letter.isalnum() for letter in answer.text):
        raise IntegrityError(f"its answer has no word: {answer.text[:60]!r}", mend=mend)
    return f"answered with {answer.tokens} tokens", asdict(answer)


def check_perplexity(bench: Bench, struck: Struck, fp16: Converted) -> Verdict:
    """Compare perplexity with the FP16 file's on the same text and context."""
    bound = bench.recipe.gates.ppl_ratio(struck.variant)
    action = Action(
        name="perplexity",
        inputs={"gguf": struck.blob.sha256, "fp16": fp16.blob.sha256},
        tools={"bundle": bench.bundle.tree.sha256},
        arguments={
            "bound": bound,
            "text": sha256_of(bench.text),
            "context": bench.recipe.assay.contexts[0],
            "chunks": bench.recipe.assay.chunks,
            "gpu": bench.recipe.assay.gpu_layers,
        },
    )
    return judge(bench.mint, action, lambda: _compare(bench, struck, fp16, bound))


def _compare(
    bench: Bench, struck: Struck, fp16: Converted, bound: float
) -> tuple[str, Mapping[str, Any]]:
    base = perplexity(bench, "FP16", fp16.blob)
    found = perplexity(bench, struck.variant, struck.blob)
    ratio = found.value / base.value
    said = (
        f"perplexity {found.value:.4f} ± {found.error:.4f} is {ratio:.4f} of FP16's "
        f"{base.value:.4f} at context {found.context}; the bound is {bound}"
    )
    if not ratio <= bound:  # a NaN fails too
        raise IntegrityError(
            said, mend="use a wider variant, or set gates: max_ppl_ratio if this is expected"
        )
    return said, {"perplexity": found.value, "error": found.error, "ratio": round(ratio, 6)}
