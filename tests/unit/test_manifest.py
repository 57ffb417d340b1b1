"""The signed documents: one spelling each, the published schema, the table of tensors."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import pytest
from pydantic import ValidationError

from gguf_builder import File, sample
from helpers import ROOT
from quantmint.errors import IntegrityError
from quantmint.native.evaluation import results
from quantmint.registry import gguf
from quantmint.registry.manifest import measured
from quantmint.registry.manifest.codec import from_bytes, to_bytes
from quantmint.registry.manifest.release import MANIFEST_FILE, Manifest
from quantmint.registry.manifest.schema import DOCUMENTS, schema_text
from quantmint.registry.manifest.types import time_text
from quantmint.registry.tensors import (
    TensorTable,
    check_table,
    make_table,
    read_table,
    table_bytes,
)
from releases import NOW, Release, make_release, sha_of

MEASURED = ("Divergence", "Choices", "Agreement", "SpeedAt", "MemoryAt")


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


def test_both_round_trips(release: Release) -> None:
    data = release.path(MANIFEST_FILE).read_bytes()
    manifest = from_bytes(Manifest, data, what="it")
    assert to_bytes(manifest) == data
    assert from_bytes(Manifest, to_bytes(manifest), what="it") == manifest
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert manifest.identity == "my-org/phi-3-nano"
    assert [e.path for e in manifest.entries] == [
        "Phi-3-nano-Q8_0.gguf", "tensors/Q8_0.json", "Phi-3-nano-Q4_K_M.gguf",
        "tensors/Q4_K_M.json", "provenance.intoto.json",
    ]  # fmt: skip
    found = manifest.variant("Q8_0")
    assert found is not None
    assert found.memory[0].total == 348 + (2 << 20)
    assert manifest.variant("Q2_K") is None


def test_a_manifest_is_frozen(release: Release) -> None:
    manifest = release.verify().manifest
    with pytest.raises(ValidationError, match="frozen"):
        manifest.release = 9


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schema_is_current(name: str) -> None:
    """Write it anew with: python -m quantmint.registry.manifest.schema docs."""
    assert (ROOT / "docs" / name).read_text() == schema_text(DOCUMENTS[name])


@pytest.mark.parametrize("name", MEASURED)
def test_measured_fields_are_those_of_the_evaluation(name: str) -> None:
    """What an evaluation measured can be published as it is: `Divergence(**asdict(result))`."""
    kind, published = getattr(results, name), getattr(measured, name)
    hints = typing.get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    assert fields == {key: f.annotation for key, f in published.model_fields.items()}


def test_the_document_names_every_field(release: Release) -> None:
    text = (ROOT / "docs" / "manifest.md").read_text()
    for name in (*Manifest.model_fields, *release.manifest["variants"][0]):
        assert f"`{name}`" in text, name


def test_times() -> None:
    assert time_text(NOW) == "2026-03-01T00:00:00Z"
    with pytest.raises(ValueError, match="without a time zone"):
        time_text(NOW.replace(tzinfo=None))


def write(tmp_path: Path, data: bytes) -> tuple[Path, TensorTable]:
    path = tmp_path / "x-Q8_0.gguf"
    path.write_bytes(data)
    return path, make_table(path, path.name, sha_of(data))


def test_a_table_of_tensors(tmp_path: Path) -> None:
    data = sample().build()
    path, table = write(tmp_path, data)
    header = gguf.read(path)
    assert [row.name for row in table.tensors] == [tensor.name for tensor in header.tensors]
    for row in table.tensors:
        assert row.sha256 == sha_of(data[row.offset : row.offset + row.size])
    assert table.header_sha256 == sha_of(data[: table.header_size])
    assert read_table(table_bytes(table), what="it") == table
    check_table(table, path, deep=True)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path, table = write(tmp_path, File().build())
    assert table.tensors == ()
    assert table.header_sha256 == sha_of(path.read_bytes())
    check_table(table, path, deep=True)


def test_a_table_of_another_file(tmp_path: Path) -> None:
    path, table = write(tmp_path, sample().build())
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    check_table(table, path)  # the digest of the whole file is checked elsewhere
    with pytest.raises(IntegrityError, match="a tensor's bytes have another sha256"):
        check_table(table, path, deep=True)


def test_a_large_tensor_is_read_in_pieces(tmp_path: Path) -> None:
    from gguf_builder import Row

    file = File(rows=[Row("a", (3 << 20,), 0, 0, 12 << 20)])
    file.data = b"".join(bytes([n]) * (1 << 20) for n in range(12))
    path, table = write(tmp_path, file.build())
    assert table.tensors[0].sha256 == sha_of(file.data)
    check_table(table, path, deep=True)


def test_a_table_that_is_too_large() -> None:
    with pytest.raises(IntegrityError, match="at most 16777216 are read"):
        read_table(b" " * ((16 << 20) + 1), what="it")
