"""Child processes: bounded, cut off from our secrets, and gone when they should be."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import gone
from quantmint.errors import BuildError
from quantmint.native.toolchain import find_toolchain
from quantmint.process import Command, Limits, run

PYTHON = sys.executable


def python(code: str, **own: object) -> Command:
    return Command(argv=[PYTHON, "-c", code], **own)  # type: ignore[arg-type]


def test_output_lines_and_log(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "logs" / "x.log"
    done = run(python("print('one'); print('two')", log=log), on_line=lines.append)
    assert (done.code, done.stdout, lines) == (0, "one\ntwo\n", ["one", "two"])
    assert log.read_text().startswith(f"$ {PYTHON} -c")
    assert log.read_text().endswith("one\ntwo\n[exit code 0]\n")


def test_a_failing_tool_is_explained(tmp_path: Path) -> None:
    code = (
        "import sys\nfor n in range(40): print('line', n)\n"
        "sys.stderr.write('the cause\\n')\nsys.exit(3)"
    )
    with pytest.raises(BuildError) as caught:
        run(python(code, log=tmp_path / "x.log"))
    said = str(caught.value)
    assert "failed with exit code 3" in said
    assert f"$ {PYTHON} -c" in said
    assert "| the cause" in said
    assert "| line 39" in said
    assert "| line 20\n" not in said
    assert str(tmp_path / "x.log") in said
    assert "line 0\n" in (tmp_path / "x.log").read_text()


def test_a_signal_is_named() -> None:
    with pytest.raises(BuildError, match="was ended by SIGABRT"):
        run(python("import os; os.abort()"))


def test_a_program_that_is_missing() -> None:
    with pytest.raises(BuildError, match="could not be started: No such file") as caught:
        run(Command(argv=["/no/such/tool"]))
    assert "quantmint doctor" in (caught.value.mend or "")


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    started = time.monotonic()
    with pytest.raises(BuildError, match="ran past its 2 s"):
        run(python(code, limits=Limits(wall_seconds=2)))
    assert time.monotonic() - started < 15
    assert gone(int(note.read_text()))


def test_what_a_child_left_running_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)"
    )
    assert gone(int(run(python(code)).stdout))


def test_secrets_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HTTPS_PROXY", "PYTHONPATH", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hf_secret")
    code = "import os; print(dict(os.environ))"
    assert "hf_secret" not in run(python(code)).stdout
    assert "hf_secret" in run(python(code, pass_env=["HTTPS_PROXY"])).stdout
    given = run(python("import os; print(os.environ['X'], 'PATH' in os.environ)", env={"X": "1"}))
    assert given.stdout == "1 True\n"


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    inner = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = (
        "import sys\nfrom quantmint.process import Command, run\n"
        f"run(Command(argv=[sys.executable, '-c', {inner!r}]))"
    )
    parent = subprocess.Popen([PYTHON, "-c", outer])
    deadline = time.monotonic() + 20
    while not (note.is_file() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(int(note.read_text()))


def test_limits_hold(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="MemoryError"):
        run(python("x = bytearray(4 << 30)", limits=Limits(address_space=1 << 30)))
    target = tmp_path / "big"
    code = f"open({str(target)!r}, 'wb').write(bytes(100000))"
    with pytest.raises(BuildError):
        run(python(code, limits=Limits(file_size=1000)))
    assert target.stat().st_size <= 1000


def test_input_and_much_output() -> None:
    done = run(python("import sys; d = sys.stdin.read(); print(len(d))", stdin=b"x" * 1_000_000))
    assert done.stdout == "1000000\n"
    run(python("pass", stdin=b"x" * 1_000_000))  # a child that never reads is no error
    much = run(python("for n in range(300000): print('a line of output', n)"))
    assert much.stdout.endswith("a line of output 299999\n")
    assert len(much.stdout) <= 1 << 20
    assert run(python("import os; os.write(1, bytes(range(256)))")).stdout.startswith("\0\1")


def test_a_killed_build_leaves_no_compiler_behind(tmp_path: Path) -> None:
    """Ninja puts each compiler into a process group of its own, and ends them on SIGTERM alone."""
    ninja = find_toolchain().ninja.path
    (tmp_path / "build.ninja").write_text(
        "rule slow\n  command = echo $$$$ > pid.new && mv pid.new pid && exec sleep 600\n"
        "build out: slow\n"
    )
    code = (
        "import signal, sys; from quantmint.process import Command, run\n"
        "run(Command(argv=sys.argv[1:], ended_by=signal.SIGTERM))"
    )
    words = [PYTHON, "-c", code, str(ninja), "-C", str(tmp_path)]
    build = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    compiler = int(wait_for(tmp_path / "pid"))
    build.kill()
    build.wait()
    assert gone(compiler)


def test_a_build_that_takes_too_long_leaves_no_compiler_behind(tmp_path: Path) -> None:
    ninja = find_toolchain().ninja.path
    (tmp_path / "build.ninja").write_text(
        "rule slow\n  command = echo $$$$ > pid && exec sleep 600\nbuild out: slow\n"
    )
    command = Command(
        argv=[ninja, "-C", tmp_path], limits=Limits(wall_seconds=2), ended_by=signal.SIGTERM
    )
    with pytest.raises(BuildError, match="ran past its 2 s"):
        run(command)
    assert gone(int((tmp_path / "pid").read_text()))


def wait_for(path: Path, seconds: float = 20) -> str:
    """Return what the file says, once it is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()
