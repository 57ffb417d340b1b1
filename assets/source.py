"""Stage 1: the source weights, brought into the store and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.sources import checkpoint, gguf_file, hub, licenses, local
from quantmint.native.pin import current_pin
from quantmint.native.source import unpack
from quantmint.registry.actions import Outcome
from quantmint.registry.store import Blob
from quantmint.registry.trees import load_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWeights:
    """What was fetched: an object (a list of files, or one GGUF file) and where it came from.

    `commit` is the upstream's commit, or the content's own digest where there is none.
    """

    blob: Blob
    is_checkpoint: bool
    architecture: str
    weights: int
    commit: str
    size: int
    origin: str
    cached: bool


def fetch_source(
    mint: Mint, recipe: Recipe, base: Path, *, commit: hub.Commit | None = None
) -> SourceWeights:
    """Bring the model's source into the store. `base` is the folder of the model file.

    `commit` is the Hub's, if it was looked at already.

    Raises:
        UserError, SourceError, IntegrityError: see the modules of `sources`.
    """
    source = recipe.source
    if source.gguf is not None:
        path = gguf_file.locate(source.gguf, base)
        outcome = gguf_file.fetch_file(mint, path, requantize=source.requantize)
        return _describe(mint, outcome, origin=str(path), is_checkpoint=False)
    known = checkpoint.supported_architectures(unpack(mint.tools, current_pin(), mint.home.work))
    if source.hub is not None:
        commit = commit or hub.resolve(source.hub, source.revision)
        mint.report(f"{source.hub}@{source.revision} is commit {commit.sha}")
        outcome = hub.fetch_commit(mint, commit, recipe.family, known)
        licenses.of_hub(mint, commit.repo, commit.sha, commit)  # a release takes them along
        origin = f"{commit.endpoint}/{commit.repo}/tree/{commit.sha}"
        return _describe(mint, outcome, origin=origin, is_checkpoint=True)
    folder = source_folder(recipe, base)
    outcome = local.fetch_folder(mint, folder, recipe.family, known)
    return _describe(mint, outcome, origin=str(folder), is_checkpoint=True)


def source_folder(recipe: Recipe, base: Path) -> Path:
    """Return the local folder of a `path` or `embedded` source."""
    if recipe.source.embedded is not None:
        return local.embedded_folder(recipe.source.embedded)
    assert recipe.source.path is not None
    return (base / Path(recipe.source.path).expanduser()).absolute()


def source_licenses(mint: Mint, recipe: Recipe, base: Path, commit: str) -> dict[str, Blob]:
    """Return the license files that lie beside the weights at the source's `commit`, by name.

    None are known of a GGUF file: what lies beside it may be about anything.

    Raises:
        SourceError: a hub that was not asked before can't be reached.
    """
    if recipe.source.hub is not None:
        return licenses.of_hub(mint, recipe.source.hub, commit)
    if recipe.source.gguf is not None:
        return {}
    return licenses.of_folder(mint, source_folder(recipe, base))


def _describe(mint: Mint, outcome: Outcome, *, origin: str, is_checkpoint: bool) -> SourceWeights:
    blob = outcome.outputs["source"]
    return SourceWeights(
        blob=blob,
        is_checkpoint=is_checkpoint,
        architecture=str(outcome.facts["architecture"]),
        weights=int(outcome.facts["weights"]),
        commit=str(outcome.facts["commit"]),
        size=load_tree(mint.store, blob).size if is_checkpoint else blob.size,
        origin=origin,
        cached=outcome.cached,
    )
