"""What a release is made of, as the graph last recorded it, and what its page shows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from quantmint.assets import kernel_assay
from quantmint.assets.assay import record as assay_record
from quantmint.assets.assay.record import Assayed
from quantmint.assets.convert import Converted
from quantmint.assets.graph.imatrix import LEAF
from quantmint.assets.graph.kernels import assay_key
from quantmint.assets.graph.line import (
    CODE_TAG,
    INPUT_TAG,
    Line,
    bundle_of,
    kernel_key,
    last_metadata,
)
from quantmint.assets.graph.model import model_assets
from quantmint.assets.graph.source import source_before
from quantmint.assets.kernel_assay import KernelAssay
from quantmint.assets.mint import Mint
from quantmint.assets.release.described import one_line
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.release.publishing import Released
from quantmint.assets.release.terms import Terms
from quantmint.assets.source import SourceWeights
from quantmint.assets.variants import Struck, struck_before
from quantmint.errors import UserError
from quantmint.native.build import Bundle
from quantmint.native.kernels import Kernel, reference_kernel
from quantmint.registry import gguf
from quantmint.registry.manifest.release import Calibration
from quantmint.registry.manifest.types import TextEntry


def release_metadata(done: Released, *, tracked: bool) -> dict[str, Any]:
    """Return what the asset page of a release shows."""
    manifest, published = done.manifest, done.published
    assert published is not None
    files = [
        {"file": v.file.path, "bytes": v.file.size, "sha256": v.file.sha256}
        for v in manifest.variants
    ]
    withheld = [{"variant": row.variant, "reason": row.reason} for row in manifest.withheld]
    page = f"{published.target}/tree/{published.commit}"
    link = {"page": dg.MetadataValue.url(page)} if page.startswith("http") else {}
    without = f"; withheld: {', '.join(row.variant for row in manifest.withheld)}"
    return {
        "summary": f"release {manifest.release}: {len(files)} variants"
        f"{without if withheld else ''}",
        **link,
        "sha256": done.manifest_blob.sha256,
        "size": done.manifest_blob.size,
        "release": manifest.release,
        "identity": manifest.identity,
        "target": published.target,
        "commit": published.commit,
        "changed": published.changed,
        "supersedes": published.supersedes or "none",
        "sent": ", ".join(published.sent) or "nothing",
        "published": dg.MetadataValue.json(files),
        "withheld": dg.MetadataValue.json(withheld),
        "changes": "\n".join(manifest.changes),
        "warnings": "\n".join(done.warnings) or "none",
        "expires": manifest.expires,
        "in_mlflow": tracked,
    }


def read_inputs(
    instance: dg.DagsterInstance, line: Line, terms: Terms, mint: Mint, *, run: str
) -> Inputs:
    """Return what the graph last recorded of a model's artifacts, read from the store.

    Raises:
        UserError: something was never built, or was made of something else than what is there.
        IntegrityError: bytes are gone from the store, or a record is damaged.
    """
    return _Reader(instance, line, mint).inputs(terms, run)


class _Reader:
    """Reads latest materializations; keeps the first and last moment of them."""

    def __init__(self, instance: dg.DagsterInstance, line: Line, mint: Mint) -> None:
        self.instance, self.line, self.mint = instance, line, mint
        self.moments: list[float] = []
        # A release says what its files were made with: as the model file is now.
        self.versions = {
            spec.key: spec.code_version
            for asset in model_assets(line)
            if isinstance(asset, dg.AssetsDefinition)
            for spec in asset.specs
        }

    def inputs(self, terms: Terms, run: str) -> Inputs:
        line, recipe = self.line, self.line.recipe
        source, fp16 = self._source(), self._fp16()
        calibration = self._calibration()
        bundles = tuple(bundle_of(self.mint, kernel) for kernel in line.kernels)
        struck = tuple(self._struck(v, fp16, calibration) for v in recipe.variants)
        records = tuple(self._record(v, k) for v in recipe.variants for k in line.kernels)
        return Inputs(
            recipe=recipe, terms=terms, base=line.base, source=source, fp16=fp16,
            calibration=calibration, struck=struck, records=records, bundle=bundles[-1],
            bundles=bundles, kernel_assays=self._kernel_assays(bundles), run=run,
            started=_moment(min(self.moments)), finished=_moment(max(self.moments)),
        )  # fmt: skip

    def _made(
        self, key: dg.AssetKey, made_from: Mapping[dg.AssetKey, str] | None = None
    ) -> Mapping[str, Any]:
        """Return an asset's metadata, if it was made of exactly these data versions."""
        event = self.instance.get_latest_materialization_event(key)
        if event is None or event.asset_materialization is None:
            raise self._stale(f"{key.to_user_string()} was never built")
        tags = event.asset_materialization.tags or {}
        if key in self.versions and tags.get(CODE_TAG) != self.versions[key]:
            raise self._stale(f"{key.to_user_string()} was made with other arguments than now")
        for parent, wanted in (made_from or {}).items():
            if tags.get(INPUT_TAG + parent.to_user_string()) != wanted:
                raise self._stale(
                    f"{key.to_user_string()} was made of another {parent.path[-1]} than is there"
                )
        self.moments.append(event.timestamp)
        found = event.asset_materialization.metadata
        return {name: value.value for name, value in found.items()}

    def _stale(self, why: str) -> UserError:
        return UserError(
            f"{why}: nothing is released", mend=f"quantmint build {self.line.recipe.model}"
        )

    def _source(self) -> SourceWeights:
        return source_before(self.mint, self._made(self.line.key("source_weights")))

    def _fp16(self) -> Converted:
        source = self._made(self.line.key("source_weights"))["sha256"]
        key = self.line.key("fp16_gguf")
        found = self._made(key, {self.line.key("source_weights"): source})
        blob = self.mint.store.find(found["sha256"])
        return Converted(blob, gguf.read(self.mint.store.path(blob.sha256)), cached=True)

    def _calibration(self) -> Calibration | None:
        if self.line.recipe.imatrix is None:
            return None
        found = self._made(self.line.key(LEAF))
        text = self.mint.store.find(str(found["text_sha256"]))
        name = one_line(str(found["text"]).rpartition("/")[2])
        return Calibration(
            imatrix_sha256=self.mint.store.find(str(found["sha256"])).sha256,
            text=TextEntry(name=name, size=text.size, sha256=text.sha256),
            context=int(found["context"]),
            chunks=int(found["chunks"]),
        )

    def _struck(self, variant: str, fp16: Converted, matrix: Calibration | None) -> Struck:
        made_from = {self.line.key("fp16_gguf"): fp16.blob.sha256}
        if matrix is not None:
            made_from[self.line.key(LEAF)] = matrix.imatrix_sha256
        found = self._made(self.line.key(variant), made_from)
        return struck_before(self.mint.store, variant, found)

    def _record(self, variant: str, kernel: Kernel) -> Assayed:
        found = self._made(self.line.on(variant, kernel))
        return assay_record.load(self.mint.store, self.mint.store.find(str(found["sha256"])))

    def _kernel_assays(self, bundles: tuple[Bundle, ...]) -> dict[str, KernelAssay]:
        """Return the assays of the kernels as they are built now, made here if there is none."""
        found: dict[str, KernelAssay] = {}
        for bundle in bundles:
            kernel = bundle.kernel
            event = self.instance.get_latest_materialization_event(assay_key(kernel))
            made = event.asset_materialization if event is not None else None
            tag = INPUT_TAG + kernel_key(kernel).to_user_string()
            if made is None or (made.tags or {}).get(tag) != bundle.tree.sha256:
                self.mint.report(f"comparing kernel {kernel.name} with plain scalar code")
                plain = bundle_of(self.mint, reference_kernel())
                layers = kernel.force.gpu_layers
                found[kernel.name] = kernel_assay.assay_kernel(
                    self.mint, bundle, plain, gpu_layers=layers, timed=False
                )
                continue
            metadata = last_metadata(self.instance, assay_key(kernel)) or {}
            blob = self.mint.store.find(str(metadata["sha256"]))
            found[kernel.name] = kernel_assay.load(self.mint, blob)
        return found


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(int(timestamp), UTC)
