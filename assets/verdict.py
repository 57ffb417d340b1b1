"""What a check says of exact bytes, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantmint.assets.mint import Mint
from quantmint.errors import BuildError, IntegrityError
from quantmint.registry.actions import Action, Outcome, perform


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check: its reason names the value, the threshold and what to do."""

    check: str
    passed: bool
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def judge(mint: Mint, action: Action, test: Callable[[], tuple[str, Mapping[str, Any]]]) -> Verdict:
    """Run `test` on bytes that were not judged before; it returns a reason and facts, or raises.

    Only a pass is remembered: a child that ran out of memory today may pass tomorrow.
    """

    def make() -> Outcome:
        reason, facts = test()
        return Outcome(facts={"reason": reason, "facts": dict(facts)})

    try:
        outcome = perform(mint.store, action, make)
    except (IntegrityError, BuildError) as error:
        return Verdict(action.name, False, str(error))
    return Verdict(action.name, True, str(outcome.facts["reason"]), outcome.facts["facts"])
