"""What the files of repositories without a manifest are called, as publishers name them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from quantmint.errors import UserError
from quantmint.registry.machine import Machine
from quantmint.registry.pull.believe import Believed
from quantmint.registry.pull.choose import Wishes, choose
from quantmint.registry.pull.offers import Offer, offers_of
from quantmint.registry.pull.places import File, Listing
from quantmint.registry.pull.reference import check_variant
from quantmint.registry.pull.variants import label_of

MACHINE = Machine(cpu="A CPU", cores=4, kernels=("x64",), memory=1 << 40, available=1 << 40)


def offers(*paths: str, size: int = 1000) -> tuple[Offer, ...]:
    files = {path: File(path, size + at, "a" * 64) for at, path in enumerate(paths)}
    return offers_of(Believed(listing=Listing(commit="c" * 40, files=files)))


def named(*paths: str) -> dict[str, str]:
    return {offer.files[0].path: offer.variant for offer in offers(*paths)}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Phi-3-mini-4k-instruct-fp16.gguf", "FP16"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-fp16.gguf", "FP16"),
        ("gemma-3-4b-it-Q4_K_L.gguf", "Q4_K_L"),
        ("gemma-3-4b-it-Q5_K_L.gguf", "Q5_K_L"),
        ("gemma-3-4b-it-Q6_K_L.gguf", "Q6_K_L"),
        ("gemma-3-4b-it-bf16.gguf", "BF16"),
        ("m-Q4_K.gguf", "Q4_K"),
        ("m-IQ3_KS.gguf", "IQ3_KS"),
        ("m-IQ5_KS_R4.gguf", "IQ5_KS_R4"),
        ("m-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("m.i1-Q4_K_M.gguf", "Q4_K_M"),
        ("m-UD-Q4_K_M.gguf", "UD-Q4_K_M"),
        ("UD-IQ1_S/m-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("ggml-model-f16.gguf", "F16"),
        ("m-float16.gguf", "FLOAT16"),
        ("m-fp32.GGUF", "FP32"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m_Q4_K_M_imatrix.gguf", "Q4_K_M"),
        ("m-f16-Q6_K.gguf", "Q6_K"),
        ("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M"),
        ("Q8_0/m-Q4_K_M.gguf", "Q4_K_M"),
        ("fp16/model.gguf", "FP16"),
        ("Some model.v2.gguf", "SOME_MODEL_V2"),
        ("m-sq4_0.gguf", "M_SQ4_0"),
        ("---.gguf", "MODEL"),
    ],
)
def test_labels_of_real_repositories(path: str, label: str) -> None:
    assert label_of(path) == label


@pytest.mark.parametrize("word", ["fp16", "FP16", "float16", "fp32", "bf16", "F32", "bfloat16"])
def test_sixteen_bits_are_taken_only_on_request(word: str) -> None:
    wide, narrow = f"m-{word}.gguf", "m-q4.gguf"
    found = offers(narrow, wide)
    assert choose(found, MACHINE, Wishes()).taken.offer.files[0].path == narrow
    asked = choose(found, MACHINE, Wishes(variant=check_variant(word)))
    assert asked.taken.offer.files[0].path == wide
    assert choose(offers(wide), MACHINE, Wishes()).taken.offer.is_wide


def test_two_files_of_sixteen_bits_are_both_wide() -> None:
    found = offers("a-fp16.gguf", "b-fp16.gguf", "a-Q2_K.gguf")
    assert [offer.is_wide for offer in found] == [False, True, True]
    assert choose(found, MACHINE, Wishes()).taken.offer.variant == "Q2_K"


def test_dynamic_variants_stand_beside_the_plain_ones() -> None:
    found = offers("m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf")
    for name in ("Q4_K_M", "UD-Q4_K_M"):
        taken = choose(found, MACHINE, Wishes(variant=check_variant(name.lower()))).taken
        assert taken.offer.files[0].path == f"m-{name}.gguf"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], ["A_Q4_K_M", "B_Q4_K_M"]),
        (["x/m-Q8_0.gguf", "y/m-Q8_0.gguf"], ["X_M_Q8_0", "Y_M_Q8_0"]),
        (["Q8_0.gguf", "m-Q8_0.gguf"], ["Q8_0", "M_Q8_0"]),
        (["a-b-Q2_K.gguf", "a.b-Q2_K.gguf"], ["A_B_Q2_K", "A_B_Q2_K_2"]),
        (["m-q4.gguf", "m-Q8_0-00001-of-00001.gguf"], ["Q8_0", "Q4"]),
    ],
)
def test_files_of_one_label_are_told_apart(paths: Sequence[str], names: Sequence[str]) -> None:
    assert list(named(*paths).values()) == names


def test_a_label_of_several_files_is_not_guessed() -> None:
    found = offers("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "a-Q8_0.gguf")
    with pytest.raises(UserError, match="2 files are Q4_K_M: A_Q4_K_M, B_Q4_K_M") as refused:
        choose(found, MACHINE, Wishes(variant="Q4_K_M"))
    assert "--variant A_Q4_K_M" in str(refused.value.mend)


def test_a_long_name_is_a_variant_all_the_same() -> None:
    (name,) = named("x" * 200 + "-model.gguf").values()
    assert check_variant(name) == name


@pytest.mark.parametrize(
    ("text", "variant"),
    [("q4_k_m", "Q4_K_M"), ("UD-q4_k_xl", "UD-Q4_K_XL"), ("i1-IQ3_M", "IQ3_M"), ("fp16", "FP16")],
)
def test_what_a_person_writes(text: str, variant: str) -> None:
    assert check_variant(text) == variant


@pytest.mark.parametrize("text", ["", "UD-", "a-b", "../x", "UD-UD-Q4", "q4 0", "_Q4"])
def test_what_is_no_variant(text: str) -> None:
    with pytest.raises(UserError):
        check_variant(text)
