"""A checkpoint on the Hugging Face Hub: resolved to one commit, config first, then the weights."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from quantmint.assets.mint import Mint
from quantmint.assets.progress import bytes_in, growing
from quantmint.assets.sources import checkpoint
from quantmint.errors import IntegrityError, SourceError, UserError
from quantmint.files import alone, digest_of, human_bytes, sha256_of
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.hub_address import hub_address
from quantmint.registry.store import Blob
from quantmint.registry.transfer import proxies
from quantmint.registry.trees import TreeFile, check_path, put_tree

# Seconds without a word from the Hub; its client by itself waits for ever.
PATIENCE: Final = 20.0
Kind = Literal["model", "dataset"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a commit; `sha256` is known for large files, `git_oid` for all."""

    name: str
    size: int
    git_oid: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a Hub repository and all of its files."""

    endpoint: str
    repo: str
    sha: str
    files: tuple[RemoteFile, ...]
    kind: Kind = "model"

    @property
    def place(self) -> str:
        """Where the Hub's pages of the repository are, below its address."""
        return f"datasets/{self.repo}" if self.kind == "dataset" else self.repo

    @property
    def wanted(self) -> tuple[RemoteFile, ...]:
        """The files that a conversion reads."""
        names = set(checkpoint.wanted(file.name for file in self.files))
        return tuple(file for file in self.files if file.name in names)


def resolve(repo: str, revision: str, *, kind: Kind = "model") -> Commit:
    """Ask the Hub once which commit a revision is, and which files it has.

    Raises:
        SourceError: no network, no such repository or revision, or no access.
    """
    from huggingface_hub import HfApi

    with _explained(repo, revision):
        api = HfApi(endpoint=hub_address())
        ask = api.dataset_info if kind == "dataset" else api.model_info
        info = ask(repo, revision=revision, files_metadata=True, timeout=PATIENCE)
    if info.sha is None:
        raise SourceError(f"the Hub names no commit for {repo}@{revision}")
    files = tuple(
        RemoteFile(
            name=s.rfilename,
            size=int(s.size or 0),
            git_oid=s.blob_id or "",
            sha256=s.lfs.sha256 if s.lfs else None,
        )
        for s in info.siblings or ()
    )
    return Commit(hub_address(), repo, info.sha, files, kind)


def fetch_commit(mint: Mint, commit: Commit, family: str | None, known: frozenset[str]) -> Outcome:
    """Fetch a commit's checkpoint into the store; an interrupted fetch resumes.

    Raises:
        SourceError: it is refused by its config, or can't be fetched.
        IntegrityError: the bytes that came are not the commit's.
        UserError: the disk is too small.
    """
    checkpoint.check_listing((f.name for f in commit.files), f"{commit.repo} on the Hub")
    action = Action(
        name="hub-checkpoint",
        inputs={"commit": commit.sha},
        tools={},
        arguments={
            "repo": commit.repo,
            "family": family,
            "files": digest_of([[f.name, f.size, f.git_oid, f.sha256] for f in commit.wanted]),
        },
    )
    return perform(mint.store, action, lambda: _fetch(mint, commit, family, known))


def fetch_one(mint: Mint, commit: Commit, name: str, *, limit: int) -> Blob:
    """Fetch one file of a commit into the store, at most `limit` bytes.

    Raises:
        SourceError: the commit has no such file, or it is too large or can't be fetched.
        IntegrityError: the bytes that came are not the commit's.
    """
    check_path(name)
    file = next((file for file in commit.files if file.name == name), None)
    if file is None or file.size > limit:
        have = "has no file" if file is None else f"has more than {human_bytes(limit)} in"
        raise SourceError(
            f"{commit.repo}@{commit.sha[:12]} {have} {name}", mend="correct the model file"
        )
    action = Action(
        name="hub-file",
        inputs={"commit": commit.sha},
        tools={},
        arguments={"repo": commit.place, "file": [file.name, file.size, file.git_oid]},
    )

    def fetch() -> Outcome:
        folder = mint.home.work / "downloads" / action.key
        waiting = f"another process fetches {file.name}: waiting for it"
        with alone(folder.with_suffix(".lock"), lambda: mint.report(waiting)):
            folder.mkdir(parents=True, exist_ok=True)
            mint.report(f"fetching {file.name} ({human_bytes(file.size)})")
            with growing(mint.report, file.name, file.size, lambda: bytes_in(folder)):
                path = _download(commit, file, folder)
            blob = _adopt(mint, path, file)
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(outputs={"file": blob})

    return perform(mint.store, action, fetch).outputs["file"]


