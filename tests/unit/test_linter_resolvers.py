"""Five clients' ways to pick a file, case by case as their sources have them."""

import re

import pytest

from quantmint.native.ftypes import FTYPES
from quantmint.registry.linter.labels import LABELS, hub_label
from quantmint.registry.linter.listing import own_tags
from quantmint.registry.linter.resolvers import docker, hub_labels, llama_cpp, lm_studio, ollama

PLAIN = ["README.md", "m-BF16.gguf", "m-IQ4_XS.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf",
         "m-imatrix.gguf"]  # fmt: skip
PARTS = ["m-Q4_K_M-00002-of-00002.gguf", "m-Q4_K_M-00001-of-00002.gguf",
         "n-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Phi-3.5-mini-instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("phi-q4_k_m.gguf", "Q4_K_M"),
        ("m-Q8_0-then-Q2_K.gguf", "Q2_K"),
        ("m-Q2_K_S.gguf", "Q2_K_S"),
        ("m-BF16.gguf", "BF16"),
        ("m.i1-IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-Q6_K_L.gguf", "Q6_K_L"),
        ("m-Q2_K_L.gguf", "Q2_K_L"),
        ("m-Q4_K_L.gguf", None),
        ("m-Q5_K_L.gguf", None),
        ("m-Q4_K.gguf", None),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m-Q4_K_M_CUDA.gguf", "Q4_K_M_CUDA"),
        ("m-55IQ2_XXS-34Q2_K-07Q8_0.gguf", "Q8_0"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("m-Q4_K_M-00001-of-00003.gguf", "Q4_K_M"),
        ("m-imatrix.gguf", None),
        ("m.gguf", None),
    ],
)
def test_labels_of_the_hub(path: str, label: str | None) -> None:
    assert hub_label(path) == label


def test_the_hub_knows_every_variant_of_the_mint() -> None:
    assert set(FTYPES) <= set(LABELS)
    for name in FTYPES:
        assert hub_label(f"Phi-3.5-mini-instruct-{name}.gguf") == name
        assert own_tags([f"Phi-3.5-mini-instruct-{name}.gguf"])[0][0] == name


@pytest.mark.parametrize(
    ("tag", "taken"),
    [
        ("Q8_0", ("m-Q8_0.gguf",)),
        ("q8_0", ("m-Q8_0.gguf",)),
        (None, ("m-Q4_K_M.gguf",)),
        ("F16", ("m-BF16.gguf",)),
        ("Q4_XS", ("m-IQ4_XS.gguf",)),
        ("M", ("m-BF16.gguf",)),
        ("Q5_K_M", ()),
        (".*", ()),
    ],
)
def test_llama_cpp(tag: str | None, taken: tuple[str, ...]) -> None:
    assert llama_cpp(PLAIN, tag) == taken


def test_llama_cpp_takes_all_parts_and_nothing_beside_a_preset() -> None:
    assert llama_cpp(PARTS, "Q4_K_M") == tuple(PARTS[:2])
    assert llama_cpp(["preset.ini", *PLAIN], "Q8_0") == ("preset.ini",)
    assert llama_cpp(["q8_0.d/mmproj-a.gguf", "b-Q2_K.gguf"], None) == ("b-Q2_K.gguf",)


@pytest.mark.parametrize(
    ("names", "tag", "taken"),
    [
        (PLAIN, "q8_0", ["m-Q8_0.gguf"]),
        (PLAIN, "Q5_K_M", ["m-Q4_K_M.gguf"]),
        (PLAIN, "latest", ["m-Q4_K_M.gguf"]),
        (PLAIN, "IMATRIX", ["m-imatrix.gguf"]),
        (["m-Q2_K.gguf", "m-Q2_K_S.gguf"], "Q2_K", ["m-Q2_K.gguf", "m-Q2_K_S.gguf"]),
        (["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"], "Q4_K_M", ["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"]),
        # Only the first place of a tag behind each separator is looked at: then the default's rule.
        (["a-Q8_0.gguf", "b-Q2_Kx-Q2_K.gguf"], "Q2_K", ["a-Q8_0.gguf"]),
        (["b-Q8_0.gguf", "a-Q6_K.gguf"], "Q2_K", ["a-Q6_K.gguf"]),
        (["only.gguf", "mmproj-F16.gguf"], "Q2_K", ["only.gguf"]),
        ([], "Q2_K", []),
    ],
)
def test_docker(names: list[str], tag: str, taken: list[str]) -> None:
    assert list(docker(names, tag)) == taken


def test_ollama_and_the_file_list() -> None:
    assert ollama(PLAIN, "iq4_xs") == ("m-IQ4_XS.gguf",)
    assert ollama(PLAIN, "m-imatrix.gguf") == ("m-imatrix.gguf",)
    assert ollama(PLAIN, None) == ("m-Q4_K_M.gguf",)
    assert ollama(["b-Q8_0.gguf", "a-Q6_K.gguf"], None) == ("b-Q8_0.gguf",)
    assert ollama(PARTS, "Q4_K_M") == ()
    assert hub_labels(PLAIN, "Q8_0") == ("m-Q8_0.gguf",)
    assert hub_labels(PLAIN, "q8_0") == ()
    assert len(hub_labels(PLAIN, None)) == 4


def test_lm_studio() -> None:
    assert lm_studio(PLAIN, "q4_k_m") == ("m-Q4_K_M.gguf",)
    assert lm_studio(PLAIN, "Q5_K_M") == ()
    assert lm_studio(PARTS, "Q8_0") == ("m-Q8_0.gguf",)


def test_the_llama_cpp_rule_is_a_search_not_a_word() -> None:
    """No tag of ours holds a letter that a regular expression would read otherwise."""
    assert all(re.escape(name) == name for name in FTYPES)
