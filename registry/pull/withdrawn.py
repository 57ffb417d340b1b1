"""What a place's status file withdraws, and whether that counts.

It counts if a key signed it that is trusted for the release; then its signed bytes count, whatever
the plain file beside them says. Anybody who can write to the place can write such a file: without
such a signature it withdraws nothing, and nothing is withdrawn no longer because of it. What
counted once is remembered, so a place can't take it back by serving an older file, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from quantmint.errors import IntegrityError, RegistryError
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.publish.status import LIMIT, STATUS_TYPE, ReleaseStatus, Status
from quantmint.registry.pull.places import Listing, Place
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT, Envelope, open_envelope
from quantmint.registry.signing.status import covered_by
from quantmint.registry.trust_policy import ANY, Policy


class WithdrawnError(IntegrityError):
    """A release was withdrawn by its publisher; `digests` are those of its files, and why."""

    digests: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a status file says: the digests of withdrawn files, and of which release and why.

    `counts`: somebody signed it who is trusted for one of `identities`. `doubt` says why not.
    """

    withdrawn: Mapping[str, str] = field(default_factory=dict)
    status: Status = field(default_factory=Status)
    counts: bool = False
    identities: tuple[str, ...] = ()
    doubt: str = ""


def read_said(
    place: Place, listing: Listing, policy: Policy, identities: Sequence[str]
) -> Said | None:
    """Read and judge the status file of a place; None where it has none.

    Args:
        place: where.
        listing: its files at the commit that is looked at.
        policy: whom this home trusts.
        identities: `publisher/model` of what lies there, as far as that is known.

    Raises:
        IntegrityError: a trusted key's signature is wrong: the file was altered, or forged.
        RegistryError: a trusted key signed what nobody can read, or the place can't be read.
    """
    if STATUS not in listing.files:
        return None
    body = place.read(listing, STATUS, LIMIT)
    sealed, doubt = _envelope(place, listing)
    covered: tuple[str, ...] = ()
    if sealed is not None:
        covered, doubt = covered_by(sealed, policy, identities)
    if sealed is not None and covered:
        status = _parsed(place, sealed.payload)
        return Said(withdrawn=_withdrawn(status), status=status, counts=True, identities=covered)
    try:
        return Said(withdrawn=_withdrawn(_parsed(place, body)), doubt=doubt)
    except RegistryError:
        return Said(doubt=doubt)


def release_withdrawn(
    identity: str, release: int | None, withdrawn: Mapping[str, str]
) -> WithdrawnError:
    """Return the error for a release, all of whose models were withdrawn."""
    number = f" release {release}" if release is not None else ""
    why = sorted(set(withdrawn.values()))
    said = f" ({'; '.join(why)[:300]})" if why else ""
    error = WithdrawnError(
        f"{identity}{number} was withdrawn by its publisher{said}", mend="pull a later release"
    )
    error.digests = dict(withdrawn)
    return error


def doubtful(place: Place, said: Said, digests: Sequence[str], *, strict: bool) -> tuple[str, ...]:
    """Return a warning where a status file that does not count withdraws some of `digests`.

    Raises:
        IntegrityError: it does, and `strict` refuses what nobody trusted has signed.
    """
    named = sorted({said.withdrawn[digest] for digest in digests if digest in said.withdrawn})
    if said.counts or not named:
        return ()
    told = (
        f"{STATUS} of {place.name} says that this was withdrawn ({'; '.join(named)[:300]}), and"
        f" {said.doubt}: it does not count"
    )
    if strict:
        raise IntegrityError(told, mend="ask its publisher, then pull without --strict")
    return (told,)


def _envelope(place: Place, listing: Listing) -> tuple[Envelope | None, str]:
    if STATUS_SIGNATURE not in listing.files:
        return None, "nobody signed that"
    data = place.read(listing, STATUS_SIGNATURE, ENVELOPE_LIMIT)
    try:
        return open_envelope(data, STATUS_TYPE, what=STATUS_SIGNATURE), ""
    except IntegrityError:
        return None, "its signature file can't be read"


def _parsed(place: Place, body: bytes) -> Status:
    try:
        return Status.model_validate_json(body)
    except ValidationError as error:
        raise RegistryError(
            f"{STATUS} of {place.name} can't be read ({error.error_count()} faults in it)",
            mend="tell its publisher: nobody knows which releases were withdrawn",
        ) from None


def _withdrawn(status: Status) -> dict[str, str]:
    """Return the release and the reason by the digest of each file that a status withdraws."""
    return {
        digest: _told(name, status.releases[name]) for digest, name in status.withdrawn().items()
    }


def _told(name: str, row: ReleaseStatus) -> str:
    said = f"{name[:64]}: {row.reason.strip()[:200]}" if row.reason else name[:64]
    return "".join(c for c in said if c.isprintable())


def why_yanked(said: Said, release: int, commit: str) -> str | None:
    """Return what a status that counts says of a release that lies at this very commit, if it was
    yanked. The commit binds it: a status does not say which model it is of.

    A registry in a folder names a commit by its number and half of its digest.
    """
    row = said.status.releases.get(f"v{release}") if said.counts else None
    if row is None or row.state != "yanked" or not row.commit:
        return None
    half = row.commit.partition("-")[2]
    same = row.commit == commit or (len(half) == 32 and commit.startswith(half))
    return _told(f"v{release}", row) if same else None


def concrete(identities: Sequence[str]) -> tuple[str, ...]:
    """Return those identities whose publisher is known."""
    return tuple(each for each in identities if not each.startswith(f"{ANY}/"))
