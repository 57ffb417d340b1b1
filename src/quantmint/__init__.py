"""A mint for quantized language models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantmint.registry.transfer import Progress

__version__ = "0.1.0"
__all__ = ["PullWarning", "__version__", "pull"]


class PullWarning(UserWarning):
    """What a pull could not verify, and what to know of the variant that it took."""


def pull(
    ref: str,
    *,
    variant: str = "auto",
    context: int = 4096,
    to: Path | str | None = None,
    strict: bool = False,
    registry: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Fetch a model's file, verified, and return its path; what is here already is not fetched.

    Args:
        ref: `phi-3.5-mini-instruct`, `owner/name:Q4_K_M@3`, `file:DIR`, `sha256:DIGEST`.
        variant: a name, or `auto` for the best that fits this machine.
        context: tokens of context that must fit into memory as well.
        to: a folder to link the file into.
        strict: refuse what no trusted key has signed.
        registry: where model names are looked up: `hub:OWNER`, `file:DIR`.
        progress: called with what came so far, at most ten times a second.

    Warns:
        PullWarning: nobody vouches for it, its release has expired, it does not fit: the lines that
            `quantmint pull` begins with `warning:`.

    Raises:
        quantmint.errors.QuantmintError: it can't be had; the subclass says who must act.
    """
    from quantmint.home import find_home
    from quantmint.registry.pull.choose import AUTO, Wishes
    from quantmint.registry.pull.engine import Puller, Request
    from quantmint.registry.pull.reference import check_variant, parse_reference

    request = Request(
        reference=parse_reference(ref),
        wishes=Wishes(variant=variant if variant == AUTO else check_variant(variant),
                      context=context),
        strict=strict,
        registry=registry,
        to=None if to is None else Path(to),
    )  # fmt: skip
    puller = Puller(find_home(), progress=progress)
    resolved = puller.resolve(request)
    for warning in resolved.warnings:
        warnings.warn(warning, PullWarning, stacklevel=2)
    return puller.pull(request, resolved).path
