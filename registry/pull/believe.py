"""What is believed of a place: its signed release, or only what it lists.

Order: what was withdrawn, the signed manifest (or the plain one, with a warning), then the rules
for a place that has none. A place that once gave a signed release can't go back to giving none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from quantmint import names
from quantmint.errors import IntegrityError, RegistryError, UserError
from quantmint.registry.manifest.codec import MANIFEST_LIMIT
from quantmint.registry.manifest.release import ENVELOPE_FILE, MANIFEST_FILE, PAYLOAD_TYPE, Manifest
from quantmint.registry.pull.places import Listing, Place
from quantmint.registry.pull.withdrawn import (
    concrete,
    doubtful,
    read_said,
    release_withdrawn,
    why_yanked,
)
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT, open_envelope
from quantmint.registry.signing.release import (
    Expect,
    Verified,
    accept_release,
    unsigned_release,
    verify_release,
)
from quantmint.registry.trust_policy import ANY, Policy, folded
from quantmint.registry.trust_root import TrustRoot

NOT_VERIFIED: Final = (
    "it has no quantmint manifest: who made its files, of what, and how good they are is not"
    " verified; their bytes are, by the digests that the place lists"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a place: the model and the release, where they were named.

    `is_pinned`: the listing is not of main, where a place says what was withdrawn. `identity` is
    `publisher/model` of what came from there before, signed or not.
    """

    model: str | None = None
    release: int | None = None
    strict: bool = False
    is_pinned: bool = False
    identity: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """A listing, and the release that it holds if it has a manifest.

    `envelope` and `plain` are the manifest's two files, as they were read; `withdrawn` are
    digests of files that nobody may use, and why.
    """

    listing: Listing
    verified: Verified | None = None
    envelope: bytes | None = None
    plain: bytes | None = None
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, if there is one."""
        return self.verified.manifest if self.verified else None


def believe(
    place: Place, listing: Listing, asked: Asked, root: TrustRoot, known: Sequence[str] = ()
) -> Believed:
    """Read and judge what a place says of itself at one commit.

    Args:
        place: where.
        listing: its files at that commit.
        asked: what the caller wants of it.
        root: whom this home trusts; an accepted release is remembered there.
        known: identities (`publisher/model`) of signed releases that were pulled from this very
            place before.

    Raises:
        IntegrityError: it may not be used; see docs/manifest.md for the table.
        RegistryError: the place gives what no registry gives.
    """
    envelope = None
    if ENVELOPE_FILE in listing.files:
        envelope = place.read(listing, ENVELOPE_FILE, ENVELOPE_LIMIT)
        plain = open_envelope(envelope, PAYLOAD_TYPE).payload
        expect = _expect(place, asked, plain)
        verified = verify_release(envelope, root.policy(), expect=expect, strict=asked.strict)
        _check_plain(place, listing, verified)
    elif MANIFEST_FILE in listing.files:
        plain = place.read(listing, MANIFEST_FILE, MANIFEST_LIMIT)
        expect = _expect(place, asked, plain)
        verified = unsigned_release(plain, root.policy(), expect=expect, strict=asked.strict)
    else:
        return _without_manifest(place, listing, asked, root, known)
    if verified.signer is None:
        _refuse_unsigned(place, asked, root.policy(), known)
    _check_own(place, verified.manifest, asked, known)
    withdrawn, doubts = _withdrawn(place, listing, verified.manifest, root, asked)
    if envelope is not None:  # it is remembered only after all that was judged
        accept_release(root, envelope, expect=expect, strict=asked.strict)
    return Believed(
        listing=listing, verified=verified, envelope=envelope, plain=plain, withdrawn=withdrawn,
        warnings=(*verified.warnings, *doubts),
    )  # fmt: skip


def _without_manifest(
    place: Place, listing: Listing, asked: Asked, root: TrustRoot, known: Sequence[str]
) -> Believed:
    policy = root.policy()
    own = [*known, f"{place.owner or ANY}/{asked.model or model_of(place)}"]
    own += [asked.identity] if asked.identity else []
    said = read_said(place, listing, policy, own)
    if said is not None and said.counts and not said.withdrawn:
        raise IntegrityError(
            f"{place.name} holds no release, and its status file, which is signed, says of none"
            " that it was withdrawn: somebody took it away",
            mend="tell its publisher; do not use this registry meanwhile",
        )
    if said is not None and said.counts:
        for identity in concrete(said.identities):
            root.withdraw(identity, said.withdrawn)
        error = release_withdrawn(place.name, None, said.withdrawn)
        error.mend = f"to get an earlier one on purpose, name it: {place.name}@NUMBER"
        raise error
    if said is not None and not any(path.endswith(".gguf") for path in listing.files):
        told = "; ".join(sorted(set(said.withdrawn.values())))[:300] or "nothing was withdrawn"
        raise RegistryError(
            f"{place.name} holds no model any more; its status file says: {told}, and {said.doubt}",
            mend=f"trust its publisher's key, or name a release: {place.name}@NUMBER",
        )
    _refuse_unsigned(place, asked, policy, known)
    if asked.strict:
        raise IntegrityError(
            f"{place.name} is refused: {NOT_VERIFIED}", mend="pull without --strict"
        )
    if asked.release is not None:
        raise UserError(
            f"{place.name} has no release {asked.release}: it has no quantmint manifest",
            mend="name a branch, a tag or a commit behind @ instead",
        )
    if asked.model is not None and model_of(place) != asked.model:
        raise UserError(
            f"{place.name} has no quantmint manifest, so nothing says which model it holds",
            mend=f"to take it as it is: quantmint pull {place.name}",
        )
    return Believed(listing=listing, warnings=(f"{place.name}: {NOT_VERIFIED}",))


def _expect(place: Place, asked: Asked, plain: bytes) -> Expect:
    """Return what the release must be.

    Where no model was asked for, the claim's own stands: the signature decides about it. The
    publisher of a folder's release is left open, so that nobody's impostor passes for a model
    that must be signed; that of a repository is bound to it by `_check_own`.
    """
    publisher, model = names_in(plain)
    return Expect(asked.model or model, None if place.owner is None else publisher, asked.release)


def names_in(plain: bytes) -> tuple[str, str]:
    """Return the publisher and model that a manifest claims; not to be believed yet."""
    try:
        value = json.loads(plain)
        publisher, model = str(value["publisher"]), str(value["model"])
    except (ValueError, LookupError, TypeError, RecursionError):
        raise IntegrityError("the manifest is refused: it names no publisher and model") from None
    return publisher, names.check(names.MODEL, model[:200], "model name")


def _check_plain(place: Place, listing: Listing, verified: Verified) -> None:
    if MANIFEST_FILE not in listing.files:
        return
    plain = place.read(listing, MANIFEST_FILE, MANIFEST_LIMIT)
    if hashlib.sha256(plain).hexdigest() != verified.sha256:
        raise IntegrityError(
            f"{MANIFEST_FILE} of {place.name} is not the one that was signed",
            mend="somebody altered the registry: tell its owner; do not use it meanwhile",
        )


def _check_own(place: Place, manifest: Manifest, asked: Asked, known: Sequence[str]) -> None:
    """Refuse a release that belongs to another place, or another model's where one was before."""
    own, owner = place.name.removeprefix("hub:"), place.owner
    if owner is not None:
        home = home_of(manifest, own)
        if home.casefold() != own.casefold():
            raise IntegrityError(
                f"{own} serves the release of {home}: it is not its own",
                mend=f"quantmint pull hub:{home}",
            )
    elif asked.model is None and known and manifest.identity not in known:
        raise IntegrityError(
            f"{place.name} held {known[0]} before, and now it holds {manifest.identity}",
            mend=f"if that is meant: quantmint pull {manifest.model} --registry {place.name}",
        )


