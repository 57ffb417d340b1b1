"""An in-toto Statement v1 with SLSA's provenance predicate v1, as far as we use them.

Formats: in-toto/attestation, spec/v1/statement.md; slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from quantmint.registry.manifest.types import Commit, Line, Sha256, Signed, Time

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:quantmint:gguf-release:1"
BUILDER: Final = "urn:quantmint:builder:own-machine:1"
_Uri = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*:\S+$", max_length=1000)]
_Argument = Annotated[str, StringConstraints(max_length=4000)]


class _Camel(Signed):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Digest(_Camel):
    """Digests of one thing; a Hub commit is one too."""

    sha256: Sha256 | None = None
    git_commit: Commit | None = None


class Subject(_Camel):
    """One file that the statement is about."""

    name: Line
    digest: Digest


class Dependency(_Camel):
    """One thing that went into the build."""

    name: Line
    uri: _Uri | None = None
    digest: Digest


class BuildDefinition(_Camel):
    """What was asked for and what went in. `externalParameters` holds the exact commands."""

    build_type: Literal["urn:quantmint:gguf-release:1"]
    external_parameters: dict[Line, tuple[_Argument, ...]] = Field(max_length=128)
    internal_parameters: dict[Line, str] = Field(max_length=128)
    resolved_dependencies: tuple[Dependency, ...] = Field(max_length=2048)


class Builder(_Camel):
    """Who built: quantmint on a machine of the publisher's own."""

    id: Literal["urn:quantmint:builder:own-machine:1"]
    version: dict[Line, Line] = Field(max_length=16)


class Metadata(_Camel):
    """Which run it was, and when."""

    invocation_id: Line
    started_on: Time
    finished_on: Time


class RunDetails(_Camel):
    """Who built, and when."""

    builder: Builder
    metadata: Metadata


class Provenance(_Camel):
    """The SLSA predicate."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Camel):
    """The in-toto statement."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1, max_length=256)
    predicate_type: Literal["https://slsa.dev/provenance/v1"]
    predicate: Provenance
