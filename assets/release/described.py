"""The parts of a manifest that say what the files were made of and with."""

from __future__ import annotations

import hashlib
from importlib import metadata

from quantmint.assets.assay.bench import assay_text
from quantmint.assets.convert import checkpoint_name, converter_identity
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import PackageFile, Recipe
from quantmint.assets.release.inputs import Inputs
from quantmint.errors import UserError
from quantmint.files import digest_of, sha256_of
from quantmint.native.build import LADDER, OPTIONS, Bundle
from quantmint.native.host import cpu_name
from quantmint.native.pin import current_pin
from quantmint.native.toolchain import find_toolchain
from quantmint.registry import gguf
from quantmint.registry.hub_address import PUBLIC_HUB, shown_hub
from quantmint.registry.manifest.release import KernelBuild, Source, Toolchain
from quantmint.registry.manifest.types import ListedFile, TextEntry
from quantmint.registry.trees import load_tree

TEMPLATE = "tokenizer.chat_template"
LONGEST = 1000


def one_line(text: str) -> str:
    """Return text as signed documents take it: one printable line of at most 1000 characters."""
    plain = " ".join(text.split())
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain)
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 3] + "..."


def source_of(mint: Mint, inputs: Inputs) -> Source:
    """Return where the weights come from, with every file's digest."""
    recipe, source = inputs.recipe, inputs.source
    if source.is_checkpoint:
        tree = load_tree(mint.store, source.blob)
        files = tuple(
            ListedFile(path=f.path, size=f.blob.size, sha256=f.blob.sha256) for f in tree.files
        )
    else:
        name = source.origin.rpartition("/")[2] or "source.gguf"
        files = (ListedFile(path=name, size=source.blob.size, sha256=source.blob.sha256),)
    return Source(
        kind=recipe.source.kind,  # type: ignore[arg-type]  # one of the four words
        name=one_line(_source_name(recipe)),
        commit=source.commit,
        license=inputs.terms.license,
        files=files,
    )


def _source_name(recipe: Recipe) -> str:
    """Name the source without a folder of this machine in it."""
    source = recipe.source
    if isinstance(source.gguf, PackageFile):
        return f"{source.gguf.package}/{source.gguf.file}"
    named = source.hub or source.gguf or source.path or str(source.embedded)
    return named if source.hub else named.rstrip("/").rpartition("/")[2] or recipe.title


def toolchain_of(inputs: Inputs) -> Toolchain:
    """Return what converted, quantized and tested.

    Raises:
        BuildError: a compiler is missing; the bundles would not be here then.
    """
    pin, chain, bundle = current_pin(), find_toolchain(), inputs.bundle
    compiler = bundle.made_from["compilers"]["CXX"]
    return Toolchain(
        quantmint=metadata.version("quantmint"),
        llama_cpp=f"{pin.package} {pin.version}",
        llama_cpp_commit=pin.commit,
        llama_cpp_source_sha256=pin.sha256,
        converter_sha256=digest_of(converter_identity()),
        tools_sha256=bundle.tools_digest,
        compiler=one_line(f"{compiler.get('id', '?')} {compiler.get('version', '?')}"),
        cmake=one_line(chain.cmake.version.removeprefix("cmake version ")),
        target=one_line(chain.triple),
        options=dict(OPTIONS),
        kernels=tuple(_kernel_build(each) for each in inputs.bundles),
        host_cpu=one_line(cpu_name()),
    )


def _kernel_build(bundle: Bundle) -> KernelBuild:
    library = next(f for f in bundle.tree.files if f.path == bundle.kernel.library)
    target = bundle.made_from["targets"].get(bundle.kernel.target, {})
    flags = {
        flag: None  # in their order, each once
        for group in target.get("compile", ())
        if group["language"] != "ASM"
        for flag in group["flags"]
        if not flag.startswith("-W")
    }
    return KernelBuild(
        kernel=bundle.kernel.name,
        library_sha256=library.blob.sha256,
        flags=one_line(" ".join(flags)) if flags else None,
    )


def texts_of(inputs: Inputs) -> tuple[TextEntry, ...]:
    """Return the text that the variants were measured on."""
    path = assay_text(inputs.recipe, inputs.base)
    return (TextEntry(name=one_line(path.name), size=path.stat().st_size, sha256=sha256_of(path)),)


def template_digest(header: gguf.Gguf) -> str | None:
    """Return the sha256 of the chat template in a file, if it has one."""
    template = header.values.get(TEMPLATE)
    if not isinstance(template, str):
        return None
    return hashlib.sha256(template.encode("utf-8", "surrogateescape")).hexdigest()


def header_of(header: gguf.Gguf) -> dict[str, object]:
    """Return the manifest's facts of the model itself, which all variants share."""
    length = header.values.get(f"{header.architecture}.context_length")
    return {
        "architecture": header.architecture,
        "parameters": header.weights,
        "context_length": length if isinstance(length, int) and length > 0 else None,
        "chat_template_sha256": template_digest(header),
    }


def commands_of(inputs: Inputs) -> dict[str, tuple[str, ...]]:
    """Return how each step was called, paths of this machine replaced by plain names."""
    recipe = inputs.recipe
    found: dict[str, tuple[str, ...]] = {}
    if inputs.source.is_checkpoint:
        found["convert"] = (
            "convert_hf_to_gguf.py", checkpoint_name(recipe), "--outtype", "f16",
            "--outfile", "fp16.gguf",
        )  # fmt: skip
    quantize = [LADDER, "fp16.gguf", "--out", "."]
    if inputs.calibration is not None:
        quantize += ["--imatrix", "imatrix.gguf"]
    for struck in inputs.struck:
        quantize += ["--variant", f"{struck.variant}={recipe.file_name(struck.variant)}"]
    found["quantize"] = tuple(quantize)
    found["recipe"] = tuple(f"{key}={value}" for key, value in sorted(_recipe_rows(recipe).items()))
    return found


def _recipe_rows(recipe: Recipe) -> dict[str, object]:
    said = recipe.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in said.items() if key not in {"release", "refresh"}}


def hub_of(inputs: Inputs) -> str:
    """Return the address of the hub that the source came from; the public one, if from none."""
    repo = inputs.recipe.source.hub
    hub, found, _ = inputs.source.origin.partition(f"/{repo}/tree/")
    return shown_hub(hub) if repo is not None and found else PUBLIC_HUB


def base_model_of(inputs: Inputs) -> str:
    """Return the repository that the card's front matter names as the base.

    Raises:
        UserError: the source is no repository, and the model file names none.
    """
    base = inputs.terms.base_model or inputs.recipe.source.hub
    if base is None:
        raise UserError(
            f"{inputs.recipe.model}: its source is no Hub repository, so the card can't say what "
            "it was quantized from",
            mend="add `base_model: owner/name` to `release:` in the model file",
        )
    return base
