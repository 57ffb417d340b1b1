"""What a card says beside its manifest: facts of the header, and words of the publisher."""

from __future__ import annotations

from dataclasses import dataclass

from quantmint.registry.hub_address import PUBLIC_HUB


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """Facts for the front matter and for whoever runs the model.

    `prompt` is one turn as the model's own template renders it, `{prompt}` in it; `stops` are the
    texts that end a turn. `key_id` is the id of the key that signed, `key_file` its public half's
    path in the release. `hub` is the address of the hub that the release goes to, `base_hub` of
    the one with the base model.
    """

    base_model: str
    license: str
    license_name: str | None = None
    license_link: str | None = None
    languages: tuple[str, ...] = ("en",)
    pipeline: str = "text-generation"
    prompt: str | None = None
    stops: tuple[str, ...] = ()
    key_id: str
    key_file: str
    hub: str = PUBLIC_HUB
    base_hub: str = PUBLIC_HUB
