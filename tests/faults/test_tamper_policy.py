"""Releases that are whole and well signed, and not to be believed: by whom, how old, which one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from quantmint.errors import IntegrityError
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE
from quantmint.registry.signing.release import Expect, accept_release, unsigned_release
from quantmint.registry.trust_policy import Policy, Seen
from releases import NOW, Release, make_release, put, sha_of


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


def test_an_unknown_key(release: Release) -> None:
    stranger = release.keys.new("stranger")
    release.sign_raw(release.path(MANIFEST_FILE).read_bytes(), stranger)
    with pytest.raises(IntegrityError, match=f"key {stranger.public.id}, which nobody trusts"):
        release.verify()  # a key was trusted for just this publisher: this one is not it
    release.root.trust(release.key.public, ("*",))
    with pytest.raises(IntegrityError, match="which nobody trusts"):
        release.verify(strict=True)
    seen = release.verify()
    assert (seen.signer, len(seen.warnings)) == (None, 1)
    assert "its signature was not checked" in seen.warnings[0]
    release.root.remember("my-org/phi-3-nano", Seen(1, "0" * 64))
    with pytest.raises(IntegrityError, match="which nobody trusts"):
        release.verify()  # a signed one was accepted before


def test_no_signature_file_at_all(release: Release) -> None:
    plain, policy = release.path(MANIFEST_FILE).read_bytes(), release.root.policy()
    with pytest.raises(IntegrityError, match="is not signed"):
        unsigned_release(plain, policy, expect=release.expect, now=NOW)
    # A manifest that claims another publisher does not get around it.
    other = plain.replace(b'"my-org"', b'"your-org"')
    with pytest.raises(IntegrityError, match="is of publisher 'your-org'"):
        unsigned_release(other, policy, expect=release.expect, now=NOW)
    release.root.remember("my-org/phi-3-nano", Seen(1, "0" * 64))
    with pytest.raises(IntegrityError, match="is not signed"):
        unsigned_release(other, release.root.policy(), expect=Expect("phi-3-nano"), now=NOW)
    nobody = Policy()
    read = unsigned_release(plain, nobody, expect=release.expect, now=NOW)
    assert (read.signer, read.sha256) == (None, sha_of(plain))
    assert read.warnings == ("the release is not signed: nobody vouches for it",)
    with pytest.raises(IntegrityError, match="is not signed"):
        unsigned_release(plain, nobody, expect=release.expect, now=NOW, strict=True)
    for bad in (plain[:-1], plain + b"\n", b"{}", plain.replace(b"phi3", b"phi4 ", 1) + b" "):
        with pytest.raises(IntegrityError, match="the manifest is refused"):
            unsigned_release(bad, nobody, expect=release.expect, now=NOW)


def test_a_revoked_key(release: Release) -> None:
    release.root.revoke(release.key.public.id, "laptop stolen")
    with pytest.raises(IntegrityError, match=r"which is revoked \('laptop stolen'\)"):
        release.verify()


def test_a_key_of_another_publisher(release: Release) -> None:
    release.root.trust(release.key.public, ("your-org/*", "my-org/phi-2"))
    with pytest.raises(IntegrityError, match="not trusted for my-org/phi-3-nano, only for my-org/"):
        release.verify()


def test_an_older_release(release: Release) -> None:
    release.root.remember("my-org/phi-3-nano", Seen(3, "0" * 64))
    with pytest.raises(IntegrityError, match="release 3 was seen before: the registry went back"):
        release.verify()
    release.expect = Expect("phi-3-nano", "my-org", release=2)
    assert release.verify().manifest.release == 2  # named, so wanted
    release.expect = Expect("phi-3-nano", "my-org", release=3)
    with pytest.raises(IntegrityError, match="is of release 2, where 3 was asked for"):
        release.verify()


def test_the_same_number_twice(release: Release) -> None:
    data = release.path(ENVELOPE_FILE).read_bytes()
    accepted = accept_release(release.root, data, expect=release.expect, now=NOW)
    assert release.verify().sha256 == accepted.sha256
    release.resign(put("withheld", 0, "reason", value="another one"))
    with pytest.raises(IntegrityError, match="release 2 was accepted before with other content"):
        release.verify()
    with pytest.raises(IntegrityError, match="accepted before with other content"):
        release.root.remember("my-org/phi-3-nano", Seen(2, "0" * 64))


def test_a_yanked_release(release: Release) -> None:
    digest = sha_of(release.path(MANIFEST_FILE).read_bytes())
    old = release.path(ENVELOPE_FILE).read_bytes()
    row = {"release": 2, "manifest_sha256": digest, "reason": "wrong template"}
    release.resign(lambda v: v.update(release=3, yanked=[row]))
    new = release.path(ENVELOPE_FILE).read_bytes()
    accept_release(release.root, new, expect=release.expect, now=NOW)
    release.path(ENVELOPE_FILE).write_bytes(old)
    release.expect = Expect("phi-3-nano", "my-org", release=2)
    with pytest.raises(IntegrityError, match="release 2 was withdrawn by its publisher"):
        release.verify()


def test_an_expired_release(release: Release) -> None:
    last = datetime(2026, 8, 1, tzinfo=UTC)
    assert release.verify(now=last, strict=True).warnings == ()
    late = last.replace(second=1)
    with pytest.raises(IntegrityError, match="release 2 expired on 2026-08-01T00:00:00Z"):
        release.verify(now=late, strict=True)
    assert "expired on 2026-08-01" in release.verify(now=late).warnings[0]


def test_only_what_a_trusted_key_signed_is_remembered(release: Release) -> None:
    release.root.trust(release.key.public, ("*",))
    stranger = release.keys.new("stranger")
    release.resign(put("release", value=2_000_000))
    release.sign_raw(release.path(MANIFEST_FILE).read_bytes(), stranger)
    data = release.path(ENVELOPE_FILE).read_bytes()
    assert accept_release(release.root, data, expect=release.expect, now=NOW).signer is None
    assert release.root.policy().seen == {}
