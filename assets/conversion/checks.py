"""All conversion checks of a model, in the order in which a failure says most."""

from __future__ import annotations

from typing import Final

from quantmint.assets.conversion import logits, template, tokens, weights
from quantmint.assets.convert import Converted
from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.source import SourceWeights
from quantmint.assets.verdict import Verdict
from quantmint.native.build import Bundle

CHECKS: Final = {
    tokens.CHECK: "Token ids equal those of the source's own tokenizer on a hostile corpus.",
    template.CHECK: "The chat template is the source's, and renders to the same text and tokens.",
    weights.CHECK: "Every tensor is the source's, rounded to 16 bits; so are the rotary settings.",
    logits.CHECK: "Logits equal those of transformers on the same tokens, within rounding.",
}


def check_conversion(
    mint: Mint, recipe: Recipe, source: SourceWeights, made: Converted, bundle: Bundle
) -> tuple[Verdict, ...]:
    """Make every check of the FP16 file against its source; one verdict for each of `CHECKS`.

    With a tokenizer that is refused, what is made of tokens says nothing.
    """
    tokenizer = tokens.check_tokens(mint, recipe, source, made, bundle)
    same = weights.check_weights(mint, recipe, source, made)
    if tokenizer.refuses:
        skipped = "not checked: the tokenizer is refused"
        rest = (
            Verdict(name, False, skipped, made=False) for name in (template.CHECK, logits.CHECK)
        )
        return (tokenizer, next(rest), same, next(rest))
    return (
        tokenizer,
        template.check_template(mint, recipe, source, made, bundle),
        same,
        logits.check_logits(mint, recipe, source, made, bundle),
    )
