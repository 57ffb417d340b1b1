"""The parts that bundles are put together from: the base (tools, libraries) and single kernels.

Each part is an action of its own, keyed by what it is made from: the digest of llama.cpp, the
compiler, and the flags of its targets as CMake reports them. So a further kernel costs only its
own objects, and another flag for one kernel makes that kernel alone again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantmint.files import digest_of, sha256_of
from quantmint.native.building.codemodel import Json, closure
from quantmint.native.building.collect import linked_paths, put_base, put_foreign
from quantmint.native.building.ninja import compile_targets, seconds_by_target
from quantmint.native.building.options import (
    LADDER,
    LOADER_FILE,
    TOOLS,
    Report,
    quantizer_digest,
)
from quantmint.native.building.parallel import MEMORY_PER_CUDA_JOB, jobs
from quantmint.native.building.trees import BuildTree, configure_quantizer, quantizer_identity
from quantmint.native.matrix import Kernel
from quantmint.quiet import heavy
from quantmint.registry.actions import Action, Outcome, lookup, perform, record
from quantmint.registry.store import Blob, Store
from quantmint.registry.trees import Tree, TreeFile, load_tree, put_tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Files of a bundle, what they were made from, and how long their compilers ran."""

    tree: Tree
    made_from: Json
    seconds: float
    cached: bool


def make_base(tree: BuildTree, report: Report) -> Part:
    """Return llama.cpp's tools and libraries and the ladder engine, built or from the store.

    Raises:
        BuildError: CMake or a compiler failed.
        SourceError: the llama.cpp source can't be fetched.
    """
    model = tree.model(report)
    targets = closure(model["targets"], TOOLS)
    action = Action(
        name="llama.cpp",
        inputs={
            "llama.cpp": tree.pin.sha256,
            "quantizer": quantizer_digest(),
            "loader": sha256_of(LOADER_FILE),
        },
        tools={"compiler": tree.chain.compiler},
        arguments={
            "flags": digest_of([model["compilers"], targets]),
            "tools": list(TOOLS),
            "quantizer": quantizer_identity(tree.chain),
        },
    )

    def build() -> Outcome:
        tree.configure(report)
        report("compiling llama.cpp's tools")
        _compile(tree, TOOLS, report, "tools")
        report("compiling the ladder engine")
        ladder = tree.folder / "quantizer"
        libraries = tree.folder / "bin"
        configure_quantizer(tree.source, libraries, ladder, tree.chain, tree.logs)
        compile_targets(ladder, [LADDER], tree.chain, report, tree.logs / "ladder.log")
        files = put_base(tree.store, libraries)
        engine = tree.store.put(ladder / "engine" / LADDER)
        files.append(TreeFile(LADDER, engine, executable=True))
        took = seconds_by_target(tree.folder)
        own = sum(took.get(name, 0.0) for name in targets)
        own += sum(seconds_by_target(ladder).values())
        return _outcome(tree.store, files, own)

    outcome = lookup(tree.store, action)
    if outcome is None:
        with tree.alone(report), heavy(tree.home, report):
            # Whom we waited for may have made it.
            outcome = perform(tree.store, action, build)
    made_from = {"compilers": model["compilers"], "targets": targets}
    return _part(tree.store, outcome, made_from)


def make_kernels(tree: BuildTree, kernels: Sequence[Kernel], report: Report) -> list[Part]:
    """Return the kernels' own libraries, built together in one run of ninja or from the store.

    Raises:
        BuildError: CMake or a compiler failed.
        SourceError: the llama.cpp source can't be fetched.
    """
    model = tree.model(report)
    rows = [(kernel, closure(model["targets"], [kernel.target])) for kernel in kernels]
    actions = [_action(tree, kernel, model, targets) for kernel, targets in rows]
    outcomes = [lookup(tree.store, action) for action in actions]
    if None in outcomes:
        with tree.alone(report), heavy(tree.home, report):
            # Whom we waited for may have made some.
            outcomes = [lookup(tree.store, action) for action in actions]
            left = [kernel for kernel, known in zip(kernels, outcomes, strict=True) if not known]
            _compile_kernels(tree, left, report)
            for at, (kernel, targets) in enumerate(rows):
                if outcomes[at] is None:
                    outcomes[at] = record(tree.store, actions[at], _collect(tree, kernel, targets))
    return [
        _part(tree.store, outcome, {"compilers": model["compilers"], "targets": targets})
        for outcome, (_, targets) in zip(outcomes, rows, strict=True)
        if outcome is not None
    ]


def _compile_kernels(tree: BuildTree, kernels: Sequence[Kernel], report: Report) -> None:
    if not kernels:
        return
    tree.configure(report)
    names = ", ".join(kernel.name for kernel in kernels)
    report(f"compiling kernel{'s' if len(kernels) > 1 else ''} {names}")
    started = time.monotonic()
    _compile(tree, [kernel.target for kernel in kernels], report, f"kernels-{tree.name}")
    report(f"compiled {names} in {time.monotonic() - started:.0f} s")


def kernel_action(tree: BuildTree, kernel: Kernel, report: Report) -> Action:
    """Return the action that makes the kernel's own library: its key says what decides.

    Raises:
        BuildError: CMake failed, or the tree has no such kernel.
    """
    model = tree.model(report)
    return _action(tree, kernel, model, closure(model["targets"], [kernel.target]))


def _action(tree: BuildTree, kernel: Kernel, model: Json, targets: Mapping[str, Json]) -> Action:
    return Action(
        name="kernel",
        inputs={"llama.cpp": tree.pin.sha256},
        tools={"compiler": tree.chain.compiler, **tree.tools},
        arguments={
            "target": kernel.target,
            "flags": digest_of([model["compilers"], dict(targets)]),
        },
    )


def _collect(tree: BuildTree, kernel: Kernel, targets: Mapping[str, Json]) -> Outcome:
    library = tree.folder / "bin" / kernel.library
    files = [TreeFile(kernel.library, tree.store.put(library))]
    if kernel.kind != "cpu":
        linked = linked_paths(targets[kernel.target]["link"])
        files += put_foreign(tree.store, library, linked)
    took = seconds_by_target(tree.folder)
    own = (name for name in targets if name.startswith(kernel.target))
    return _outcome(tree.store, files, sum(took.get(name, 0.0) for name in own))


def _compile(tree: BuildTree, targets: Sequence[str], report: Report, log: str) -> None:
    most = jobs(MEMORY_PER_CUDA_JOB) if tree.options.get("GGML_CUDA") == "ON" else None
    path = tree.logs / f"{log}.log"
    compile_targets(tree.folder, targets, tree.chain, report, path, most_jobs=most)


def _outcome(store: Store, files: Sequence[TreeFile], seconds: float) -> Outcome:
    tree = put_tree(store, list(files))
    return Outcome(outputs={"files": tree.blob}, trees=("files",), facts={"seconds": seconds})


def _part(store: Store, outcome: Outcome, made_from: dict[str, Any]) -> Part:
    files: Blob = outcome.outputs["files"]
    return Part(
        tree=load_tree(store, files),
        made_from=made_from,
        seconds=round(float(outcome.facts["seconds"]), 1),
        cached=outcome.cached,
    )
