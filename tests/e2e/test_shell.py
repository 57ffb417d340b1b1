"""Manners in a shell: completion, JSON, silence in pipes, and tokens that nobody gets to see."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import quantmint as package
from attacks import QUICK
from evil import COMMIT, Evil, answer
from fault_tools import TOKEN, know_only
from helpers import Ran
from pulling import MODEL, OWNER, REPO, Publisher, model_bytes, to_folder
from quantmint.errors import QuantmintError
from quantmint.home import Home
from quantmint.registry.cli import COMMANDS, cli
from quantmint.registry.pull import web
from quantmint.registry.trust_root import TrustRoot
from terminal import Terminal

Quantmint = Callable[..., Ran]
SCRIPT = str(Path(sys.executable).with_name("quantmint"))
# These hand over to a program that talks, and print nothing that a program could read.
TALK = {"run", "serve", "ui"}


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evil]:
    with Evil() as running:
        know_only(running.url, tmp_path, monkeypatch)
        yield running


def each_command() -> list[tuple[str, click.Command]]:
    found = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", one) for sub, one in command.commands.items()]
        else:
            found.append((name, command))
    return found


def test_every_command_that_prints_data_prints_it_for_programs() -> None:
    lacking = {
        name
        for name, command in each_command()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert lacking == TALK


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("bash", "complete -o nosort"),
        ("zsh", "#compdef quantmint"),
        ("fish", "complete --no-files"),
    ],
)
def test_a_script_for_each_shell(shell: str, said: str) -> None:
    env = {**os.environ, "_QUANTMINT_COMPLETE": f"{shell}_source"}
    ran = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=True)
    assert said in ran.stdout
    assert ran.stderr == ""


def test_bash_completes_with_what_the_documentation_says(home: Home, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    to_folder(tmp_path / "registry", publisher.files(), "v1", tmp_path / "work")
    package.pull(f"file:{tmp_path / 'registry'}", variant="Q8_0")
    lines = [documented_completion()]
    for words in ("quantmint outd", f"quantmint show {MODEL[:4]}", "quantmint verify --al"):
        count = len(words.split()) - 1
        lines += [
            f"COMPREPLY=(); COMP_WORDS=({words}); COMP_CWORD={count}",
            "_quantmint_completion quantmint",
            'echo "${COMPREPLY[@]}"',
        ]
    env = {**os.environ, "PATH": f"{Path(SCRIPT).parent}:{os.environ['PATH']}"}
    ran = subprocess.run([bash, "-c", "\n".join(lines)], env=env, capture_output=True, text=True,
                         check=False)  # fmt: skip
    assert ran.stdout.splitlines() == ["outdated", f"{MODEL}:Q8_0", "--all"], ran.stderr


@pytest.fixture
def bash(home: Home, tmp_path: Path) -> Iterator[Terminal]:
    """An interactive bash with the completion that the documentation gives, and a pulled model."""
    program = shutil.which("bash")
    if program is None:
        pytest.skip("there is no bash")
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    to_folder(tmp_path / "registry", publisher.files(), "v1", tmp_path / "work")
    package.pull(f"file:{tmp_path / 'registry'}", variant="Q8_0")
    env = {**os.environ, "PATH": f"{Path(SCRIPT).parent}:{os.environ['PATH']}", "TERM": "dumb",
           "PS1": "ready$ ", "INPUTRC": "/dev/null", "HISTFILE": ""}  # fmt: skip
    with Terminal([program, "--norc", "--noprofile", "-i"], env) as terminal:
        terminal.wait("ready$ ")
        for line in ("stty cols 300", documented_completion()):
            terminal.type(f"{line}\n")
            terminal.wait("ready$ ")
        yield terminal


def completed(bash: Terminal, words: str) -> str:
    """Type words and the key that completes them, and let bash say what is on the line then."""
    bash.type(f"{words}\t\x01: '\x05'; echo \"[$_]\"\n")  # Ctrl-A and Ctrl-E: both ends of the line
    bash.wait("\n[")
    bash.wait("]\r\n")
    found = bash.said[: bash.seen].rpartition("\n[")[2].removesuffix("]\r\n")
    bash.wait("ready$ ")
    return found


def test_bash_completes_words_with_colons(bash: Terminal, home: Home, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for typed, expected in (
        ("quantmint show phi-3-n", f"quantmint show {MODEL}:Q8_0 "),
        ("quantmint show phi-3-nano:", f"quantmint show {MODEL}:Q8_0 "),
        ("quantmint show phi-3-nano:Q", f"quantmint show {MODEL}:Q8_0 "),
        (f"quantmint run file:{registry}:", f"quantmint run file:{registry}:Q8_0 "),
        (f"quantmint pull file:{tmp_path}/publ", f"quantmint pull file:{tmp_path}/publisher/"),
        ("quantmint show --mod", "quantmint show --modelfile "),
        ("quantmint outd", "quantmint outdated "),
        ("quantmint show nothing:", "quantmint show nothing:"),
    ):
        assert completed(bash, typed) == expected


def documented_completion() -> str:
    (line,) = (
        text.partition("`")[2].partition("`")[0]
        for text in Path("docs/pull.md").read_text(encoding="utf-8").splitlines()
        if text.startswith("Shell completion:")
    )
    return line


def test_in_a_pipe_there_is_the_answer_and_nothing_else(
    home: Home, quantmint: Quantmint, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "publisher")
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    to_folder(tmp_path / "registry", publisher.files(), "v1", tmp_path / "work")
    ran = quantmint("pull", f"file:{tmp_path / 'registry'}:Q8_0")
    assert (ran.out, ran.err) == (f"{home.models / MODEL / 'Phi-3-nano-Q8_0.gguf'}\n", "")
    for words in (["list"], ["show", MODEL], ["outdated"], ["verify", MODEL], ["gc"],
                  ["export", MODEL, "-o", str(tmp_path / "x.tar")], ["rm", MODEL]):  # fmt: skip
        ran = quantmint(*words)
        assert (ran.code, ran.err) == (0, ""), words
        assert "\r" not in ran.out
        assert "\x1b" not in ran.out
        assert ran.out


def test_on_a_terminal_there_are_ready_commands(home: Home, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x-Q8_0.gguf").write_bytes(model_bytes())
    words = [SCRIPT, "pull", f"file:{tmp_path / 'plain'}"]
    env = {**os.environ, "OLLAMA_MODELS": str(tmp_path / "ollama")}
    for more, copies in (([], True), (["--ollama"], False)):
        with Terminal([*words, *more], env) as terminal:
            assert terminal.code() == 0
        assert "ollama create plain -f Modelfile" in terminal.said
        assert ("Ollama copies the file" in terminal.said) is copies
        # Nobody vouches for it, so it has no name but its place.
        assert f"quantmint run file:{tmp_path / 'plain'}:Q8_0{chr(13)}" in terminal.said


FAILING: dict[str, Callable[[Evil], None]] = {
    "says the token": lambda e: e.pages.update(
        {"/revision/main": answer(json.dumps({"error": TOKEN}), 401, X_Error_Message=TOKEN)}
    ),
    "redirects with the token": lambda e: e.pages.update(
        {"/revision/main": answer("", 302, Location=f"ftp://user:{TOKEN}@{TOKEN}/?t={TOKEN}")}
    ),
    "makes no sense": lambda e: e.pages.update({"/revision/main": answer(f'{{"sha": "{TOKEN}"}}')}),
    "names a file so": lambda e: e.files.update({f"{TOKEN}-Q8_0.gguf": b"GGUF"}),
    "asks to wait": lambda e: e.pages.update(
        {"/revision/main": answer(TOKEN, 503, Retry_After="9999", X_Request_Id=TOKEN)}
    ),
    "fails with the model": lambda e: (
        e.files.update({"x-Q8_0.gguf": model_bytes()}),
        e.pages.update({f"{COMMIT}/x-Q8_0.gguf": answer(TOKEN, 403)}),
    )[1],
}


@pytest.mark.parametrize("what", FAILING)
def test_a_token_is_seen_by_nobody(
    evil: Evil, home: Home, quantmint: Quantmint, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    FAILING[what](evil)
    ran = quantmint("pull", REPO)
    assert ran.code in {2, 5, 6}, ran
    shown = ran.out + ran.err
    assert "Traceback" not in shown
    monkeypatch.setattr(web, "PATIENCE", QUICK)
    with warnings.catch_warnings(record=True) as told, pytest.raises(QuantmintError) as refused:
        warnings.simplefilter("always", package.PullWarning)
        package.pull(REPO)
    error = refused.value
    shown += "".join(traceback.format_exception(error)) + repr(error)
    shown += "".join(str(one.message) for one in told)
    if what != "names a file so":  # that is the server's own word, which it had from nobody
        assert TOKEN not in shown
    assert set(evil.tokens) == {TOKEN}  # it was sent: to the one host that it is for
    written = [path for path in home.root.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_a_password_in_an_address_is_not_repeated(
    evil: Evil, home: Home, quantmint: Quantmint, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"http://user:{TOKEN}@127.0.0.1:9"
    ran = quantmint("pull", REPO, env={"HF_ENDPOINT": secret})
    assert (ran.code, TOKEN in ran.err) == (2, False)
    evil.files["x-Q8_0.gguf"] = model_bytes()
    ran = quantmint("pull", "somebody/else", "--mirror", f"ftp://user:{TOKEN}@x")
    assert (ran.code, TOKEN in ran.err) == (2, False)
    assert "is no mirror" in ran.err
    monkeypatch.setattr(web, "PATIENCE", QUICK)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", secret)
    with pytest.raises(QuantmintError) as refused:
        package.pull(REPO)
    assert TOKEN not in "".join(traceback.format_exception(refused.value))
