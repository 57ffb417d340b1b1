"""Finding compilers: each missing one is named with its mend."""

import os
import sys
from pathlib import Path

import pytest

from quantmint.errors import BuildError
from quantmint.native.toolchain import find_toolchain


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_has_a_toolchain() -> None:
    chain = find_toolchain()
    assert chain.triple.count("-") >= 2
    assert chain.identity == find_toolchain().identity
    assert len(chain.identity) == 64
    assert all(t.path.is_file() for t in (chain.cc, chain.cxx, chain.cmake, chain.ninja))


def test_no_compiler_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no C\+\+ compiler was found") as caught:
        find_toolchain()
    assert "apt-get install g++" in (caught.value.mend or "")


def test_a_chosen_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="looked for no-such-compiler"):
        find_toolchain()


def test_no_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    for tool in ("c++", "cc"):
        (tmp_path / tool).symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="cmake was not found") as caught:
        find_toolchain()
    assert "quantmint[build]" in (caught.value.mend or "")


def test_another_compiler_is_another_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = find_toolchain()
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\n[ $1 = -dumpmachine ] && echo x86_64-other-linux || echo g++ 99\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", "g++")
    chain = find_toolchain()
    assert (chain.cxx.version, chain.triple) == ("g++ 99", "x86_64-other-linux")
    assert chain.identity != usual.identity
