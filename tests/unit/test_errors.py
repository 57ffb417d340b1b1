"""Errors: one exit code for each who must act, the mend survives pickling, nearest names."""

import pickle

import pytest

from quantmint import errors
from quantmint.errors import QuantmintError, nearest
from quantmint.registry.gguf import GgufError

KINDS = [
    errors.UserError,
    errors.SourceError,
    errors.BuildError,
    errors.IntegrityError,
    errors.RegistryError,
    errors.BugError,
]


def test_exit_codes_are_distinct_and_documented() -> None:
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert codes == {
        "UserError": 2,
        "SourceError": 3,
        "BuildError": 4,
        "IntegrityError": 5,
        "RegistryError": 6,
        "BugError": 70,
    }
    for name, code in codes.items():
        assert f"| `{name}`" in (errors.__doc__ or "")
        assert f"| {code} " in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", [*KINDS, GgufError])
def test_pickling_keeps_class_message_and_mend(kind: type[QuantmintError]) -> None:
    error = pickle.loads(pickle.dumps(kind("it broke", mend="mend it")))
    assert type(error) is kind
    assert str(error) == "it broke\n  mend: mend it"
    assert str(pickle.loads(pickle.dumps(kind("it broke")))) == "it broke"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Q4_KM", "; did you mean 'Q4_K_M'?"),
        ("q4_k_m", "; did you mean 'Q4_K_M'?"),
        ("Q8", "; did you mean 'Q8_0'?"),
        ("", "; legal: Q4_K_M, Q8_0"),
        ("\x00\x1b[31m", "; legal: Q4_K_M, Q8_0"),
    ],
)
def test_nearest(word: str, said: str) -> None:
    assert nearest(word, ["Q8_0", "Q4_K_M"]) == said