def _refuse_unsigned(place: Place, asked: Asked, policy: Policy, known: Sequence[str]) -> None:
    """Refuse a place that must be signed: known for it, or of a publisher who is trusted."""
    model, owner = asked.model or model_of(place), place.owner
    signed = [identity for identity in known if folded(identity) in policy.seen]
    by_name = policy.must_be_signed(model, owner) if owner or asked.model else False
    if signed or by_name:
        who = signed[0] if signed else f"{owner or '*'}/{model}"
        raise IntegrityError(
            f"{place.name} is not signed by anybody who is trusted, and {who} must be: signed"
            " releases of it were accepted before, or its key is trusted by name",
            mend="somebody may have taken the signature away: tell its publisher",
        )


def _withdrawn(
    place: Place, listing: Listing, manifest: Manifest, root: TrustRoot, asked: Asked
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the digests that were withdrawn of a model, now or before, and doubts about that.

    The status file can only forbid: what it does not say, a yank in a signed manifest says.

    Raises:
        WithdrawnError: nothing of the release is left.
    """
    policy = root.policy()
    main = place.listing(None) if asked.is_pinned else listing
    said = read_said(place, main, policy, [manifest.identity])
    withdrawn = dict(policy.withdrawn_of(manifest.identity))
    own = [variant.file.sha256 for variant in manifest.variants]
    doubts: tuple[str, ...] = ()
    if said is not None:
        doubts = doubtful(place, said, own, strict=asked.strict)
    if said is not None and said.counts:
        root.withdraw(manifest.identity, said.withdrawn)
        withdrawn |= said.withdrawn
        why = why_yanked(said, manifest.release, listing.commit)
        if why is not None:
            gone = {digest: withdrawn.get(digest, why) for digest in own}
            raise release_withdrawn(manifest.identity, manifest.release, gone)
    if own and all(digest in withdrawn for digest in own):
        gone = {digest: withdrawn[digest] for digest in own}
        raise release_withdrawn(manifest.identity, manifest.release, gone)
    return withdrawn, doubts


def home_of(manifest: Manifest, repo: str) -> str:
    """Return the repository that a release found in `repo` belongs to."""
    return manifest.repository or f"{manifest.publisher}/{repo.rpartition('/')[2]}"


def model_of(place: Place) -> str:
    """Return a model's name made from a place's: `owner/Phi-3-GGUF` is `phi-3`."""
    text = place.name.rpartition("/")[2].lower().removesuffix("-gguf")
    plain = re.sub(r"[^a-z0-9]+", "-", text.replace(".", "\0")).replace("\0", ".")
    plain = re.sub(r"[^a-z0-9.-]+", ".", re.sub(r"\.*-\.*", "-", plain)).strip(".-")
    return plain[: names.LONGEST].strip(".-") if names.MODEL.fullmatch(plain) else "model"
