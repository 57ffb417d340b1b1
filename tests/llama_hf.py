"""What llama.cpp's real `-hf` fetches from a hub: the resolver that the linter re-implements.

    with Hub() as hub:
        hub.add("org/name-GGUF").commit(files)
        taken = files_taken(bundle.tool("llama-completion"), hub, "org/name-GGUF", "Q4_K_M", cache)

Any server that logs requests as `Hub` does will do; the files need be no models: what is fetched
is decided before anything is loaded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hub import Hub
from quantmint.process import Command, Limits, run


def files_taken(tool: Path, hub: Hub, repo: str, tag: str | None, scratch: Path) -> set[str]:
    """Return the paths that `TOOL -hf REPO[:TAG]` asked this hub for, with an empty cache."""
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        before = len(hub.log)
        command = Command(
            argv=[tool, "-hf", repo + (f":{tag}" if tag else ""), "-n", "1", "-p", "x"],
            env={"HF_ENDPOINT": hub.url, "LLAMA_CACHE": cache, "HOME": cache},
            limits=Limits(wall_seconds=60, address_space=8 << 30, file_size=1 << 30),
        )
        run(command, check=False)  # what it fetched can't be loaded
    asked = [seen.path.partition("?")[0] for seen in hub.log[before:] if seen.server == "hub"]
    resolved = [path.split("/resolve/", 1)[1] for path in asked if "/resolve/" in path]
    return {path.partition("/")[2] for path in resolved}
