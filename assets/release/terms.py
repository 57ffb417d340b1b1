"""What a model file says of its release: where it goes, under whose name, on what terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from quantmint.assets.recipe import Strict, hub_repository
from quantmint.errors import UserError
from quantmint.registry.manifest.types import Publisher

FILE: Final = "file:"
HUB: Final = "hub:"
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
_LINK: Final = re.compile(r"https://[^\s<>\"'`\\|()\[\]]{1,500}|LICENSE(\.md)?")


class Terms(Strict):
    """The release of a model: exactly one of `hub` (a repository) and `path` (a folder registry).

    `publisher` is the owner of `hub` by default. `license` and `base_model` are taken from a Hub
    source's own repository name and must be given for other sources. `expires_days` bounds how
    long nobody need ask for a newer release. `cosign` names further keys that sign too, while one
    replaces another. `fp16` releases the 16-bit file too. `license_file`
    is taken along instead of the license files that lie beside the source's weights. `openssf`
    adds a signature for OpenSSF's model-signing tool, with the key of the same name.
    """

    hub: str | None = None
    path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    publisher: Publisher | None = None
    private: bool = False
    key: str = "release"
    cosign: tuple[str, ...] = ()
    expires_days: Annotated[int, Field(ge=1, le=3650)] = 365
    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]{0,63}$")] | None = None
    license_name: Annotated[str, Field(pattern=r"^[\w .+-]{1,80}$")] | None = None
    license_link: str | None = None
    license_file: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    base_model: str | None = None
    languages: tuple[str, ...] = ("en",)
    pipeline: Literal["text-generation"] = "text-generation"
    fp16: bool = False
    openssf: bool = False

    _hub = field_validator("hub")(hub_repository)
    _base = field_validator("base_model")(hub_repository)

    @field_validator("languages")
    @classmethod
    def _languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [language for language in value if _LANGUAGE.fullmatch(language) is None]
        if wrong or not value:
            raise ValueError(f"{wrong or 'nothing'} is no language; write codes such as en or zh")
        return value

    @field_validator("license_link")
    @classmethod
    def _link(cls, value: str | None) -> str | None:
        if value is not None and _LINK.fullmatch(value) is None:
            raise ValueError("license_link is an https address, LICENSE or LICENSE.md")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Terms:
        if (self.hub is None) == (self.path is None):
            raise ValueError("a release goes to exactly one of hub and path")
        if self.path is not None and self.publisher is None:
            raise ValueError("a release to a path needs `publisher:`, a name of your own")
        if self.license == "other" and not self.license_name:
            raise ValueError("license: other needs license_name")
        return self

    @property
    def owner(self) -> str:
        """Whose releases these are."""
        return self.publisher or str(self.hub).partition("/")[0]

    def place(self, to: str, base: Path) -> str:
        """Return where a release goes, as `open_target` takes it: to `to`, if that says anything.

        Raises:
            UserError: it is somebody else's place, or another repository than the release names:
                who pulls it there would be told that it is not its own.
        """
        if not to:
            return self.target(base)
        if to.startswith(FILE):
            return to
        repo = to.removeprefix(HUB)
        owner = repo.partition("/")[0]
        if owner.casefold() != self.owner.casefold():
            raise UserError(
                f"these are releases of {self.owner}, and {repo} is {owner}'s: who pulls one there"
                " would be told that it is not its own",
                mend=f"--to hub:{self.owner}/NAME; or say `publisher: {owner}` in `release:`",
            )
        if self.hub is not None and repo.casefold() != self.hub.casefold():
            raise UserError(
                f"these are releases of {self.hub}, which they name: who pulls one from {repo}"
                " would be told that it is not its own",
                mend=f"say `hub: {repo}` in `release:`; or --to file:FOLDER, to look at it first",
            )
        return repo

    def target(self, base: Path) -> str:
        """Return the target as `open_target` takes it; a path is relative to the model file."""
        if self.hub is not None:
            return self.hub
        folder = str(self.path).removeprefix(FILE)
        return FILE + str((base / Path(folder).expanduser()).absolute())