def _fetch(mint: Mint, commit: Commit, family: str | None, known: frozenset[str]) -> Outcome:
    # Kept between runs, so that a killed download goes on where it stopped.
    folder = mint.home.work / "downloads" / digest_of([commit.endpoint, commit.repo, commit.sha])
    waiting = f"another process fetches {commit.repo}: waiting for it"
    with alone(folder.with_suffix(".lock"), lambda: mint.report(waiting)):
        return _fetch_into(folder, mint, commit, family, known)


def _fetch_into(
    folder: Path, mint: Mint, commit: Commit, family: str | None, known: frozenset[str]
) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {file.name: file for file in commit.wanted}
    # Verified before it is believed: a damaged config must not be kept and refused for ever.
    config = checkpoint.read_json(_download(commit, wanted["config.json"], folder))
    architecture = checkpoint.check_config(config, family, known)
    todo = [f for f in commit.wanted if not (f.sha256 and _stored(mint, f))]
    mint.store.require_room(sum(file.size for file in todo))
    files: list[TreeFile] = []
    small_first = sorted(commit.wanted, key=lambda file: file.size)
    for file in small_first:
        check_path(file.name)
        blob = _stored(mint, file)
        if blob is None:
            mint.report(f"fetching {file.name} ({human_bytes(file.size)})")
            with growing(mint.report, file.name, file.size, lambda: bytes_in(folder)):
                path = _download(commit, file, folder)
            blob = _adopt(mint, path, file)
        files.append(TreeFile(file.name, blob))
    tree = put_tree(mint.store, files)
    weights = _check_whole(mint, files, architecture)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        outputs={"source": tree.blob},
        trees=("source",),
        facts={"architecture": architecture, "weights": weights, "commit": commit.sha},
    )


def _adopt(mint: Mint, path: Path, file: RemoteFile) -> Blob:
    """Move a download into the store: a copy would need its room on the disk twice.

    It goes back where it was if the store can't take it, so that it need not be fetched again.
    """
    with mint.store.stage() as stage:
        staged = path.rename(stage / "file")
        try:
            return mint.store.adopt(staged, size=file.size)
        except UserError:  # a full disk
            staged.rename(path)
            raise


def _stored(mint: Mint, file: RemoteFile) -> Blob | None:
    """Return a large file that the store has already, by the digest that the Hub names."""
    blob = Blob(file.sha256, file.size) if file.sha256 else None
    return blob if blob and mint.store.has(blob) else None


def _check_whole(mint: Mint, files: list[TreeFile], architecture: str) -> int:
    with mint.store.stage() as stage:
        for file in files:
            mint.store.link(file.blob, stage / file.path)
        checkpoint.check_tokenizer(stage, architecture)
        return checkpoint.check_weights(stage)


def _download(commit: Commit, file: RemoteFile, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(commit.repo, commit.sha):
        path = Path(
            hf_hub_download(
                commit.repo,
                file.name,
                revision=commit.sha,
                repo_type=commit.kind,
                local_dir=folder,
                endpoint=commit.endpoint,
            )
        )
    _verify(path, file)
    return path


def _verify(path: Path, file: RemoteFile) -> None:
    """Compare what came with what the commit names: the Hub's client checks sizes alone."""
    if file.sha256 is not None:
        right = sha256_of(path) == file.sha256
    else:
        data = path.read_bytes()
        head = b"blob %d\x00" % len(data)
        right = hashlib.sha1(head + data, usedforsecurity=False).hexdigest() == file.git_oid
    if not right:
        path.unlink()
        raise IntegrityError(
            f"{file.name} came with other bytes than its commit names; it was thrown away",
            mend="run the same command again; if it stays, the hub or a proxy alters files",
        )


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Turn the Hub client's errors into ours."""
    import httpx2
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from quantmint.registry.publish.trouble import PASSING

    proxies.refuse_unusable()
    try:
        yield
    except GatedRepoError:
        raise SourceError(
            f"{repo} is gated: its owner asks for an agreement first",
            mend=f"accept it at {hub_address()}/{repo}, then `hf auth login` (or set HF_TOKEN)",
        ) from None
    except RepositoryNotFoundError:
        raise SourceError(
            f"there is no repository {repo} on {hub_address()}, or it is private to others",
            mend="check the name in `source: {hub: ...}`; for a private one `hf auth login`",
        ) from None
    except RevisionNotFoundError:
        raise SourceError(
            f"{repo} has no revision {revision!r}",
            mend="correct `revision:` in the model file: a branch, a tag or a commit",
        ) from None
    except (httpx2.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError(
            f"the Hub at {hub_address()} can't be reached ({_first_line(error)})",
            mend="check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and run again",
            retryable=not is_offline_mode(),
        ) from error
    except HfHubHTTPError as error:
        raise SourceError(
            f"the Hub refused {repo}@{revision}: {_first_line(error)}",
            mend="run again in a few minutes; if it stays, check the Hub's status",
            retryable=getattr(error.response, "status_code", 0) in PASSING,
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
