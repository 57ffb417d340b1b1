"""The one grammar of identifiers: matched before a path, a key or a URL is made of a name.

`model:variant@release` names a released file, `model/variant+kernel` a measurement.
"""

from __future__ import annotations

import re
from typing import Final

from quantmint.errors import UserError

MODEL: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
VARIANT: Final = re.compile(r"[A-Z0-9]+(?:_[A-Z0-9]+)*")
# A variant of a repository without a manifest: Unsloth's dynamic ones stand beside the plain ones.
ANY_VARIANT: Final = re.compile(rf"(?:UD-)?{VARIANT.pattern}")
KERNEL: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
TITLE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
LONGEST: Final = 96


def check(grammar: re.Pattern[str], text: str, what: str) -> str:
    """Return `text` if the whole of it matches `grammar`.

    Raises:
        UserError: it does not, or it is longer than 96 characters.
    """
    if len(text) > LONGEST or grammar.fullmatch(text) is None:
        shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
        raise UserError(
            f"{shown!r} is no {what}",
            mend=f"use a name that matches {grammar.pattern} in at most {LONGEST} characters",
        )
    return text


def digest(text: str) -> str:
    """Return `text` if it is a sha256 in 64 lower-case hexadecimal digits.

    Raises:
        UserError: it is not.
    """
    if DIGEST.fullmatch(text) is None:
        raise UserError(
            f"{text[:80]!r} is no sha256 digest", mend="give 64 lower-case hexadecimal digits"
        )
    return text
