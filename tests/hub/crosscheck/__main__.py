"""`make hub-crosscheck`: the test hub against olah (a mirror) and the JavaScript client.

Both are installed into folders of their own below `build/hub-crosscheck`, at pinned versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from hub import Hub  # noqa: E402
from publishing import client_env, contents, run, write  # noqa: E402

OLAH, SCRIPT_CLIENT = "olah==0.5.4", "@huggingface/hub@2.17.5"
BUILD = ROOT / "build" / "hub-crosscheck"
TOKEN = "hf_" + "crosscheck" * 4
REPO, FILE = "org/crosscheck", "A-Q8_0.gguf"
PULL = """
import sys, json, hashlib, pathlib
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
repo, file, revision = sys.argv[1:]
folder = pathlib.Path(snapshot_download(repo, revision=revision))
one = pathlib.Path(hf_hub_download(repo, file, revision=revision))
rows = HfApi().list_repo_tree(repo, revision=revision)
listed = {row.path: row.lfs.sha256 for row in rows if getattr(row, "lfs", None)}
found = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / file, one)]
print(json.dumps([*found, listed[file]]))
"""


def say(what: str, *, good: bool) -> None:
    """Print one check; a failed one ends the program."""
    print(f"{'ok' if good else 'FAILED'}  {what}", flush=True)
    if not good:
        sys.exit(1)


def install() -> tuple[Path, Path | None]:
    """Return olah's program and the JavaScript client's folder, if there is a node."""
    program = BUILD / "olah" / "bin" / "olah-cli"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", BUILD / "olah"], check=True)
        subprocess.run([program.with_name("pip"), "install", "--quiet", OLAH], check=True)
    folder = BUILD / "node"
    if shutil.which("npm") is None:
        return program, None
    if not (folder / "node_modules").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, SCRIPT_CLIENT]
        subprocess.run(command, check=True)
    return program, folder


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mirror(program: Path, hub: Hub, folder: Path) -> Iterator[str]:
    """Run olah as a proxy in front of the hub; give its address."""
    port, netloc = free_port(), hub.url.removeprefix("http://")
    command = [
        program, "--host", "127.0.0.1", "--port", str(port), "--hf-scheme", "http",
        "--hf-netloc", netloc, "--hf-lfs-netloc", netloc, "--metadata-cache-ttl", "0",
        "--mirror-netloc", f"127.0.0.1:{port}", "--mirror-lfs-netloc", f"127.0.0.1:{port}",
        "--repos-path", folder / "repos", "--log-path", folder / "logs",
    ]  # fmt: skip
    with (folder / "olah.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def check_mirror(url: str, sha256: str, folder: Path, hub: Hub) -> None:
    """Pull through the mirror with the Hub's own client; it speaks no xet."""
    for revision in ("main", "v1"):
        env = client_env(url, "", folder / revision, xet=False)
        ran = subprocess.run(
            [sys.executable, "-c", PULL, REPO, FILE, revision],
            env={**os.environ, **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        good = ran.returncode == 0 and ran.stdout.count(sha256) == 3
        if not good:
            print(ran.stderr[-2000:])
        say(f"olah: snapshot, file and digest of {revision} through the mirror", good=good)
    say("olah: it asked the hub", good=any(seen.method == "HEAD" for seen in hub.log))


def main() -> None:
    """Publish a release in both ways, and look at it with others' eyes."""
    program, node = install()
    files = contents()
    sha256 = hashlib.sha256(files[FILE]).hexdigest()
    for xet in (True, False):
        with Hub(tokens=(TOKEN,)) as hub, tempfile.TemporaryDirectory(dir=BUILD) as name:
            folder = Path(name)
            env = client_env(hub.url, TOKEN, folder, xet=xet)
            done = run(env, target=REPO, release="v1", folder=str(write(folder / "v1", files)))
            way = "xet" if xet else "lfs"
            say(f"published by {way} {done.err if done.code else ''}", good=done.code == 0)
            with mirror(program, hub, folder) as url:
                hub.log.clear()
                check_mirror(url, sha256, folder, hub)
            if node is not None:
                shutil.copy(Path(__file__).with_name("client.mjs"), node)
                words = ["node", "client.mjs", hub.url, TOKEN, REPO, sha256, FILE]
                say(f"the JavaScript client, on what came by {way}",
                    good=subprocess.run(words, cwd=node, check=False).returncode == 0)  # fmt: skip
    if node is None:
        print("skipped: the JavaScript client needs npm")


if __name__ == "__main__":
    main()
