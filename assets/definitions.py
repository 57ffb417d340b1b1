"""The thin Dagster assets over the stages. What is computed lives in the stages' own modules."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from quantmint.assets import tracking
from quantmint.assets.convert import Converted, converter_identity, make_fp16
from quantmint.assets.mint import Mint, open_mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.report import (
    fp16_entry,
    fp16_metadata,
    kernel_metadata,
    source_entry,
    source_metadata,
    variant_entry,
    variant_metadata,
)
from quantmint.assets.smoke import (
    CHECKS,
    Bench,
    assay_text,
    check_chat,
    check_header,
    check_perplexity,
    speed,
)
from quantmint.assets.source import SourceWeights, fetch_source, fingerprint
from quantmint.assets.tokens import check_tokens
from quantmint.assets.variants import strike_variants
from quantmint.assets.verdict import Verdict
from quantmint.errors import IntegrityError, QuantmintError, UserError
from quantmint.files import digest_of
from quantmint.native.build import OPTIONS, TOOLS, Bundle, build_kernel, quantizer_digest
from quantmint.native.kernels import (
    Kernel,
    choose,
    cpu_flags,
    host_kernel,
    kernel_named,
    machine_name,
)
from quantmint.native.pin import current_pin
from quantmint.registry import gguf

# Dagster recognizes the bare class alone as the annotation of an asset that also has checks.
if TYPE_CHECKING:
    Result = dg.MaterializeResult[Any]
else:
    Result = dg.MaterializeResult
OWNERS: Final = ["team:mint"]
# Raise a stage's number when the stage itself makes something else of the same inputs.
STAGE_VERSIONS: Final = {"source": 1, "fp16": 1, "variant": 1, "kernel": 1}
LLAMA_CPP_KEY: Final = dg.AssetKey(["upstream", "llama_cpp"])


@dataclass(frozen=True, slots=True)
class Line:
    """One model's line: its recipe, and the folder that its relative paths start from."""

    recipe: Recipe
    base: Path

    @property
    def group(self) -> str:
        """The group in Dagster's graph."""
        return "models/" + self.recipe.model.replace("-", "_").replace(".", "_")

    def key(self, leaf: str) -> dg.AssetKey:
        """Return the asset key of one artifact of this model."""
        return dg.AssetKey([self.recipe.model, leaf])


def kernel_key(kernel: Kernel) -> dg.AssetKey:
    """Return the asset key of a kernel's bundle."""
    return dg.AssetKey(["kernels", kernel.name])


def version(stage: str, *parts: object) -> str:
    """Return a code version: it changes with the stage's own number and with `parts`."""
    return digest_of([stage, STAGE_VERSIONS[stage], *parts])[:16]


@contextmanager
def explained() -> Iterator[None]:
    """Show our errors on the run page as they are; retrying would not mend them."""
    try:
        yield
    except QuantmintError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


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


def kernel_asset(kernel: Kernel) -> dg.AssetsDefinition:
    """Return the asset that builds one kernel's bundle."""

    @dg.asset(
        key=kernel_key(kernel),
        deps=[LLAMA_CPP_KEY],
        group_name="kernels",
        description=f"llama.cpp's tools and libraries with the `{kernel.name}` CPU kernel alone.",
        code_version=version(
            "kernel", current_pin().sha256, quantizer_digest(), OPTIONS, TOOLS, kernel.target
        ),
        kinds={"cplusplus", "cmake", "ninja"},
        owners=OWNERS,
        metadata={"needs": ", ".join(kernel.cpu) or "nothing", "machine": kernel.machine},
        pool="build",
    )
    def kernel_bundle(context: dg.AssetExecutionContext) -> Result:
        with explained():
            mint = open_mint(_reporter(context))
            bundle = _bundle(mint, kernel)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(bundle.tree.sha256), metadata=kernel_metadata(bundle)
        )

    return kernel_bundle


def model_assets(line: Line) -> list[dg.AssetsDefinition]:
    """Return the assets of one model: source weights, FP16 GGUF and the variants."""
    return [_source_asset(line), _fp16_asset(line), _variant_assets(line)]


def model_kernel(recipe: Recipe) -> Kernel:
    """Return the kernel that the smoke tests run on: the last named one that runs here.

    Where none does, the last named one: the graph still loads, and its run says what is missing.
    """
    wanted = recipe.assay.kernels
    if wanted == "host":
        return host_kernel()
    named = [kernel_named(name) for name in wanted]
    here = [k for k in named if not k.lacking(machine_name(), cpu_flags())]
    return (here or named)[-1]


