"""What CMake says of a configured tree, through its file API: compilers, and flags per target.

Format: cmake-file-api(7), the objects `codemodel` version 2 and `toolchains` version 1. Paths are
named by what they are (`llama.cpp`, `build`, `native`): equal builds in two folders read equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from quantmint.errors import BuildError

QUERIES: Final = ("codemodel-v2", "toolchains-v1")
# Where the sources lay is in these alone, and they are there so that it is in nothing else.
_PATH_MAP = re.compile(r"\S*-ffile-prefix-map=\S+ ?")

Json = dict[str, Any]


def ask(folder: Path) -> None:
    """Leave the questions in a build folder; CMake answers them whenever it configures."""
    queries = folder / ".cmake" / "api" / "v1" / "query"
    queries.mkdir(parents=True, exist_ok=True)
    for name in QUERIES:
        (queries / name).touch()


def read(folder: Path, names: Mapping[Path, str]) -> Json:
    """Return `compilers` (by language) and `targets` (by name) of a configured build folder.

    A target has its `kind`, `compile` (one row per language: flags, defines, includes and how
    many sources), `link` (flags and libraries) and `needs` (names of other targets).

    Args:
        folder: the build folder.
        names: what to call which folder instead of its path.

    Raises:
        BuildError: CMake left no answer that can be read.
    """
    reply = folder / ".cmake" / "api" / "v1" / "reply"
    try:
        index = json.loads(max(reply.glob("index-*.json")).read_bytes())["reply"]
        model = json.loads((reply / index["codemodel-v2"]["jsonFile"]).read_bytes())
        chains = json.loads((reply / index["toolchains-v1"]["jsonFile"]).read_bytes())
        rows = [
            json.loads((reply / row["jsonFile"]).read_bytes())
            for row in model["configurations"][0]["targets"]
        ]
        by_id = {row["id"]: row["name"] for row in rows}
        plain = _Plain(names)
        return {
            "compilers": dict(_compiler(row) for row in chains["toolchains"]),
            "targets": {row["name"]: _target(row, by_id, plain) for row in rows},
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BuildError(
            f"CMake's answer in {reply} can't be read: {error!r}",
            mend="quantmint doctor  (it says which CMake is used; 3.28 or newer is needed)",
        ) from error


def closure(targets: Mapping[str, Json], wanted: Iterable[str]) -> dict[str, Json]:
    """Return the wanted targets and all that they are made from.

    Raises:
        BuildError: one of them is not in the tree.
    """
    found: dict[str, Json] = {}
    left = list(wanted)
    while left:
        name = left.pop()
        if name in found:
            continue
        if name not in targets:
            raise BuildError(
                f"the configured tree has no target {name!r}",
                mend="compare the kernel's row in native/kernels.yaml with the pinned llama.cpp",
            )
        found[name] = targets[name]
        left += targets[name]["needs"]
    return dict(sorted(found.items()))


class _Plain:
    """Replaces paths by names, the longest path first."""

    def __init__(self, names: Mapping[Path, str]) -> None:
        self._names = sorted(names.items(), key=lambda item: len(str(item[0])), reverse=True)

    def __call__(self, text: str) -> str:
        for path, name in self._names:
            text = text.replace(str(path), name)
        return text


def _compiler(row: Json) -> tuple[str, Json]:
    compiler = row["compiler"]
    kept = {key: compiler[key] for key in ("id", "version", "target") if key in compiler}
    return row["language"], kept


def _target(row: Json, by_id: Mapping[str, str], plain: _Plain) -> Json:
    link: Json = row.get("link") or row.get("archive") or {}
    linked = link.get("commandFragments", [])
    return {
        "kind": row["type"],
        "compile": [_group(group, plain) for group in row.get("compileGroups", [])],
        "link": _flags(linked, plain),
        "needs": sorted(
            {by_id[need["id"]] for need in row.get("dependencies", []) if need["id"] in by_id}
        ),
    }


def _group(group: Json, plain: _Plain) -> Json:
    return {
        "language": group["language"],
        "flags": _flags(group.get("compileCommandFragments", []), plain),
        "defines": [row["define"] for row in group.get("defines", [])],
        "includes": [plain(row["path"]) for row in group.get("includes", [])],
        "sources": len(group["sourceIndexes"]),
    }


def _flags(fragments: Iterable[Json], plain: _Plain) -> list[str]:
    flags = (plain(_PATH_MAP.sub("", row["fragment"]).strip()) for row in fragments)
    return [flag for flag in flags if flag]
