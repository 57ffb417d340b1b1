"""The assay: each variant on each kernel, with its gates, and the report of the model."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from quantmint.assets.assay.bench import open_bench, tasks_digest
from quantmint.assets.assay.record import Assayed, load
from quantmint.assets.assay.stage import AGREEMENT, LOADS, QUALITY_CHECKS, Assay, assay
from quantmint.assets.graph.conversion import fp16_record
from quantmint.assets.graph.imatrix import LEAF
from quantmint.assets.graph.line import (
    OWNERS,
    Line,
    build_of,
    bundle_of,
    check_result,
    explained,
    kernel_key,
    last_metadata,
    logs,
    upstream,
)
from quantmint.assets.graph.made_with import Made, Result, finished, made_with, meant, results
from quantmint.assets.graph.order import Order
from quantmint.assets.mint import Mint
from quantmint.assets.planned import HEADER, check_header
from quantmint.assets.regression import REGRESSION, basis_of, pin_of, watch
from quantmint.assets.report.files import show_report, write_report
from quantmint.assets.report.graph import assay_metadata, report_metadata
from quantmint.assets.report.mlflow_log import log_report
from quantmint.assets.report.model import About, build_report
from quantmint.assets.sources.text_file import text_digest
from quantmint.assets.variants import Struck, struck_before
from quantmint.assets.verdict import Verdict
from quantmint.native.build import Bundle
from quantmint.native.kernels import Kernel, reference_kernel
from quantmint.native.pin import current_pin

CHECK_TEXT = {
    HEADER: "Well-formed and as planned when it was struck.",
    LOADS: "Loads and runs on this kernel; every logit is a number.",
    "divergence": "Perplexity, KL divergence and likeliest token close to FP16's, at each context.",
    "tasks": "No loss of multiple-choice accuracy beyond chance and bound.",
    "chat": "Answers with words, does not loop, ends its turn where FP16 does.",
    AGREEMENT: "Logits equal to the reference kernel's within the bound.",
    REGRESSION: "Not worse, beyond its error bar, than what was measured before.",
}
REPORT = "report"


def needs_reference(line: Line) -> bool:
    """Return whether there are several kernels, so that they are compared with the reference."""
    return len(line.kernels) > 1


def checks_on(line: Line, kernel: Kernel) -> list[str]:
    """Return the names of the checks of a variant on that kernel."""
    names = [HEADER, *(QUALITY_CHECKS if kernel.name == line.kernel.name else [LOADS])]
    compared = needs_reference(line) and kernel.name != reference_kernel().name
    return [*names, *([AGREEMENT] if compared else []), REGRESSION]


def assay_assets(line: Line) -> dg.AssetsDefinition:
    """Return every (variant, kernel) of a model as one step that shares FP16's logits."""
    recipe = line.recipe
    parts = _parts(line)
    specs = [
        _spec(line, variant, kernel, parts)
        for variant in recipe.variants
        for kernel in line.kernels
    ]
    checks = [
        dg.AssetCheckSpec(
            name, asset=line.on(variant, kernel), blocking=True, description=CHECK_TEXT[name]
        )
        for variant in recipe.variants
        for kernel in line.kernels
        for name in checks_on(line, kernel)
    ]

    @dg.multi_asset(
        name=line.group.replace("/", "__") + "__assay",
        specs=[*specs, _report_spec(line, [spec.key for spec in specs])],
        check_specs=checks,
        can_subset=True,
        pool="bench",
    )
    def assays(context: dg.AssetExecutionContext, order: Order) -> Iterator[Made]:
        with explained():
            mint = order.mint(context)
            wanted = {
                line.on(variant, kernel)
                for variant in recipe.variants
                for kernel in line.kernels
                if order.wants_variant(line, variant) and order.wants_kernel(line, kernel.name)
            }
            yield from _assay(context, line, mint, wanted & meant(context))
            if line.key(REPORT) in context.selected_asset_keys:
                yield report_of(context, line, mint)

    return assays


def _report_spec(line: Line, deps: Sequence[dg.AssetKey]) -> dg.AssetSpec:
    made = made_with(REPORT, title=line.recipe.title)
    return dg.AssetSpec(
        line.key(REPORT),
        deps=deps,
        group_name=line.group,
        description=f"Everything measured of {line.recipe.title}: tables, plots, what is withheld.",
        code_version=made.version,
        metadata=made.metadata,
        skippable=True,
        kinds={"markdown", "html"},
        owners=OWNERS,
    )


def _spec(line: Line, variant: str, kernel: Kernel, parts: Mapping[str, object]) -> dg.AssetSpec:
    recipe = line.recipe
    deps = [line.key(variant), line.key("fp16_gguf"), kernel_key(kernel)]
    if needs_reference(line) and kernel.name != reference_kernel().name:
        deps.append(kernel_key(reference_kernel()))
    made = made_with("assay", **parts, kernel=kernel.name)
    return dg.AssetSpec(
        line.on(variant, kernel),
        deps=deps,
        group_name=line.group,
        description=f"`{recipe.file_name(variant)}` measured and judged on kernel {kernel.name}.",
        code_version=made.version,
        metadata=made.metadata,
        skippable=True,
        kinds={"gguf", "assay"},
        tags={"quantmint/variant": variant, "quantmint/kernel": kernel.name},
        owners=OWNERS,
    )


