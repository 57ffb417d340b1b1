"""The front matter of a card: what the Hub reads (hub-docs, `docs/hub/model-cards.md`)."""

from __future__ import annotations

from quantmint.registry.card.facts import CardFacts
from quantmint.registry.manifest.release import Manifest


def front_matter(manifest: Manifest, facts: CardFacts) -> str:
    """Return the YAML between two `---` lines, with them; YAML quotes whatever needs it."""
    import yaml

    tags = ["gguf", "llama.cpp", "quantmint"]
    tags += ["imatrix"] if manifest.calibration is not None else []
    tags += ["conversational"] if manifest.chat_template_sha256 is not None else []
    value = {
        "base_model": facts.base_model,
        "base_model_relation": "quantized",
        "quantized_by": manifest.publisher,
        "license": facts.license,
        "license_name": facts.license_name,
        "license_link": facts.license_link,
        "language": list(facts.languages),
        "library_name": "gguf",
        "pipeline_tag": facts.pipeline,
        "tags": tags,
    }
    # On one line each: a line `---` would end the front matter, quoted or not.
    kept = {
        key: " ".join(item.split()) if isinstance(item, str) else item
        for key, item in value.items()
        if item is not None
    }
    body = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=1 << 16)
    return f"---\n{body}---\n"
