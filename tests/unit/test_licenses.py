"""The license files of a source: found by name, fetched apart, and linked from the card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fault_tools import small_checkpoint
from hub import Hub
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Source
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.release.licensing import LINKED, license_link_of, licenses_of
from quantmint.assets.release.terms import Terms
from quantmint.assets.sources import hub as source
from quantmint.assets.sources import licenses
from quantmint.errors import SourceError, UserError
from quantmint.home import Home
from quantmint.registry.store import Store

KNOWN = frozenset({"Phi3ForCausalLM"})
TEXT = b"Permission is hereby granted\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def mint(home: Home, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mint:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return Mint(home, Store(home.store).open(), 1, said.append)


said: list[str] = []


def inputs(base: Path, where: Source, commit: str = "", **terms: Any) -> Inputs:
    """The few of a release's inputs that its license is made from."""
    given = {"hub": "my-org/Phi-GGUF", "license": "mit", **terms}
    recipe: Any = SimpleNamespace(model="phi", source=where)
    found: Any = SimpleNamespace(
        recipe=recipe, terms=Terms(**given), base=base, source=SimpleNamespace(commit=commit)
    )
    return found  # type: ignore[no-any-return]


def test_names_as_repositories_have_them() -> None:
    yes = [
        "COPYING", "LICENCE.txt", "LICENSE", "LICENSE-APACHE-2.0", "LICENSE-CODE", "MODEL_LICENSE",
        "NOTICE.txt", "Notice.md", "USE_POLICY.md",
    ]  # fmt: skip
    no = [
        "LICENSE.gguf", "LICENSE.safetensors", "LICENSE.py", "docs/LICENSE", "../LICENSE",
        "LICENSE (1)", "LICENSE_", ".LICENSE", "README.md", "license\n", "LICENSES/MIT.txt",
    ]  # fmt: skip
    assert licenses.wanted([*no, *yes]) == sorted(yes)
    assert licenses.wanted(["license", "LICENSE"]) == ["LICENSE"]
    assert len(licenses.wanted(f"LICENSE-{n}" for n in range(99))) == licenses.MOST


def test_they_come_from_a_commit_once_and_are_no_part_of_the_source(
    mint: Mint, hub: Hub, tmp_path: Path
) -> None:
    repo = hub.add("org/name")
    checkpoint = small_checkpoint(tmp_path / "checkpoint")
    (checkpoint / "LICENSE").write_bytes(TEXT)
    (checkpoint / "NOTICE").write_bytes(b"\0binary")
    (checkpoint / "LICENSE-LONG").write_bytes(b"x" * (licenses.LIMIT + 1))
    first = repo.commit(checkpoint)
    where = Source(hub="org/name")
    found = licenses_of(mint, inputs(tmp_path, where, first))
    assert {name: mint.store.read(blob) for name, blob in found.items()} == {"LICENSE": TEXT}
    assert any("LICENSE-LONG is left out" in line for line in said)
    assert not hub.asked("LICENSE-LONG")
    asked = len(hub.log)
    assert licenses_of(mint, inputs(tmp_path, where, first)) == found
    assert len(hub.log) == asked  # the release needs no network for it
    before = source.fetch_commit(mint, source.resolve("org/name", "main"), "phi3", KNOWN)
    (checkpoint / "LICENSE").write_bytes(TEXT + b"to nobody\n")
    second = repo.commit(checkpoint)
    after = source.fetch_commit(mint, source.resolve("org/name", "main"), "phi3", KNOWN)
    assert after.outputs == before.outputs  # so nothing is converted again
    again = licenses_of(mint, inputs(tmp_path, where, second))
    assert mint.store.read(again["LICENSE"]) == TEXT + b"to nobody\n"


def test_a_hub_that_is_away_is_said(mint: Mint, hub: Hub, tmp_path: Path) -> None:
    sha = hub.add("org/name").commit({"LICENSE": TEXT})
    with pytest.raises(SourceError, match="there is no repository org/other"):
        licenses_of(mint, inputs(tmp_path, Source(hub="org/other"), sha))


def test_they_come_from_a_folder_as_it_is_now(mint: Mint, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    where = inputs(tmp_path, Source(path="weights"))
    assert licenses_of(mint, where) == {}  # gone
    folder.mkdir()
    assert licenses_of(mint, where) == {}  # none
    (folder / "NOTICE").mkdir()
    (folder / "COPYING").write_bytes(b"")
    (folder / "LICENSE.md").write_bytes(TEXT)
    assert list(licenses_of(mint, where)) == ["LICENSE.md"]
    (folder / "LICENSE.md").write_bytes(b"other")
    assert mint.store.read(licenses_of(mint, where)["LICENSE.md"]) == b"other"


def test_the_embedded_model_has_one_and_a_gguf_file_none(mint: Mint, tmp_path: Path) -> None:
    assert list(licenses_of(mint, inputs(tmp_path, Source(embedded="phi-3-nano")))) == ["LICENSE"]
    (tmp_path / "LICENSE").write_bytes(TEXT)  # of whatever lies there
    assert licenses_of(mint, inputs(tmp_path, Source(gguf="model.gguf"))) == {}


def test_a_model_file_can_name_one(mint: Mint, tmp_path: Path) -> None:
    (tmp_path / "terms of use").write_bytes(TEXT)
    (tmp_path / "NOTICE.txt").write_bytes(TEXT)
    where = Source(gguf="model.gguf")
    named = licenses_of(mint, inputs(tmp_path, where, license_file="terms of use"))
    assert {name: mint.store.read(blob) for name, blob in named.items()} == {"LICENSE": TEXT}
    assert list(licenses_of(mint, inputs(tmp_path, where, license_file="NOTICE.txt"))) == [
        "NOTICE.txt"
    ]
    with pytest.raises(UserError, match="can't be read"):
        licenses_of(mint, inputs(tmp_path, where, license_file="nothing"))
    (tmp_path / "large").write_bytes(b"x" * (licenses.LIMIT + 1))
    with pytest.raises(UserError, match="is no license"):
        licenses_of(mint, inputs(tmp_path, where, license_file="large"))


@pytest.mark.parametrize(
    ("names", "terms", "link"),
    [
        (("LICENSE", "NOTICE"), {}, "LICENSE"),
        (("LICENSE.md",), {}, "LICENSE.md"),
        (("LICENSE.txt",), {}, "https://huggingface.co/my-org/Phi-GGUF/blob/main/LICENSE.txt"),
        (("LICENSE.txt",), {"hub": None, "path": "x", "publisher": "me"}, None),
        (("NOTICE",), {}, None),
        ((), {}, None),
        (("LICENSE",), {"license_link": "https://a.b/c"}, "https://a.b/c"),
        (("LICENSE",), {"license": "other", "license_name": "x"}, "LICENSE"),
    ],
)
def test_where_the_hub_finds_it(
    tmp_path: Path, names: tuple[str, ...], terms: dict[str, Any], link: str | None
) -> None:
    assert license_link_of(inputs(tmp_path, Source(path="x"), **terms), names) == link


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    for name in LINKED:
        with pytest.raises(UserError, match=f"license_link says {name}, and the source has no"):
            license_link_of(inputs(tmp_path, Source(path="x"), license_link=name), ())
    other = inputs(tmp_path, Source(path="x"), license="other", license_name="x")
    with pytest.raises(UserError, match="nothing says where it can be read"):
        license_link_of(other, ("NOTICE",))
