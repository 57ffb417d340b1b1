"""Where the engine's program is."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import click

from quantmint.home import find_home
from quantmint.native.build import LADDER, build_kernel
from quantmint.native.kernels import host_kernel
from quantmint.registry.store import Store

VARIABLE: Final = "QUANTMINT_LADDER_PROGRAM"


def locate_program() -> Path:
    """Return the path of `quantmint-ladder`: the one that the environment names, or our own.

    Our own is part of this machine's kernel bundle, which is built now if it was not before.

    Raises:
        BuildError: it can't be built here.
        SourceError: the llama.cpp source can't be fetched.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named)
    home = find_home()
    store = Store(home.store).open()
    report = partial(click.echo, err=True)
    return build_kernel(home, store, host_kernel(), report).tool(LADDER)
