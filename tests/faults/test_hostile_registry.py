"""Attacks of a hostile registry: each ends in one typed error, and leaves nothing that lies."""

from __future__ import annotations

import hashlib

import pytest

from attacks import ATTACKS, Q8, Attack, Scene
from evil import COMMIT, answer
from fault_tools import TOKEN
from pulling import MODEL, OWNER, REPO
from quantmint.errors import QuantmintError
from quantmint.home import Home
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot


@pytest.mark.parametrize(
    ("made", "kind", "said", "strict", "seen"),
    [pytest.param(*rest, id=name) for name, *rest in ATTACKS],
)
def test_attack(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    made: Attack,
    kind: type[QuantmintError],
    said: str,
    strict: bool,
    seen: bool,
) -> None:
    monkeypatch.setenv("QUANTMINT_REGISTRY", "")
    ref = made(scene)
    before, was = state(scene.home), highest(scene.home)
    with pytest.raises(kind, match=said) as refused:
        scene.pull(ref, strict=strict)
    assert TOKEN not in str(refused.value)
    assert scene.thief.tokens.count(TOKEN) == 0
    assert state(scene.home) == before
    assert highest(scene.home) == (3 if seen else was)
    store = Store(scene.home.store).open()
    assert list(store.verify()) == []
    # What came of a model that ended early is kept to go on with: under no name of a model.
    assert {path.name[:5] for path in store.staging.iterdir()} <= {"part-"}
    assert not list(scene.folder.parent.rglob("evil*.gguf"))


def test_a_redirect_to_another_host_takes_no_token_along(scene: Scene) -> None:
    third = scene.third()
    scene.serve(third)
    scene.thief.files = third
    there = f"/api/models/{REPO}/revision/main"
    scene.evil.pages["/revision/main"] = answer("", 302, Location=scene.thief.url + there)
    model = f"/{REPO}/resolve/{COMMIT}/{Q8}"
    scene.evil.pages[Q8] = answer("", 302, Location=scene.thief.url + model)
    assert scene.pull(REPO).path.read_bytes() == third[Q8]
    assert [there, model] == list(dict.fromkeys(scene.thief.paths))
    assert set(scene.thief.tokens) == {None}
    assert set(scene.evil.tokens) == {TOKEN}


def test_a_release_that_expired_is_told(scene: Scene) -> None:
    scene.serve(scene.third(days=-1))
    (warning,) = scene.pull(REPO).resolved.warnings
    assert "expired on" in warning


def test_there_are_at_least_thirty() -> None:
    assert len(ATTACKS) >= 30
    assert len({name for name, *_ in ATTACKS}) == len(ATTACKS)


def test_without_an_attack_all_of_it_is_pulled(scene: Scene) -> None:
    third = scene.third()
    scene.serve(third)
    done = scene.pull(REPO, strict=True)
    assert done.path.read_bytes() == third[Q8]
    assert set(scene.evil.tokens) == {TOKEN}


def highest(home: Home) -> int:
    """Return the number of the highest release that was accepted."""
    return TrustRoot(home.keys).policy().seen[f"{OWNER}/{MODEL}"].release


def state(home: Home) -> dict[str, str]:
    """Return what a program could find: models, references, what was seen, and GGUF objects."""
    store = Store(home.store).open()
    found = {}
    for path in sorted(home.root.rglob("*")):
        inner = path.relative_to(home.root).as_posix()
        if not path.is_file() or inner.startswith(("store/leases", "store/gc.lock")):
            continue
        if inner.endswith(".lock") or inner.startswith(
            ("keys/seen", "keys/withdrawn", "store/staging/part-")
        ):
            continue
        data = path.read_bytes()
        if inner.startswith("store/objects") and data[:4] != b"GGUF" and data[:1] in b"{[":
            continue  # small files that the signed manifest lists; nothing names them
        found[inner] = hashlib.sha256(data).hexdigest()
    assert store.staging.is_dir()
    return found
