"""Earlier releases: those in this store, and what a target serves.

Releases of a publisher's model have one numbering, whatever they are published to. Nothing that a
target serves is believed before its signature was looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.manifest.codec import MANIFEST_LIMIT, from_bytes
from quantmint.registry.manifest.release import (
    ENVELOPE_FILE,
    MANIFEST_FILE,
    PAYLOAD_TYPE,
    Manifest,
    Yanked,
)
from quantmint.registry.publish.engine import YANKED
from quantmint.registry.publish.status import Status, read_status
from quantmint.registry.publish.target import Refs, Snapshot, Target
from quantmint.registry.refs import Ref, list_refs, put_ref
from quantmint.registry.signing.envelope import ENVELOPE_LIMIT, open_envelope
from quantmint.registry.signing.release import Expect, verify_release
from quantmint.registry.signing.status import status_believer
from quantmint.registry.store import Blob, Store
from quantmint.registry.trust_policy import Policy

TAG: Final = re.compile(r"(?:yanked/)?v([1-9][0-9]{0,9})")
KIND: Final = "release"


@dataclass(frozen=True, slots=True)
class Local:
    """A release that was made here: its reference in the store, and its manifest."""

    ref: Ref
    manifest: Manifest

    @property
    def published(self) -> dict[str, str]:
        """The commit by the name of each target that it was published to."""
        return dict(self.ref.body["published"])

    @property
    def is_yanked(self) -> bool:
        """Whether it was withdrawn."""
        return bool(self.ref.body.get("yanked"))

    @property
    def staged(self) -> tuple[str, ...]:
        """The names of the targets where its signed manifest may have been seen."""
        return tuple(self.ref.body.get("staged", ()))

    @property
    def is_given_up(self) -> bool:
        """Whether it was withdrawn before it was ever published."""
        return bool(self.ref.body.get("given_up"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a target has: its main, the numbers in use, the newest release, and what was yanked.

    `on_main` says whether main carries `newest`; `numbers` holds yanked ones too. A release that
    was withdrawn, or that only revoked keys signed, is never `newest`: it is no reason not to
    publish a better one, and nothing in it is believed.
    """

    head: Snapshot | None
    numbers: frozenset[int]
    newest: Manifest | None
    on_main: bool
    yanked: tuple[Yanked, ...]


NOTHING: Final = Served(head=None, numbers=frozenset(), newest=None, on_main=False, yanked=())


def tag_of(number: int) -> str:
    """Return the tag that names a release at a target."""
    return f"v{number}"


def ref_name(publisher: str, number: int) -> str:
    """Return the name of a release's reference in the store."""
    return f"{publisher.lower()}.{number}"


def signers(envelope: bytes) -> set[str]:
    """Return the ids of the keys that claim to have signed a release.

    Raises:
        IntegrityError: it is no envelope of a release.
    """
    return {row.keyid for row in open_envelope(envelope, PAYLOAD_TYPE).signatures}


def amend(
    store: Store,
    local: Local,
    objects: Mapping[str, Blob] | None = None,
    **facts: Any,  # noqa: ANN401
) -> None:
    """Note facts of a release that was made here; `objects` are the files that it keeps now.

    Raises:
        UserError: another process changed what is known of it.
    """
    ref = local.ref
    put_ref(
        store, ref.model, ref.release, ref.objects if objects is None else objects,
        body={**ref.body, **facts}, expected=ref.revision,
    )  # fmt: skip


def local_releases(store: Store, model: str, publisher: str) -> list[Local]:
    """Return the releases of a model that were made here, the newest last.

    Raises:
        IntegrityError: a reference, or a manifest in the store, is damaged.
    """
    found = []
    for ref in list_refs(store, model):
        blob = ref.objects.get(MANIFEST_FILE)
        body = ref.body
        if blob is None or body.get("kind") != KIND or body.get("publisher") != publisher:
            continue
        data = store.read(blob, limit=MANIFEST_LIMIT)
        found.append(Local(ref, from_bytes(Manifest, data, what=f"release {ref.release}")))
    return sorted(found, key=lambda local: local.manifest.release)


