"""From judged variants to the files of a release: everything but its number, date and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from quantmint.assets.assay.record import Assayed
from quantmint.assets.mint import Mint
from quantmint.assets.release import beside, described, licensing, measured, pictures, stops
from quantmint.assets.release.inputs import Inputs
from quantmint.assets.release.judging import Judged
from quantmint.files import canonical_json
from quantmint.registry.card.facts import CardFacts
from quantmint.registry.card.make import make_card
from quantmint.registry.hub_address import PUBLIC_HUB, hub_address, shown_hub
from quantmint.registry.linter.card import ATTRIBUTES as ATTRIBUTES_TEXT
from quantmint.registry.manifest.release import (
    KEY_FILE,
    MODEL_SIGNATURE_FILE,
    OPENSSF_KEY_FILE,
    PROVENANCE_FILE,
    Manifest,
    OtherFile,
    Yanked,
)
from quantmint.registry.manifest.types import time_text
from quantmint.registry.provenance import Built, Run, sign_provenance, statement_of
from quantmint.registry.publish.files import ATTRIBUTES
from quantmint.registry.signing.ed25519 import SigningKey
from quantmint.registry.signing.openssf import public_pem
from quantmint.registry.signing.release import sign_release
from quantmint.registry.store import Blob

CARD: Final = "README.md"
RECORDS: Final = "measurements.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A release without number: the manifest's fields, the listed files, what the card needs."""

    fields: Mapping[str, Any]
    files: Mapping[str, Blob]
    others: tuple[OtherFile, ...]
    facts: CardFacts
    built: Built

    def manifest(self, **numbered: Any) -> Manifest:  # noqa: ANN401
        """Return the manifest with `release`, `created`, `expires`, `changes`, `yanked`."""
        others = numbered.pop("files", self.others)
        return Manifest(**self.fields, **numbered, files=others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """What makes a draft one certain release."""

    release: int
    created: datetime
    expires: datetime
    changes: tuple[str, ...] = ()
    yanked: tuple[Yanked, ...] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """As the manifest has them."""
        return {
            "release": self.release,
            "created": time_text(self.created),
            "expires": time_text(self.expires),
            "changes": self.changes,
            "yanked": self.yanked,
        }


def lifetime(inputs: Inputs) -> timedelta:
    """Return how long a release of these terms holds."""
    return timedelta(days=inputs.terms.expires_days)


def make_draft(mint: Mint, inputs: Inputs, judged: tuple[Judged, ...], key: SigningKey) -> Draft:
    """Put together what passed; what did not is withheld with its reasons.

    Raises:
        UserError: the model file says too little of the release (license, base model).
    """
    recipe, terms = inputs.recipe, inputs.terms
    base_model = described.base_model_of(inputs)
    rows = [measured.variant_of(mint, inputs, one) for one in judged if not one.withheld]
    if terms.fp16:
        rows.insert(0, measured.full_variant(mint, inputs))
    variants = tuple(row for row, _ in rows)
    source, tools = described.source_of(mint, inputs), described.toolchain_of(inputs)
    texts = described.texts_of(inputs)
    files = {path: blob for _, found in rows for path, blob in found.items()}
    license_files = licensing.licenses_of(mint, inputs)
    others = {
        **{name: (blob, "license") for name, blob in license_files.items()},
        **_others(mint, inputs, judged, key),
    }
    return Draft(
        fields={
            "format": "quantmint.release/1",
            "publisher": terms.owner,
            "model": recipe.model,
            "title": recipe.title,
            "repository": terms.hub,
            "license": licensing.license_of(inputs),
            **described.header_of(inputs.fp16.header),
            "source": source,
            "toolchain": tools,
            "calibration": inputs.calibration,
            "assay": texts,
            "variants": variants,
            "withheld": tuple(measured.withheld_of(mint, one) for one in judged if one.withheld),
        },
        files={**files, **{path: blob for path, (blob, _) in others.items()}},
        others=tuple(
            OtherFile(path=path, size=blob.size, sha256=blob.sha256, role=role)  # type: ignore[arg-type]
            for path, (blob, role) in others.items()
        ),
        facts=CardFacts(
            base_model=base_model,
            license=licensing.license_of(inputs),
            license_name=terms.license_name,
            license_link=licensing.license_link_of(inputs, license_files),
            languages=terms.languages,
            pipeline=terms.pipeline,
            prompt=_prompt(judged),
            stops=stops.stop_texts(inputs.fp16.header),
            key_id=key.public.id,
            key_file=KEY_FILE,
            hub=shown_hub(hub_address()) if terms.hub is not None else PUBLIC_HUB,
            base_hub=described.hub_of(inputs),
        ),
        built=Built(
            files={v.file.path: v.file.sha256 for v in variants},
            source=source,
            toolchain=tools,
            calibration=inputs.calibration,
            assay=texts,
            commands=described.commands_of(inputs),
            run=Run(inputs.run, time_text(inputs.started), time_text(inputs.finished)),
            hub=described.hub_of(inputs),
        ),
    )


def seal(mint: Mint, draft: Draft, number: Number, keys: Sequence[SigningKey]) -> dict[str, Blob]:
    """Return every file of the release by its path: listed, signed, and with its card.

    Equal drafts, numbers and keys give equal bytes, but for `model.sig`: ECDSA draws a number.

    Raises:
        UserError: an OpenSSF signature is asked for, and its tool or its key is missing.
        IntegrityError: no reader would take the manifest.
    """
    store = mint.store
    provenance = store.put_bytes(sign_provenance(statement_of(draft.built), keys))
    listed = OtherFile(
        path=PROVENANCE_FILE, size=provenance.size, sha256=provenance.sha256, role="provenance"
    )
    manifest = draft.manifest(**number.fields, files=(listed, *draft.others))
    signed = {path: store.put_bytes(data) for path, data in sign_release(manifest, keys).items()}
    files = {
        **draft.files,
        **signed,
        PROVENANCE_FILE: provenance,
        CARD: store.put_bytes(make_card(manifest, draft.facts)),
        ATTRIBUTES: store.put_bytes(ATTRIBUTES_TEXT.encode()),
    }
    if OPENSSF_KEY_FILE in files:
        files[MODEL_SIGNATURE_FILE] = beside.sign(mint, files, keys[0].name)
    return files


def _others(
    mint: Mint, inputs: Inputs, judged: tuple[Judged, ...], key: SigningKey
) -> dict[str, tuple[Blob, str]]:
    """Return files that are no models, by path, each with its role."""
    store, found = mint.store, {}
    records: list[Assayed] = [record for one in judged for record in one.records]
    data = canonical_json({"measurements": 1, "records": [asdict(record) for record in records]})
    found[RECORDS] = (store.put_bytes(data), "measurements")
    found[KEY_FILE] = (store.put_bytes(key.public.pem.encode()), "key")
    if inputs.terms.openssf:
        public = public_pem(mint.home.keys, key.name)
        found[OPENSSF_KEY_FILE] = (store.put_bytes(public.encode()), "key")
    stop_texts = stops.stop_texts(inputs.fp16.header)
    if stop_texts:
        found[stops.PARAMS] = (store.put_bytes(stops.params_bytes(stop_texts)), "ollama")
    for name, blob in pictures.draw(mint, inputs, records).items():
        found[name] = (blob, "picture")
    if inputs.calibration is not None:
        matrix = store.find(inputs.calibration.imatrix_sha256)
        found[inputs.recipe.imatrix_name] = (matrix, "imatrix")
    return found


def _prompt(judged: tuple[Judged, ...]) -> str | None:
    """Return the model's prompt format, as its own template rendered it in the assay."""
    for one in judged:
        for reply in one.quality.replies:
            if reply.prompt in reply.rendered:
                return reply.rendered.replace(reply.prompt, "{prompt}")
    return None
