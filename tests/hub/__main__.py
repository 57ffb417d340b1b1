"""The test hub by hand: `python -m tests.hub --port 8090`, then set HF_ENDPOINT to its address."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .server import Hub


def main() -> None:
    """Serve until interrupted, and print each request."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--cdn-port", type=int, default=0, help="the second origin's port")
    parser.add_argument("--token", action="append", default=[], help="TOKEN or TOKEN=read|expired")
    parser.add_argument("--no-xet", action="store_true", help="refuse uploads by xet")
    parser.add_argument("--repo", action="append", default=[], metavar="ORG/NAME=FOLDER",
                        help="serve the files of a folder")  # fmt: skip
    words = parser.parse_args()
    pairs = (token.partition("=") for token in words.token)
    roles = {token: role or "write" for token, _, role in pairs}
    with Hub(tokens=roles, port=words.port, cdn_port=words.cdn_port) as hub:
        hub.has_xet = not words.no_xet
        for text in words.repo:
            name, _, folder = text.partition("=")
            hub.add(name).commit(Path(folder))
        print(f"HF_ENDPOINT={hub.url}   (large files: {hub.cdn_url}; everything is in memory)")
        _show(hub)


def _show(hub: Hub) -> None:
    shown = 0
    try:
        while True:
            for seen in hub.log[shown:]:
                token = "with a token" if seen.token else "no token"
                print(f"{seen.server:3} {seen.method:6} {seen.path} ({token})", flush=True)
                shown += 1
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
