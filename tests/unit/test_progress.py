"""Progress of a file that grows: lines while it does, none afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

from quantmint.assets.progress import bytes_in, growing, line


def test_lines_come_while_the_block_runs_and_no_longer(tmp_path: Path) -> None:
    said: list[str] = []
    heard = threading.Event()

    def report(text: str) -> None:
        said.append(text)
        heard.set()

    with growing(report, "part", 40_000, lambda: bytes_in(tmp_path), every=0.02):
        (tmp_path / "part").write_bytes(bytes(range(200)) * 100)
        assert heard.wait(30)
    assert said[-1].startswith("part: 20.0 kB of 40.0 kB, ") or "nothing new" in said[-1]
    assert not [t for t in threading.enumerate() if t.name == "progress of part"]


def test_a_line_names_bytes_rate_and_time_left() -> None:
    assert line("x", 4000, 1000, 2000, 10.0) == "x: 2.0 kB of 4.0 kB, 100 B/s, 20 s left"
    assert line("x", 4000, 1000, 1000, 10.0) == "x: 1.0 kB of 4.0 kB, nothing new for 10 s"
    assert "0 s left" in line("x", 4000, 0, 4100, 10.0)


def test_holes_and_vanished_files_do_not_count(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert bytes_in(tmp_path) < 1 << 20
