"""An independent judge of a store: it knows sha256 and the names of files, and nothing else."""

import hashlib
import json
from pathlib import Path


def faults(root: Path) -> list[str]:
    """Return what is visible in a store and must not be: damaged or unbacked."""
    found = []
    whole = set()
    for path in (root / "objects" / "sha256").glob("*/*"):
        if (
            hashlib.sha256(path.read_bytes()).hexdigest()
            == path.name
            == path.parent.name + path.name[2:]
        ):
            whole.add(path.name)
        else:
            found.append(f"corrupt object {path.name}")
    for path in [*root.glob("refs/*/*.json"), *root.glob("actions/*.json")]:
        value = json.loads(path.read_bytes())
        named = value.get("objects") or value.get("outputs")
        found += [f"{path.name} names {sha}" for sha, _ in named.values() if sha not in whole]
    for checkout in root.glob("trees/*/*"):
        listed = root / "objects" / "sha256" / checkout.parent.name[:2] / checkout.parent.name
        for name, sha, *_ in json.loads(listed.read_bytes())["files"] if listed.exists() else []:
            file = checkout / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != sha:
                found.append(f"checkout without {name}")
    return found
