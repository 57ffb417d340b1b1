"""Rules on tags: every advertised one leads every client to its file, and to no other."""

from __future__ import annotations

from collections.abc import Iterator

from quantmint import names
from quantmint.registry.linter.labels import LABELS
from quantmint.registry.linter.listing import Finding, Listing, parts_of
from quantmint.registry.linter.resolvers import RESOLVERS, Resolver, llama_cpp

_APART = "publish one of them in a repository of its own"


def check_tags(listing: Listing) -> Iterator[Finding]:
    """Ask every client of `resolvers` for every advertised tag."""
    first: dict[str, str] = {}
    for tag, path in listing.advertised:
        if first.setdefault(tag, path) != path:
            what = f"{first[tag]} and {path} both stand for the tag {tag}"
            yield Finding("tag", "error", what, f"rename one of them, or {_APART}")
        elif names.VARIANT.fullmatch(tag) is None:
            yield Finding(
                "tag", "error", f"{path}: its tag {tag!r} is no name of a variant",
                "end the file's name in -VARIANT.gguf, with a variant in capitals",
            )  # fmt: skip
        elif listing.find(path) is None:
            what = f"{tag} is advertised, and its file {path} is not there"
            yield Finding("tag", "error", what, "add the file, or withdraw the variant")
        else:
            for resolver in RESOLVERS:
                yield from _check_tag(listing, resolver, tag, path)


def _check_tag(listing: Listing, resolver: Resolver, tag: str, path: str) -> Iterator[Finding]:
    wanted = parts_of(path, listing.paths)
    chosen = resolver.pick(listing.paths, tag)
    if set(chosen) == set(wanted):
        return
    asked = resolver.asked(listing.repo, tag)
    others = [other for other in chosen if other not in wanted]
    took = ", ".join(chosen) if chosen else "no file"
    what = f"{resolver.name}, tag {tag}: `{asked}` takes {took}; wanted: {', '.join(wanted)}"
    if "preset.ini" in others:
        mend = "remove preset.ini from the root of the repository"
    elif others:
        mend = f"rename {others[0]}, or {_APART}"
    elif len(wanted) > 1:
        mend = "publish the variant as one file: llama-gguf-split --merge FIRST-PART OUT.gguf"
    else:
        mend = f"end the file's name in -{tag}.gguf, with a quantization that this client knows"
    yield Finding("tag", "error", what, mend)


def check_defaults(listing: Listing) -> Iterator[Finding]:
    """Without a tag every client takes one of the advertised files.

    A warning tells where a choice is left to the client: without Q4_K_M, Ollama and Docker Model
    Runner choose by rules of their own (see `resolvers`).
    """
    shipped = {part for _, p in listing.advertised for part in parts_of(p, listing.paths)}
    for resolver in RESOLVERS:
        chosen = resolver.pick(listing.paths, None)
        if chosen and set(chosen) <= shipped:
            continue
        took = ", ".join(p for p in chosen if p not in shipped) or "no file"
        what = f"{resolver.name}, no tag: `{resolver.asked(listing.repo, None)}` takes {took}"
        mend = "ship a Q4_K_M or Q8_0 file, and name every other .gguf file so that it is passed by"
        yield Finding("default", "error", what, mend)
    if "Q4_K_M" not in {tag for tag, _ in listing.advertised}:
        what = "there is no Q4_K_M: what comes without a tag differs from client to client"
        yield Finding("default", "warning", what, "ship a Q4_K_M")


def check_pairs(listing: Listing) -> Iterator[Finding]:
    """Of the two 16-bit types only one; a tag that is not shipped should lead nowhere.

    llama.cpp's search is not bound to the start of a word (`common/download.cpp`,
    find_best_model): F16 finds BF16, Q1_0 finds TQ1_0, Q2_0 finds TQ2_0.
    """
    tags = {tag for tag, _ in listing.advertised}
    if {"F16", "BF16"} <= tags:
        what = "F16 and BF16 in one repository: llama.cpp's F16 also finds BF16"
        yield Finding("pairs", "error", what, "ship one 16-bit file at most")
    for label in LABELS:
        chosen = llama_cpp(listing.paths, label)
        if label in tags or not chosen or chosen == ("preset.ini",):
            continue
        what = f"llama.cpp: the tag {label} is not shipped, and takes {chosen[0]}"
        yield Finding("pairs", "warning", what, f"say in the card that there is no {label}")
