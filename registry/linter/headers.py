"""Rules on what GGUF headers say. A file whose header was not read is passed by."""

from __future__ import annotations

from collections.abc import Iterator

from quantmint.registry.gguf import Gguf
from quantmint.registry.linter.labels import FILE_TYPES
from quantmint.registry.linter.listing import SHARD, Finding, ListedFile, Listing

_AGAIN = "convert and quantize the model again with the pinned llama.cpp"


def check_headers(listing: Listing) -> Iterator[Finding]:
    """Every advertised file says what clients ask of it, and all say the same."""
    for tag, file in listing.wanted():
        if file.header is not None:
            yield from _check_keys(listing, file, file.header)
            yield from _check_type(tag, file, file.header)
    yield from _check_agreement(listing)


def _check_keys(listing: Listing, file: ListedFile, header: Gguf) -> Iterator[Finding]:
    """Check the keys without which clients hide or misuse a model.

    Sources: huggingface.js, `packages/tasks/src/local-apps.ts` ("Use this model" is shown only
    with a context length); hub-docs, `docs/hub/ollama.md` (the chat template comes from the
    file); ggml, `docs/gguf.md` (architecture and tokenizer).
    """
    if not header.architecture:
        what = f"{file.path} has no general.architecture: no client can load it"
        yield Finding("header", "error", what, _AGAIN)
        return
    key = f"{header.architecture}.context_length"
    length = header.values.get(key)
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        what = f"{file.path} has no {key}: the Hub hides its buttons for local applications"
        yield Finding("header", "error", what, _AGAIN)
    if not len(header.values.get("tokenizer.ggml.tokens", ())):
        what = f"{file.path} has no vocabulary (tokenizer.ggml.tokens)"
        yield Finding("header", "error", what, _AGAIN)
    template = header.values.get("tokenizer.chat_template")
    if listing.chat and not (isinstance(template, str) and template.strip()):
        what = f"{file.path} has no tokenizer.chat_template: clients guess a format, often wrongly"
        mend = "put the source's template into the file, or say that this is no chat model"
        yield Finding("header", "error", what, mend)


def _check_type(tag: str, file: ListedFile, header: Gguf) -> Iterator[Finding]:
    """Check that the header tells the type that the name tells, and its parts their numbers.

    Source: llama.cpp, `include/llama.h` (enum llama_ftype); `src/llama-model-loader.cpp`
    (split.no, split.count).
    """
    said = header.values.get("general.file_type")
    if tag in FILE_TYPES and said != FILE_TYPES[tag]:
        names = {number: name for name, number in FILE_TYPES.items()}
        known = names.get(said, said) if isinstance(said, int) else said
        what = f"{file.path} is named {tag}, and its general.file_type says {known}"
        yield Finding("header", "error", what, "give each variant its own file")
    if header.is_quantized and "general.quantization_version" not in header.values:
        what = f"{file.path} is quantized and has no general.quantization_version"
        yield Finding("header", "error", what, _AGAIN)
    count = header.values.get("split.count", 1)
    part = SHARD.fullmatch(file.path)
    if count != (int(part["count"]) if part else 1) and (part or count):
        what = f"{file.path}: its header tells of {count} parts, its name of another number"
        yield Finding("header", "error", what, "split or merge the model anew: llama-gguf-split")


def _check_agreement(listing: Listing) -> Iterator[Finding]:
    """Check that all variants are variants of one model: what a user swaps must be alike."""
    read = [(tag, file.header) for tag, file in listing.wanted() if file.header is not None]
    for key, what in (
        ("general.architecture", "architectures"),
        ("tokenizer.chat_template", "chat templates"),
        ("tokenizer.ggml.tokens", "vocabularies"),
    ):
        found: dict[object, str] = {}
        for tag, header in read:
            found.setdefault(header.values.get(key), tag)
        if len(found) > 1:
            first, second = list(found.values())[:2]
            yield Finding(
                "header", "error", f"{first} and {second} have different {what}",
                "make all variants of one FP16 file",
            )  # fmt: skip
