"""Stage 3: the variants, struck from the FP16 GGUF."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantmint.assets.convert import Converted
from quantmint.assets.imatrix import FILE_NAME
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.errors import IntegrityError
from quantmint.files import alone, digest_of
from quantmint.native.build import LADDER, Bundle
from quantmint.native.ftypes import ftype
from quantmint.native.ladder.engine import quantize
from quantmint.native.ladder.model import LadderOptions, VariantFile
from quantmint.native.ladder.telling import plain_lines
from quantmint.quiet import heavy
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, lookup, record
from quantmint.registry.store import Blob, Store

# Raise it when what is remembered of a variant changes.
RECORD = 2


@dataclass(frozen=True, slots=True)
class Struck:
    """One variant: its bytes, its header's facts, and how many tensors fell back in type.

    `plan` is the digest of the tensor table that llama.cpp's own rules gave before any weight was
    quantized (see `table_digest`).
    """

    variant: str
    blob: Blob
    header: gguf.Gguf
    fallbacks: int
    plan: str
    cached: bool


def strike_variants(
    mint: Mint,
    recipe: Recipe,
    fp16: Converted,
    bundle: Bundle,
    variants: Sequence[str],
    *,
    imatrix: Blob | None = None,
) -> Iterator[Struck]:
    """Quantize the FP16 file to each of `variants`; those not made before in one pass over it.

    `imatrix` is an importance matrix in the store; with one, every variant is struck with it.

    Raises:
        BuildError: the ladder engine failed.
        UserError: the disk is too small.
    """
    actions = {variant: _action(fp16, bundle, variant, imatrix) for variant in variants}
    known = {variant: lookup(mint.store, action) for variant, action in actions.items()}
    if None in known.values():
        folder = _folder(mint, fp16, imatrix)
        waiting = "another process quantizes the same file: waiting for it"
        with alone(folder.with_suffix(".lock"), lambda: mint.report(waiting)):
            # Another process may have made some meanwhile.
            known = {variant: lookup(mint.store, action) for variant, action in actions.items()}
            missing = [variant for variant, outcome in known.items() if outcome is None]
            if missing:
                made = _climb(mint, recipe, fp16, bundle, missing, imatrix=imatrix)
                known |= {v: record(mint.store, actions[v], done) for v, done in made.items()}
    for variant, outcome in known.items():
        assert outcome is not None
        blob = outcome.outputs["gguf"]
        yield Struck(
            variant=variant,
            blob=blob,
            header=gguf.read(mint.store.path(blob.sha256)),
            fallbacks=int(outcome.facts["fallbacks"]),
            plan=str(outcome.facts["plan"]),
            cached=outcome.cached,
        )


def struck_before(store: Store, variant: str, made: Mapping[str, Any]) -> Struck:
    """Return a variant that is in the store, by the metadata that its asset page keeps of it.

    Raises:
        IntegrityError: its bytes are gone, or are no well-formed GGUF file.
    """
    blob = store.find(str(made["sha256"]))
    header = gguf.read(store.path(blob.sha256))
    fallbacks, plan = int(made["fallback_tensors"]), str(made["plan"])
    return Struck(variant, blob, header, fallbacks, plan, cached=True)


def table_digest(rows: Iterable[tuple[str, str, int, int]]) -> str:
    """Return the digest of a tensor table: name, type, offset in the file and bytes of each.

    ggml calls a type q4_K where GGUF's own library says Q4_K.
    """
    return digest_of([[name, kind.upper(), *rest] for name, kind, *rest in sorted(rows)])


def _action(fp16: Converted, bundle: Bundle, variant: str, imatrix: Blob | None) -> Action:
    return Action(
        name="quantize",
        inputs={"fp16": fp16.blob.sha256} | ({"imatrix": imatrix.sha256} if imatrix else {}),
        tools={"llama.cpp": bundle.tools_digest},
        arguments={"ftype": variant, "record": RECORD},
    )


def expected_size(fp16: Converted, variant: str) -> int:
    """Return about how many bytes a variant takes, from its nominal bits per weight."""
    return int(fp16.header.weights * ftype(variant).bits / 8) + fp16.header.data_offset


def _climb(
    mint: Mint,
    recipe: Recipe,
    fp16: Converted,
    bundle: Bundle,
    variants: Sequence[str],
    *,
    imatrix: Blob | None,
) -> dict[str, Outcome]:
    """Make the variants in one pass; after a kill the folder stays, and the next run resumes."""
    mint.store.require_room(sum(int(expected_size(fp16, name) * 1.1) for name in variants))
    folder = _folder(mint, fp16, imatrix)
    folder.mkdir(parents=True, exist_ok=True)
    if imatrix is not None:
        mint.store.link(imatrix, folder / FILE_NAME)
    mint.report(f"{recipe.model}: quantizing to {', '.join(variants)}")
    with heavy(mint.home, mint.report):
        files = quantize(
            mint.store.path(fp16.blob.sha256).absolute(),
            folder.absolute(),
            variants,
            program=bundle.tool(LADDER),
            # A plain name, from the folder it lies in: a variant's header repeats it.
            imatrix=Path(FILE_NAME) if imatrix else None,
            cwd=folder,
            threads=mint.threads,
            options=LadderOptions(source_digest=fp16.blob.sha256),
            progress=plain_lines(mint.report),
        )
    outcomes = {file.variant: _take(mint, file) for file in files}
    shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def _folder(mint: Mint, fp16: Converted, imatrix: Blob | None) -> Path:
    """Return where the variants of that file lie while they are made."""
    key = fp16.blob.sha256[:32] + (f"-{imatrix.sha256[:16]}" if imatrix else "")
    return mint.home.work / "ladder" / key


def _take(mint: Mint, file: VariantFile) -> Outcome:
    """Move a finished file into the store, through the strict gate."""
    gguf.read(file.path)
    with mint.store.stage() as stage:
        staged = file.path.rename(stage / file.path.name)
        blob = mint.store.adopt(staged, size=file.size)
    if blob.sha256 != file.sha256:
        raise IntegrityError(
            f"{file.variant} lies on disk with other bytes than were written",
            mend="run the same command again; if it stays, suspect the disk or the memory",
        )
    plan = table_digest((t.name, t.type, t.offset, t.size) for t in file.tensors)
    return Outcome(outputs={"gguf": blob}, facts={"fallbacks": file.fallbacks, "plan": plan})
