"""Rules on names, sizes and parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from quantmint.files import human_bytes
from quantmint.registry.linter.listing import SHARD, SIDECARS, Finding, Listing, is_model

GIGABYTE: Final = 10**9
_PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*(?:/[A-Za-z0-9][A-Za-z0-9_+.-]*)*")
_REPO: Final = re.compile(
    r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*/[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*"
)
_LONGEST_REPO: Final = 96
_PART: Final = re.compile(r"-[0-9]+-of-[0-9]+\.gguf$", re.IGNORECASE)


def check_repo(listing: Listing) -> Iterator[Finding]:
    """The repository's name is one that llama.cpp and the Hub accept.

    Sources: llama.cpp, `common/hf-cache.cpp` (is_valid_repo_id: single `.` and `-` between
    letters, digits and `_`); huggingface_hub, `utils/_validators.py` (at most 96 characters, no
    `--`, no `..`, not ending in `.git`).
    """
    repo = listing.repo
    if repo is None:
        return
    if len(repo) > _LONGEST_REPO or not _REPO.fullmatch(repo) or repo.endswith(".git"):
        what = f"{repo[:120]!r} is no name of a repository that every client accepts"
        mend = "use OWNER/NAME: letters, digits and single . - _ between them, 96 at most"
        yield Finding("repo", "error", what, mend)
    elif not repo.endswith("-GGUF"):
        what = f"{repo} does not end in -GGUF, by which people look for such repositories"
        yield Finding("repo", "warning", what, "name it OWNER/MODEL-GGUF")


def check_paths(listing: Listing) -> Iterator[Finding]:
    """Paths are plain, distinct in any case, and models lie in the root.

    llama.cpp passes by a path that leaves its folder (`common/hf-cache.cpp`, is_valid_subpath)
    and searches tags in the whole path, folders included (`common/download.cpp`).
    """
    seen: dict[str, str] = {}
    for path in listing.paths:
        if path != ".gitattributes" and _PATH.fullmatch(path) is None:
            what = f"{path[:120]!r} is outside the grammar of paths"
            mend = "use letters, digits and . _ + - in names, and no name that starts with a dot"
            yield Finding("path", "error", what, mend)
        twin = seen.setdefault(path.casefold(), path)
        if twin != path:
            what = f"{twin} and {path} differ in case alone"
            yield Finding("path", "error", what, "rename one: some disks can't hold both")
        if "/" in path and is_model(path):
            what = f"{path} lies in a folder, whose name llama.cpp searches for tags too"
            yield Finding("path", "warning", what, "put models into the root of the repository")


def check_preset(listing: Listing) -> Iterator[Finding]:
    """No `preset.ini` in the root: llama.cpp would fetch nothing else.

    Source: llama.cpp, `common/download.cpp` (common_download_get_hf_plan).
    """
    if "preset.ini" in listing.paths:
        what = "preset.ini in the root: llama.cpp's -hf fetches it and no model"
        yield Finding("preset", "error", what, "remove it, or move it into a folder")


def check_sidecars(listing: Listing) -> Iterator[Finding]:
    """An importance matrix says so in its name, and a model's name holds no sidecar's word.

    Source: llama.cpp, `common/download.cpp` (gguf_filename_is_model): names with `imatrix`,
    `mmproj`, `mtp-`, `eagle3-`, `dflash-` or `dspark-` are never taken for a model.
    """
    for file in listing.files:
        kind = file.header.values.get("general.type") if file.header else None
        if kind == "imatrix" and "imatrix" not in file.name:
            what = f"{file.path} is an importance matrix, and clients would take it for a model"
            yield Finding("sidecar", "error", what, "put `imatrix` into its name")
    for tag, file in listing.wanted():
        words = [word for word in SIDECARS if word in file.name]
        if words:
            what = f"{tag}: llama.cpp takes {file.path} for no model, for the {words[0]!r} in it"
            yield Finding("sidecar", "error", what, f"rename it without {words[0]!r}")


def check_parts(listing: Listing) -> Iterator[Finding]:
    """Parts are named `-00001-of-0000N.gguf`, and all of them are there.

    Sources: llama.cpp, `common/download.cpp` (get_gguf_split_info: five digits, from 1);
    huggingface.js, `packages/gguf/src/gguf.ts` (the same expression).
    """
    sets: dict[tuple[str, int], set[int]] = {}
    for path in listing.paths:
        found = SHARD.fullmatch(path)
        if found is not None:
            key = (found["prefix"], int(found["count"]))
            sets.setdefault(key, set()).add(int(found["index"]))
        elif _PART.search(path):
            what = f"{path} is named like a part, but not as clients name parts"
            yield Finding("parts", "error", what, "number with five digits: -00001-of-00003.gguf")
    for (prefix, count), indexes in sets.items():
        absent = sorted(set(range(1, min(count, 1000) + 1)) - indexes)
        extra = sorted(index for index in indexes if not 1 <= index <= count)
        if absent or extra:
            what = f"{prefix}: of {count} parts, " + (
                f"number {absent[0]} is not there" if absent else f"number {extra[0]} is beyond"
            )
            yield Finding("parts", "error", what, "split the model anew: llama-gguf-split --split")


def check_sizes(listing: Listing) -> Iterator[Finding]:
    """No empty model, and none beyond the Hub's limits.

    Source: hub-docs, `docs/hub/storage-limits.md`: 200 GB advised, 500 GB at most per file.
    """
    for file in listing.files:
        if not file.size and file.path.endswith(".gguf"):
            yield Finding("size", "error", f"{file.path} is empty", "add the file's bytes")
        elif file.size > 500 * GIGABYTE:
            what = f"{file.path} has {human_bytes(file.size)}: the Hub takes 500 GB at most"
            yield Finding("size", "error", what, "split it: llama-gguf-split --split")
        elif file.size > 200 * GIGABYTE:
            what = f"{file.path} has {human_bytes(file.size)}: the Hub advises 200 GB at most"
            yield Finding("size", "warning", what, "withhold this variant, or split it")
