"""llama.cpp's pin and the kernels built from it."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Iterator, Mapping

import dagster as dg

from quantmint.assets.graph.line import (
    OWNERS,
    bundle_of,
    check_result,
    explained,
    kernel_key,
)
from quantmint.assets.graph.made_with import Made, Result, finished, made_with, meant, results
from quantmint.assets.graph.order import Order
from quantmint.assets.graph.upstream import LLAMA_CPP_KEY, report_pin
from quantmint.assets.kernel_assay import AGREEMENT, TYPES, assay_kernel, keep
from quantmint.assets.report.graph import kernel_assay_metadata, kernel_metadata
from quantmint.native.build import build_kernels, made_from
from quantmint.native.kernels import (
    Kernel,
    cpu_flags,
    machine_name,
    matrix,
    reference_kernel,
    runs_here,
    system_name,
)

_WHEN = dg.AutomationCondition
# What was built once is built again when what it is made of changes; what never was stays unbuilt.
REBUILD = (
    (_WHEN.code_version_changed() | _WHEN.any_deps_match(_WHEN.data_version_changed())).since(
        _WHEN.newly_requested() | _WHEN.newly_updated()
    )
    & ~_WHEN.missing()
    & ~_WHEN.any_deps_in_progress()
    & ~_WHEN.in_progress()
).with_label("made of something else than now")


def kernel_assets() -> dg.AssetsDefinition:
    """Return every kernel of this kind of machine, as one step that can make any of them."""
    here = (machine_name(), system_name())
    kernels = [k for k in matrix() if here[0] in k.machines and here[1] == k.system]
    by_key = {kernel_key(kernel): kernel for kernel in kernels}
    parts = made_from(kernels)

    @dg.multi_asset(
        name="kernels",
        specs=[_spec(kernel, parts[kernel.name]) for kernel in kernels],
        can_subset=True,
        pool="build",
    )
    def bundles(context: dg.AssetExecutionContext, order: Order) -> Iterator[Result]:
        with explained():
            named = order.kernels_of([kernel.name for kernel in kernels])
            chosen = {key for key in context.selected_asset_keys if by_key[key].name in named}
            wanted = [key for key in by_key if key in chosen]
            mint = order.mint(context)
            report_pin(context.instance)
            made = build_kernels(mint.home, mint.store, [by_key[k] for k in wanted], mint.report)
            for key, bundle in zip(wanted, made, strict=True):
                yield finished(context, key, bundle.tree.sha256, kernel_metadata(bundle))

    return bundles


def _spec(kernel: Kernel, parts: Mapping[str, object]) -> dg.AssetSpec:
    made = made_with("kernel", **parts)
    return dg.AssetSpec(
        kernel_key(kernel),
        deps=[LLAMA_CPP_KEY],
        group_name="kernels",
        description=f"llama.cpp's tools and libraries with the `{kernel.name}` kernel alone.",
        code_version=made.version,
        skippable=True,
        kinds={"cplusplus", "cmake", "ninja"},
        automation_condition=REBUILD,
        tags={"quantmint/kernel": kernel.name, "quantmint/kind": kernel.kind},
        owners=OWNERS,
        metadata={
            **made.metadata,
            "needs": ", ".join([*kernel.run.cpu, *kernel.run.needs]) or "nothing",
            "machine": ", ".join(kernel.machines),
        },
    )


def assay_key(kernel: Kernel) -> dg.AssetKey:
    """Return the asset key of a kernel's assay."""
    return dg.AssetKey(["kernels", f"{kernel.name}_assay"])


def kernel_assays() -> dg.AssetsDefinition:
    """Return the assay of every kernel that this machine can run, as one step."""
    reference = reference_kernel()
    here = [k for k in matrix() if not k.lacking(machine_name(), cpu_flags(), system_name())]
    kernels = [k for k in here if k.kind == "cpu" or runs_here(k)]
    by_key = {assay_key(kernel): kernel for kernel in kernels}

    @dg.multi_asset(
        name="kernel_assays",
        specs=[_assay_spec(kernel, reference) for kernel in kernels],
        check_specs=[
            dg.AssetCheckSpec(
                AGREEMENT,
                asset=key,
                blocking=True,
                description=f"Logits of every quant type as kernel {reference.name}'s.",
            )
            for key in by_key
        ],
        can_subset=True,
        pool="bench",
    )
    def assays(context: dg.AssetExecutionContext, order: Order) -> Iterator[Made]:
        with explained():
            named = order.kernels_of([kernel.name for kernel in matrix()])
            chosen = {key for key in meant(context) if by_key[key].name in named}
            wanted = [key for key in by_key if key in chosen]
            mint = order.mint(context)
            plain = bundle_of(mint, reference)
            for key in wanted:
                bundle = bundle_of(mint, by_key[key])
                layers = by_key[key].force.gpu_layers
                found = assay_kernel(mint, bundle, plain, gpu_layers=layers)
                blob = keep(mint, found)
                checks = [check_result(key, found.verdict)]
                shown = kernel_assay_metadata(found, blob)
                yield from results(context, key, blob.sha256, shown, checks)

    return assays


def _assay_spec(kernel: Kernel, reference: Kernel) -> dg.AssetSpec:
    made = made_with("kernel_assay", types=TYPES)
    return dg.AssetSpec(
        assay_key(kernel),
        deps={kernel_key(kernel), kernel_key(reference)},
        group_name="kernels",
        description=f"Kernel `{kernel.name}` against `{reference.name}` on a small model: logits "
        "of every quant type, determinism, speed.",
        code_version=made.version,
        metadata=made.metadata,
        skippable=True,
        kinds={"gguf", "assay"},
        automation_condition=REBUILD,
        tags={"quantmint/kernel": kernel.name},
        owners=OWNERS,
    )
