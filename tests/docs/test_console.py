"""The reading of documents itself: it must notice a command that fails or prints something else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from docs.console import Shell, missing, steps_of
from docs.test_documents import differences

GOOD = """
Some words, `$ no command`.

```console
$ mkdir -p mint && cd mint
$ cat > file <<'END'
a: 1   # $ none either
END
$ export WORD="three $(cat file)"
$ printf '%s 12 MB in 3.4 s, zen4\\n' "$PWD" && echo more && echo 0123456789abcdef
/home/ada/mint 99 kB in 0.1 s, zen4
...
fedcba9876543210
$ ls nothing
...
$ echo $?
2
$ echo "$WORD"
three a: 1   # $ none ...
```

1. In a list.

   <!-- output varies -->
   ```console
   $ date \\
       +%s
   yesterday
   ```
"""


def run(document: str, folder: Path) -> list[str]:
    return list(differences(folder, os.environ, list(steps_of(document))))


def test_what_a_document_says_is_done(tmp_path: Path) -> None:
    assert [step.note for step in steps_of(GOOD)] == [""] * 7 + ["output varies"]
    assert run(GOOD, tmp_path) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("99 kB in", "99 kB on", "does not print\n/home/ada/mint 99 kB on 0.1 s, zen4"),
        ("fedcba9876543210", "fedcba987654321x", "fedcba987654321x"),
        ("zen4\n...", "zen4 and more\n...", "zen4 and more"),
        ("ls nothing", "true", "line 16: $ echo $?\ndoes not print"),
        ("$ echo $?\n2\n", "", "line 14: $ ls nothing\nended with 2"),
        ("> file", "> nowhere/file", "ended with 1"),
        ("none ...", "some ...", "some ..."),
        ("       +%s", "       +%s --nonsense", "ended with 1"),
    ],
)
def test_what_it_says_wrong_is_noticed(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in GOOD
    found = run(GOOD.replace(before, after), tmp_path)
    assert said in "\n".join(found)


SERVER = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
print("up", flush=True)
time.sleep(60)
"""


def test_a_server_is_waited_for_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    with Shell(tmp_path, os.environ) as shell:
        pid, said = shell.start(f"{sys.executable} server.py", "up", 20)
        assert said == "up\n"
        assert shell.stop(pid) == 3
        assert not Path(f"/proc/{pid}").exists()
        assert shell.run("echo still here")[1].strip() == "still here"


def test_what_is_shown_must_occur_once_numbers_are_aside() -> None:
    (step,) = steps_of("```console\n$ x\nQ4_K_M   2.9 MB  0.00758  passed\n```")
    assert missing(step, "Q4_K_M  3.1 MB    0.1 passed", {}) == []
    assert missing(step, "Q5_K_M  3.1 MB    0.1 passed", {}) != []
    assert missing(step, "Q4_K_M  3.1 MB    0.1 withheld", {}) != []
