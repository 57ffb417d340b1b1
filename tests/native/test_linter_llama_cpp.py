"""The linter's llama.cpp rule against llama.cpp's real `-hf`, over layouts good and bad."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from hub import Hub
from llama_hf import files_taken
from quantmint.native.build import Bundle
from quantmint.registry.linter.labels import FILE_TYPES
from quantmint.registry.linter.resolvers import llama_cpp

pytestmark = pytest.mark.native
TAGS = ("Q4_K_M", "Q8_0", "F16", "BF16", "IQ4_XS", "TQ1_0", "Q1_0", "Q2_K", "Q2_K_S", "q4_k_m")
OTHERS = (
    "README.md", "m-imatrix.gguf", "mmproj-m-F16.gguf", "sub/mtp-m-Q8_0.gguf", "q8_0-x/m-Q2_K.gguf",
    "m.gguf", "m.Q8_0.gguf", "m-Q4_K_M.txt", "M-q8_0.gguf", "m-Q4_K_M-old.gguf",
)  # fmt: skip


def layouts() -> list[list[str]]:
    """Sixteen layouts: three written down, the rest drawn; in the order of a hub's list."""
    rng = random.Random(7)
    drawn = [
        [f"m-{tag}.gguf" for tag in rng.sample(TAGS[:9], 4)] + rng.sample(OTHERS, 3)
        for _ in range(13)
    ]
    parts = [f"m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)] + ["m-Q8_0.gguf"]
    return [["README.md"], ["preset.ini", "m-Q8_0.gguf"], parts, *map(sorted, drawn)]


def test_the_rule_is_llama_cpps_own(bundle: Bundle, tmp_path: Path) -> None:
    tool = bundle.tool("llama-completion")
    rng = random.Random(11)
    seen = set()
    with Hub() as hub:
        for number, paths in enumerate(layouts()):
            repo = f"org/m{number}-GGUF"
            hub.add(repo).commit({path: b"GGUF" + path.encode() for path in paths})
            listed = list(hub.repos[repo].files())
            for tag in (None, *rng.sample(TAGS, 3)):
                taken = files_taken(tool, hub, repo, tag, tmp_path)
                assert taken == set(llama_cpp(listed, tag)), (listed, tag)
                seen.add(len(taken))
    assert seen == {0, 1, 3}


def test_file_types_are_those_of_the_pinned_source(llama_source: Path) -> None:
    header = (llama_source / "include" / "llama.h").read_text()
    found = re.findall(r"^\s*LLAMA_FTYPE_(?:ALL|MOSTLY)_(\w+)\s*=\s*(\d+),", header, re.MULTILINE)
    theirs = {name: int(number) for name, number in found}
    gone = {"Q4_1_SOME_F16", "Q4_2", "Q4_3", "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8"}
    assert {name: n for name, n in FILE_TYPES.items() if name not in gone} == theirs
