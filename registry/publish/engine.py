"""Publishing: staged, read back, tested on the bytes read back, promoted in exactly one commit.

Any failure before the promotion leaves main as it was; the same call again goes on from what is
staged already, and finishes a promotion that was not tagged or tidied up.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantmint.errors import IntegrityError, RegistryError, UserError
from quantmint.files import full_disk_explained, human_bytes, sha256_of
from quantmint.registry.publish.files import (
    CARD,
    KEPT,
    MANIFEST,
    STATUS,
    FileSet,
    check_release,
)
from quantmint.registry.publish.status import Believe, Sign, Status, read_status
from quantmint.registry.publish.target import Change, Refs, Snapshot, Target
from quantmint.registry.store import Blob

Smoke = Callable[[str, Path], None]
YANKED = "yanked/"
STAGING = "staging-"
BARE_CARD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release to be published: its name, which becomes a tag, and its files."""

    name: str
    files: FileSet
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to publish.

    Attributes:
        work: where files are read back to, one at a time.
        report: told of each step, in a line for people.
        private: a repository that has to be created is private.
        expected_parent: refuse unless main is at this commit.
        replace: allow files on main that are not ours to be removed.
        restore: allow main to go back to a release that was published before.
        sign: returns an envelope for the status file.
        believe: opens the envelope of the status file that is there: see `read_status`.
    """

    work: Path
    report: Callable[[str], None] = lambda _: None
    private: bool = False
    expected_parent: str | None = None
    replace: bool = False
    restore: bool = False
    sign: Sign | None = None
    believe: Believe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was published: main's commit, what it took the place of, which files were sent."""

    target: str
    release: str
    digest: str
    commit: str
    changed: bool
    sent: tuple[str, ...] = ()
    supersedes: str | None = None


def publish(release: Release, target: Target, *, smoke: Smoke, options: Options) -> Published:
    """Publish a release, or find that it is there.

    `smoke` is called with the path in the repository and a local file for each file that was read
    back, before anything is promoted; it raises if the file is bad.

    Raises:
        UserError: token, name, network or disk must change, or main holds foreign files.
        RegistryError: the registry refused, failed for too long, or main has moved.
        IntegrityError: what was read back, or is served, is not what was sent; or a smoke test.
    """
    check_release(release.name)
    head = target.prepare(private=options.private)
    refs = target.refs()
    with work_folder(options.work) as folder:
        return _Run(release, target, smoke, options, folder).publish(head, refs)


