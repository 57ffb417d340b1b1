"""What a card says beside its manifest: facts of the header, and words of the publisher."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """Facts for the front matter and for whoever runs the model.

    `prompt` is one turn as the model's own template renders it, `{prompt}` in it; `stops` are the
    texts that end a turn. `key_id` is the id of the key that signed, `key_file` its public half's
    path in the release.
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