def _reporter(context: dg.AssetExecutionContext) -> Callable[[str], None]:
    """Report to the run page, and to whoever listens in this process (the command line does)."""

    def report(text: str) -> None:
        context.log.info(text)
        logging.getLogger("quantmint").info("%s", text)

    return report


def _bundle(mint: Mint, kernel: Kernel) -> Bundle:
    choose([kernel.name])
    return build_kernel(mint.home, mint.store, kernel, mint.report)


def _source_asset(line: Line) -> dg.AssetsDefinition:
    recipe = line.recipe
    source = recipe.source

    @dg.asset(
        key=line.key("source_weights"),
        group_name=line.group,
        description=f"The weights of {recipe.title} as their author published them: "
        f"`{source.model_dump(mode='json', exclude_defaults=True)}`.",
        code_version=version("source", source.model_dump(mode="json"), recipe.family),
        kinds={"huggingface"} if source.hub else {"file"},
        owners=OWNERS,
        pool="network",
    )
    def source_weights(context: dg.AssetExecutionContext) -> Result:
        with explained():
            mint = open_mint(_reporter(context))
            found = fetch_source(mint, recipe, line.base)
            tracked = _record(mint, line, context, source_entry(recipe, found))
        metadata = source_metadata(found) | {"fingerprint": fingerprint(recipe, line.base)}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(found.blob.sha256), metadata=metadata | tracked
        )

    return source_weights


def _fp16_asset(line: Line) -> dg.AssetsDefinition:
    recipe, kernel = line.recipe, model_kernel(line.recipe)
    key = line.key("fp16_gguf")

    @dg.asset(
        key=key,
        deps=[line.key("source_weights"), kernel_key(kernel)],
        group_name=line.group,
        description=f"{recipe.title} as a 16-bit GGUF file: what every variant is struck from.",
        code_version=version("fp16", converter_identity(), recipe.title),
        check_specs=[
            dg.AssetCheckSpec(
                "tokenizer",
                asset=key,
                blocking=True,
                description="Token ids equal those of the source's own tokenizer.",
            )
        ],
        kinds={"gguf"},
        owners=OWNERS,
        pool="cpu",
    )
    def fp16_gguf(context: dg.AssetExecutionContext) -> Result:
        with explained():
            mint = open_mint(_reporter(context))
            bundle = _bundle(mint, kernel)
            source = _source_record(context, line, mint)
            made = make_fp16(mint, recipe, source, bundle)
            verdict = check_tokens(mint, recipe, source, made, bundle)
            tracked = _record(mint, line, context, fp16_entry(made, verdict))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(made.blob.sha256),
            metadata=fp16_metadata(mint.store, made, source) | _logs(mint, line) | tracked,
            check_results=[_check_result(key, verdict)],
        )

    return fp16_gguf


def _variant_assets(line: Line) -> dg.AssetsDefinition:
    recipe, kernel = line.recipe, model_kernel(line.recipe)
    deps = [line.key("fp16_gguf"), kernel_key(kernel)]
    specs = [
        dg.AssetSpec(
            line.key(variant),
            deps=deps,
            group_name=line.group,
            description=f"`{recipe.file_name(variant)}`: {recipe.title} quantized to {variant}.",
            code_version=version(
                "variant", variant, recipe.assay.model_dump(), recipe.gates.model_dump()
            ),
            skippable=True,
            kinds={"gguf", "quantized"},
            tags={"quantmint/variant": variant},
            owners=OWNERS,
        )
        for variant in recipe.variants
    ]
    checks = [
        dg.AssetCheckSpec(
            name, asset=line.key(variant), blocking=True, description=CHECK_TEXT[name]
        )
        for variant in recipe.variants
        for name in CHECKS
    ]

    @dg.multi_asset(
        name=line.group.replace("/", "__") + "__variants",
        specs=specs,
        check_specs=checks,
        can_subset=True,
        pool="cpu",
    )
    def variants(context: dg.AssetExecutionContext) -> Iterator[Result]:
        wanted = [v for v in recipe.variants if line.key(v) in context.selected_asset_keys]
        with explained():
            yield from _make_variants(context, line, kernel, wanted)

    return variants


