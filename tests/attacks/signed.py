"""Metadata that is old, another's, or not signed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from pulling import MODEL, REPO, Publisher, model_bytes, withdrawal
from quantmint.errors import IntegrityError, RegistryError
from quantmint.files import canonical_json
from quantmint.registry.publish.status import STATUS_TYPE
from quantmint.registry.pull.withdrawn import WithdrawnError
from quantmint.registry.signing.envelope import seal
from quantmint.registry.trust_root import TrustRoot

from . import ENVELOPE, MANIFEST, Q8, SIGNATURE, STATUS, Scene, attack


@attack(IntegrityError, "the registry went back in time")
def rollback(s: Scene) -> str:
    s.serve(s.first)
    return REPO


@attack(IntegrityError, "expired", strict=True)
def freeze(s: Scene) -> str:
    s.serve(s.third(days=-1))
    return REPO


@attack(IntegrityError, "accepted before with other content")
def two_faces_of_one_number(s: Scene) -> str:
    s.serve(s.publisher.files(2, {"Q8_0": model_bytes((7, 8, 9))}))
    return REPO


@attack(IntegrityError, "listed with other bytes than the manifest says", seen=True)
def models_of_another_release(s: Scene) -> str:
    third = s.third()
    s.serve({**third, Q8: s.second[Q8] + b"\0"})
    return REPO


@attack(IntegrityError, "serves the release of my-org/Other-GGUF")
def another_repositorys_release(s: Scene) -> str:
    s.serve(s.third(repository="my-org/Other-GGUF", model="other", title="Other"))
    return REPO


@attack(IntegrityError, "is of model 'other', where 'phi-3-nano' was asked for")
def another_models_release(s: Scene) -> str:
    s.serve(s.third(repository=None, model="other", title="Other"))
    os.environ["QUANTMINT_REGISTRY"] = f"hub:{REPO}"
    return MODEL


@attack(IntegrityError, "is not signed")
def the_signature_left_away(s: Scene) -> str:
    third = s.third()
    del third[ENVELOPE]
    s.serve(third)
    return REPO


@attack(IntegrityError, "is not signed by anybody who is trusted")
def the_manifest_left_away(s: Scene) -> str:
    s.serve({"other.gguf": model_bytes((9,))})
    return REPO


@attack(IntegrityError, "which nobody trusts")
def a_key_of_ones_own(s: Scene) -> str:
    stranger = Publisher(s.folder / "stranger")
    s.serve(stranger.files(3, {"Q8_0": model_bytes((7,))}))
    return REPO


@attack(IntegrityError, "is not signed by anybody who is trusted")
def a_stranger_under_another_publishers_name(s: Scene) -> str:
    stranger = Publisher(s.folder / "stranger")
    s.serve(stranger.files(3, {"Q8_0": model_bytes((7,))}, publisher="evil", repository=REPO))
    os.environ["QUANTMINT_REGISTRY"] = f"hub:{REPO}"
    return MODEL


@attack(IntegrityError, "is not trusted for my-org/phi-3-nano")
def a_trusted_key_of_somebody_else(s: Scene) -> str:
    other = Publisher(s.folder / "other")
    TrustRoot(s.home.keys).trust(other.key.public, ("other/*",))
    s.serve(other.files(3, {"Q8_0": model_bytes((7,))}))
    return REPO


@attack(IntegrityError, "which is revoked")
def a_revoked_key(s: Scene) -> str:
    TrustRoot(s.home.keys).revoke(s.publisher.key.public.id, "stolen")
    s.serve(s.third())
    return REPO


def _envelope(s: Scene, change: Callable[[dict[str, Any]], None]) -> str:
    files = s.third()
    value = json.loads(files[ENVELOPE])
    change(value)
    s.serve({**files, ENVELOPE: canonical_json(value)})
    return REPO


@attack(IntegrityError, "the signature of key")
def a_signature_of_other_bytes(s: Scene) -> str:
    old = json.loads(s.second[ENVELOPE])["signatures"]
    return _envelope(s, lambda value: value.update(signatures=old))


@attack(IntegrityError, "the signature of key")
def a_payload_with_another_digest(s: Scene) -> str:
    def change(value: dict[str, Any]) -> None:
        payload = base64.b64decode(value["payload"]).replace(b'"Q8_0"', b'"Q6_0"')
        value["payload"] = base64.b64encode(payload).decode()

    return _envelope(s, change)


@attack(IntegrityError, "its payload is no application/vnd.quantmint.release")
def a_signed_document_of_another_kind(s: Scene) -> str:
    return _envelope(s, lambda value: value.update(payloadType="application/vnd.in-toto+json"))


@attack(IntegrityError, "is not the one that was signed")
def another_plain_manifest(s: Scene) -> str:
    s.serve({**s.third(), MANIFEST: s.second[MANIFEST]})
    return REPO


@attack(IntegrityError, "it is no strict JSON")
def an_envelope_that_is_no_json(s: Scene) -> str:
    s.serve({**s.third(), ENVELOPE: b"[" * 100_000})
    return REPO


@attack(IntegrityError, "was withdrawn by its publisher")
def a_yanked_release_by_its_number(s: Scene) -> str:
    third = s.publisher.files(3, yanked=(withdrawal(1, s.first),))
    s.serve(third)
    s.pull(REPO)
    s.evil.revisions["v1"] = s.first
    return f"{REPO}@1"


def _digests(files: dict[str, bytes]) -> dict[str, str]:
    return {Q8: hashlib.sha256(files[Q8]).hexdigest()}


@attack(IntegrityError, r"was withdrawn by its publisher \(v3: it says wrong things\)")
def what_the_status_file_withdraws(s: Scene) -> str:
    third = s.third()
    s.serve({**third, **s.publisher.status({"v3": _digests(third)})})
    return REPO


@attack(IntegrityError, "was withdrawn by its publisher")
def a_withdrawal_that_is_served_no_longer(s: Scene) -> str:
    third = s.third()
    s.serve({**third, **s.publisher.status({"v3": _digests(third)})})
    with contextlib.suppress(WithdrawnError):
        s.pull(REPO)
    s.serve({**third, **s.publisher.status({})})  # an older status, rightly signed
    return REPO


@attack(IntegrityError, "is forged or was altered: the signature of key")
def a_status_file_with_another_files_signature(s: Scene) -> str:
    third = s.third()
    other = s.publisher.status({})
    value = json.loads(other[SIGNATURE])
    value["payload"] = base64.b64encode(_yanking(s, third)[STATUS]).decode()
    s.serve({**third, **_yanking(s, third), SIGNATURE: canonical_json(value)})
    return REPO


@attack(IntegrityError, "says that this was withdrawn .*: it does not count", strict=True)
def an_unsigned_withdrawal_where_all_must_be_signed(s: Scene) -> str:
    third = s.third()
    s.serve({**third, **_yanking(s, third)})
    return REPO


def _yanking(s: Scene, files: dict[str, bytes]) -> dict[str, bytes]:
    return s.publisher.status({"v3": _digests(files)}, signed=False)


@attack(RegistryError, "quantmint.status.json of hub:.* can't be read")
def a_status_file_of_nonsense(s: Scene) -> str:
    body = b'{"format": 2}'
    s.serve({**s.third(), STATUS: body, SIGNATURE: seal(body, STATUS_TYPE, [s.publisher.key])})
    return REPO


@attack(IntegrityError, "is of release 3, where 2 was asked for")
def another_number_than_its_tag(s: Scene) -> str:
    s.evil.revisions["v2"] = s.third()
    return f"{REPO}@2"
