"""The Hub's own name for the quantization of a file.

Source: huggingface.js, `packages/tasks/src/gguf.ts` (GGMLFileQuantizationType, GGUF_QUANT_RE,
parseGGUFQuantLabel), as in @huggingface/tasks 0.21.54.
"""

from __future__ import annotations

import re
from typing import Final

# In the order of the Hub's list, which the alternation of its expression follows; the numbers are
# `general.file_type` (enum llama_ftype in llama.cpp's `llama.h`).
FILE_TYPES: Final = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q4_1_SOME_F16": 4, "Q4_2": 5, "Q4_3": 6, "Q8_0": 7,
    "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14,
    "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20,
    "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26,
    "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "IQ1_M": 31, "BF16": 32, "Q4_0_4_4": 33,
    "Q4_0_4_8": 34, "Q4_0_8_8": 35, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "NVFP4": 39,
    "Q1_0": 40, "Q2_0": 41,
}  # fmt: skip
# Names that the Hub knows and no file can carry in its header; MXFP4 last, after MXFP4_MOE.
_NAMES_ONLY: Final = ("Q2_K_XL", "Q3_K_XL", "Q4_K_XL", "Q5_K_XL", "Q6_K_XL", "Q8_K_XL", "MXFP4")
LABELS: Final = (*FILE_TYPES, *_NAMES_ONLY)

_LABEL: Final = re.compile(rf"(?:UD-)?(?:{'|'.join(LABELS)})(?:_[A-Z]+)?")


def hub_label(path: str) -> str | None:
    """Return the Hub's label of a file, None where it sees no quantization.

    The last name in the path counts.

    >>> hub_label("Phi-3.5-mini-instruct-Q4_K_M.gguf"), hub_label("m-Q4_K_L.gguf")
    ('Q4_K_M', None)
    """
    found: list[str] = _LABEL.findall(path.upper())
    return found[-1] if found else None
