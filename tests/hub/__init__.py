"""A Hugging Face Hub on loopback, for the unmodified clients, with faults to order.

    with Hub() as hub:
        repo = hub.add("org/name")
        first = repo.commit({"config.json": b"{}"})
        hub.faults.altered.add("model.safetensors")

It speaks what the Hub's clients speak: repositories, trees, refs, tags, branches, commits with an
optimistic lock, uploads by LFS (one part or many) and by xet, downloads with ranges.  Large files
are served by a second origin, the CDN, as the real Hub does: the client must not send its token
there.  Every request is in `hub.log`.  By hand: `python -m tests.hub --help`.
"""

from .content import Entry, Repo
from .faults import Faults
from .pages import Seen
from .server import Hub

__all__ = ["Entry", "Faults", "Hub", "Repo", "Seen"]
