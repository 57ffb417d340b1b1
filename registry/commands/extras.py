"""Commands of the mint, which a light install does not have."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from quantmint.errors import UserError


def mint_module(name: str, command: str) -> ModuleType:
    """Import a module of the mint for a command.

    Raises:
        UserError: the mint is not installed.
    """
    if importlib.util.find_spec("dagster") is None:
        raise UserError(
            f"`quantmint {command}` belongs to the mint, which is not installed",
            mend="CMAKE_ARGS=-DLLAMA_BUILD=OFF pip install 'quantmint[build]'",
        )
    return importlib.import_module(name)