@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Give a fresh folder for what is read back; it is gone when the block ends.

    Raises:
        UserError: it can't be made; or a disk was full, or failed, inside the block.
    """
    try:
        with full_disk_explained(parent):
            parent.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(dir=parent, prefix="publish.")
    except OSError as error:
        raise UserError(
            f"nothing can be read back to {parent}: {error.strerror}",
            mend="set QUANTMINT_HOME to a folder of your own",
        ) from error
    try:
        with full_disk_explained(parent):
            yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of `publish`."""

    release: Release
    target: Target
    smoke: Smoke
    options: Options
    folder: Path

    @property
    def candidate(self) -> str:
        return f"{STAGING}{self.release.files.digest[:16]}"

    def publish(self, head: Snapshot, refs: Refs) -> Published:
        files, name = self.release.files, self.release.name
        is_on_main = head.is_release(files)
        is_tagged = self._check_tag(refs)
        if is_on_main and is_tagged:
            mended = self.target.mend(files)
            for path in mended:
                self.options.report(f"put back {path}: it was damaged or gone")
            self._tidy(refs)
            return self._published(head.commit, changed=False, sent=mended)
        status = read_status(self.target, head, self.folder, self.options.believe)
        self._check_withdrawn(status)
        if is_on_main:
            self._check_news(status)
            self._finish(head.commit, is_tagged=is_tagged)
            return self._published(head.commit, changed=True)
        self._check_main(head, self._foreign(head, status, refs), is_tagged=is_tagged)
        staged = self.target.stage(self.candidate, files, head)
        self._read_back(staged.snapshot)
        change = Change(
            parent=head,
            title=f"Release {name}",
            description=self.release.notes,
            put=files.files,
            staged=staged.snapshot,
            label=f"{name}-{files.digest[:12]}",
            add=status.promoted(name, head.commit).as_files(self.options.sign),
            remove=head.dropped(files),
        )
        self.options.report(f"promoting {len(files.files)} files to main in one commit")
        commit = self.target.apply(change).commit
        self._finish(commit, is_tagged=is_tagged)
        current = status.current()
        supersedes = current if current != name else None
        return self._published(commit, changed=True, sent=staged.sent, supersedes=supersedes)

    def _check_tag(self, refs: Refs) -> bool:
        """Return whether the release's tag exists; it must then name the same files."""
        name = self.release.name
        if YANKED + name in refs.tags:
            raise RegistryError(
                f"release {name} of {self.target.name} was yanked: its name is used up",
                mend="raise the release number, and release again",
            )
        if name not in refs.tags:
            return False
        if not self.target.at(refs.tags[name]).is_release(self.release.files):
            raise RegistryError(
                f"{self.target.name} has a release {name} already, with other files; a release "
                "never changes once it is published",
                mend="raise the release number, and release again",
            )
        return True

    def _foreign(self, head: Snapshot, status: Status, refs: Refs) -> list[str]:
        """Return the files on main that a release would take away and quantmint did not put there.

        They are those that the current release's own commit does not have so. The card is made
        whole by every release: what somebody wrote into it does not stay.
        """
        dropped = head.dropped(self.release.files)
        at_stake = {*dropped, *(set(head.files) & self.release.files.paths)} - KEPT
        if MANIFEST not in head.files and STATUS not in head.files:
            return sorted(at_stake - ({CARD} if self._has_bare_card(head) else set()))
        tag = refs.tags.get(status.current() or "")
        if tag is None:
            return []
        ours = self.target.at(tag).files
        return sorted(p for p in at_stake - {CARD} if ours.get(p) != head.files[p])

    def _has_bare_card(self, head: Snapshot) -> bool:
        """Return whether main's card says nothing but a license, as the Hub's page makes one."""
        entry = head.files.get(CARD)
        if entry is None or entry.size > BARE_CARD:
            return False
        blob = Blob(entry.sha256 or "0" * 64, entry.size)
        text = self.target.fetch(head.commit, CARD, blob, self.folder).read_bytes()
        return re.fullmatch(rb"\s*(?:---\n(?:(?!---)[^\n]*\n)*---\s*)?", text) is not None

    def _check_main(self, head: Snapshot, foreign: Sequence[str], *, is_tagged: bool) -> None:
        """Refuse to take away what somebody may still need."""
        expected = self.options.expected_parent
        if expected is not None and head.commit != expected:
            raise moved(self.target, expected, head.commit)
        if is_tagged and not self.options.restore:
            raise RegistryError(
                f"release {self.release.name} was published before, and main of "
                f"{self.target.name} has moved on since; it would go back to an older state",
                mend="publish a new release; or, to go back to the old one: --restore",
            )
        if foreign and not self.options.replace:
            shown = ", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else "")
            raise UserError(
                f"main of {self.target.name} holds {len(foreign)} files that quantmint did not "
                f"publish ({shown}); a release would remove or replace them",
                mend="publish to a repository of its own; or, to let them go: --replace",
            )

    def _check_news(self, status: Status) -> None:
        current = status.current()
        if current not in {None, self.release.name}:
            raise UserError(
                f"main of {self.target.name} carries the same files as release {current} already: "
                f"there is nothing new to release as {self.release.name}"
            )

    def _check_withdrawn(self, status: Status) -> None:
        withdrawn = status.withdrawn()
        for file in self.release.files.files:
            if file.blob.sha256 in withdrawn:
                raise IntegrityError(
                    f"{file.path} has the same bytes as a file that was yanked with release "
                    f"{withdrawn[file.blob.sha256]}; nobody may use them",
                    mend="leave the variant out, or build it anew so that its bytes change",
                )

    def _read_back(self, staged: Snapshot) -> None:
        """Fetch every staged file as anybody would, hash it, and test what came."""
        for file in self.release.files.files:
            size = human_bytes(file.blob.size)
            self.options.report(f"reading back {file.path} ({size})")
            path = self._fetch_hashed(staged.commit, file.path)
            self.smoke(file.path, path)
            if path.is_relative_to(self.folder):
                path.unlink()

    def _fetch_hashed(self, revision: str, path: str) -> Path:
        file = next(f for f in self.release.files.files if f.path == path)
        found = self.target.fetch(revision, path, file.blob, self.folder)
        if found.stat().st_size != file.blob.size or sha256_of(found) != file.blob.sha256:
            raise IntegrityError(
                f"{path} came back from {self.target.name} with other bytes than were sent",
                mend="run the same command again; if it stays, the registry or a proxy alters it",
            )
        return found

    def _finish(self, commit: str, *, is_tagged: bool) -> None:
        """Name the commit, look at what is served under each of its names, and tidy up."""
        name = self.release.name
        if not is_tagged:
            self.target.tag(name, commit, self.release.notes or f"Release {name}")
        refs = self.target.refs()
        if refs.branches.get("main") != commit:
            raise moved(self.target, commit, str(refs.branches.get("main")))
        for revision, served in (("main", commit), (name, refs.tags.get(name, ""))):
            self._verify(revision, served)
        self._tidy(refs)

    def _verify(self, revision: str, commit: str) -> None:
        """Compare what a name serves: the digests that are listed, small files byte by byte."""
        files = self.release.files
        if not self.target.at(commit or revision).is_release(files):
            raise IntegrityError(
                f"{self.target.name} lists other files at {revision} than were published",
                mend=f"look at {revision} there; then run the same command again",
            )
        for file in files.files:
            if file.is_small:
                self._fetch_hashed(revision, file.path)

    def _tidy(self, refs: Refs) -> None:
        for branch in refs.branches:
            if branch == self.candidate:
                self.target.drop(branch)
            elif branch.startswith(STAGING):
                self.options.report(f"note: {branch} is left from a release that was not finished")

    def _published(
        self, commit: str, *, changed: bool, sent: tuple[str, ...] = (),
        supersedes: str | None = None,
    ) -> Published:  # fmt: skip
        return Published(
            target=self.target.name,
            release=self.release.name,
            digest=self.release.files.digest,
            commit=commit,
            changed=changed,
            sent=sent,
            supersedes=supersedes,
        )


def moved(target: Target, expected: str, found: str, branch: str = "main") -> RegistryError:
    """Return the error for a branch that is not where it was expected."""
    return RegistryError(
        f"{branch} of {target.name} is at {found[:12]} where {expected[:12]} was expected: "
        "somebody else committed; nothing of theirs was touched",
        mend="look at that commit, then run the same command again (uploads are kept)",
    )
