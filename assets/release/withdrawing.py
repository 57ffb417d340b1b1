"""Withdrawing a release: said at the target, remembered here, repeated by every later release."""

from __future__ import annotations

from dataclasses import dataclass

from quantmint.assets.mint import Mint
from quantmint.assets.recipe import Recipe
from quantmint.assets.release.history import amend, local_releases, tag_of
from quantmint.assets.release.publishing import signer_names, signing_key, status_signer
from quantmint.assets.release.terms import Terms
from quantmint.assets.report.mlflow_versions import mark_yanked, registered_name
from quantmint.registry.publish import Options, Published, Target, yank
from quantmint.registry.signing.status import status_believer
from quantmint.registry.trust_root import TrustRoot


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Which release is withdrawn and why; `variants` are those whose bytes are bad, else all."""

    number: int
    reason: str
    variants: tuple[str, ...] = ()


def withdraw(
    mint: Mint, recipe: Recipe, terms: Terms, target: Target, *, order: Withdrawal
) -> Published:
    """Withdraw a release of a model.

    Raises:
        UserError: there is no such release or variant, or no reason was given.
        RegistryError: the registry refused or failed.
    """
    keys = [signing_key(mint, name) for name in signer_names(terms)]
    plain = " ".join(order.reason.split())
    paths = [recipe.file_name(variant) for variant in order.variants]
    policy = TrustRoot(mint.home.keys).policy()
    options = Options(
        work=mint.home.work,
        report=mint.report,
        sign=status_signer(keys),
        believe=status_believer(policy, f"{terms.owner}/{recipe.model}"),
    )
    done = yank(
        tag_of(order.number), target, reason=plain, options=options, withdrawn=paths or None
    )
    model = recipe.model
    for local in local_releases(mint.store, model, terms.owner):
        if local.manifest.release == order.number and not local.is_yanked:
            amend(mint.store, local, yanked=plain)
    _tell_tracking(mint, recipe, terms, order.number, plain)
    return done


def _tell_tracking(mint: Mint, recipe: Recipe, terms: Terms, number: int, reason: str) -> None:
    """Take the alias `released` from what was withdrawn; the newest that still stands gets it."""
    left = [
        local.manifest
        for local in local_releases(mint.store, recipe.model, terms.owner)
        if local.published and not local.is_yanked and local.manifest.release != number
    ]
    newest = max(left, key=lambda manifest: manifest.release, default=None)
    variants = newest.variants if newest is not None else ()
    standing = {registered_name(recipe.model, v.variant): v.file.sha256 for v in variants}
    mark_yanked(mint.home, f"{terms.owner}/{recipe.model}@{number}", reason, standing)
