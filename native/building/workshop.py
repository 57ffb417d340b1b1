"""Making the parts of bundles, each once, in the right tree with the right compilers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantmint.home import Home
from quantmint.native.building.options import Report, tree_options
from quantmint.native.building.parts import Part, make_base, make_kernels
from quantmint.native.building.sdk import sdk_options, sdk_tools
from quantmint.native.building.trees import BuildTree
from quantmint.native.host import machine_name, system_name
from quantmint.native.matrix import Kernel, matrix
from quantmint.native.pin import current_pin
from quantmint.native.toolchain import Toolchain, find_toolchain
from quantmint.registry.store import Store


class Workshop:
    """Makes parts, each once; one toolchain per machine."""

    def __init__(self, home: Home, store: Store, report: Report, options: dict[str, str]) -> None:
        self._home, self._store, self._report = home, store, report
        self._options = options
        self._bases: dict[str, Part] = {}

    def base(self, machine: str) -> Part:
        """Return the tools and libraries for that machine."""
        if machine not in self._bases:
            first = next(k for k in matrix() if k.kind == "cpu" and machine in k.machines
                         and k.system == system_name())  # fmt: skip
            self._bases[machine] = make_base(self._tree_of(first), self._report)
        return self._bases[machine]

    def parts(self, kernels: Sequence[Kernel]) -> dict[str, Part]:
        """Return the kernels' own parts by name, those of one tree compiled together."""
        by_tree: dict[tuple[str, str], list[Kernel]] = {}
        for kernel in kernels:
            by_tree.setdefault((kernel.tree, machine_of(kernel)), []).append(kernel)
        found: dict[str, Part] = {}
        for (_, machine), group in by_tree.items():
            self.base(machine)
            parts = make_kernels(self._tree_of(group[0]), group, self._report)
            found |= {kernel.name: part for kernel, part in zip(group, parts, strict=True)}
        return found

    def _tree_of(self, kernel: Kernel) -> BuildTree:
        chain = find_toolchain(machine_of(kernel))
        options = self._options if kernel.kind != "cpu" else {}
        return tree_for(self._home, self._store, kernel, chain, options)


def tree_for(
    home: Home, store: Store, kernel: Kernel, chain: Toolchain, options: Mapping[str, str]
) -> BuildTree:
    """Return the tree that the kernel is built in with that toolchain.

    Raises:
        UserError, BuildError: see `sdk_options` and `sdk_tools`.
    """
    return BuildTree(
        home=home,
        store=store,
        name=f"{kernel.tree}-{chain.machine}",
        chain=chain,
        options=tree_options(kernel, chain, current_pin()) | sdk_options(kernel, options),
        tools=sdk_tools(kernel),
    )


def machine_of(kernel: Kernel) -> str:
    """Return the machine to build for: this one where the kernel can be for several."""
    return machine_name() if machine_name() in kernel.machines else kernel.machines[0]
