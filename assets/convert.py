"""Stage 2: the FP16 GGUF that all variants are struck from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from quantmint import names
from quantmint.assets.conversion.added import model_name
from quantmint.assets.mint import Mint
from quantmint.assets.progress import bytes_in, growing
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.errors import BuildError, IntegrityError, SourceError
from quantmint.native import tools
from quantmint.native.build import Bundle, converter_script
from quantmint.native.pin import current_pin
from quantmint.quiet import heavy
from quantmint.registry import gguf
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Blob
from quantmint.registry.trees import checkout, load_tree

# Packages whose version can change what the converter writes.
CONVERTER_PACKAGES = ("torch", "transformers", "numpy", "safetensors", "sentencepiece", "protobuf")


@dataclass(frozen=True, slots=True)
class Converted:
    """The 16-bit file, its header's facts, and whether it came out of the action cache."""

    blob: Blob
    header: gguf.Gguf
    cached: bool


def converter_identity() -> dict[str, str]:
    """Return what the converter's output depends on: the pin, and the packages it imports."""
    return {"llama.cpp": current_pin().sha256, **_package_versions()}


@functools.cache
def _package_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in CONVERTER_PACKAGES}


def checkpoint_name(recipe: Recipe) -> str:
    """Return the folder name that the converter sees: it becomes the model's name in the file."""
    source = recipe.source
    named = source.hub or source.path or source.embedded or recipe.title
    name = Path(named).name
    return name if names.TITLE.fullmatch(name) else recipe.title


def make_fp16(mint: Mint, recipe: Recipe, source: SourceWeights, bundle: Bundle) -> Converted:
    """Convert the checkpoint to FP16; a GGUF source of 16 or 32 bits is taken as it is.

    Raises:
        BuildError: the converter or llama-quantize failed.
        IntegrityError: what came out is no well-formed GGUF file.
        UserError: the disk is too small.
    """
    if source.is_checkpoint:
        folder = checkout(mint.store, load_tree(mint.store, source.blob), checkpoint_name(recipe))
        name = model_name(folder, checkpoint_name(recipe))
        action = Action(
            name="convert",
            inputs={"source": source.blob.sha256},
            tools=converter_identity(),
            arguments={"outtype": "f16", "name": checkpoint_name(recipe), "model_name": name},
        )
        outcome = perform(mint.store, action, lambda: _convert(mint, recipe, source, folder, name))
    elif gguf.read(mint.store.path(source.blob.sha256)).is_quantized:
        action = Action(
            name="dequantize",
            inputs={"source": source.blob.sha256},
            tools={"llama.cpp": bundle.tools_digest},
        )
        outcome = perform(mint.store, action, lambda: _dequantize(mint, recipe, source, bundle))
    else:
        outcome = Outcome(outputs={"fp16": source.blob}, cached=True)
    blob = outcome.outputs["fp16"]
    return Converted(blob, gguf.read(mint.store.path(blob.sha256)), outcome.cached)


def _convert(
    mint: Mint, recipe: Recipe, source: SourceWeights, folder: Path, name: str | None
) -> Outcome:
    mint.store.require_room(int(source.weights * 2.02))
    script = converter_script(mint.home, mint.tools)
    with mint.store.stage() as stage:
        target = stage / "fp16.gguf"
        log = mint.log(recipe.model, "convert")
        try:
            size = 2 * source.weights
            watched = growing(mint.report, target.name, size, lambda: bytes_in(stage))
            with heavy(mint.home, mint.report), watched:
                tools.convert(script, folder, target, name=name, report=mint.report, log=log)
        except BuildError as error:
            raise _tokenizer_unknown(error) or error from None
        if not gguf.read(target).tensors:  # without weights the converter writes a vocabulary
            raise IntegrityError("the converted file holds no tensor", mend="check the source")
        return Outcome(outputs={"fp16": mint.store.adopt(target)})


def _tokenizer_unknown(error: BuildError) -> SourceError | None:
    """Say in one line what the converter says in forty when it meets a tokenizer it knows not."""
    if "pre-tokenizer was not recognized" not in error.what:
        return None
    return SourceError(
        "the converter does not recognize the checkpoint's tokenizer: its files, or the class "
        "that tokenizer_config.json names, are not those of a model it knows",
        mend="correct tokenizer_config.json and the tokenizer's files",
    )


def _dequantize(mint: Mint, recipe: Recipe, source: SourceWeights, bundle: Bundle) -> Outcome:
    mint.store.require_room(int(source.weights * 2.02))
    with mint.store.stage() as stage:
        job = tools.Quantizing(
            source=mint.store.path(source.blob.sha256),
            target=stage / "fp16.gguf",
            ftype="F16",
            threads=mint.threads,
            requantize=True,
        )
        log = mint.log(recipe.model, "dequantize")
        with heavy(mint.home, mint.report):
            tools.quantize(bundle, job, report=mint.report, log=log)
        gguf.read(job.target)
        return Outcome(outputs={"fp16": mint.store.adopt(job.target)})
