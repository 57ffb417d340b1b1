"""The plots of a release's card, drawn from the records that were judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quantmint.assets.assay.record import Assayed
from quantmint.assets.mint import Mint
from quantmint.assets.release.described import one_line
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.report.files import write_report
from quantmint.assets.report.model import About, ModelReport, build_report
from quantmint.native.pin import current_pin
from quantmint.registry.store import Blob

# By the report's own name: the name in the release.
DRAWN: Final = {"size-kld.png": "size-kld.png", "speed.png": "speed.png"}


def report_of(inputs: Inputs, records: Sequence[Assayed]) -> ModelReport:
    """Return the report that plots and MLflow's versions are made from; it holds no date."""
    pin, matrix = current_pin(), inputs.calibration
    about = About(
        title=inputs.recipe.title,
        kernel=inputs.bundle.kernel.name,
        source=inputs.recipe.source.shown,
        origin=one_line(inputs.source.origin) if inputs.source.origin.startswith("http") else "",
        commit=inputs.source.commit,
        source_sha256=inputs.source.blob.sha256,
        fp16_size=inputs.fp16.blob.size,
        llama_cpp=pin.commit,
        llama_cpp_release=f"{pin.package} {pin.version}",
        date="",
        calibration=matrix.text.sha256 if matrix else None,
        imatrix=matrix.imatrix_sha256 if matrix else None,
    )
    return build_report(records, about)


def draw(mint: Mint, inputs: Inputs, records: Sequence[Assayed]) -> dict[str, Blob]:
    """Return the card's plots by their names in the release."""
    files = write_report(mint.store, report_of(inputs, records))
    return {name: files[plot] for plot, name in DRAWN.items() if plot in files}
