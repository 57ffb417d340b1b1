"""The changelog of a release, which answers one question first: must I download again?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from quantmint.assets.regression import REGRESSION
from quantmint.errors import IntegrityError
from quantmint.registry.manifest.release import KEY_FILE, OPENSSF_KEY_FILE, Manifest, Variant
from quantmint.registry.tensors import TensorTable

Tables = Callable[[Variant], TensorTable | None]
# What may differ between two manifests of the same release: its number, times and history, and
# the version of this program.
_PASSING = {"release", "created", "expires", "changes", "yanked"}
_NOT_OF_THE_BYTES = {"provenance", "picture", "key", "measurements"}


def same_content(ours: Manifest, theirs: Manifest) -> bool:
    """Return whether two manifests release the same, under whatever number and date.

    A release without an OpenSSF signature does not stand for one that is to have it.
    """
    if _has_openssf(ours) and not _has_openssf(theirs):
        return False
    return _content(ours) == _content(theirs)


def _has_openssf(manifest: Manifest) -> bool:
    return any(file.path == OPENSSF_KEY_FILE for file in manifest.files)


def _content(manifest: Manifest) -> dict[str, object]:
    value = manifest.model_dump(exclude=_PASSING)
    value["toolchain"].pop("quantmint")
    # The provenance names the run that released, and pictures follow the drawing library. What the
    # regression watch says is of the past: judged again, the same numbers are no longer the first.
    # The numbers themselves stand in the manifest; the file of measurements repeats them.
    made = [f for f in value["files"] if f["role"] not in _NOT_OF_THE_BYTES]
    for variant in value["variants"]:
        for gate in variant["gates"]:
            if gate["check"] == REGRESSION:
                gate["reason"] = ""
    return {**value, "files": made}


def changelog(ours: Manifest, former: Manifest | None, tables: Tables) -> tuple[str, ...]:
    """Return what changed since the former release, a line for each variant and fact.

    `tables` reads the table of tensors of a variant of either release; None if it is gone.
    """
    if former is None:
        return ("First release.",)
    lines = [*_variants(ours, former, tables), *_facts(ours, former)]
    said = "nothing must be downloaded again."
    if any("the header must be fetched" in line for line in lines):
        said = "only headers changed; no weights must be downloaded again."
    if any(": download again" in line for line in lines):
        said = "some files must be downloaded again."
    return (f"Since release {former.release}: {said}", *lines)[:64]


def _variants(ours: Manifest, former: Manifest, tables: Tables) -> Iterator[str]:
    before = {variant.variant: variant for variant in former.variants}
    for new in ours.variants:
        old = before.pop(new.variant, None)
        if old is None:
            yield f"{new.variant}: new in this release."
        elif new.file.sha256 == old.file.sha256:
            measured = _measured(new) != _measured(old)
            yield f"{new.variant}: the same file" + (", measured anew." if measured else ".")
        else:
            yield f"{new.variant}: {_what_changed(ours, former, tables, new, old)}"
    for gone in before.values():
        withheld = any(row.variant == gone.variant for row in ours.withheld)
        yield f"{gone.variant}: no longer released" + (", withheld now." if withheld else ".")


def _measured(variant: Variant) -> object:
    return variant.model_dump(exclude={"file", "tensors", "gates"})


def _what_changed(
    ours: Manifest, former: Manifest, tables: Tables, new: Variant, old: Variant
) -> str:
    try:
        one, other = tables(new), tables(old)
    except IntegrityError:
        one = other = None
    if one is None or other is None or _weights(one) != _weights(other):
        return "other weights: download again."
    if ours.chat_template_sha256 != former.chat_template_sha256:
        return "the same weights with another chat template: only the header must be fetched."
    return "the same weights with other metadata: only the header must be fetched, if at all."


def _weights(table: TensorTable) -> list[tuple[str, str, str]]:
    return sorted((row.name, row.type, row.sha256) for row in table.tensors)


def _facts(ours: Manifest, former: Manifest) -> Iterator[str]:
    if ours.chat_template_sha256 != former.chat_template_sha256:
        yield "The chat template changed."
    if ours.source.files != former.source.files:
        commit = (ours.source.commit or "")[:12]
        yield "The source changed" + (f": it is at {commit} now." if commit else ".")
    if ours.toolchain.llama_cpp_commit != former.toolchain.llama_cpp_commit:
        yield f"llama.cpp is at {ours.toolchain.llama_cpp_commit[:12]} now."
    if ours.calibration != former.calibration:
        yield "The importance matrix or its text changed."
    if _licenses(ours) != _licenses(former) or ours.license != former.license:
        yield "The license or its files changed."
    if _key(ours) != _key(former):
        yield "It is signed with another key: compare its id with what the publisher says."
    if _has_openssf(ours) and not _has_openssf(former):
        yield "It is signed for OpenSSF's model-signing as well."


def _key(manifest: Manifest) -> str | None:
    return next((file.sha256 for file in manifest.files if file.path == KEY_FILE), None)


def _licenses(manifest: Manifest) -> list[tuple[str, str]]:
    return sorted((file.path, file.sha256) for file in manifest.files if file.role == "license")
