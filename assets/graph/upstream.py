"""Upstreams as the graph sees them: external assets, whose data version is what was seen last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from quantmint.assets.graph.line import DATA_TAG, OWNERS, Line, last_metadata
from quantmint.assets.upstream import Seen, is_remote, look_at_source, look_at_text, remote_text
from quantmint.errors import QuantmintError
from quantmint.native.pin import current_pin

UPSTREAM: Final = "upstream"
CALIBRATION: Final = "calibration_text"
LLAMA_CPP_KEY: Final = dg.AssetKey(["upstream", "llama_cpp"])
_GIVEN_TAG: Final = "dagster/data_version_is_user_provided"
MOST_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Look:
    """What the graph knows of an upstream: its data version, its files, the Hub's commit."""

    version: str
    files: Mapping[str, str]
    commit: str


def upstream_specs(line: Line) -> list[dg.AssetSpec]:
    """Return a model's upstreams: its source, and its calibration text where that is on the Hub."""
    recipe = line.recipe
    where = "the Hub" if is_remote(recipe) else "disk"
    specs = [
        dg.AssetSpec(
            line.key(UPSTREAM),
            group_name=line.group,
            description=f"`{recipe.source.shown}` on {where}, as it was seen last. Its version is "
            "that of the files that a conversion reads: another README changes nothing.",
            kinds={"huggingface"} if is_remote(recipe) else {"file"},
            owners=OWNERS,
        )
    ]
    text = remote_text(recipe)
    if text is not None:
        specs.append(
            dg.AssetSpec(
                line.key(CALIBRATION),
                group_name=line.group,
                description=f"The calibration text `{text.hub}/{text.file}`, as it was seen last.",
                kinds={"huggingface", "text"},
                owners=OWNERS,
            )
        )
    return specs


def llama_cpp_spec() -> dg.AssetSpec:
    """Return the pinned llama.cpp as an upstream of the graph."""
    pin = current_pin()
    return dg.AssetSpec(
        LLAMA_CPP_KEY,
        group_name="upstream",
        description=f"llama.cpp at commit `{pin.commit}`, out of {pin.package} {pin.version}.",
        metadata={"sha256": pin.sha256, "package": pin.package, "version": pin.version},
        kinds={"cplusplus", "github"},
        owners=OWNERS,
    )


def last_look(instance: dg.DagsterInstance, key: dg.AssetKey) -> Look | None:
    """Return what was seen of an upstream last, or None if nobody looked."""
    found = last_metadata(instance, key)
    return None if found is None else look_of(found)


def look_of(metadata: Mapping[str, Any]) -> Look:
    """Return a look as an asset's metadata keeps it: an upstream's own, or what came of it."""
    return Look(
        version=str(metadata["upstream_version"]),
        files=dict(metadata["upstream_files"]),
        commit=str(metadata["upstream_commit"]),
    )


def look_at(line: Line, *, remote: bool) -> dict[dg.AssetKey, Seen]:
    """Look at a model's upstreams on disk, and at those on the Hub if `remote`.

    A local source that is gone is left out: what was made of it is still good.

    Raises:
        SourceError: the Hub does not answer, or has no such repository.
    """
    recipe, seen = line.recipe, {}
    if remote or not is_remote(recipe):
        try:
            seen[line.key(UPSTREAM)] = look_at_source(recipe, line.base)
        except QuantmintError:
            if is_remote(recipe):
                raise
    text = remote_text(recipe)
    if remote and text is not None:
        seen[line.key(CALIBRATION)] = look_at_text(text)
    return seen


def local_looks(line: Line) -> dict[dg.AssetKey, Look]:
    """Look at a model's upstreams on disk; return that as the graph would know it."""
    seen = look_at(line, remote=False)
    return {key: Look(each.version, dict(each.files), each.sha) for key, each in seen.items()}


def tell(instance: dg.DagsterInstance, seen: Mapping[dg.AssetKey, Seen]) -> list[dg.AssetKey]:
    """Let the graph know what was seen of upstreams; return those that are news."""
    report_pin(instance)
    return [key for key, each in seen.items() if report_seen(instance, key, each)]


def see_in_step(context: dg.AssetExecutionContext, key: dg.AssetKey, seen: Seen) -> None:
    """Let the graph know what a step saw of its own upstream: that is what it is made of."""
    if report_seen(context.instance, key, seen):
        context.get_step_execution_context().wipe_input_asset_version_info(key)


def look_metadata(seen: Seen) -> dict[str, Any]:
    """Return a look as metadata."""
    shown = dict(sorted(seen.files.items())[:MOST_FILES])
    return {
        "upstream_version": seen.version,
        "upstream_files": dg.MetadataValue.json(shown),
        "upstream_commit": seen.sha,
    }


def report_seen(instance: dg.DagsterInstance, key: dg.AssetKey, seen: Seen) -> bool:
    """Let the graph know what was seen, if that is news; return whether it was.

    A new commit that changed none of the files that count is told as well: its version is the
    same, so nothing is made of it.
    """
    before = last_look(instance, key)
    if before is not None and (before.version, before.commit) == (seen.version, seen.sha):
        return False
    instance.report_runless_asset_event(seen_event(key, seen, before))
    return True


def seen_event(key: dg.AssetKey, seen: Seen, before: Look | None) -> dg.AssetMaterialization:
    """Return the event that tells the graph what was seen."""
    changed = changed_files(before.files, dict(seen.files)) if before is not None else []
    link = dg.MetadataValue.url if seen.sha else dg.MetadataValue.path
    return dg.AssetMaterialization(
        key,
        metadata={
            **look_metadata(seen),
            "origin": link(seen.origin),
            "changed": ", ".join(changed) or ("first look" if before is None else "nothing"),
        },
        tags={DATA_TAG: seen.version, _GIVEN_TAG: "true"},
    )


def report_pin(instance: dg.DagsterInstance) -> None:
    """Let the graph know which llama.cpp is pinned, if that is news."""
    pin = current_pin()
    before = last_metadata(instance, LLAMA_CPP_KEY)
    if before is None or before.get("sha256") != pin.sha256:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                LLAMA_CPP_KEY,
                metadata={"sha256": pin.sha256, "commit": pin.commit, "version": pin.version},
                tags={DATA_TAG: pin.sha256, _GIVEN_TAG: "true"},
            )
        )


def changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names that were added, removed or changed, each with the word for it."""
    said = []
    for name in sorted({*before, *after}):
        if name not in before:
            said.append(f"{name} added")
        elif name not in after:
            said.append(f"{name} removed")
        elif before[name] != after[name]:
            said.append(name)
    return said
