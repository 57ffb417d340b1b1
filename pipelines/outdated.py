"""What is out of date of the models that were built here, after a look at their upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from quantmint.assets.graph.upstream import UPSTREAM, last_look, look_at, tell
from quantmint.errors import SourceError
from quantmint.home import Home
from quantmint.pipelines.assembly import build_definitions, line_of
from quantmint.pipelines.build import wanted_keys
from quantmint.pipelines.instance import open_instance
from quantmint.pipelines.planning import place_in_line
from quantmint.pipelines.spec import Model
from quantmint.pipelines.stale import last_of, stale
from quantmint.registry.store import Store


@dataclass(frozen=True, slots=True)
class Late:
    """One asset that is out of date; if not `certain`, it depends on those before it."""

    asset: str
    why: str
    certain: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A model that was built here: its upstream's commit, and what is out of date.

    `blind` says why the upstream could not be looked at; then its last look counts.
    """

    model: str
    commit: str
    late: tuple[Late, ...]
    blind: str = ""


def built_standing(home: Home, models: Sequence[Model]) -> list[Standing]:
    """Look at the upstreams of those models of which anything was built, and compare."""
    if not (home.dagster / "dagster.yaml").is_file():
        return []
    with open_instance(home) as instance:
        return [_standing(home, instance, model) for model in models if _is_built(instance, model)]


def _is_built(instance: dg.DagsterInstance, model: Model) -> bool:
    key = line_of(model).key("source_weights")
    return bool(last_of(instance, [key]))


def _standing(home: Home, instance: dg.DagsterInstance, model: Model) -> Standing:
    line, blind = line_of(model), ""
    try:
        tell(instance, look_at(line, remote=True))
    except SourceError as error:
        blind = error.what
    wanted = wanted_keys(line, ())
    every = stale(build_definitions([model]), instance, Store(home.store), {})
    keys = sorted((key for key in every if key in wanted), key=lambda k: place_in_line(line, k))
    late = [Late(k.to_user_string(), every[k].text, every[k].certain) for k in keys]
    seen = last_look(instance, line.key(UPSTREAM))
    return Standing(model.spec.model, seen.commit if seen else "", tuple(late), blind)
