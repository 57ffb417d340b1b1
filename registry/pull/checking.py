"""Hashing what was pulled again, against the signed manifest: three verdicts.

corrupt: bytes are others than the manifest says. untrusted: nobody who is trusted (any more)
vouches for them, or their publisher withdrew them. unreadable: they are gone, or the disk does not
give them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantmint.errors import IntegrityError
from quantmint.files import sha256_of
from quantmint.home import Home
from quantmint.registry.manifest.release import UNLISTED
from quantmint.registry.pull import local
from quantmint.registry.pull.kept import Kept
from quantmint.registry.pull.placing import own_spot, placed_files
from quantmint.registry.store import Blob, Store
from quantmint.registry.trust_root import TrustRoot
from quantmint.registry.verifying import Fault, verify_objects

BITS: Final = {"corrupt": 1, "untrusted": 2, "unreadable": 4}
OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One release that is here: what is wrong with it, and how many bytes were hashed."""

    kept: Kept
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    files: int
    size: int

    @property
    def bits(self) -> int:
        """The sum of the verdicts: 1 corrupt, 2 untrusted, 4 unreadable."""
        return sum(BITS[verdict] for verdict in {fault.verdict for fault in self.faults})


@dataclass(frozen=True)
class Checker:
    """Checks what is kept in a home under the trust policy as it is now."""

    home: Home
    store: Store
    root: TrustRoot
    strict: bool = False
    on_bytes: OnBytes | None = None

    def check(self, kept: Kept, everything: Sequence[Kept]) -> Checked:
        """Hash one release's files again; `everything` is all that is kept, this among it."""
        warnings, untrusted = self._judged(kept)
        blobs = set(kept.objects.values())
        faults = [*untrusted, *self._unlike_manifest(kept), *self._objects(blobs)]
        faults += self._placed(kept, everything)
        return Checked(
            kept=kept, faults=tuple(faults), warnings=warnings, files=len(blobs),
            size=sum(blob.size for blob in blobs),
        )  # fmt: skip

    def size(self, rows: Sequence[Kept]) -> int:
        """Return the bytes that checking these hashes."""
        return sum(blob.size for kept in rows for blob in set(kept.objects.values()))

    def _judged(self, kept: Kept) -> tuple[tuple[str, ...], list[Fault]]:
        place = self.store.refs / kept.model / f"{kept.name}.json"
        try:
            warnings = local.judged(self.store, kept, self.root, strict=self.strict)
        except IntegrityError as error:
            return (), [Fault("untrusted", place, error.what)]
        gone = self.root.policy().withdrawn_of(kept.identity or "")
        said = {
            f"{path} was withdrawn by its publisher ({gone[blob.sha256]})"
            for path, blob in kept.objects.items()
            if blob.sha256 in gone
        }
        return warnings, [Fault("untrusted", place, what) for what in sorted(said)]

    def _unlike_manifest(self, kept: Kept) -> list[Fault]:
        """Return the files that the reference names otherwise than the manifest does."""
        place = self.store.refs / kept.model / f"{kept.name}.json"
        try:
            manifest = kept.manifest(self.store)
        except IntegrityError as error:
            return [Fault("corrupt", place, error.what)]
        listed = {e.path: Blob(e.sha256, e.size) for e in manifest.entries} if manifest else {}
        return [
            Fault("corrupt", place, f"{path} is not what the signed manifest lists")
            for path, blob in kept.objects.items()
            if manifest is not None and path not in UNLISTED and listed.get(path) != blob
        ]

    def _objects(self, blobs: set[Blob]) -> list[Fault]:
        ordered = sorted(blobs, key=lambda blob: blob.sha256)
        paths = [self.store.path(blob.sha256) for blob in ordered]
        gone = [
            Fault("unreadable", path, "the object is not there, or has another length")
            for path, blob in zip(paths, ordered, strict=True)
            if not self.store.has(blob)
        ]
        missing = {fault.path for fault in gone if not fault.path.exists()}
        there = [path for path in paths if path not in missing]
        return [*(f for f in gone if f.path in missing), *verify_objects(there, self.on_bytes)]

    def _placed(self, kept: Kept, everything: Sequence[Kept]) -> list[Fault]:
        """Check the files below `models/` that are no links to the objects themselves.

        Another file under such a name may be another release's, or of a later build of our own.
        """
        spot = own_spot(self.home, kept)
        faults = []
        for variant, paths in kept.variants.items():
            ours = set(placed_files(self.store, self.home, kept, variant))
            for path, blob in zip(paths, kept.files(variant), strict=True):
                at = spot.target(path)
                may_differ = not kept.is_pulled or self._is_anothers(at, everything)
                if at in ours or (at.is_file() and not may_differ):
                    faults += self._copy(at, blob)
        return faults

    def _copy(self, at: Path, blob: Blob) -> list[Fault]:
        """Hash a file, unless it is the object itself, which is hashed already."""
        try:
            if at.samefile(self.store.path(blob.sha256)):
                return []
        except OSError:
            pass  # the object is gone, and said to be
        try:
            found = sha256_of(at)
        except OSError as error:
            return [Fault("unreadable", at, error.strerror or str(error))]
        return (
            []
            if found == blob.sha256
            else [Fault("corrupt", at, f"its bytes have the sha256 {found}")]
        )

    def _is_anothers(self, at: Path, everything: Sequence[Kept]) -> bool:
        """Return whether another release put its file there since."""
        return any(
            at in placed_files(self.store, self.home, kept, variant)
            for kept in everything
            for variant in kept.variants
        )
