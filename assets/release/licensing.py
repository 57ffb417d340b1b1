"""The license of a release: its name, the files that it stands in, and where the Hub finds it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

from quantmint.assets.mint import Mint
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.source import source_licenses
from quantmint.assets.sources import licenses
from quantmint.errors import UserError
from quantmint.registry.hub_address import hub_address, shown_hub
from quantmint.registry.store import Blob

LINKED: Final = ("LICENSE", "LICENSE.md")


def licenses_of(mint: Mint, inputs: Inputs) -> dict[str, Blob]:
    """Return the license files that go with the release, by name.

    Raises:
        UserError: the model file names one that can't be read.
        SourceError: the source's hub can't be reached, and was not asked before.
    """
    terms, recipe = inputs.terms, inputs.recipe
    if terms.license_file is None:
        return source_licenses(mint, recipe, inputs.base, inputs.source.commit)
    path = inputs.base / Path(terms.license_file).expanduser()
    name = path.name if licenses.NAMES.fullmatch(path.name) else "LICENSE"
    return {name: licenses.of_file(mint, path)}


def license_link_of(inputs: Inputs, names: Collection[str]) -> str | None:
    """Return where the card's front matter says that the license is.

    The Hub follows an address, or a file of the repository that is called LICENSE or LICENSE.md
    (hub-docs, `docs/hub/model-cards.md`).

    Raises:
        UserError: the model file names a file that is not there, or nothing says where it is.
    """
    terms, link = inputs.terms, inputs.terms.license_link
    if link in LINKED and link not in names:
        raise UserError(
            f"{inputs.recipe.model}: license_link says {link}, and the source has no such file",
            mend="add `license_file: PATH` to `release:`, or an address as license_link",
        )
    if link is None:
        link = next((name for name in LINKED if name in names), None)
    if link is None and terms.hub is not None:
        hub = shown_hub(hub_address())
        link = next((f"{hub}/{terms.hub}/blob/main/{n}" for n in names if _is_license(n)), None)
    if link is None and terms.license == "other":
        raise UserError(
            f"{inputs.recipe.model}: its license is `other`, and nothing says where it can be read",
            mend="add `license_link: https://...` or `license_file: PATH` to `release:`",
        )
    return link


def _is_license(name: str) -> bool:
    return re.search("licen[cs]e|copying", name, re.IGNORECASE) is not None


def license_of(inputs: Inputs) -> str:
    """Return the license that the card states.

    Raises:
        UserError: the model file names none.
    """
    if inputs.terms.license is None:
        raise UserError(
            f"{inputs.recipe.model}: nothing says under which license it may be handed on",
            mend="add `license: mit` (or whatever the source's is) to `release:` in the model file",
        )
    return inputs.terms.license
