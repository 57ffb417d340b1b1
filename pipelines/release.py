"""Releasing a model from the command line: refuse what is out of date, then run the asset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from quantmint.assets.graph.line import MODEL_TAG, Line, last_metadata
from quantmint.assets.graph.release import RELEASE
from quantmint.assets.graph.releasing import read_inputs
from quantmint.assets.graph.upstream import local_looks
from quantmint.assets.mint import Mint, open_mint
from quantmint.assets.release.publishing import Asked, Released, release
from quantmint.assets.release.terms import FILE, HUB, Terms
from quantmint.assets.release.withdrawing import Withdrawal, withdraw
from quantmint.errors import BugError, UserError
from quantmint.home import find_home
from quantmint.pipelines.assembly import build_definitions, line_of
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.reaper import reap
from quantmint.pipelines.running import CheckRefused, run_assets
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import stale
from quantmint.registry.publish import Published, Target, open_target
from quantmint.registry.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks beside the model file."""

    to: str = ""
    private: bool = False
    replace: bool = False
    restore: bool = False
    key: str = ""


def with_terms(model: Model, order: Order) -> Model:
    """Return the model with its terms of release, those of the order before the model file's.

    Raises:
        UserError: neither says where a release goes, or it may not go there.
    """
    terms, to = model.spec.release, order.to
    if terms is None:
        if not to or to.startswith(FILE):
            raise UserError(
                f"the model file of {model.spec.model} has no `release:`, so nothing says where "
                "and under whose name it is released",
                mend="add `release: {hub: owner/name, license: mit}` (docs/releases.md)",
            )
        terms = Terms(hub=to.removeprefix(HUB))
    terms.place(to, model.base)
    if order.key:
        terms = terms.model_copy(update={"key": order.key})
    return Model(model.spec.model_copy(update={"release": terms}), model.file)


def place_of(model: Model, order: Order) -> str:
    """Return the target as `open_target` takes it."""
    assert model.spec.release is not None
    return model.spec.release.place(order.to, model.base)


def release_model(model: Model, order: Order) -> Mapping[str, Any]:
    """Publish the model through its `release` asset; return the asset's metadata.

    Raises:
        UserError: something is out of date, or the model file says too little.
        QuantmintError: whatever the release raised.
    """
    line = line_of(model)
    place = place_of(model, order)
    with open_instance(find_home()) as instance:
        reap(instance)
        defs = build_definitions([model])
        refuse_stale(defs, instance, model, line)
        key = line.key(RELEASE)
        asked = {"private": order.private, "replace": order.replace, "restore": order.restore}
        config = {"config": {"to": place, **asked}}
        try:
            ops = {key.to_python_identifier(): config}
            run_assets(defs, instance, [key], ops=ops, tags={MODEL_TAG: line.recipe.model})
        except CheckRefused as error:
            raise BugError(f"a check stands on the release itself: {error}") from None
        found = last_metadata(instance, key)
        if found is None:
            raise BugError("the release was made and left no record")
        return found


def rehearse(model: Model, order: Order) -> Released:
    """Do all that a release does, but for signing in the store's books and publishing.

    Raises:
        UserError, IntegrityError, RegistryError: what would keep it from being published.
    """
    line = line_of(model)
    assert model.spec.release is not None
    mint = _mint()
    target = _target(mint, place_of(model, order))
    with open_instance(find_home()) as instance:
        refuse_stale(build_definitions([model]), instance, model, line)
        inputs = read_inputs(instance, line, model.spec.release, mint, run="dry-run")
    return release(mint, inputs, target, Asked(private=order.private, dry_run=True))


def yank_release(model: Model, order: Order, withdrawal: Withdrawal) -> Published:
    """Withdraw a release of the model.

    Raises:
        UserError: there is no such release or variant, or no reason.
        RegistryError: the registry refused or failed.
    """
    assert model.spec.release is not None
    mint = _mint()
    target = _target(mint, place_of(model, order))
    return withdraw(mint, model.spec, model.spec.release, target, order=withdrawal)


def refuse_stale(
    defs: dg.Definitions, instance: dg.DagsterInstance, model: Model, line: Line
) -> None:
    """Refuse to release what a build would make anew.

    Raises:
        UserError: an asset is out of date; the message names it and why.
    """
    store = Store(find_home().store).open()
    wanted = wanted_keys(line, ())
    looks = local_looks(line)
    late = {k: r for k, r in stale(defs, instance, store, looks).items() if k in wanted}
    if late:
        key, reason = next(iter(late.items()))
        more = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
        raise UserError(
            f"{key.to_user_string()} is out of date: {reason.text}{more}; only what was tested "
            "as it is now is released",
            mend=f"quantmint build {model.spec.model}",
        )


def _mint() -> Mint:
    return open_mint(logging.getLogger("quantmint").info)


def _target(mint: Mint, place: str) -> Target:
    return open_target(place, report=mint.report)
