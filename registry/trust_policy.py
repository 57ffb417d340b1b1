"""Whom a home trusts, for what, and how far each model's releases were seen: values, no files.

`trust_root` reads and writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.signing.ed25519 import PublicKey

ANY: Final = "*"
_SCOPE_PART: Final = re.compile(r"\*|[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A key that counts for the models in its scopes: `*`, `owner/*`, `*/model`, `owner/model`."""

    key: PublicKey
    scopes: tuple[str, ...]
    label: str = ""

    def covers(self, identity: str) -> bool:
        """Return whether the key counts for `publisher/model`."""
        return any(_matches(scope, identity) for scope in self.scopes)

    def names(self, identity: str) -> bool:
        """Return whether the key was trusted for just this publisher or model."""
        return any(scope != ANY and _matches(scope, identity) for scope in self.scopes)


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest release of a model that was accepted, and what it said not to use."""

    release: int
    manifest_sha256: str
    yanked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """What was decided and seen so far; verification reads this and touches no file."""

    trusted: Mapping[str, Trusted] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    withdrawn: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def must_be_signed(self, model: str, publisher: str | None = None) -> bool:
        """Return whether an unsigned release of a model must be refused, even without `--strict`.

        So it is once a signed release was accepted, or a key was trusted for just this publisher
        or model: else whoever serves the files could simply leave the signature away. Without a
        publisher, whether it is so for anybody's model of that name.
        """
        if publisher is None:
            scopes = [scope for trusted in self.trusted.values() for scope in trusted.scopes]
            return model in {name.partition("/")[2] for name in (*scopes, *self.seen)}
        identity = f"{publisher}/{model}"
        named = any(trusted.names(identity) for trusted in self.trusted.values())
        return named or folded(identity) in self.seen

    def withdrawn_of(self, identity: str) -> Mapping[str, str]:
        """Return the digests of withdrawn files of `publisher/model`, and what was said of each."""
        return self.withdrawn.get(folded(identity), {})

    def last_seen(self, identity: str) -> Seen | None:
        """Return the highest accepted release of `publisher/model`."""
        return self.seen.get(folded(identity))


def check_scope(text: str) -> str:
    """Return a scope in its full form; `model` alone means `*/model`.

    Raises:
        UserError: it is outside the grammar.
    """
    scope = text if "/" in text or text == ANY else f"{ANY}/{text}"
    parts = scope.split("/")
    if len(scope) > 200 or len(parts) > 2 or any(_SCOPE_PART.fullmatch(p) is None for p in parts):
        raise UserError(
            f"{text[:80]!r} is no scope of a key",
            mend="write --for owner/model, --for 'owner/*', --for model or --for '*'",
        )
    return ANY if scope == f"{ANY}/{ANY}" else scope


def two_faces(identity: str, release: int) -> IntegrityError:
    """Return the error for two manifests that both claim to be the same release."""
    return IntegrityError(
        f"{identity} release {release} was accepted before with other content: one of the two is"
        " not the publisher's, or a number was used twice",
        mend="ask the publisher which sha256 its quantmint.json has",
    )


def _matches(scope: str, identity: str) -> bool:
    if scope == ANY:
        return True
    owner, _, model = scope.partition("/")
    publisher, _, name = identity.partition("/")
    return owner in {ANY, publisher} and model in {ANY, name}


def folded(identity: str) -> str:
    """Owners that differ by case alone are one on the Hub, and one folder on many disks."""
    return identity.lower()
