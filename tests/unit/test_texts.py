"""The texts: what may be declared, and that calibration and assay have nothing in common."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub import Hub
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import TextFile
from quantmint.assets.sources import text_file
from quantmint.assets.sources.text_file import bring_text, embedded_text
from quantmint.errors import IntegrityError, SourceError, UserError
from quantmint.home import Home
from quantmint.registry.store import Store

WORDS = 10


@pytest.fixture
def mint(home: Home, store: Store) -> Mint:
    return Mint(home, store, 1, print)


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return set(zip(*(words[at:] for at in range(WORDS)), strict=False))


def test_calibration_and_assay_do_not_overlap() -> None:
    """No line of some length and no run of ten words stands in both embedded texts."""
    calibration, assay = (embedded_text(role).read_text() for role in ("calibration", "assay"))
    lines = {line.strip() for line in calibration.splitlines() if len(line.strip()) >= 40}
    common = lines & {line.strip() for line in assay.splitlines()}
    assert common == set()
    assert runs_of_words(calibration) & runs_of_words(assay) == set()


def test_a_text_is_brought_in_with_its_digest_in_its_name(mint: Mint, tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("some text\n")
    text = bring_text(mint, "my.txt", tmp_path, "calibration")
    assert mint.store.read(text.blob) == b"some text\n"
    assert text.file_name == f"calibration-{text.blob.sha256[:16]}.txt"
    assert text.origin == str(tmp_path / "my.txt")


def test_a_text_out_of_a_package(mint: Mint, tmp_path: Path) -> None:
    named = TextFile(package="pytest", file="pytest/py.typed")
    assert bring_text(mint, named, tmp_path, "assay").origin == "pytest/pytest/py.typed"
    with pytest.raises(SourceError, match=r"has no file \.\./x"):
        bring_text(mint, TextFile(package="pytest", file="../x"), tmp_path, "assay")
    with pytest.raises(SourceError, match="is not installed") as refused:
        bring_text(mint, TextFile(package="no-such-package", file="x"), tmp_path, "assay")
    assert refused.value.mend == "pip install no-such-package"


def test_what_is_refused(mint: Mint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is no file"):
        bring_text(mint, "none.txt", tmp_path, "calibration")
    (tmp_path / "latin.txt").write_bytes("straße".encode("latin-1"))
    with pytest.raises(SourceError, match="byte 4 is out of place"):
        bring_text(mint, "latin.txt", tmp_path, "calibration")
    monkeypatch.setattr(text_file, "SIZE_LIMIT", 10)
    (tmp_path / "long.txt").write_bytes(b"x" * 11)
    with pytest.raises(UserError, match="larger than 10 B"):
        bring_text(mint, "long.txt", tmp_path, "calibration")


def test_a_text_from_the_hub(mint: Mint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a named commit, once; bytes that are not the commit's are refused."""
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        sha = hub.add("owner/texts").commit({"a/b.txt": b"from the hub\n"})
        named = TextFile(hub="owner/texts", file="a/b.txt")
        text = bring_text(mint, named, tmp_path, "calibration")
        assert mint.store.read(text.blob) == b"from the hub\n"
        assert text.origin == f"{hub.url}/datasets/owner/texts/blob/{sha}/a/b.txt"
        fetched = len(hub.asked("/resolve/"))
        assert bring_text(mint, named, tmp_path, "calibration") == text
        assert len(hub.asked("/resolve/")) == fetched

        hub.repos["owner/texts"].commit({"a/b.txt": b"something else\n"})
        hub.faults.altered.add("a/b.txt")
        with pytest.raises(IntegrityError, match="other bytes than its commit names"):
            bring_text(mint, named, tmp_path, "calibration")
        with pytest.raises(SourceError, match="has no file c"):
            bring_text(mint, named.model_copy(update={"file": "c"}), tmp_path, "calibration")
