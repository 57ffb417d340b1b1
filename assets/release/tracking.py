"""The release in MLflow: each variant's version gets the alias `released`, tags and links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantmint.assets.mint import Mint
from quantmint.assets.release.publishing import Released, signature_of
from quantmint.assets.report.mlflow_versions import RELEASED, mark_released, registered_name
from quantmint.assets.tracking import tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient as Client


def track(mint: Mint, done: Released) -> bool:
    """Mark what was released; return whether MLflow holds all of it.

    The versions are those that the model's report registered, known by digest. False when
    tracking is off, can't be reached, or knows no such version.
    """
    manifest, published = done.manifest, done.published
    if published is None:
        return False
    digests = {
        one.struck.variant: one.struck.blob.sha256 for one in done.judged if not one.withheld
    }
    name = f"{manifest.identity}@{manifest.release}"
    marked = mark_released(mint.home, manifest.model, digests, name)
    tags = {
        "quantmint.target": published.target,
        "quantmint.commit": published.commit,
        "quantmint.manifest": done.manifest_blob.sha256,
        "quantmint.signature": signature_of(mint, done.settled),
    }

    target = published.target
    page = f"{target}/tree/{published.release}" if target.startswith("http") else target
    described = f"Release {manifest.release} of {manifest.identity}, published at {page}"

    def write(client: Client) -> bool:
        for variant in digests:
            registered = registered_name(manifest.model, variant)
            version = client.get_model_version_by_alias(registered, RELEASED)
            for key, value in tags.items():
                client.set_model_version_tag(registered, version.version, key, value)
            client.update_model_version(registered, version.version, described)
        return True

    return marked and bool(tracked(mint.home, write))
