"""The grammar of names: nothing that passes can lead out of a folder, a URL or a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantmint import names
from quantmint.errors import UserError

HOSTILE = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a b", "a\n", "\na", "a\0b", "-rf", "a-",
    "a--b", ".hidden", "a..b", "a:b", "a@b", "a+b", "ä", "а", "a\u202eb", "%2e%2e", "$(id)", "`id`",
    "~", "a~", "con ", "_a", "a_", "a" * 97,
]  # fmt: skip
GRAMMARS = {"MODEL": names.MODEL, "VARIANT": names.VARIANT, "KERNEL": names.KERNEL}


@pytest.mark.parametrize("grammar", [*GRAMMARS.values(), names.TITLE])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(grammar: "names.re.Pattern[str]", text: str) -> None:
    with pytest.raises(UserError):
        names.check(grammar, text, "name")


def test_good_names_pass() -> None:
    assert names.check(names.MODEL, "phi-3.5-mini-instruct", "model") == "phi-3.5-mini-instruct"
    assert names.check(names.VARIANT, "Q4_K_M", "variant") == "Q4_K_M"
    assert names.check(names.KERNEL, "armv8.2-dotprod", "kernel") == "armv8.2-dotprod"
    assert names.check(names.TITLE, "Phi-3.5-MoE-instruct", "title") == "Phi-3.5-MoE-instruct"


@given(st.text(max_size=40))
def test_whatever_passes_is_one_plain_path_part(text: str) -> None:
    for grammar in GRAMMARS.values():
        try:
            names.check(grammar, text, "name")
        except UserError as error:
            assert len(str(error)) < 400
        else:
            assert text.isascii()
            assert not set(text) & set("/\\ \n\t\0~$`'\"%:@*?<>|&;()")
            assert not text.startswith((".", "-"))


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 63 + "\n", "../" + "0" * 61]
)
def test_digests(text: str) -> None:
    assert names.digest("0f" * 32) == "0f" * 32
    with pytest.raises(UserError):
        names.digest(text)
