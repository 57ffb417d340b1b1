"""Two publishers of one model, both trusted: neither takes the other's name, folder or files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import Ran
from pulling import MODEL, OWNER, TITLE, Publisher, model_bytes, to_folder
from quantmint.errors import UserError
from quantmint.home import Home
from quantmint.registry.machine import Machine
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.refs import put_ref
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot

Quantmint = Callable[..., Ran]
MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)
Q8 = f"{TITLE}-Q8_0.gguf"


@dataclass
class Two:
    """A home that trusts `my-org` and `other`, each with a registry in a folder."""

    home: Home
    base: Path
    publishers: dict[str, Publisher]

    def publish(self, who: str, number: int, *seeds: int, variant: str = "Q8_0") -> bytes:
        data = model_bytes(seeds)
        files = self.publishers[who].files(
            number, {variant: data}, publisher=who, repository=None
        )  # fmt: skip
        to_folder(self.base / who / "m", files, f"v{number}", self.base / f"work-{who}")
        return data

    def pull(self, who: str) -> Pulled:
        reference = parse_reference(f"file:{self.base / who / 'm'}")
        return Puller(self.home, machine=MACHINE).pull(Request(reference=reference))


@pytest.fixture
def two(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Two:
    monkeypatch.delenv("QUANTMINT_REGISTRY", raising=False)
    found = {}
    for who in (OWNER, "other"):
        found[who] = Publisher(tmp_path / f"keys-of-{who}")
        TrustRoot(home.keys).trust(found[who].key.public, (f"{who}/*",))
    return Two(home, tmp_path / "registries", found)


def test_each_has_a_folder_of_its_own(two: Two, quantmint: Quantmint) -> None:
    mine, others = two.publish(OWNER, 1, 1, 2), two.publish("other", 1, 7, 8)
    first, second = two.pull(OWNER), two.pull("other")
    assert first.path == two.home.models / MODEL / Q8
    assert second.path == two.home.models / f"{MODEL}@other" / Q8
    assert (first.path.read_bytes(), second.path.read_bytes()) == (mine, others)
    rows = {row["ref"]: row["path"] for row in json.loads(quantmint("list", "--json").out)}
    assert rows == {
        f"{OWNER}/{MODEL}:Q8_0": str(first.path), f"other/{MODEL}:Q8_0": str(second.path),
    }  # fmt: skip
    assert second.name == f"other/{MODEL}"  # what the commands that are ready to use say
    made = quantmint("show", f"{second.name}:Q8_0", "--modelfile").out
    assert f"FROM {second.path}\n" in made
    assert quantmint("verify", "--all").code == 0
    again, newer = two.pull("other"), two.publish("other", 2, 7, 9)
    assert again.path == second.path
    assert two.pull("other").path == second.path
    assert (first.path.read_bytes(), second.path.read_bytes()) == (mine, newer)


def test_the_folder_stays_whose_it_is(two: Two, quantmint: Quantmint) -> None:
    two.publish(OWNER, 1, 1, 2)
    two.publish("other", 1, 7, 8)
    first, second = two.pull(OWNER), two.pull("other")
    assert quantmint("rm", f"{OWNER}/{MODEL}").code == 0
    assert (first.path.exists(), second.path.exists()) == (False, True)
    two.publish("other", 2, 7, 9)
    assert two.pull("other").path == second.path
    assert two.pull(OWNER).path == first.path
    assert quantmint("rm", f"other/{MODEL}").code == 0
    assert (first.path.exists(), second.path.parent.exists()) == (True, False)


def test_other_names_of_files_are_not_mixed_either(two: Two) -> None:
    two.publish(OWNER, 1, 1, 2)
    two.publish("other", 1, 7, 8, variant="Q4_K_M")
    folders = {two.pull(who).path.parent.name for who in (OWNER, "other")}
    assert folders == {MODEL, f"{MODEL}@other"}


def test_a_file_that_is_anothers_already_is_left(two: Two) -> None:
    """Two pulls at once, or a home of a time when both shared the folder."""
    mine = two.publish(OWNER, 1, 1, 2)
    two.publish("other", 1, 7, 8)
    first, second = two.pull(OWNER), two.pull("other")
    store = Store(two.home.store).open()
    (kept,) = (kept for kept in all_kept(store) if kept.source == f"other/{MODEL}")
    assert kept.ref is not None
    body = {key: value for key, value in kept.body.items() if key != "apart"}
    put_ref(store, MODEL, kept.name, kept.objects, body=body, expected=kept.ref.revision)
    second.path.unlink()
    with pytest.raises(UserError, match=f"is of {OWNER}/{MODEL}, and this is of other/{MODEL}"):
        two.pull("other")
    assert first.path.read_bytes() == mine


def test_an_archive_of_another_publisher_goes_apart_too(
    two: Two, quantmint: Quantmint, tmp_path: Path
) -> None:
    two.publish("other", 1, 7, 8)
    second = two.pull("other")
    archive = tmp_path / "other.tar"
    assert quantmint("export", f"{MODEL}:Q8_0", "-o", str(archive)).code == 0
    assert quantmint("rm", MODEL).code == 0
    two.publish(OWNER, 1, 1, 2)
    assert two.pull(OWNER).path == second.path
    ran = quantmint("import", str(archive))
    assert (ran.code, ran.out.strip()) == (0, str(two.home.models / f"{MODEL}@other" / Q8))
