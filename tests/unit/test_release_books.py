"""The publisher's books of what was signed, staged, and never published."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantmint.assets.release import settling
from quantmint.assets.release.history import local_releases
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, Manifest
from quantmint.registry.pull.kept import parse_kept
from quantmint.registry.refs import read_ref
from quantmint.registry.signing.release import sign_release
from quantmint.registry.store import Store
from releases import Q8, Release, make_release, write_release

HERE = "https://hub/my-org/x"


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path, number=1)


def desk_of(store: Store, *, numbers: frozenset[int] = frozenset(), name: str = HERE) -> Any:
    inputs = SimpleNamespace(
        recipe=SimpleNamespace(model="phi-3-nano"), terms=SimpleNamespace(owner="my-org")
    )
    return SimpleNamespace(
        mint=SimpleNamespace(store=store),
        inputs=inputs,
        target=SimpleNamespace(name=name),
        served=SimpleNamespace(numbers=numbers, yanked=(), newest=None),
    )


def remember(desk: Any, release: Release) -> Manifest:
    """Keep a signed release with its files, as `settle` does before anything is sent."""
    store, manifest = desk.mint.store, write_release(release)
    files = {p: store.put_bytes(d) for p, d in sign_release(manifest, [release.key]).items()}
    files[Q8] = store.put(release.path(Q8))
    settling.remember_local(desk, manifest, files, {})
    return manifest


def test_what_was_staged_is_withdrawn_and_its_weights_are_let_go(
    store: Store, release: Release
) -> None:
    desk = desk_of(store)
    manifest = remember(desk, release)
    settling.remember_staged(desk, manifest)
    settling.remember_staged(desk, manifest)
    settling.forget_unpublished(desk)
    (local,) = local_releases(store, "phi-3-nano", "my-org")
    assert local.staged == (HERE,)
    given_up = [local] if settling._is_seen_here_alone(desk, local) else []
    (said,) = settling._yanked(desk, [], given_up)
    settling._give_up(desk, given_up)
    (local,) = local_releases(store, "phi-3-nano", "my-org")
    assert (local.is_yanked, local.is_given_up, local.published) == (True, True, {})
    assert settling._yanked(desk, [local], []) == (said,)
    assert said.manifest_sha256 == local.ref.objects[MANIFEST_FILE].sha256
    assert sorted(local.ref.objects) == sorted([ENVELOPE_FILE, MANIFEST_FILE])
    assert settling._former(desk, [local]) is None
    assert parse_kept(read_ref(store, "phi-3-nano", "my-org.1")) is None  # no model to run


def test_what_nobody_saw_is_forgotten(store: Store, release: Release) -> None:
    desk = desk_of(store)
    remember(desk, release)
    settling.forget_unpublished(desk)
    assert local_releases(store, "phi-3-nano", "my-org") == []


@pytest.mark.parametrize(
    ("staged_at", "numbers", "is_given_up"),
    [
        ([HERE], frozenset(), True),
        ([HERE], frozenset({1}), False),  # promoted, and killed before that was noted
        (["file:other"], frozenset(), False),  # it may be published there
        ([HERE, "file:other"], frozenset(), False),
    ],
)
def test_only_what_is_surely_served_nowhere_is_given_up(
    store: Store, release: Release, staged_at: list[str], numbers: frozenset[int], is_given_up: bool
) -> None:
    manifest = remember(desk_of(store), release)
    for name in staged_at:
        settling.remember_staged(desk_of(store, name=name), manifest)
    (local,) = local_releases(store, "phi-3-nano", "my-org")
    assert settling._is_seen_here_alone(desk_of(store, numbers=numbers), local) == is_given_up
