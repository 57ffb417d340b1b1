"""The release of one model, from what the graph recorded to what a registry serves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from quantmint.assets.mint import Mint
from quantmint.assets.release.beside import with_signature_test
from quantmint.assets.release.drafting import make_draft
from quantmint.assets.release.history import (
    NOTHING,
    Served,
    local_releases,
    look_at,
    tag_of,
)
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.release.judging import Judged, judge
from quantmint.assets.release.settling import (
    Desk,
    Settled,
    forget_unpublished,
    remember_local,
    remember_staged,
    settle,
)
from quantmint.assets.release.smoke import smoke_test
from quantmint.assets.release.terms import Terms
from quantmint.errors import BugError, IntegrityError, UserError
from quantmint.home import Home
from quantmint.registry.keys import load_signer, passphrase_from_environment
from quantmint.registry.linter.run import from_folder, require_clean
from quantmint.registry.manifest.codec import first_error
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, Manifest
from quantmint.registry.publish import FileSet, Options, Published, Release, Target, publish
from quantmint.registry.publish.engine import work_folder
from quantmint.registry.publish.status import STATUS_TYPE, Sign
from quantmint.registry.signing import openssf
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import seal as seal_envelope
from quantmint.registry.signing.folder import verify_folder
from quantmint.registry.signing.release import Expect, accept_release
from quantmint.registry.signing.status import status_believer
from quantmint.registry.store import Blob
from quantmint.registry.trust_root import TrustRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller may ask beside the model file: a private repository, or only to look.

    `replace` lets files go that somebody else put on main, `restore` brings an older release back.
    """

    private: bool = False
    replace: bool = False
    restore: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What came of it. `published` is None after a dry run; `warnings` are the linter's."""

    settled: Settled
    judged: tuple[Judged, ...]
    target: str
    published: Published | None
    warnings: tuple[str, ...]

    @property
    def manifest(self) -> Manifest:
        """What was released."""
        return self.settled.manifest

    @property
    def manifest_blob(self) -> Blob:
        """The manifest in the store."""
        return self.settled.files[MANIFEST_FILE]


def release(mint: Mint, inputs: Inputs, target: Target, asked: Asked) -> Released:
    """Judge, sign, check and publish; an unchanged release is found, not made again.

    Raises:
        IntegrityError: nothing passed, a record is about other bytes, the layout is refused, or
            what was read back is not what was sent.
        UserError: key, terms or measurements must change, or OpenSSF's tool is missing.
        RegistryError: the registry refused or failed.
    """
    require_keys(mint.home, inputs.terms)
    keys = tuple(signing_key(mint, name) for name in signer_names(inputs.terms))
    judged = judge(mint, inputs)
    with _spelled():
        draft = make_draft(mint, inputs, judged, keys[0])
    with work_folder(mint.home.work) as folder:
        served = _served(mint, inputs, target, asked)
        desk = Desk(
            mint=mint, inputs=inputs, keys=keys, target=target, served=served, folder=folder,
            now=datetime.now(UTC).replace(microsecond=0),
        )  # fmt: skip
        with _spelled():
            settled = settle(desk, draft, keep=not asked.dry_run)
        try:
            warnings = check_files(mint, settled)
        except IntegrityError:
            if not asked.dry_run:
                forget_unpublished(desk)
            raise
        published = None
        if not asked.dry_run:
            published = _publish(desk, settled, asked)
    return Released(
        settled=settled, judged=judged, target=target.name, published=published, warnings=warnings
    )


@contextmanager
def _spelled() -> Iterator[None]:
    """Name the field that has a value outside of the manifest's grammar."""
    try:
        yield
    except ValidationError as error:
        raise BugError(f"the manifest can't be written: {first_error(error)}") from error


def signing_key(mint: Mint, name: str) -> SigningKey:
    """Return the private key of that name.

    Raises:
        UserError: there is none, it is revoked, or its passphrase is not in the environment.
    """
    return load_signer(mint.home.keys, name, passphrase_from_environment())


def require_keys(home: Home, terms: Terms) -> None:
    """Find out before any work whether a release can be signed.

    Raises:
        UserError: a key is missing, revoked or locked, or OpenSSF's tool is not installed.
    """
    for name in signer_names(terms):
        load_signer(home.keys, name, passphrase_from_environment())
    if terms.openssf:
        openssf.require(home.keys, terms.key)


