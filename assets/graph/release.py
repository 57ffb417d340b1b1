"""The release of a model, where its model file declares one: downstream of every assay."""

# No postponed annotations here: Dagster reads the type of `context` when an asset is defined.
import dagster as dg

from quantmint.assets.graph.line import OWNERS, PATIENCE, Line, build_of, explained, reporter
from quantmint.assets.graph.made_with import Result, finished, made_with
from quantmint.assets.mint import open_mint
from quantmint.assets.release.terms import Terms

RELEASE = "release"


class ReleaseConfig(dg.Config):
    """What one run may ask: another target than the model file's, a private repository.

    `replace` lets files go that somebody else put there, `restore` brings an older release back.
    """

    to: str = ""
    private: bool = False
    replace: bool = False
    restore: bool = False


def release_asset(line: Line, terms: Terms) -> dg.AssetsDefinition:
    """Return the asset that publishes what passed, and nothing else."""
    recipe = line.recipe
    where = terms.hub or f"file:{terms.path}"
    key = line.key(RELEASE)
    made = made_with(
        RELEASE, gates=recipe.gates.model_dump(), release=terms.model_dump(mode="json")
    )

    @dg.asset(
        key=key,
        deps=[
            *(line.key(variant) for variant in recipe.variants),
            *(line.on(variant, k) for variant in recipe.variants for k in line.kernels),
        ],
        group_name=line.group,
        description=f"What passed, signed and published to `{where}`. Records are read and judged "
        "again: a variant counts only if exactly its bytes were tested.",
        code_version=made.version,
        metadata=made.metadata,
        kinds={"huggingface", "signed"} if terms.hub else {"file", "signed"},
        owners=OWNERS,
        pool="network",
        retry_policy=PATIENCE,
    )
    def published(context: dg.AssetExecutionContext, config: ReleaseConfig) -> Result:
        # All that publishing needs is loaded by who publishes, not whenever the graph is.
        from quantmint.assets.graph import releasing
        from quantmint.assets.release.publishing import Asked, release
        from quantmint.assets.release.tracking import track
        from quantmint.registry.publish import open_target

        with explained():
            mint = open_mint(reporter(context))
            inputs = releasing.read_inputs(
                context.instance, line, terms, mint, run=build_of(context)
            )
            asked = Asked(private=config.private, replace=config.replace, restore=config.restore)
            target = open_target(terms.place(config.to, line.base), report=mint.report)
            done = release(mint, inputs, target, asked)
            tracked = track(mint, done)
        shown = releasing.release_metadata(done, tracked=tracked)
        return finished(context, key, done.manifest_blob.sha256, shown)

    return published
