"""What the variants of a repository without a manifest are called: by the names of its files.

Publishers name files in many ways: `-Q4_K_M`, `.q4_k_m`, `-fp16`, `UD-Q4_K_XL`, `i1-IQ3_XXS`,
`Q4_K_M/model-00001-of-00002`. What counts is the last word of the file's name that looks like a
quantization, else of its folder. That is no client's rule: the Hub's own label (see
`linter.labels`) knows its list alone, and has none for `Q4_K_L`, `q4` and `fp16`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from quantmint import names
from quantmint.registry.linter.listing import SHARD

_LONGEST: Final = 80
_WORD: Final = re.compile(
    r"""
    (?<![A-Z0-9])
    (?P<kind>UD-)?
    (?:
        [IT]?Q[1-9](?:_[A-Z0-9]{1,5})*   # Q4, Q4_K_M, Q4_0_4_8, IQ3_KS, TQ1_0, Q4_K_M_CUDA
      | (?:MX|NV)FP[0-9](?:_[A-Z]{1,5})* # MXFP4_MOE
      | (?:B?F|B?FP|B?FLOAT)(?:8|16|32|64)
    )
    (?![A-Z0-9])
    """,
    re.VERBOSE,
)
_WIDE: Final = re.compile(r"B?F(?:P|LOAT)?(?:16|32|64)")


def label_of(path: str) -> str:
    """Return what one file's variant is called, whatever lies beside it.

    >>> label_of("Phi-3-mini-4k-instruct-fp16.gguf"), label_of("m-UD-q4_k_xl.gguf")
    ('FP16', 'UD-Q4_K_XL')
    >>> label_of("IQ3_KS/model-00001-of-00002.gguf"), label_of("some model.gguf")
    ('IQ3_KS', 'SOME_MODEL')
    """
    parts = _stem(path).upper().split("/")
    for part in reversed(parts):
        found = [match[0] for match in _WORD.finditer(part)]
        if found:
            return found[-1]
    return _made(parts[-1])


def is_wide(label: str) -> bool:
    """Return whether a variant of that name has weights of 16 bits or more."""
    return _WIDE.fullmatch(label) is not None


def variant_names(paths: Sequence[str]) -> list[str]:
    """Return a name for each model file (the first part of each model), all different.

    Where files share a label, each is called by its whole name, else by its path.
    """
    found = [label_of(path) for path in paths]
    for make in (lambda path: _stem(path).rpartition("/")[2], _stem):
        counts = Counter(found)
        found = [
            name if counts[name] == 1 else _made(make(path).upper())
            for name, path in zip(found, paths, strict=True)
        ]
    taken: set[str] = set()
    for at in range(len(found)):
        while found[at] in taken:
            found[at] += "_2"
        taken.add(found[at])
    return found


def _stem(path: str) -> str:
    """Return a path without its end, and without the number of a part."""
    shard = SHARD.fullmatch(path)
    return shard["prefix"] if shard else re.sub(r"\.gguf$", "", path, flags=re.IGNORECASE)


def _made(text: str) -> str:
    """Return the name of a variant made of any text: its end, where it is long."""
    made = re.sub(r"[^A-Z0-9]+", "_", text)[-_LONGEST:].strip("_")
    return made if names.VARIANT.fullmatch(made) else "MODEL"
