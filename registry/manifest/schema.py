"""The JSON schemas of the signed documents, as `docs/` publishes them.

`python -m quantmint.registry.manifest.schema docs` writes them anew; a test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quantmint.files import write_whole
from quantmint.registry.manifest.release import Manifest
from quantmint.registry.manifest.types import Signed
from quantmint.registry.tensors import TensorTable

DOCUMENTS: dict[str, type[Signed]] = {
    "manifest.schema.json": Manifest,
    "tensors.schema.json": TensorTable,
}


def schema_text(kind: type[Signed]) -> str:
    """Return the JSON schema (draft 2020-12) of one kind of document."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **kind.model_json_schema(mode="validation"),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def main(folder: Path) -> None:
    """Write every schema into `folder`."""
    for name, kind in DOCUMENTS.items():
        write_whole(folder / name, schema_text(kind).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
