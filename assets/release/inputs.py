"""What a release is made from, as the graph last recorded it; nothing in it is believed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from quantmint.assets.assay.record import Assayed
from quantmint.assets.convert import Converted
from quantmint.assets.kernel_assay import KernelAssay
from quantmint.assets.recipe import Recipe
from quantmint.assets.release.terms import Terms
from quantmint.assets.source import SourceWeights
from quantmint.assets.variants import Struck
from quantmint.native.build import Bundle
from quantmint.registry.manifest.release import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """One model's artifacts: `records` of every variant on every kernel, read from the store.

    `bundle` is the kernel that quality was measured on, `bundles` all kernels of the model file.
    `kernel_assays` holds each kernel's own assay where one was made. `run` is the id of the run
    that releases, `started` and `finished` when the oldest and the newest artifact were made.
    """

    recipe: Recipe
    terms: Terms
    base: Path
    source: SourceWeights
    fp16: Converted
    calibration: Calibration | None
    struck: tuple[Struck, ...]
    records: tuple[Assayed, ...]
    bundle: Bundle
    bundles: tuple[Bundle, ...]
    kernel_assays: Mapping[str, KernelAssay]
    run: str
    started: datetime
    finished: datetime
