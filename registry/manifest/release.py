"""The release manifest: what is released, what it was made of and with, what it measured.

It is what gets signed (`quantmint.dsse.json`), and lies beside it as plain JSON
(`quantmint.json`). Format: `docs/manifest.md`, schema: `docs/manifest.schema.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from quantmint.registry.manifest.measured import Choices, Divergence, Gate, MemoryAt, OnKernel
from quantmint.registry.manifest.types import (
    Commit,
    FileEntry,
    KernelName,
    Line,
    ListedFile,
    ModelName,
    Positive,
    Publisher,
    ReleaseNumber,
    RepositoryId,
    Setting,
    Sha256,
    Signed,
    TextEntry,
    Time,
    Title,
    VariantName,
    moment_of,
)

PAYLOAD_TYPE: Final = "application/vnd.quantmint.release.v1+json"
MANIFEST_FILE: Final = "quantmint.json"
ENVELOPE_FILE: Final = "quantmint.dsse.json"
PROVENANCE_FILE: Final = "provenance.intoto.json"
MODEL_SIGNATURE_FILE: Final = "model.sig"
KEY_FILE: Final = "release-key.pem"
# Whoever lists this key says that `model.sig` is there: the manifest can't list the signature.
OPENSSF_KEY_FILE: Final = "openssf-key.pem"
TENSORS_FOLDER: Final = "tensors"
# Files of a release folder that the manifest can't list: they are made from it, or sign it, or
# say what became of it later (`publish/status`).
UNLISTED: Final = frozenset(
    {
        MANIFEST_FILE, ENVELOPE_FILE, MODEL_SIGNATURE_FILE, "README.md", ".gitattributes",
        "quantmint.status.json", "quantmint.status.dsse.json",
    }
)  # fmt: skip


class Source(Signed):
    """Where the weights come from. `name` is the repository, folder, file or package."""

    kind: Literal["hub", "path", "gguf", "embedded"]
    name: Line
    commit: Commit | None = None
    license: Line | None = None
    files: tuple[ListedFile, ...] = Field(max_length=1024)


class KernelBuild(Signed):
    """One kernel as it was compiled; `flags` are what CMake reports."""

    kernel: KernelName
    library_sha256: Sha256
    flags: Line | None = None


class Toolchain(Signed):
    """What converted, quantized and tested. `llama_cpp_source_sha256` is the pinned package's."""

    quantmint: Line
    llama_cpp: Line
    llama_cpp_commit: Commit
    llama_cpp_source_sha256: Sha256
    converter_sha256: Sha256 | None = None
    tools_sha256: Sha256 | None = None
    compiler: Line
    cmake: Line
    target: Line
    options: dict[Line, Setting] = Field(default={}, max_length=128)
    kernels: tuple[KernelBuild, ...] = Field(default=(), max_length=64)
    host_cpu: Line | None = None


class Calibration(Signed):
    """The importance matrix that the variants were made with, and its text."""

    imatrix_sha256: Sha256
    text: TextEntry
    context: Positive
    chunks: Positive


class Variant(Signed):
    """One GGUF file of the release. `tensors` names its table of tensors (`TensorTable`)."""

    variant: VariantName
    file: FileEntry
    tensors: FileEntry
    weights: Positive
    bits_per_weight: float = Field(gt=0, le=64)
    memory: tuple[MemoryAt, ...] = Field(default=(), max_length=16)
    divergence: tuple[Divergence, ...] = Field(default=(), max_length=16)
    choices: tuple[Choices, ...] = Field(default=(), max_length=32)
    kernels: tuple[OnKernel, ...] = Field(default=(), max_length=64)
    gates: tuple[Gate, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _plain_file(self) -> Self:
        if "/" in self.file.path or not self.file.path.endswith(".gguf"):
            raise ValueError(f"file {self.file.path!r} is no .gguf in the root of the release")
        if not self.file.path.endswith((f"-{self.variant}.gguf", f".{self.variant}.gguf")):
            raise ValueError(f"file {self.file.path!r} does not end in its variant's name")
        return self


class Withheld(Signed):
    """A variant that was made and is not released, and why."""

    variant: VariantName
    reason: Line
    divergence: tuple[Divergence, ...] = Field(default=(), max_length=16)


class OtherFile(FileEntry):
    """A file of the release that is no model."""

    role: Literal["provenance", "imatrix", "license", "measurements", "picture", "ollama", "key"]


class Yanked(Signed):
    """An earlier release that must not be used; `manifest_sha256` is of its `quantmint.json`."""

    release: ReleaseNumber
    manifest_sha256: Sha256
    reason: Line


class Manifest(Signed):
    """One release of one model. Releases of `publisher`/`model` are numbered 1, 2, 3, ...

    After `expires` a newer release, or the same one signed anew under the next number, should be
    there. A release without variants withdraws the model.
    """

    format: Literal["quantmint.release/1"]
    publisher: Publisher
    model: ModelName
    release: ReleaseNumber
    title: Title
    created: Time
    expires: Time
    repository: RepositoryId | None = None
    license: Line | None = None
    architecture: Line
    parameters: Positive | None = None
    context_length: Positive | None = None
    chat_template_sha256: Sha256 | None = None
    source: Source
    toolchain: Toolchain
    calibration: Calibration | None = None
    assay: tuple[TextEntry, ...] = Field(default=(), max_length=16)
    variants: tuple[Variant, ...] = Field(max_length=64)
    withheld: tuple[Withheld, ...] = Field(default=(), max_length=64)
    files: tuple[OtherFile, ...] = Field(default=(), max_length=256)
    changes: tuple[Line, ...] = Field(default=(), max_length=64)
    yanked: tuple[Yanked, ...] = Field(default=(), max_length=256)

    @property
    def identity(self) -> str:
        """What the releases are numbered within: `publisher/model`."""
        return f"{self.publisher}/{self.model}"

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """Every file that the manifest vouches for."""
        pairs = (entry for v in self.variants for entry in (v.file, v.tensors))
        return (*pairs, *self.files)

    def variant(self, name: str) -> Variant | None:
        """Return the variant of that name, if it is released."""
        return next((v for v in self.variants if v.variant == name), None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if moment_of(self.expires) <= moment_of(self.created):
            raise ValueError("it expires before it was created")
        made = [v.variant for v in self.variants]
        _distinct(made + [v.variant for v in self.withheld], "variant")
        # Names that differ by case alone are one file on many disks.
        paths = [entry.path.casefold() for entry in self.entries]
        _distinct(paths, "file")
        _distinct([f.path for f in self.source.files], "source file")
        _distinct([str(y.release) for y in self.yanked], "yanked release")
        taken = {name.casefold() for name in UNLISTED} & set(paths)
        if taken:
            raise ValueError(f"file {min(taken)!r} has a name of its own use")
        parents = {str(parent) for path in paths for parent in _parents(path)}
        if parents & set(paths):
            raise ValueError(f"file {min(parents & set(paths))!r} is a folder too")
        if any(y.release >= self.release for y in self.yanked):
            raise ValueError("only an earlier release can be yanked")
        return self


def _distinct(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]!r} stands twice")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]
