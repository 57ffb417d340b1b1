"""Withdrawing a release: said at the target, remembered here, repeated by every later release."""

from __future__ import annotations

from quantmint.assets.mint import Mint
from quantmint.assets.release.history import local_releases, tag_of
from quantmint.assets.release.publishing import signing_key, status_signer
from quantmint.assets.release.terms import Terms
from quantmint.registry.publish import Options, Published, Target, yank
from quantmint.registry.refs import put_ref


def withdraw(
    mint: Mint, model: str, terms: Terms, target: Target, *, number: int, reason: str
) -> Published:
    """Withdraw release `number` of a model.

    Raises:
        UserError: there is no such release, or no reason was given.
        RegistryError: the registry refused or failed.
    """
    key = signing_key(mint, terms.key)
    plain = " ".join(reason.split())
    options = Options(work=mint.home.work, report=mint.report, sign=status_signer(key))
    done = yank(tag_of(number), target, reason=plain, options=options)
    for local in local_releases(mint.store, model, terms.owner):
        if local.manifest.release == number and not local.is_yanked:
            put_ref(
                mint.store, model, local.ref.release, local.ref.objects,
                body={**local.ref.body, "yanked": plain}, expected=local.ref.revision,
            )  # fmt: skip
    return done
