"""What a repository holds: files, commits, branches and tags."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LFS = (".safetensors", ".gguf", ".bin", ".model")
BIG = 1 << 20
# What a new repository of the Hub holds, in short.
ATTRIBUTES = b"".join(
    b"*%s filter=lfs diff=lfs merge=lfs -text\n" % suffix.encode() for suffix in LFS
)


def git_oid(data: bytes) -> str:
    """Return git's name of a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One file of a commit; `xet` is the hash under which xet serves it, if it came by xet."""

    data: bytes
    is_lfs: bool
    xet: str | None = None
    sha256: str = ""
    git_oid: str = ""

    def __post_init__(self) -> None:
        sha256 = hashlib.sha256(self.data).hexdigest()
        object.__setattr__(self, "sha256", sha256)
        object.__setattr__(self, "git_oid", git_oid(self.pointer if self.is_lfs else self.data))

    @property
    def pointer(self) -> bytes:
        """What git itself holds of a large file."""
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            self.sha256.encode(),
            len(self.data),
        )

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_oid


def routed(attributes: bytes, path: str) -> bool:
    """Return whether a `.gitattributes` sends that path to LFS."""
    for line in attributes.decode().splitlines():
        pattern, _, rest = line.partition(" ")
        named = fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(Path(path).name, pattern)
        if "filter=lfs" in rest and named:
            return True
    return False


@dataclass(frozen=True)
class Commit:
    """One commit: its 40 digits, what came before it, its message and all of its files."""

    sha: str
    parent: str | None
    title: str
    description: str
    files: Mapping[str, Entry]


@dataclass
class Repo:
    """One repository: its commits, its branches and tags, and who may read it."""

    name: str
    gated: bool = False
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes] | Path, ref: str = "main") -> str:
        """Add a commit that holds exactly these files; return its 40 digits."""
        if isinstance(files, Path):
            paths = [path for path in sorted(files.rglob("*")) if path.is_file()]
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
        entries = {
            name: Entry(data, name.endswith(LFS) or len(data) > BIG) for name, data in files.items()
        }
        return self.record(entries, ref, f"commit {len(self.commits) + 1}")

    def record(
        self, files: Mapping[str, Entry], ref: str, title: str, description: str = ""
    ) -> str:
        """Add a commit on top of a branch; return its 40 digits."""
        parent = self.branches.get(ref)
        listed = json.dumps([[n, e.git_oid] for n, e in files.items()])
        seed = f"{self.name} {parent} {title} {listed} {len(self.commits)}"
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = Commit(sha, parent, title, description, dict(files))
        self.branches[ref] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag, `HEAD` or a commit."""
        revision = "main" if revision == "HEAD" else revision.removeprefix("refs/heads/")
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        return revision if revision in self.commits else None

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the bytes of every file at that revision; nothing where there is none."""
        sha = self.at(revision)
        return {n: e.data for n, e in self.commits[sha].files.items()} if sha else {}

    def history(self, revision: str = "main") -> list[Commit]:
        """Return the commits that led to that revision, the newest first."""
        found, sha = [], self.at(revision)
        while sha is not None:
            found.append(self.commits[sha])
            sha = found[-1].parent
        return found

    def wants_lfs(self, path: str, size: int, sample: str, revision: str) -> bool:
        """Decide as the Hub does: by `.gitattributes`, by size, and by a look at the bytes."""
        attributes = self.files(revision).get(".gitattributes", ATTRIBUTES)
        return routed(attributes, path) or size > 10 * BIG or b"\0" in base64.b64decode(sample)
