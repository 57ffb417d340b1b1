"""What a publisher's own, trusted key signs, and must still not be believed: all refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantmint.errors import IntegrityError
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, PROVENANCE_FILE
from quantmint.registry.signing.envelope import PAYLOAD_LIMIT
from releases import Q4, Q8, T4, T8, Release, make_release, put, sha_of

Spoil = Callable[[Release], object]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


def raw(change: Callable[[bytes], bytes]) -> Spoil:
    """Sign other bytes than canonical JSON."""
    return lambda r: r.sign_raw(change(r.path(MANIFEST_FILE).read_bytes()))


def resigned(*place: str | int, value: object) -> Spoil:
    return lambda r: r.resign(put(*place, value=value))


def without(key: str) -> Spoil:
    return lambda r: r.resign(lambda v: v.pop(key))


def named(path: str) -> Spoil:
    return resigned("variants", 0, "file", "path", value=path)


def other_file(path: str) -> Spoil:
    return resigned("files", 0, "path", value=path)


def untrue_table(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(release: Release) -> None:
        value = json.loads(release.path(T4).read_bytes())
        change(value)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        release.replace(T4, text.encode())

    return spoil


def foreign_provenance(release: Release) -> None:
    """Right in itself, but of another release's files."""
    other = make_release(release.folder.parent / "other")
    other.replace(Q4, other.path(Q8).read_bytes())
    release.root.trust(other.key.public)
    release.replace(Q4, release.path(Q8).read_bytes())
    table = json.loads(release.path(T8).read_bytes()) | {"file": Q4}
    release.replace(T4, json.dumps(table, sort_keys=True, separators=(",", ":")).encode())


def no_gguf(release: Release) -> None:
    data = b"GGML" + release.path(Q4).read_bytes()[4:]
    release.replace(Q4, data)
    table = json.loads(release.path(T4).read_bytes()) | {"sha256": sha_of(data)}
    release.replace(T4, json.dumps(table, sort_keys=True, separators=(",", ":")).encode())


