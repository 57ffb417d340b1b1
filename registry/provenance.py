"""Where the files of a release come from, as others read it: in-toto statement, SLSA predicate.

Formats: in-toto Statement v1 (in-toto/attestation, spec/v1/statement.md) and SLSA Provenance v1
(slsa.dev/spec/v1.0/provenance). The claim is build level 1 and no more: provenance exists, made
by the builder itself on whatever machine it ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantmint.errors import IntegrityError
from quantmint.registry.hub_address import PUBLIC_HUB
from quantmint.registry.manifest.codec import from_bytes, to_bytes
from quantmint.registry.manifest.release import Calibration, Manifest, Source, Toolchain
from quantmint.registry.manifest.statement import (
    BUILD_TYPE,
    BUILDER,
    PAYLOAD_TYPE,
    PREDICATE,
    STATEMENT,
    BuildDefinition,
    Builder,
    Dependency,
    Digest,
    Metadata,
    Provenance,
    RunDetails,
    Statement,
    Subject,
)
from quantmint.registry.manifest.types import TextEntry
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.envelope import open_envelope, seal
from quantmint.registry.signing.release import good_signers
from quantmint.registry.trust_policy import Policy


@dataclass(frozen=True, slots=True)
class Run:
    """The run that built: its id, and when it began and ended (`time_text`)."""

    id: str
    started: str
    finished: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What provenance is made of: the same values as in the manifest, and the exact commands.

    `files` maps each GGUF file's name to its sha256; `commands` a step's name to its arguments.
    `hub` is the address of the hub that the source came from.
    """

    files: Mapping[str, str]
    source: Source
    toolchain: Toolchain
    calibration: Calibration | None
    assay: Sequence[TextEntry]
    commands: Mapping[str, Sequence[str]]
    run: Run
    hub: str = PUBLIC_HUB


def statement_of(built: Built) -> Statement:
    """Return the statement about a release's GGUF files."""
    tools = built.toolchain
    definition = BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters={step: tuple(argv) for step, argv in built.commands.items()},
        internal_parameters={
            "compiler": tools.compiler,
            "cmake": tools.cmake,
            "target": tools.target,
            **({"host_cpu": tools.host_cpu} if tools.host_cpu else {}),
            **{f"cmake:{key}": value for key, value in tools.options.items()},
        },
        resolved_dependencies=_dependencies(built),
    )
    run = RunDetails(
        builder=Builder(id=BUILDER, version={"quantmint": tools.quantmint}),
        metadata=Metadata(
            invocation_id=built.run.id,
            started_on=built.run.started,
            finished_on=built.run.finished,
        ),
    )
    return Statement(
        type=STATEMENT,
        subject=tuple(
            Subject(name=name, digest=Digest(sha256=sha))
            for name, sha in sorted(built.files.items())
        ),
        predicate_type=PREDICATE,
        predicate=Provenance(build_definition=definition, run_details=run),
    )


def _dependencies(built: Built) -> tuple[Dependency, ...]:
    rows = list(_source_rows(built.source, built.hub))
    tools = built.toolchain
    rows.append(
        Dependency(
            name=f"llama.cpp {tools.llama_cpp}",
            uri=f"git+https://github.com/ggml-org/llama.cpp@{tools.llama_cpp_commit}",
            digest=Digest(sha256=tools.llama_cpp_source_sha256, git_commit=tools.llama_cpp_commit),
        )
    )
    parts = {"converter": tools.converter_sha256, "tools": tools.tools_sha256}
    if built.calibration is not None:
        parts["importance matrix"] = built.calibration.imatrix_sha256
        parts[f"calibration text {built.calibration.text.name}"] = built.calibration.text.sha256
    parts |= {f"assay text {text.name}": text.sha256 for text in built.assay}
    rows += [Dependency(name=name, digest=Digest(sha256=sha)) for name, sha in parts.items() if sha]
    return tuple(rows)


def _source_rows(source: Source, hub: str) -> Sequence[Dependency]:
    at = f"@{source.commit}" if source.commit else ""
    uri = f"{hub}/{source.name}{at}" if source.kind == "hub" else None
    return [
        Dependency(
            name=f"source {file.path}",
            uri=uri,
            digest=Digest(sha256=file.sha256, git_commit=source.commit),
        )
        for file in source.files
    ]


def sign_provenance(statement: Statement, keys: Sequence[SigningKey]) -> bytes:
    """Return the statement in a signed envelope, a file of the release.

    Raises:
        IntegrityError: it is too large for any reader, or there is no key.
    """
    return seal(to_bytes(statement), PAYLOAD_TYPE, keys)


def verify_provenance(envelope: bytes, policy: Policy, manifest: Manifest) -> Statement:
    """Read provenance and compare it with the release that it came with.

    The manifest vouches for the file's digest already; this checks that a trusted key signed the
    statement too, if one signed the release, and that it is about these files and this source.

    Raises:
        IntegrityError: it can't be parsed, its signature is wrong, or it is about other things.
    """
    what = "the provenance"
    sealed = open_envelope(envelope, PAYLOAD_TYPE, what=what)
    signers = good_signers(sealed, policy)
    if signers and not any(signer.covers(manifest.identity) for signer in signers):
        raise IntegrityError(f"{what} is signed with a key not trusted for {manifest.identity}")
    statement = from_bytes(Statement, sealed.payload, what=what)
    told = {row.name: row.digest.sha256 for row in statement.subject}
    if told != {v.file.path: v.file.sha256 for v in manifest.variants}:
        raise IntegrityError(f"{what} is about other files than the release's")
    found = {
        row.digest.sha256 for row in statement.predicate.build_definition.resolved_dependencies
    }
    needed = {file.sha256 for file in manifest.source.files}
    if not needed | {manifest.toolchain.llama_cpp_source_sha256} <= found:
        raise IntegrityError(f"{what} names another source or toolchain than the manifest")
    return statement