CHECK_TEXT: Final = {
    "header": "Well-formed, the FP16 file's tensors, no unexpected fallback type.",
    "chat": "Loads, answers a prompt in the model's own format, all logits finite.",
    "perplexity": "Perplexity on a held-out text within the bound of FP16's.",
}


def _make_variants(
    context: dg.AssetExecutionContext, line: Line, kernel: Kernel, wanted: Sequence[str]
) -> Iterator[Result]:
    recipe = line.recipe
    mint = open_mint(_reporter(context))
    bundle = _bundle(mint, kernel)
    fp16 = _fp16_record(context, line, mint, bundle)
    bench = Bench(mint=mint, recipe=recipe, text=assay_text(recipe, line.base), bundle=bundle)
    for struck in strike_variants(mint, recipe, fp16, bundle, wanted):
        verdicts = [check_header(recipe, struck, fp16)]
        verdicts += [check_chat(bench, struck), check_perplexity(bench, struck, fp16)]
        speeds = speed(bench, struck.variant, struck.blob) if verdicts[1].passed else None
        link = mint.home.models / recipe.model / recipe.file_name(struck.variant)
        mint.store.link(struck.blob, link)
        for verdict in verdicts:
            word = "passed" if verdict.passed else "FAILED"
            mint.report(f"{struck.variant}: {verdict.check} {word}: {verdict.reason}")
        tracked = _record(mint, line, context, variant_entry(struck, verdicts, speeds, kernel.name))
        key = line.key(struck.variant)
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(struck.blob.sha256),
            metadata=variant_metadata(struck, verdicts, speeds, link) | _logs(mint, line) | tracked,
            check_results=[_check_result(key, verdict) for verdict in verdicts],
        )


def _record(
    mint: Mint, line: Line, context: dg.AssetExecutionContext, entry: tracking.Entry
) -> dict[str, Any]:
    """Log to the build's MLflow run; return the link to it as metadata."""
    tracked = tracking.record(mint.home, line.recipe.model, context.run.run_id, entry)
    return {"mlflow_run": dg.MetadataValue.url(tracked.url)} if tracked else {}


def _logs(mint: Mint, line: Line) -> dict[str, Any]:
    """Return where the whole output of every tool of this model's line lies."""
    return {"logs": dg.MetadataValue.path(str(mint.home.logs / line.recipe.model))}


def _check_result(key: dg.AssetKey, verdict: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=verdict.check,
        passed=verdict.passed,
        description=verdict.reason,
        metadata={name: _plain(value) for name, value in verdict.facts.items()},
    )


def _plain(value: object) -> Any:  # noqa: ANN401
    return value if isinstance(value, str | int | float | bool) else str(value)


def last_metadata(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, Any] | None:
    """Return the values of an asset's latest materialization, or None if there is none."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def _upstream(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Mapping[str, Any]:
    found = last_metadata(context.instance, key)
    if found is None:
        raise UserError(
            f"{key.to_user_string()} was never materialized",
            mend=f"materialize it first, or run: quantmint build {key.path[0]}",
        )
    return found


def _source_record(context: dg.AssetExecutionContext, line: Line, mint: Mint) -> SourceWeights:
    found = _upstream(context, line.key("source_weights"))
    return SourceWeights(
        blob=mint.store.find(found["sha256"]),
        is_checkpoint=bool(found["is_checkpoint"]),
        architecture=str(found["architecture"]),
        weights=int(found["weights"]),
        commit=str(found["commit"]),
        size=int(found["size"]),
        origin=str(found["origin"]),
        cached=True,
    )


def _fp16_record(
    context: dg.AssetExecutionContext, line: Line, mint: Mint, bundle: Bundle
) -> Converted:
    """Return the FP16 file, if its check passed on exactly these bytes.

    Blocking checks hold back later steps of the same run alone; a run of the variants by
    themselves must not begin with a file that was refused.
    """
    found = _upstream(context, line.key("fp16_gguf"))
    blob = mint.store.find(found["sha256"])
    fp16 = Converted(blob, gguf.read(mint.store.path(blob.sha256)), cached=True)
    verdict = check_tokens(mint, line.recipe, _source_record(context, line, mint), fp16, bundle)
    if not verdict.passed:
        raise IntegrityError(
            f"no variant is struck: the FP16 file fails its tokenizer check: {verdict.reason}"
        )
    return fp16
