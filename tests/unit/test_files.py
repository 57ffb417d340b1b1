"""Files appear whole or not at all, whatever kills the writer."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantmint import files
from quantmint.errors import UserError

# Writes `path` again and again, old and new in turn, until it is killed.
WRITER = """
import sys
from pathlib import Path
from quantmint.files import write_whole
path, size = Path(sys.argv[1]), int(sys.argv[2])
for turn in range(10**9):
    write_whole(path, bytes([65 + turn % 26]) * size)
    if turn == 0:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.031, 0.05])
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path, delay: float) -> None:
    path, size = tmp_path / "value.json", 3_000_000
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(size)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.001 + delay)
        writer.kill()
        writer.wait()
    data = path.read_bytes()
    assert len(data) == size
    assert len(set(data)) == 1
    visible = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert visible == ["value.json"]


KILLED_IN_A_WRITE = """
import resource, sys
from pathlib import Path
from quantmint.files import write_whole
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_whole(Path(sys.argv[1]), b"n" * 5000)
"""


def test_a_writer_killed_in_the_midst_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Past its size limit the kernel ends the process (SIGXFSZ) exactly inside write()."""
    path = tmp_path / "x"
    files.write_whole(path, b"old")
    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)"
         + KILLED_IN_A_WRITE, path],
        check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGXFSZ
    assert path.read_bytes() == b"old"


def test_write_whole_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "x"
    files.write_whole(path, b"one")
    files.write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_whole(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_whole(path, b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_is_said_in_one_message(small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "x"
    files.write_whole(path, b"old")
    with pytest.raises(UserError) as caught:
        files.write_whole(path, b"n" * (4 << 20))
    assert "no space left on the disk" in caught.value.what
    assert "QUANTMINT_HOME" in (caught.value.mend or "")
    assert path.read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["x"]
    (tmp_path / "big").write_bytes(os.urandom(4 << 20))
    with pytest.raises(UserError, match="no space left"):
        files.clone_or_copy(tmp_path / "big", small_disk / "copy")


def test_canonical_json_is_one_spelling() -> None:
    assert files.canonical_json({"b": [1, 2.5], "a": "ä"}) == '{"a":"ä","b":[1,2.5]}'.encode()
    assert files.digest_of({"a": 1, "b": 2}) == files.digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.canonical_json(float("nan"))
    assert json.loads(files.canonical_json({"x": None})) == {"x": None}


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_393_232_000, "2.4 GB"), (5e12, "5.00 TB")],
)
def test_human_bytes(count: float, said: str) -> None:
    assert files.human_bytes(count) == said


def test_existing_parent(tmp_path: Path) -> None:
    assert files.existing_parent(tmp_path / "a" / "b") == tmp_path
    assert files.existing_parent(tmp_path) == tmp_path
