"""Model files: each mistake names its line and the nearest legal word."""

from pathlib import Path

import pytest

from quantmint.errors import UserError
from quantmint.native.ftypes import FTYPES
from quantmint.pipelines.spec import SIZE_LIMIT, find_model, load_all, load_model

GOOD = """\
model: my-model
source: {hub: owner/My-Model, revision: main}
family: phi3
variants: [Q8_0, Q4_K_M]
assay:
  contexts: [512]
  kernels: host
gates: {max_ppl_ratio: 1.5}
release: {hub: owner/My-Model-GGUF}
refresh: {cron: "0 6 * * *"}
"""


def load(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    load_model(path)


def test_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(GOOD)
    model = load_model(tmp_path / "m.yaml")
    assert model.spec.title == "My-Model"
    assert model.spec.file_name("Q4_K_M") == "My-Model-Q4_K_M.gguf"
    assert model.base == tmp_path
    assert model.spec.gates.bounds("Q8_0").ppl_ratio == 1.5


MISTAKES = [
    ("family:", "familly:", 3, "unknown key 'familly'; did you mean 'family'?"),
    ("contexts:", "context:", 6, "unknown key 'context'; did you mean 'contexts'?"),
    ("max_ppl_ratio", "max_ppl_ration", 8, "did you mean 'max_ppl_ratio'?"),
    ("revision:", "revison:", 2, "did you mean 'revision'?"),
    ("cron:", "crom:", 10, "did you mean 'cron'?"),
    ("model: my-model\n", "", 1, "key 'model' is missing"),
    ("source: {hub: owner/My-Model, revision: main}\n", "", 1, "key 'source' is missing"),
    ("Q4_K_M", "Q4_KM", 4, "there is no variant 'Q4_KM'; did you mean 'Q4_K_M'?"),
    ("Q4_K_M", "Q8_0", 4, "variants stand twice: ['Q8_0']"),
    ("[Q8_0, Q4_K_M]", "[]", 4, "no variants"),
    ("[Q8_0, Q4_K_M]", "Q8_0", 4, "variants"),
    ("Q4_K_M", "IQ2_XS", 1, "IQ2_XS can't be made without an importance matrix"),
    ("family: phi3", "imatrix: {txt: a}", 3, "unknown key 'txt'; did you mean 'text'?"),
    ("family: phi3", "imatrix: {chunks: 0}", 3, "greater than or equal to 1"),
    ("family: phi3", "imatrix: {text: {package: p, fil: f}}", 3, "did you mean 'file'?"),
    ("family: phi3", "imatrix: {text: {file: f}}", 3, "exactly one of hub and package"),
    ("family: phi3", "imatrix: {text: {hub: x, file: f}}", 3, "is no Hub repository"),
    ("family: phi3", "imatrix: yes please", 3, "imatrix"),
    ("kernels: host", "kernels: [zen5]", 7, "there is no kernel 'zen5'; did you mean 'zen4'?"),
    ("kernels: host", "kernels: hots", 7, "kernels"),
    ("[512]", "[]", 6, "at least one context"),
    ("[512]", "[1]", 6, "greater than or equal to 64"),
    ("[512]", "[many]", 6, "valid integer"),
    ("my-model", "My Model", 1, "is no model name"),
    ("my-model", "../../etc/passwd", 1, "is no model name"),
    ("my-model", "5", 1, "valid string"),
    ("my-model", "a" * 97, 1, "at most 96"),
    ("owner/My-Model,", "My-Model,", 2, "write it as owner/name"),
    ("owner/My-Model,", "../../x,", 2, "is no Hub repository"),
    ("revision: main", "revision: ../main", 2, "no branch, tag or commit"),
    ("revision: main", "revision: --main", 2, "no branch, tag or commit"),
    ("revision: main", "path: x", 2, "exactly one of hub, path, gguf and embedded"),
    ("hub: owner/My-Model, revision: main", "revision: main", 2, "given: none"),
    ("hub: owner/My-Model", "embedded: phi-3-mini", 2, "'phi-3-nano'"),
    ("hub: owner/My-Model", "gguf: {package: p, fil: f}", 2, "did you mean 'file'?"),
    ("max_ppl_ratio: 1.5", "max_ppl_ratio: 1.0", 8, "greater than 1"),
    ("0 6 * * *", "0 6 * *", 10, "no cron line of five fields"),
    ("release: {hub: owner/", "release: {hub: ", 9, "release.hub"),
    ("family: phi3", "family: phi3\nfamily: phi3", 4, "key 'family' stands twice"),
    ("contexts: [512]", "contexts: [512]\n  contexts: [1024]", 7, "stands twice"),
    ("family: phi3", "title: a/b", 1, "is no file name"),
    ("family: phi3", "assay: *x", 3, "alias"),
    ("family: phi3", "? [a, b]\n: c", 3, "a key is a plain word"),
    ("family: phi3", "[unclosed", 4, "no valid YAML"),
    ("family: phi3", "\tfamily: phi3", 3, "no valid YAML"),
    ("family: phi3", "family: !!python/object/apply:os.system [id]", 3, "no valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "said"), MISTAKES)
def test_mistakes_name_line_and_mend(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert said in caught.value.what
    assert f"m.yaml:{line}: " in caught.value.what
    assert caught.value.mend


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "[]",
        "null",
        "\0",
        b"\xff\xfe\x00",
        "model: 2020-13-45",
        "model: !!int x",
        "model: !!bool perhaps",
        "model: !!timestamp x",
        "parameters: " + "9" * 5000,
        "1: 2",
        "--- {}\n--- {}",
        "[" * 900,
        "{a: " * 900,
        "&a [*a]",
        "a: &a {b: *a}",
        "<<: {a: 1}",
        "%TAG",
    ],
)
def test_what_is_no_model_file(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"m\.yaml") as caught:
        load(tmp_path, text)
    assert len(str(caught.value)) < 3000


@pytest.mark.timeout(20)
def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(UserError, match="alias"):
        load(tmp_path, "\n".join(rows))


@pytest.mark.parametrize("text", ["a: " + "[" * 200_000, "{a: " * 60_000, "- " * 120_000])
def test_deep_nesting_is_refused_and_ends_no_process(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"m\.yaml:1: nested more than 20 deep"):
        load(tmp_path, text)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        load_model(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="can't be read"):
        load_model(tmp_path / "folder.yaml")
    with pytest.raises(UserError, match="larger than"):
        load(tmp_path, "#" * (SIZE_LIMIT + 1))


def test_every_shipped_model_loads() -> None:
    models = {model.spec.model: model for model in load_all()[0]}
    assert set(models) >= {
        "phi-3.5-mini-instruct", "phi-3-mini-4k-instruct", "phi-2", "phi-4",
        "phi-4-mini-instruct", "phi-3.5-moe-instruct", "phi-3-nano", "smollm2-135m-instruct",
    }  # fmt: skip
    for name, model in models.items():
        assert model.file.stem == name
        assert set(model.spec.variants) <= set(FTYPES)


def test_find_model_names_the_nearest() -> None:
    assert find_model("phi-2").spec.model == "phi-2"
    with pytest.raises(UserError, match="did you mean 'phi-3-nano'"):
        find_model("phi3-nano")


def test_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTMINT_MODELS", str(tmp_path))
    (tmp_path / "my-model.yaml").write_text(GOOD)
    assert find_model("my-model").spec.family == "phi3"
    (tmp_path / "other.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"rename the file to my-model\.yaml"):
        find_model("other")
