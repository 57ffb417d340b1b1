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
    """The outcome of one check: its reason names the value, the threshold and what to do.

    A check that could not be made (`made` is false) did not pass either, and its reason says what
    is missing: it is no reason to withhold, and none to be silent.
    """

    check: str
    passed: bool
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    made: bool = True

    @property
    def refuses(self) -> bool:
        """Whether the bytes may not be used: the check was made, and failed."""
        return self.made and not self.passed


class NotMadeError(Exception):
    """A check can't be made here; the text says why."""


def judge(mint: Mint, action: Action, test: Callable[[], tuple[str, Mapping[str, Any]]]) -> Verdict:
    """Run `test` on bytes that were not judged before; it returns a reason and facts, or raises.

    Only a pass is remembered: a child that ran out of memory today may pass tomorrow.
    """

    def make() -> Outcome:
        reason, facts = test()
        return Outcome(facts={"reason": reason, "facts": dict(facts)})

    try:
        outcome = perform(mint.store, action, make)
    except NotMadeError as why:
        return Verdict(action.name, False, f"not checked: {why}", made=False)
    except (IntegrityError, BuildError) as error:
        return Verdict(action.name, False, str(error))
    return Verdict(action.name, True, str(outcome.facts["reason"]), outcome.facts["facts"])