SIGNED_NONSENSE: dict[str, tuple[Spoil, str]] = {
    "an unknown field": (resigned("trust_me", value=True), "trust_me: Extra inputs are not"),
    "an unknown field of a variant": (resigned("variants", 0, "url", value="x"), "Extra inputs"),
    "a missing field": (without("expires"), "expires: Field required"),
    "a field left to its default": (without("assay"), "its JSON is not canonical"),
    "a null": (resigned("license", value=None), "its JSON is not canonical"),
    "a text for a number": (resigned("release", value="2"), "release: Input should be a valid int"),
    "a truth for a number": (resigned("release", value=True), "release: Input should be a valid"),
    "a fraction for a number": (resigned("release", value=2.5), "release: Input should be"),
    "a whole number for a fraction": (
        resigned("variants", 0, "bits_per_weight", value=8), "its JSON is not canonical",
    ),
    "another format": (resigned("format", value="quantmint.release/2"), "format: Input should be"),
    "release 0": (resigned("release", value=0), "release: Input should be greater"),
    "release 2**40": (resigned("release", value=2**40), "release: Input should be less"),
    "a key twice": (
        raw(lambda d: d.replace(b'"release":2', b'"release":9,"release":2')), "stands twice",
    ),
    "spaces": (raw(lambda d: d.replace(b",", b", ", 1)), "not canonical"),
    "keys out of order": (raw(lambda d: b'{"title":"x",' + d[1:]), "stands twice"),
    "an escape that need not be": (
        raw(lambda d: d.replace(b"phi3", b"ph\\u00693")), "not canonical",
    ),
    "a line end": (raw(lambda d: d + b"\n"), "not canonical"),
    "NaN": (raw(lambda d: d.replace(b"8.5", b"NaN", 1)), "NaN is no JSON number"),
    "infinity": (raw(lambda d: d.replace(b"8.5", b"1e999", 1)), "no strict JSON"),
    "a number of 5,000 digits": (raw(lambda d: d.replace(b":2,", b":" + b"2" * 5000 + b",", 1)),
                                 "no strict JSON"),
    "half a character": (raw(lambda d: d.replace(b"phi3", b"\\ud800", 1)), "no strict JSON"),
    "no object": (raw(lambda _: b"[]"), "the manifest is refused: Input should be an object"),
    "nothing": (raw(lambda _: b""), "no strict JSON"),
    "more than a megabyte": (raw(lambda d: d + b" " * PAYLOAD_LIMIT), "is too large"),
    "a path up": (named("../x-Q8_0.gguf"), "variants.0.file.path"),
    "a path from the root": (named("/etc/x-Q8_0.gguf"), "variants.0.file.path"),
    "a path with dots inside": (other_file("a/../../b"), "files.0.path"),
    "a path with a backslash": (named("..\\x-Q8_0.gguf"), "variants.0.file.path"),
    "a path of a drive": (named("C:x-Q8_0.gguf"), "variants.0.file.path"),
    "a path with NUL": (named("x\0-Q8_0.gguf"), "variants.0.file.path"),
    "a path with a line end": (named("x-Q8_0.gguf\n"), "variants.0.file.path"),
    "a path of 300 letters": (named("x" * 300 + "-Q8_0.gguf"), "variants.0.file.path"),
    "a hidden path": (other_file(".git/config"), "files.0.path"),
    "a path of another script": (named("х-Q8_0.gguf"), "variants.0.file.path"),
    "an empty path": (named(""), "variants.0.file.path"),
    "a model in a folder": (named("a/Phi-3-nano-Q8_0.gguf"), "no .gguf in the root"),
    "a model that is no GGUF": (named("Phi-3-nano-Q8_0.bin"), "no .gguf in the root"),
    "a model under another variant": (named("Phi-3-nano-Q2_K.gguf"), "does not end in its variant"),
    "a source path up": (resigned("source", "files", 0, "path", value="../x"), "source.files.0"),
    "a file twice": (other_file(T4), "stands twice"),
    "files that differ by case": (other_file(T4.upper().replace("JSON", "json")), "stands twice"),
    "a file that is a folder too": (other_file("tensors"), "is a folder too"),
    "the signature listed": (other_file(ENVELOPE_FILE), "has a name of its own use"),
    "the card listed": (other_file("readme.md"), "has a name of its own use"),
    "a variant twice": (resigned("variants", 1, "variant", value="Q8_0"), "variant"),
    "a variant both ways": (resigned("withheld", 0, "variant", value="Q8_0"), "stands twice"),
    "a size below zero": (resigned("variants", 0, "file", "size", value=-1), "file.size"),
    "a size of 2**53": (resigned("variants", 0, "file", "size", value=2**53), "file.size"),
    "another size": (resigned("variants", 0, "file", "size", value=5), "the manifest says 5"),
    "another digest": (resigned("variants", 0, "file", "sha256", value="0" * 64), "its sha256 is"),
    "a digest in capitals": (resigned("variants", 0, "file", "sha256", value="A" * 64), "sha256"),
    "a digest of 63 digits": (resigned("variants", 0, "file", "sha256", value="a" * 63), "sha256"),
    "an escape sequence": (resigned("withheld", 0, "reason", value="\x1b[2J"), "control or format"),
    "a turn of direction": (resigned("withheld", 0, "reason", value="a\u202eb"), "control or form"),
    "no gate": (resigned("variants", 0, "gates", value=[]), "gates"),
    "a share above one": (
        resigned("variants", 0, "divergence", 0, "top1", value=1.5), "divergence.0.top1",
    ),
    "expired before it was made": (
        resigned("expires", value="2026-01-01T00:00:00Z"), "expires before it was created",
    ),
    "the 30th of February": (resigned("expires", value="2026-02-30T00:00:00Z"), "expires: "),
    "a time without a zone": (resigned("expires", value="2026-08-01T00:00:00"), "expires: "),
    "another model": (resigned("model", value="phi-2"), "is of model 'phi-2', where 'phi-3-nano'"),
    "another publisher": (resigned("publisher", value="your-org"), "is of publisher 'your-org'"),
    "itself yanked": (
        resigned("yanked", value=[{"release": 2, "manifest_sha256": "a" * 64, "reason": "x"}]),
        "only an earlier release can be yanked",
    ),
    "a table of other tensors": (untrue_table(put("tensors", 0, "name", value="other.weight")),
                                 "it lists other tensors than the file's header"),
    "a table of other digests": (untrue_table(put("tensors", 0, "sha256", value="0" * 64)),
                                 "a tensor's bytes have another sha256"),
    "a table of another header": (untrue_table(put("header_sha256", value="0" * 64)),
                                  "a tensor's bytes have another sha256"),
    "a table of another file": (untrue_table(put("file", value=Q8)), "the table of another file"),
    "a table whose tensors overlap": (untrue_table(put("tensors", 1, "offset", value=0)),
                                      "overlaps what is before it"),
    "a table past the end": (untrue_table(put("tensors", 2, "size", value=9999)), "past the end"),
    "a table with more": (untrue_table(put("more", value=1)), "more: Extra inputs"),
    "provenance of other files": (foreign_provenance, "about other files than the release's"),
    "another source than its provenance": (
        resigned("source", "files", 0, "sha256", value="0" * 64), "names another source",
    ),
    "a manifest as provenance": (
        lambda r: r.replace(PROVENANCE_FILE, r.path(ENVELOPE_FILE).read_bytes()),
        "the provenance is refused: its payload is no",
    ),
    "a model that is no GGUF inside": (
        lambda r: r.replace(Q4, b"GGML" + bytes(500)), "the table of another file",
    ),
    "a model that is no GGUF, and its table": (no_gguf, "is no well-formed GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNED_NONSENSE)
def test_what_the_publishers_key_can_not_make_right(release: Release, name: str) -> None:
    spoil, says = SIGNED_NONSENSE[name]
    spoil(release)
    with pytest.raises(IntegrityError) as refusal:
        release.verify()
    assert says in refusal.value.what
    assert "\x1b" not in str(refusal.value)
