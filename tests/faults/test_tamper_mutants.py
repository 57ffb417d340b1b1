"""Random damage to a signed release's documents: refused, with one class of error."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError
from quantmint.files import canonical_json
from quantmint.registry.manifest.codec import to_bytes
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, Manifest
from quantmint.registry.signing.release import verify_release
from quantmint.registry.trust_policy import Policy
from releases import NOW, Release, make_release


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


def mutants(good: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield other bytes than `good`, the same ones each time; `QUANTMINT_MUTANTS` sets how many."""
    for seed in range(int(os.environ.get("QUANTMINT_MUTANTS", "3000"))):
        data = mutant(random.Random(seed), good)
        if data != good:
            yield seed, data


def outcome(release: Release, policy: Policy, data: bytes, seed: int) -> bool:
    """Return whether an envelope is accepted; a refusal has one class of error, and no other."""
    try:
        verify_release(data, policy, expect=release.expect, now=NOW)
    except IntegrityError:
        return False
    except Exception as error:
        raise AssertionError(f"mutant {seed} escaped as {type(error).__name__}") from error
    return True


def test_mutants_of_the_envelope(release: Release) -> None:
    policy = release.root.policy()
    for seed, data in mutants(release.path(ENVELOPE_FILE).read_bytes()):
        assert not outcome(release, policy, data, seed), f"mutant {seed} was accepted"


@pytest.mark.parametrize("part", ["payload", "signature"])
def test_mutants_inside_a_sound_envelope(release: Release, part: str) -> None:
    policy, value = release.root.policy(), release.envelope
    good = release.payload if part == "payload" else release.signature
    for seed, data in mutants(good):
        text = base64.b64encode(data).decode()
        if part == "payload":
            value["payload"] = text
        else:
            value["signatures"][0]["sig"] = text
        sealed = canonical_json(value)
        assert not outcome(release, policy, sealed, seed), f"mutant {seed} was accepted"


def test_signed_mutants_of_the_manifest(release: Release) -> None:
    """The parser behind a right signature: accepts sound manifests in their one spelling."""
    policy, good = release.root.policy(), release.path(MANIFEST_FILE).read_bytes()
    accepted = 0
    for seed, data in mutants(good):
        if outcome(release, policy, release.sealed_raw(data), seed):
            accepted += 1
            assert to_bytes(Manifest.model_validate_json(data)) == data, seed
    assert accepted  # another digit of a digest is a sound manifest, if a wrong one


def mutant(dice: random.Random, data: bytes) -> bytes:
    """Change, insert, remove or repeat a few bytes; near the ends, where the structure is."""
    value = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        edge = dice.choice((dice.randrange(len(value)), dice.randrange(60), -dice.randint(1, 250)))
        at = edge % len(value)
        kind = dice.randrange(4)
        if kind == 0:
            value[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            value.insert(at, dice.choice(b'{}[]":,\\0"a\x00\xff '))
        elif kind == 2:
            del value[at : at + dice.randint(1, 8)]
        else:
            value[at:at] = value[at : at + dice.randint(1, 80)]
    return bytes(value)
