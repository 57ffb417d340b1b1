"""Checking a checkpoint folder: its config before any weight, then every file by its content."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any, Final

from quantmint.assets.sources import safetensors
from quantmint.errors import BugError, SourceError, UserError

WANTED: Final = (
    "*.safetensors",
    "*.json",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "*.jinja",
)
TOKENIZERS: Final = ("tokenizer.model", "tokenizer.json", "vocab.json")
JSON_LIMIT: Final = 64 << 20
NEEDS_SENTENCEPIECE: Final = frozenset({"Phi3ForCausalLM", "PhiMoEForCausalLM"})


def wanted(names: Iterable[str]) -> list[str]:
    """Return the files of a checkpoint that a conversion reads; folders are left out."""
    return sorted(
        name
        for name in names
        if "/" not in name
        and not name.startswith((".", "consolidated"))
        and any(fnmatch(name, pattern) for pattern in WANTED)
    )


def check_listing(names: Iterable[str], where: str) -> None:
    """Refuse, by names alone, a folder that is no checkpoint we can take.

    Raises:
        SourceError: no config, no tokenizer, or weights that are pickles or missing.
    """
    present = set(names)
    if "config.json" not in present:
        raise SourceError(
            f"{where} is no checkpoint: it has no config.json",
            mend="give a folder or repository with config.json, *.safetensors and a tokenizer",
        )
    if not any(name.endswith(".safetensors") for name in wanted(present)):
        pickles = sorted(n for n in present if Path(n).suffix in safetensors.PICKLE_SUFFIXES)
        if pickles:
            raise SourceError(
                f"{where} has its weights as pickles only ({', '.join(pickles[:3])}): loading "
                "one runs whatever code its author put in",
                mend="ask the author for safetensors, or convert them in a sandbox of your own",
            )
        raise SourceError(f"{where} has no *.safetensors weights", mend="check the source's name")
    if not any(name in present for name in TOKENIZERS):
        raise SourceError(
            f"{where} has no tokenizer (one of {', '.join(TOKENIZERS)})",
            mend="add the tokenizer's files of the same model",
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file from outside.

    Raises:
        SourceError: it is too large, no JSON, or no object.
    """
    if path.stat().st_size > JSON_LIMIT:
        raise SourceError(f"{path.name} is larger than {JSON_LIMIT} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path.name} is no valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SourceError(f"{path.name} holds no JSON object")
    return value


def supported_architectures(llama_source: Path) -> frozenset[str]:
    """Return the text architectures that the pinned converter knows, read without running it."""
    path = llama_source / "conversion" / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = getattr(node, "target", None)
        if isinstance(node, ast.AnnAssign) and getattr(target, "id", "") == "TEXT_MODEL_MAP":
            assert node.value is not None
            return frozenset(ast.literal_eval(node.value))
    raise BugError("the pinned converter lists its architectures elsewhere than expected")


def check_config(config: Mapping[str, Any], family: str | None, known: frozenset[str]) -> str:
    """Return the architecture that `config.json` names, if the converter supports it.

    Raises:
        SourceError: it does not; the nearest supported ones are named.
        UserError: the model file's `family` is not the checkpoint's `model_type`.
    """
    listed = config.get("architectures")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], str):
        raise SourceError("config.json names no architecture", mend="check the source's name")
    architecture = listed[0]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        raise SourceError(
            f"the architecture {architecture[:80]!r} is not supported by the pinned converter; "
            f"nearest supported: {', '.join(near) or 'none'}",
            mend="choose a model of a supported architecture; no weight was fetched",
        )
    if family is not None and config.get("model_type") != family:
        raise UserError(
            f"the model file says family {family!r}, config.json says "
            f"{config.get('model_type')!r}; no weight was fetched",
            mend="correct `family:` (or `source:`) in the model file",
        )
    return architecture


def check_tokenizer(folder: Path, architecture: str) -> None:
    """Refuse a checkpoint whose tokenizer the converter could not read.

    Raises:
        SourceError: the SentencePiece model is missing.
    """
    path = folder / "tokenizer_config.json"
    declared = read_json(path).get("tokenizer_class") if path.is_file() else None
    needed = architecture in NEEDS_SENTENCEPIECE and declared != "GPT2Tokenizer"
    if needed and not (folder / "tokenizer.model").is_file():
        raise SourceError(
            f"{architecture} needs tokenizer.model (SentencePiece), and it is missing",
            mend="add tokenizer.model of the same model to the checkpoint",
        )


def check_weights(folder: Path) -> int:
    """Check every shard by its content; return the number of weights.

    Raises:
        SourceError: a shard is missing, truncated, damaged or a pickle in disguise.
    """
    shards = sorted(folder.glob("*.safetensors"))
    for shard in shards:
        if safetensors.looks_like_pickle(shard):
            raise SourceError(
                f"{shard.name} is a pickle under another name: loading it would run code",
                mend="do not use this checkpoint",
            )
    _check_index(folder, {shard.name for shard in shards})
    return count_weights(folder)


def count_weights(folder: Path) -> int:
    """Return the number of weights of all shards, from their headers.

    Raises:
        SourceError: a shard is truncated or damaged.
    """
    tensors = [t for s in folder.glob("*.safetensors") for t in safetensors.check(s).values()]
    return sum(prod(shape) for _, shape in tensors)


def _check_index(folder: Path, shards: set[str]) -> None:
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    mapping = read_json(path).get("weight_map")
    if not isinstance(mapping, dict):
        raise SourceError(f"{path.name} has no weight_map")
    absent = sorted({str(name) for name in mapping.values()} - shards)
    if absent:
        raise SourceError(
            f"shards are missing: {', '.join(absent[:5])} (listed in {path.name})",
            mend="fetch the missing files",
        )
