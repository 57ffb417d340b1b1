"""Versions of models in MLflow: each is one digest, its aliases say what became of it.

No model's bytes go there: a variant is an external model, known by its digest. A registered model
is one variant of one model, `phi-3-nano-Q4_K_M`; each of its versions is one digest. The alias
`candidate` stands at the latest version that passed, `withheld` at the latest that did not,
`released` at the one that was published last and was not withdrawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from quantmint import names
from quantmint.assets.report.model import ModelReport, VariantRow
from quantmint.assets.tracking import MOST_CHARACTERS, tracked
from quantmint.home import Home

if TYPE_CHECKING:
    from mlflow import MlflowClient as Client
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE: Final = "candidate"
WITHHELD: Final = "withheld"
RELEASED: Final = "released"
YANKED: Final = "yanked"
RELEASE: Final = "quantmint.release"
DIGEST: Final = "gguf.sha256"
STATE: Final = "quantmint.state"
VARIANT: Final = "quantmint.variant"
MODEL_ID: Final = "quantmint.model_id"


def external_model(
    client: Client,
    experiment: str,
    run_id: str,
    report: ModelReport,
    row: VariantRow,
) -> str:
    """Return the id of the logged model of these bytes; one for each digest."""
    import mlflow

    wanted = f"tags.`{DIGEST}` = '{names.digest(row.sha256)}'"
    found = client.search_logged_models([experiment], filter_string=wanted, max_results=1)
    if found:
        if str(found[0].status) != "READY":  # killed while it was made
            client.finalize_logged_model(found[0].model_id, "READY")
        return str(found[0].model_id)
    tags = {DIGEST: row.sha256, VARIANT: row.variant}
    made = mlflow.create_external_model(
        # Dots are no part of such a name.
        name=registered_name(report.model, row.variant).replace(".", "_"), source_run_id=run_id,
        tags={**tags, "gguf.file": row.file, "gguf.size": str(row.size)}, model_type="gguf",
        experiment_id=experiment,
    )  # fmt: skip
    return str(made.model_id)


def register(
    client: Client, run_id: str, model_id: str, report: ModelReport, row: VariantRow
) -> None:
    """Make these bytes a version of their registered model, once, and set its aliases."""
    name = registered_name(report.model, row.variant)
    _ensure_registered(client, name, report)
    state = WITHHELD if row.withheld else CANDIDATE
    version = _version_of(client, name, row.sha256)
    if version is None:
        version = client.create_model_version(
            name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id,
            tags={DIGEST: row.sha256, MODEL_ID: model_id, "gguf.file": row.file, STATE: state,
                  "llama.cpp": report.about.llama_cpp, "source.commit": report.about.commit},
        )  # fmt: skip
    elif version.tags.get(STATE) not in (state, RELEASED, YANKED):
        client.set_model_version_tag(name, version.version, STATE, state)
    reason = "; ".join(row.withheld)[:MOST_CHARACTERS] or "none"
    client.set_model_version_tag(name, version.version, "quantmint.withheld", reason)
    aliases = client.get_registered_model(name).aliases
    other = CANDIDATE if row.withheld else WITHHELD
    if str(aliases.get(other)) == str(version.version):
        client.delete_registered_model_alias(name, other)
    client.set_registered_model_alias(name, state, version.version)


def registered_name(model: str, variant: str) -> str:
    """Return the name of the registered model of a variant: `phi-3-nano-Q4_K_M`."""
    return f"{model}-{variant}"


def _ensure_registered(client: Client, name: str, report: ModelReport) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        text = f"One variant of {report.about.title}; each version is one file, by its sha256."
        client.create_registered_model(name, {"quantmint.model": report.model}, text)


def _version_of(client: Client, name: str, sha256: str) -> ModelVersion | None:
    wanted = f"name = '{name}' AND tags.`{DIGEST}` = '{names.digest(sha256)}'"
    found = client.search_model_versions(wanted, max_results=1)
    return found[0] if found else None


def mark_released(home: Home, model: str, digests: Mapping[str, str], release: str) -> bool:
    """Let `released` stand at the versions of these digests (by variant), and name the release.

    Returns whether all of them are known there; False when tracking is off or can't be reached.
    """

    def mark(client: Client) -> bool:
        wanted = {registered_name(model, variant): sha for variant, sha in digests.items()}
        found = {name: _version_of(client, name, sha256) for name, sha256 in wanted.items()}
        for name, version in found.items():
            if version is not None:
                client.set_model_version_tag(name, version.version, STATE, RELEASED)
                client.set_model_version_tag(name, version.version, RELEASE, release)
                client.set_registered_model_alias(name, RELEASED, version.version)
        return all(version is not None for version in found.values())

    return bool(tracked(home, mark))


def mark_yanked(home: Home, release: str, reason: str, standing: Mapping[str, str]) -> bool:
    """Say of the versions of a withdrawn release that they are, and why.

    Args:
        home: whose tracking it is.
        release: the release as `mark_released` named it: `owner/model@3`.
        reason: why it was withdrawn.
        standing: the digests, by registered model (`phi-3-nano-Q4_K_M`), of the newest release
            that still stands: there the alias `released` goes. Without one it goes away.

    Returns whether tracking could be reached; a version that it does not know is none to mark.
    """

    def mark(client: Client) -> bool:
        wanted = f"tags.`{RELEASE}` = '{release.replace(chr(39), '')}'"
        for version in client.search_model_versions(wanted):
            name = version.name
            client.set_model_version_tag(name, version.version, STATE, YANKED)
            client.set_model_version_tag(name, version.version, "quantmint.yanked", reason)
            aliases = client.get_registered_model(name).aliases
            if str(aliases.get(RELEASED)) != str(version.version):
                continue
            sha256 = standing.get(name)
            other = _version_of(client, name, sha256) if sha256 is not None else None
            if other is None or str(other.version) == str(version.version):
                client.delete_registered_model_alias(name, RELEASED)
            else:
                client.set_registered_model_alias(name, RELEASED, other.version)
        return True

    return bool(tracked(home, mark))
