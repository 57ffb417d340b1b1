"""A bundle: the parts in one folder, with a note of what they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from quantmint.files import canonical_json, digest_of
from quantmint.native.building.codemodel import Json
from quantmint.native.building.options import quantizer_digest
from quantmint.native.building.parts import Part
from quantmint.native.building.workshop import machine_of
from quantmint.native.emulator import emulator
from quantmint.native.matrix import Kernel
from quantmint.native.pin import current_pin
from quantmint.registry.actions import Action, Outcome, perform
from quantmint.registry.store import Store
from quantmint.registry.trees import Tree, TreeFile, checkout, load_tree, put_tree

MADE_FROM: Final = "build.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A built kernel, ready to run: the folder, what it is made of and how long that took.

    `tools_digest` covers everything but kernels: what a tool computes apart from inference
    (quantizing, say) depends on it alone. `seconds` is how long compilers ran for all of it, one
    after another, `kernel_seconds` for the kernel's own objects. `made_from` is what build.json
    in the folder says: llama.cpp's digest, compilers, flags. `runner` stands before the tools'
    names where the bundle is for another kind of machine.
    """

    kernel: Kernel
    folder: Path
    tree: Tree
    tools_digest: str
    seconds: float
    cached: bool
    kernel_seconds: float = 0.0
    made_from: Json = field(default_factory=dict)
    runner: tuple[str, ...] = ()

    def tool(self, name: str) -> Path:
        """Return the path of one of llama.cpp's programs."""
        return self.folder / name

    def command(self, name: str) -> list[str | Path]:
        """Return how a command line that runs one of llama.cpp's programs begins."""
        return [*self.runner, self.tool(name)]

    @property
    def kernel_library(self) -> Path:
        """The shared library that holds the kernel."""
        return self.folder / self.kernel.library


def put_together(
    store: Store, kernel: Kernel, name: str, base: Part, parts: Mapping[str, Part]
) -> Bundle:
    """Return the bundle `name` of the base and these kernels, put into one folder by links.

    Raises:
        IntegrityError: a file of a part is not in the store.
    """
    made_from = _made_from(base, parts)
    action = Action(
        name="bundle",
        inputs={"base": base.tree.sha256, **{n: p.tree.sha256 for n, p in parts.items()}},
        tools={},
        arguments={"made from": digest_of(made_from)},
    )

    def put() -> Outcome:
        files = {file.path: file for part in (base, *parts.values()) for file in part.tree.files}
        note = TreeFile(MADE_FROM, store.put_bytes(canonical_json(made_from)))
        tree = put_tree(store, [*files.values(), note])
        return Outcome(outputs={"bundle": tree.blob}, trees=("bundle",))

    tree = load_tree(store, perform(store, action, put).outputs["bundle"])
    own = sum(part.seconds for part in parts.values())
    return Bundle(
        kernel=kernel,
        folder=checkout(store, tree, name),
        tree=tree,
        tools_digest=base.tree.sha256,
        seconds=round(base.seconds + own, 1),
        cached=base.cached and all(part.cached for part in parts.values()),
        kernel_seconds=round(own, 1),
        made_from=made_from,
        runner=emulator(machine_of(kernel)),
    )


def _made_from(base: Part, parts: Mapping[str, Part]) -> Json:
    """Return what build.json says: nothing of when or where, all of what and how."""
    pin = current_pin()
    every = (base, *parts.values())
    return {
        "format": 1,
        "llama.cpp": {"package": pin.package, "version": pin.version, "sha256": pin.sha256,
                      "commit": pin.commit},
        "quantizer": quantizer_digest(),
        "kernels": sorted(parts),
        "compilers": {k: v for part in every for k, v in part.made_from["compilers"].items()},
        "targets": {k: v for part in every for k, v in part.made_from["targets"].items()},
    }  # fmt: skip
