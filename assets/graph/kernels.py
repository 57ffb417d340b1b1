"""llama.cpp's pin and the kernels built from it."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Iterator

import dagster as dg

from quantmint.assets.graph.line import (
    OWNERS,
    Result,
    bundle_of,
    check_result,
    explained,
    kernel_key,
    reporter,
    version,
)
from quantmint.assets.kernel_assay import AGREEMENT, TYPES, assay_kernel, keep
from quantmint.assets.mint import open_mint
from quantmint.assets.report.graph import kernel_assay_metadata, kernel_metadata
from quantmint.native.build import build_kernels, kernel_identity
from quantmint.native.kernels import (
    Kernel,
    cpu_flags,
    machine_name,
    matrix,
    missing_here,
    reference_kernel,
    system_name,
)
from quantmint.native.pin import current_pin

LLAMA_CPP_KEY = dg.AssetKey(["upstream", "llama_cpp"])


def llama_cpp_spec() -> dg.AssetSpec:
    """Return the pinned llama.cpp as an upstream of the graph."""
    pin = current_pin()
    return dg.AssetSpec(
        LLAMA_CPP_KEY,
        group_name="upstream",
        description=f"llama.cpp at commit `{pin.commit}`, out of {pin.package} {pin.version}.",
        metadata={"sha256": pin.sha256, "package": pin.package, "version": pin.version},
        kinds={"cplusplus", "github"},
        owners=OWNERS,
    )


def kernel_assets() -> dg.AssetsDefinition:
    """Return every kernel of this kind of machine, as one step that can make any of them."""
    here = (machine_name(), system_name())
    kernels = [k for k in matrix() if here[0] in k.machines and here[1] == k.system]
    by_key = {kernel_key(kernel): kernel for kernel in kernels}

    @dg.multi_asset(
        name="kernels",
        specs=[_spec(kernel) for kernel in kernels],
        can_subset=True,
        pool="build",
    )
    def bundles(context: dg.AssetExecutionContext) -> Iterator[Result]:
        wanted = [key for key in by_key if key in context.selected_asset_keys]
        with explained():
            mint = open_mint(reporter(context))
            made = build_kernels(mint.home, mint.store, [by_key[k] for k in wanted], mint.report)
            for key, bundle in zip(wanted, made, strict=True):
                yield dg.MaterializeResult(
                    asset_key=key,
                    data_version=dg.DataVersion(bundle.tree.sha256),
                    metadata=kernel_metadata(bundle),
                )

    return bundles


def _spec(kernel: Kernel) -> dg.AssetSpec:
    return dg.AssetSpec(
        kernel_key(kernel),
        deps=[LLAMA_CPP_KEY],
        group_name="kernels",
        description=f"llama.cpp's tools and libraries with the `{kernel.name}` kernel alone.",
        code_version=version("kernel", kernel_identity(kernel)),
        skippable=True,
        kinds={"cplusplus", "cmake", "ninja"},
        tags={"quantmint/kernel": kernel.name, "quantmint/kind": kernel.kind},
        owners=OWNERS,
        metadata={
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
    kernels = [k for k in here if k.kind == "cpu" or not missing_here(k)]
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
    def assays(context: dg.AssetExecutionContext) -> Iterator[Result]:
        wanted = [key for key in by_key if key in context.selected_asset_keys]
        with explained():
            mint = open_mint(reporter(context))
            plain = bundle_of(mint, reference)
            for key in wanted:
                bundle = bundle_of(mint, by_key[key])
                layers = by_key[key].force.gpu_layers
                found = assay_kernel(mint, bundle, plain, gpu_layers=layers)
                blob = keep(mint, found)
                yield dg.MaterializeResult(
                    asset_key=key,
                    data_version=dg.DataVersion(blob.sha256),
                    metadata=kernel_assay_metadata(found, blob),
                    check_results=[check_result(key, found.verdict)],
                )

    return assays


def _assay_spec(kernel: Kernel, reference: Kernel) -> dg.AssetSpec:
    return dg.AssetSpec(
        assay_key(kernel),
        deps={kernel_key(kernel), kernel_key(reference)},
        group_name="kernels",
        description=f"Kernel `{kernel.name}` against `{reference.name}` on a small model: logits "
        "of every quant type, determinism, speed.",
        code_version=version("kernel_assay", TYPES),
        skippable=True,
        kinds={"gguf", "assay"},
        tags={"quantmint/kernel": kernel.name},
        owners=OWNERS,
    )
