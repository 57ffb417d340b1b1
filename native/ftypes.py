"""The variants that llama-quantize can strike: names, nominal bits per weight, special needs.

Source: the table of `tools/quantize/quantize.cpp` and the rules of `src/llama-quant.cpp` in the
pinned llama.cpp; a test compares the names with the pinned source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quantmint.errors import UserError, nearest


@dataclass(frozen=True, slots=True)
class Ftype:
    """One variant: `bits` per weight are nominal, for an estimate before anything is built."""

    name: str
    bits: float
    needs_imatrix: bool = False
    ternary: bool = False


FTYPES: Final = {
    f.name: f
    for f in (
        Ftype("Q8_0", 8.5),
        Ftype("Q6_K", 6.57),
        Ftype("Q5_1", 6.0),
        Ftype("Q5_K_M", 5.69),
        Ftype("Q5_K_S", 5.54),
        Ftype("Q5_0", 5.54),
        Ftype("Q4_1", 5.05),
        Ftype("Q4_K_M", 4.87),
        Ftype("Q4_K_S", 4.62),
        Ftype("Q4_0", 4.59),
        Ftype("IQ4_NL", 4.57),
        Ftype("IQ4_XS", 4.34),
        Ftype("Q3_K_L", 4.22),
        Ftype("Q3_K_M", 3.96),
        Ftype("IQ3_M", 3.74),
        Ftype("Q3_K_S", 3.58),
        Ftype("IQ3_S", 3.54),
        Ftype("IQ3_XS", 3.38),
        Ftype("IQ3_XXS", 3.18, needs_imatrix=True),
        Ftype("Q2_K", 3.18),
        Ftype("Q2_K_S", 2.97, needs_imatrix=True),
        Ftype("IQ2_M", 2.86, needs_imatrix=True),
        Ftype("IQ2_S", 2.66, needs_imatrix=True),
        Ftype("IQ2_XS", 2.5, needs_imatrix=True),
        Ftype("IQ2_XXS", 2.28, needs_imatrix=True),
        Ftype("TQ2_0", 2.4, ternary=True),
        Ftype("IQ1_M", 2.04, needs_imatrix=True),
        Ftype("TQ1_0", 2.0, ternary=True),
        Ftype("IQ1_S", 1.85, needs_imatrix=True),
        Ftype("MXFP4_MOE", 4.6),
    )
}


def ftype(name: str) -> Ftype:
    """Return the variant of that name.

    Raises:
        UserError: there is none; the message names the nearest one.
    """
    try:
        return FTYPES[name]
    except KeyError:
        raise UserError(
            f"there is no variant {name!r}{nearest(name, FTYPES)}",
            mend="use a variant that llama-quantize knows",
        ) from None