def status_signer(keys: Sequence[SigningKey]) -> Sign:
    """Return what signs a target's status file."""
    return lambda body: seal_envelope(body, STATUS_TYPE, keys)


def signer_names(terms: Terms) -> tuple[str, ...]:
    """Return the names of the keys that sign, each once; the first is the publisher's."""
    return tuple(dict.fromkeys((terms.key, *terms.cosign)))


def check_files(mint: Mint, settled: Settled) -> tuple[str, ...]:
    """Verify the release as anybody would who has its folder, and lint its layout.

    Returns the linter's warnings.

    Raises:
        IntegrityError: a file is not as the manifest says, or some client would pick a wrong one.
    """
    manifest = settled.manifest
    with mint.store.stage() as stage:
        folder = stage / "release"
        for path, blob in settled.files.items():
            mint.store.link(blob, folder / path)
        expect = Expect(manifest.model, manifest.publisher, manifest.release)
        policy = TrustRoot(mint.home.keys).policy()
        try:
            verified = verify_folder(folder, policy, expect=expect)
            openssf.check_listed(folder, manifest)
        except IntegrityError as error:
            raise IntegrityError(
                f"release {manifest.release}, put together from the store, does not hold: "
                f"{error.what}; nothing was published",
                mend="quantmint verify (it names what is damaged: remove that), then "
                f"quantmint build {manifest.model}",
            ) from error
        chat = manifest.chat_template_sha256 is not None
        listing = from_folder(folder, repo=manifest.repository, chat=chat)
        found = require_clean(listing)
    return (*verified.warnings, *(f"{one.what}; {one.mend}" for one in found))


def _served(mint: Mint, inputs: Inputs, target: Target, asked: Asked) -> Served:
    expect = Expect(inputs.recipe.model, inputs.terms.owner)
    policy = TrustRoot(mint.home.keys).policy()
    with work_folder(mint.home.work) as folder:
        if asked.dry_run:
            try:
                head = target.at("main")
            except UserError as error:  # no such repository or folder yet
                mint.report(f"{target.name} can't be looked at yet: {error.what}")
                return NOTHING
        else:
            head = target.prepare(private=asked.private or inputs.terms.private)
        return look_at(target, policy, expect, folder, head)


def _publish(desk: Desk, settled: Settled, asked: Asked) -> Published:
    mint, manifest = desk.mint, settled.manifest
    release_ = Release(
        name=tag_of(manifest.release),
        files=FileSet.of(mint.store, settled.files),
        notes="\n".join(manifest.changes),
    )
    options = Options(
        work=mint.home.work,
        report=mint.report,
        private=asked.private or desk.inputs.terms.private,
        replace=asked.replace,
        restore=asked.restore,
        sign=status_signer(desk.keys),
        believe=status_believer(TrustRoot(mint.home.keys).policy(), manifest.identity),
    )
    smoke = with_signature_test(mint, settled.files, smoke_test(mint, desk.inputs))
    remember_staged(desk, manifest)
    done = publish(release_, desk.target, smoke=smoke, options=options)
    remember_local(desk, manifest, settled.files, _commits(desk, manifest, done))
    envelope = mint.store.read(settled.files[ENVELOPE_FILE])
    expect = Expect(manifest.model, manifest.publisher, manifest.release)
    accept_release(TrustRoot(mint.home.keys), envelope, expect=expect)
    return done


def _commits(desk: Desk, manifest: Manifest, done: Published) -> Mapping[str, str]:
    store = desk.mint.store
    known = {
        local.manifest.release: local.published
        for local in local_releases(store, manifest.model, manifest.publisher)
    }
    return {**known.get(manifest.release, {}), done.target: done.commit}


def signature_of(mint: Mint, settled: Settled) -> str:
    """Return the first signature in a release's envelope, as base64.

    Raises:
        IntegrityError: the envelope is gone from the store.
    """
    try:
        value = json.loads(mint.store.read(settled.files[ENVELOPE_FILE]))
        return str(value["signatures"][0]["sig"])
    except (ValueError, LookupError, TypeError) as error:
        raise IntegrityError("the release's envelope can't be read") from error