def _parts(line: Line) -> dict[str, object]:
    """Return what the assays of a model are made with, whatever the kernel."""
    recipe = line.recipe
    return {
        "assay": recipe.assay.model_dump(exclude={"kernels"}),
        "gates": recipe.gates.model_dump(exclude={"max_source_nmse", "min_source_top1"}),
        "text_sha256": text_digest(recipe.assay.text, line.base, "assay"),
        "tasks_sha256": tasks_digest() if recipe.assay.tasks else None,
    }


def _assay(
    context: dg.AssetExecutionContext, line: Line, mint: Mint, wanted: AbstractSet[dg.AssetKey]
) -> Iterator[Made]:
    kernels = [k for k in line.kernels if any(line.on(v, k) in wanted for v in _variants(line))]
    bundles = [bundle_of(mint, kernel) for kernel in kernels]
    best = bundle_of(mint, line.kernel)
    reference = bundle_of(mint, reference_kernel()) if needs_reference(line) else None
    fp16 = fp16_record(context, line, mint, best)
    lineage = lineage_of(context, line)
    bench = open_bench(mint, line.recipe, line.base, fp16, best, lineage=lineage)
    chosen = [v for v in _variants(line) if any(line.on(v, k) in wanted for k in kernels)]
    struck = [_struck(context, line, mint, variant) for variant in chosen]
    planned = {s.variant: check_header(line.recipe, s, fp16) for s in struck}

    def watched(record: Assayed) -> Verdict:
        return watch(mint.store, record, pin_of(record), basis_of(record))

    for made in assay(bench, struck, bundles, reference, planned, watch=watched):
        kernel = _named(bundles, made)
        key = line.on(made.record.variant, kernel)
        if made.record.kernel == line.kernel.name:
            _show(mint, made)
        if key in wanted:
            shown = assay_metadata(made.record, made.blob, _visible(mint, made))
            checks = [check_result(key, v) for v in _verdicts(line, kernel, made)]
            yield from results(context, key, made.blob.sha256, shown | logs(mint, line), checks)


def _verdicts(line: Line, kernel: Kernel, made: Assay) -> list[Verdict]:
    """Return a verdict for every check; those after a refusal were not made."""
    given = {verdict.check: verdict for verdict in made.record.verdicts}
    return [
        given.get(name) or Verdict(name, False, "not checked: refused before", made=False)
        for name in checks_on(line, kernel)
    ]


def lineage_of(context: dg.AssetExecutionContext, line: Line) -> dict[str, str]:
    """Return llama.cpp's commit and the digests of the source and of the calibration text."""
    found = {
        "llama_cpp": current_pin().commit,
        "source": str(upstream(context, line.key("source_weights"))["sha256"]),
    }
    if line.recipe.imatrix is not None:
        found["calibration"] = str(upstream(context, line.key(LEAF))["text_sha256"])
    return found


def report_of(context: dg.AssetExecutionContext, line: Line, mint: Mint) -> Result:
    """Write the report of all that was measured, in this run or before."""
    keys = [line.on(variant, kernel) for variant in _variants(line) for kernel in line.kernels]
    found = [last_metadata(context.instance, key) for key in keys]
    records = [load(mint.store, mint.store.find(str(m["sha256"]))) for m in found if m is not None]
    report = build_report(records, _about(context, line))
    files = write_report(mint.store, report)
    folder = mint.home.models / line.recipe.model
    show_report(mint.store, files, folder)
    tracked = log_report(mint.home, mint.store, report, files, build_of(context))
    link = {"mlflow_run": dg.MetadataValue.url(tracked.url)} if tracked else {}
    shown = report_metadata(report, files, mint.store, folder) | link
    return finished(context, line.key(REPORT), files["report.json"].sha256, shown)


def _about(context: dg.AssetExecutionContext, line: Line) -> About:
    source = upstream(context, line.key("source_weights"))
    fp16 = upstream(context, line.key("fp16_gguf"))
    matrix = upstream(context, line.key(LEAF)) if line.recipe.imatrix is not None else {}
    pin = current_pin()
    return About(
        title=line.recipe.title,
        kernel=line.kernel.name,
        source=line.recipe.source.shown,
        origin=str(source["origin"]),
        commit=str(source["commit"]),
        source_sha256=str(source["sha256"]),
        fp16_size=int(fp16["size"]),
        llama_cpp=pin.commit,
        llama_cpp_release=f"{pin.package} {pin.version}",
        date=datetime.now(UTC).date().isoformat(),
        build=build_of(context),
        calibration=str(matrix["text_sha256"]) if matrix else None,
        imatrix=str(matrix["sha256"]) if matrix else None,
    )


def _visible(mint: Mint, made: Assay) -> Path:
    """Return where the models folder holds the file, if it passed."""
    return mint.home.models / made.record.model / made.record.file


def _show(mint: Mint, made: Assay) -> None:
    """Let the models folder hold the file if it passed, and not if it did not."""
    record, path = made.record, _visible(mint, made)
    if record.withheld:
        path.unlink(missing_ok=True)
    else:
        mint.store.link(mint.store.find(record.digests["gguf"]), path)


def _variants(line: Line) -> Sequence[str]:
    return line.recipe.variants


def _named(bundles: Sequence[Bundle], made: Assay) -> Kernel:
    return next(b.kernel for b in bundles if b.kernel.name == made.record.kernel)


def _struck(context: dg.AssetExecutionContext, line: Line, mint: Mint, variant: str) -> Struck:
    found = upstream(context, line.key(variant))
    return struck_before(mint.store, variant, found)
