"""How five clients pick files for a tag, from the list of a repository's paths.

Each returns all the files that it would fetch as the model, in order; none if it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quantmint.registry.linter.labels import hub_label
from quantmint.registry.linter.listing import SHARD, is_later_part, is_model, parts_of

Pick = Callable[[Sequence[str], str | None], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Resolver:
    """A client: its name, what a person asks it, the mark before a tag, and its rule."""

    name: str
    request: str
    mark: str
    pick: Pick

    def asked(self, repo: str | None, tag: str | None) -> str:
        """Return what a person asks for that tag."""
        return f"{self.request}{repo or 'OWNER/NAME'}{self.mark + tag if tag else ''}"


def llama_cpp(paths: Sequence[str], tag: str | None) -> tuple[str, ...]:
    """Pick as llama.cpp's `-hf` does.

    The first path, in the server's order, in which the tag stands anywhere before `.` or `-`, in
    any case: it need not be a whole word. Without a tag Q4_K_M, then Q8_0, then the first model.
    A `preset.ini` in the root hides every model.

    Source: llama.cpp, `common/download.cpp` (find_best_model, get_split_files,
    common_download_get_hf_plan).
    """
    if "preset.ini" in paths:
        return ("preset.ini",)
    models = [path for path in paths if is_model(path) and not is_later_part(path)]
    for wanted in (tag,) if tag else ("Q4_K_M", "Q8_0", None):
        found = re.compile(re.escape(wanted) + "[.-]" if wanted else "", re.IGNORECASE)
        for path in models:
            if found.search(path):
                return parts_of(path, paths)
    return ()


def hub_labels(paths: Sequence[str], tag: str | None) -> tuple[str, ...]:
    """Pick as the Hub's own list does: all files whose label is the tag.

    Source: huggingface.js, `packages/tasks/src/gguf.ts`. Without a tag the list shows everything.
    """
    labelled = [path for path in paths if path.lower().endswith(".gguf") and hub_label(path)]
    return tuple(path for path in labelled if tag is None or hub_label(path) == tag)


def ollama(paths: Sequence[str], tag: str | None) -> tuple[str, ...]:
    """Pick as `ollama run hf.co/OWNER/NAME:TAG` does, which asks the Hub.

    The tag is a label in any case or a whole file name; without one Q4_K_M, else what the Hub
    holds for reasonable: here, the first file with a label. No parts: a model in parts is refused.
    All files with the label are returned, since nothing says which the Hub would take.

    Source: hub-docs, `docs/hub/ollama.md` ("Custom Quantization"); ollama issue 5245 (parts).
    """
    files = [path for path in paths if path.lower().endswith(".gguf") and "mmproj" not in path]
    if tag is None:
        labelled = [path for path in files if hub_label(path)]
        found = [path for path in labelled if hub_label(path) == "Q4_K_M"] or labelled[:1]
    else:
        found = [path for path in files if path == tag]
        found = found or [path for path in files if hub_label(path) == tag.upper()]
    return () if any(SHARD.fullmatch(path) for path in found) else tuple(found)


def docker(paths: Sequence[str], tag: str | None) -> tuple[str, ...]:
    """Pick as Docker Model Runner's `hf.co/OWNER/NAME:TAG` does.

    All files in whose name the tag stands between separators `-`, `.`, `_`, in any case: Q2_K
    takes Q2_K_S along. An unknown tag counts as none: Q4_K_M, then the first name in order. A
    lone model file is taken whatever the tag.

    Source: docker/model-runner, `pkg/distribution/huggingface/repository.go` (SelectGGUFFiles,
    containsQuantization, selectFirstGGUF).
    """
    files = [path for path in paths if path.lower().endswith(".gguf")]
    models = [path for path in files if "mmproj" not in _name(path).lower()]
    for wanted in (tag, "Q4_K_M"):
        if wanted and wanted not in {"latest", "main"}:
            found = tuple(path for path in models if _docker_matches(_name(path), wanted))
            if found:
                return found
    if not models:
        return ()
    first = min(models, key=_name)
    return parts_of(first, paths)


def _docker_matches(name: str, tag: str) -> bool:
    """Whether the first place of the tag behind each separator has an end or another after it."""
    stem = name.lower().removesuffix(".gguf")
    for separator in "-._":
        _, found, after = stem.partition(separator + tag.lower())
        if found and (not after or after[0] in "-._"):
            return True
    return False


def lm_studio(paths: Sequence[str], tag: str | None) -> tuple[str, ...]:
    """Pick as `lms get https://huggingface.co/OWNER/NAME@TAG` does.

    The first download whose quantization equals the tag in any case; the application names
    quantizations itself, and here that is taken to be the Hub's label. Without a tag it chooses
    by the machine: any labelled model may come, here the first.

    Source: lmstudio-ai/lms, `src/subcommands/get.ts`; hub-docs, `docs/hub/lmstudio.md`.
    """
    models = [path for path in paths if is_model(path) and not is_later_part(path)]
    for path in models:
        label = hub_label(path)
        if label is not None and (tag is None or label.lower() == tag.lower()):
            return parts_of(path, paths)
    return ()


def _name(path: str) -> str:
    return path.rpartition("/")[2]


RESOLVERS: Final = (
    Resolver("llama.cpp", "llama-cli -hf ", ":", llama_cpp),
    Resolver("the Hub's file list", "https://huggingface.co/", ", label ", hub_labels),
    Resolver("Ollama", "ollama run hf.co/", ":", ollama),
    Resolver("Docker Model Runner", "docker model pull hf.co/", ":", docker),
    Resolver("LM Studio", "lms get https://huggingface.co/", "@", lm_studio),
)
