"""A repository of the Hugging Face Hub, or of any server that speaks its protocol."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from quantmint.errors import IntegrityError, RegistryError, UserError
from quantmint.files import human_bytes
from quantmint.registry.hub_address import hub_address
from quantmint.registry.publish.engine import moved
from quantmint.registry.publish.fetch import fetch
from quantmint.registry.publish.files import FileSet, ReleaseFile
from quantmint.registry.publish.target import Change, Entry, Refs, Snapshot, Staged
from quantmint.registry.publish.trouble import (
    Contact,
    Patience,
    status_of,
    token_from,
)
from quantmint.registry.store import Blob
from quantmint.registry.transfer import proxies
from quantmint.registry.transfer.addresses import refuse_unsafe

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def hub_target(
    repo: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    report: Callable[[str], None] = lambda _: None,
) -> HubTarget:
    """Return the target for a repository `owner/name`.

    Raises:
        UserError: the name, the token or the hub's address is malformed, or the token would go
            there in the clear.
    """
    if len(repo) > 96 or REPO.fullmatch(repo) is None or ".." in repo or "--" in repo:
        raise UserError(f"{repo[:96]!r} is no repository", mend="write owner/name")
    base, secret = hub_address(endpoint), token_from(token)
    refuse_unsafe(base, has_token=secret is not None)
    contact = Contact(
        endpoint=base,
        repo=repo,
        token=secret,
        patience=patience,
        report=report,
    )
    return HubTarget(contact)


@dataclass(frozen=True)
class HubTarget:
    """A repository of a hub, through the Hub's own client."""

    contact: Contact

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.contact.endpoint}/{self.contact.repo}"

    @cached_property
    def api(self) -> HfApi:
        """The client; a missing token is False, or it would look for one of its own."""
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():  # nobody watches: the lines of `report` say enough
            disable_progress_bars()
        proxies.refuse_unusable()
        return HfApi(endpoint=self.contact.endpoint, token=self.contact.token or False)

    def prepare(self, *, private: bool) -> Snapshot:
        """Return main, after creating the repository if there is none."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        repo = self.contact.repo

        def find() -> ModelInfo | None:
            try:
                return self.api.model_info(repo)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError as error:
                if status_of(error) == 401 and self.contact.token is not None:
                    raise
                return None

        found = self.contact.ask("looking at the repository", find)
        if private:
            self._check_private(found)
        if found is None:
            self.contact.report(f"creating {self.name}" + (" (private)" if private else ""))
            self.contact.ask(
                "creating the repository",
                lambda: self.api.create_repo(repo, private=private, exist_ok=True),
            )
            if private:  # somebody else may have made it, a public one, meanwhile
                self._check_private(self.contact.ask("looking at it", find))
        return self.at("main")

    def _check_private(self, found: ModelInfo | None) -> None:
        if found is not None and found.private is False:
            raise UserError(
                f"{self.name} is public, and a private release was asked for",
                mend="make the repository private in its settings first; or release without it",
            )

    def refs(self) -> Refs:
        """Return all branches and tags."""
        found = self.contact.ask(
            "listing branches", lambda: self.api.list_repo_refs(self.contact.repo)
        )
        return Refs(
            {ref.name: ref.target_commit for ref in found.branches},
            {ref.name: ref.target_commit for ref in found.tags},
        )

    def at(self, revision: str) -> Snapshot:
        """Return a branch, a tag or a commit: all files, read at one commit."""
        from huggingface_hub.hf_api import RepoFile

        repo = self.contact.repo

        def look() -> Snapshot:
            commit = revision
            if COMMIT.fullmatch(revision) is None:
                commit = str(self.api.repo_info(repo, revision=revision).sha)
            rows = self.api.list_repo_tree(repo, revision=commit, recursive=True)
            files = {
                row.path: Entry(row.size, row.lfs.sha256 if row.lfs else None, row.blob_id)
                for row in rows
                if isinstance(row, RepoFile)
            }
            return Snapshot(commit, files)

        return self.contact.ask(f"listing the files at {revision[:24]}", look)

    def stage(self, candidate: str, files: FileSet, head: Snapshot) -> Staged:
        """Bring the files to a branch: small ones first, then each large one in a commit of its
        own, so that what is there is there should we be killed."""
        if candidate not in self.refs().branches:
            self.contact.ask(
                "creating the staging branch",
                lambda: self.api.create_branch(
                    self.contact.repo, branch=candidate, revision=head.commit, exist_ok=True
                ),
            )
        now = self.at(candidate)
        lacking = [file for file in files.files if not now.has(file)]
        small = [file for file in lacking if file.is_small]
        groups = [small] if small else []
        groups += [[file] for file in lacking if not file.is_small]
        sent: list[str] = []
        for group in groups:
            now, names = self._upload(candidate, group, now)
            sent += names
        return Staged(now, tuple(sent))

    def mend(self, files: FileSet) -> tuple[str, ...]:  # noqa: ARG002
        """Return none: the hub itself looks after the bytes that it took."""
        return ()

    def fetch(self, revision: str, path: str, blob: Blob, folder: Path) -> Path:
        """Return a local file with what is served, fetched as any client would."""
        return fetch(self.contact, revision, path, blob.size, folder / path)

    def apply(self, change: Change) -> Snapshot:
        """Make exactly one commit on main; large files are copied there by the hub itself."""
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        operations: list[Any] = []
        for file in change.put:
            if change.parent.has(file):
                continue
            staged = change.staged.files.get(file.path) if change.staged else None
            if change.staged is not None and staged is not None and staged.sha256 is not None:
                operations.append(
                    CommitOperationCopy(file.path, file.path, src_revision=change.staged.commit)
                )
            else:
                operations.append(CommitOperationAdd(file.path, file.read()))
        operations += [CommitOperationAdd(path, data) for path, data in change.add.items()]
        operations += [CommitOperationDelete(path, is_folder=False) for path in change.remove]
        return self._commit(
            "main", change.parent, operations, (change.title, change.description), change.is_done
        )

    def tag(self, name: str, commit: str, message: str) -> None:
        """Name a commit; the same name for the same commit is no error."""
        repo = self.contact.repo
        self.contact.ask(
            f"tagging {name}",
            lambda: self.api.create_tag(
                repo, tag=name, tag_message=message, revision=commit, exist_ok=True
            ),
        )
        found = self.refs().tags.get(name)
        if found != commit:
            raise RegistryError(
                f"the tag {name} of {self.name} names {str(found)[:12]}, not {commit[:12]}",
                mend="somebody else used this name: raise the release number, and release again",
            )

    def drop(self, candidate: str) -> None:
        """Remove a candidate's branch, if it is there."""
        from huggingface_hub.errors import RevisionNotFoundError

        def remove() -> None:
            with contextlib.suppress(RevisionNotFoundError):  # gone already: an answer was lost
                self.api.delete_branch(self.contact.repo, branch=candidate)

        self.contact.ask("removing the staging branch", remove)

    def _upload(
        self, branch: str, files: list[ReleaseFile], now: Snapshot
    ) -> tuple[Snapshot, list[str]]:
        """Commit files to the staging branch; bytes that the hub has already are copied there."""
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy

        known = {entry.sha256: path for path, entry in now.files.items() if entry.sha256}
        operations: list[Any] = []
        sent = []
        for file in files:
            twin = known.get(file.blob.sha256)
            if twin is not None:
                operations.append(CommitOperationCopy(twin, file.path, src_revision=now.commit))
                continue
            sent.append(file.path)
            source = file.source if isinstance(file.source, bytes) else str(file.source)
            operations.append(CommitOperationAdd(file.path, source))
        if sent:
            size = human_bytes(sum(f.blob.size for f in files if f.path in sent))
            what = sent[0] if len(sent) == 1 else f"{len(sent)} files"
            self.contact.report(f"uploading {what} ({size})")
        title = ("Stage " + ", ".join(file.path for file in files))[:72]
        after = self._commit(branch, now, operations, (title, ""), lambda s: _has(s, files))
        if not _has(after, files):
            wrong = [file.path for file in files if not after.has(file)]
            raise IntegrityError(
                f"{self.name} holds other bytes of {', '.join(wrong)} than were sent",
                mend="quantmint verify, then run the same command again",
            )
        return after, sent

    def _commit(
        self,
        branch: str,
        parent: Snapshot,
        operations: Iterable[Any],
        message: tuple[str, str],
        is_done: Callable[[Snapshot], bool],
    ) -> Snapshot:
        """Commit on top of `parent`, exactly once.

        The client does not repeat this request, as its answer may be lost where its work is done.
        We do: after each failure the branch tells whether the commit is there, and the parent,
        named in every try, keeps the hub from making it twice.
        """
        rows = list(operations)
        waits = self.contact.patience.waits()
        while True:
            try:
                info = self.api.create_commit(
                    self.contact.repo,
                    rows,
                    commit_message=message[0],
                    commit_description=message[1],
                    revision=branch,
                    parent_commit=parent.commit,
                )
                return self.at(info.oid)
            except Exception as error:  # noqa: BLE001 - each is explained or tried again
                landed = self._landed(branch, parent, is_done, error)
                if landed is not None:
                    return landed
                self._again(error, f"committing to {branch}", next(waits, None))

    def _landed(
        self,
        branch: str,
        parent: Snapshot,
        is_done: Callable[[Snapshot], bool],
        error: Exception,
    ) -> Snapshot | None:
        """Return the commit if it is there in spite of the error; None if the branch stands still.

        Raises:
            RegistryError: the branch has moved to something else.
        """
        from quantmint.registry.publish.trouble import may_pass

        if status_of(error) != 412 and not may_pass(error):
            return None
        now = self.at(branch)
        if now.commit == parent.commit:
            return None
        if is_done(now):
            return now
        raise moved(self, parent.commit, now.commit, branch) from error

    def _again(self, error: Exception, what: str, wait: float | None) -> None:
        if wait is None:
            raise self.contact.explain(error, what) from error
        self.contact.wait_or_raise(error, what, wait)


def _has(snapshot: Snapshot, files: list[ReleaseFile]) -> bool:
    return all(snapshot.has(file) for file in files)