def look_at(target: Target, policy: Policy, expect: Expect, folder: Path, head: Snapshot) -> Served:
    """Return what a target has of the model's releases. `folder` takes what is fetched.

    Raises:
        UserError: the target carries another model's releases.
        IntegrityError: its newest release is not signed as it should be.
        RegistryError: it can't be reached.
    """
    refs = target.refs()
    matches = {tag: TAG.fullmatch(tag) for tag in refs.tags}
    numbers = {int(match[1]) for match in matches.values() if match}
    reader = _Reader(target, policy, expect, folder)
    newest = reader.manifest(head) if MANIFEST_FILE in head.files else None
    on_main = newest is not None
    if newest is None:
        alive = [n for n in numbers if f"{YANKED}{tag_of(n)}" not in refs.tags]
        for number in sorted(alive, reverse=True)[:1]:
            newest = reader.manifest(target.at(refs.tags[tag_of(number)]))
    identity = f"{expect.publisher}/{expect.model}"
    status = read_status(target, head, folder, status_believer(policy, identity))
    known = {row.release: row for row in (newest.yanked if newest else ())}
    known |= {row.release: row for row in reader.yanked(status, refs)}
    if newest is not None:
        numbers.add(newest.release)
    return Served(
        head=head,
        numbers=frozenset(numbers),
        newest=newest,
        on_main=on_main,
        yanked=tuple(known[number] for number in sorted(known)),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Fetches and checks what a target serves."""

    target: Target
    policy: Policy
    expect: Expect
    folder: Path

    def manifest(self, snapshot: Snapshot) -> Manifest | None:
        """Return the release of a commit; None if it is withdrawn or its keys are revoked."""
        plain = self.bytes(snapshot, MANIFEST_FILE, MANIFEST_LIMIT)
        said = from_bytes(Manifest, plain, what=f"{MANIFEST_FILE} of {self.target.name}")
        if (said.publisher, said.model) != (self.expect.publisher, self.expect.model):
            raise UserError(
                f"{self.target.name} carries releases of {said.identity}, not of "
                f"{self.expect.publisher}/{self.expect.model}",
                mend="release to a repository of its own, or correct `publisher:`",
            )
        envelope = self.bytes(snapshot, ENVELOPE_FILE, ENVELOPE_LIMIT)
        seen = self.policy.last_seen(said.identity)
        if seen is not None and hashlib.sha256(plain).hexdigest() in seen.yanked:
            return None
        if signers(envelope) <= set(self.policy.revoked):
            return None
        expect = Expect(said.model, said.publisher, said.release)
        verified = verify_release(envelope, self.policy, expect=expect)
        if verified.sha256 != hashlib.sha256(plain).hexdigest():
            raise IntegrityError(
                f"{MANIFEST_FILE} of {self.target.name} is not the one that was signed",
                mend="somebody altered the registry: compare its history with your own releases",
            )
        return verified.manifest

    def bytes(self, snapshot: Snapshot, path: str, limit: int) -> bytes:
        entry = snapshot.files.get(path)
        if entry is None or entry.size > limit:
            raise IntegrityError(f"{path} of {self.target.name} is missing or too large")
        blob = Blob(entry.sha256 or "0" * 64, entry.size)
        return self.target.fetch(snapshot.commit, path, blob, self.folder).read_bytes()

    def yanked(self, status: Status, refs: Refs) -> Iterator[Yanked]:
        """Yield what the target's status says was withdrawn, bound to manifests by digest."""
        for name, row in status.releases.items():
            match = TAG.fullmatch(name)
            if row.state != "yanked" or match is None or name not in refs.tags:
                continue
            data = self.bytes(self.target.at(refs.tags[name]), MANIFEST_FILE, MANIFEST_LIMIT)
            yield Yanked(
                release=int(match[1]),
                manifest_sha256=hashlib.sha256(data).hexdigest(),
                reason=row.reason or "withdrawn",
            )
