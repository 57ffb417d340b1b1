"""Names of variant files, after the name of the file they come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_PART: Final = re.compile(r"-\d{5}-of-\d{5}$")
_PRECISION: Final = re.compile(r"[-._](?:f16|fp16|bf16|f32|fp32)$", re.IGNORECASE)


def file_name(source: Path, variant: str) -> str:
    """Return the file name of a variant of `source`.

    >>> file_name(Path("in/Phi-3.5-mini-instruct-F16.gguf"), "Q4_K_M")
    'Phi-3.5-mini-instruct-Q4_K_M.gguf'
    >>> file_name(Path("Big-BF16-00001-of-00003.gguf"), "Q6_K")
    'Big-Q6_K.gguf'
    """
    stem = source.name.removesuffix(".gguf")
    stem = _PRECISION.sub("", _PART.sub("", stem))
    return f"{stem}-{variant}.gguf"
