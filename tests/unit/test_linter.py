"""The resolver linter: a good release passes, and each way to go wrong is named with its mend."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.mutants import model
from gguf_builder import array, scalar, string, text
from helpers import Ran
from quantmint.errors import IntegrityError, UserError
from quantmint.native.ftypes import FTYPES
from quantmint.registry import gguf
from quantmint.registry.linter.card import ATTRIBUTES, front_matter
from quantmint.registry.linter.labels import FILE_TYPES
from quantmint.registry.linter.listing import Finding, ListedFile, Listing
from quantmint.registry.linter.run import from_folder, from_json, lint, require_clean

Quantmint = Callable[..., Ran]
CARD = """---
base_model: microsoft/Phi-3.5-mini-instruct
base_model_relation: quantized
quantized_by: org
license: mit
language: [en]
library_name: gguf
pipeline_tag: text-generation
tags: [gguf, llama-cpp]
---
# Phi-3.5-mini-instruct
"""


def model_file(tag: str, **changes: bytes | None) -> bytes:
    """A whole small GGUF file whose header says `tag`; a change of None drops the key."""
    file = model()
    named = {**dict(file.values), "general.file_type": scalar(4, FILE_TYPES.get(tag, 0))}
    named |= {key.replace("__", "."): value for key, value in changes.items()}
    file.values = [(key, value) for key, value in named.items() if value is not None]
    return file.build()


def listed(path: str, data: bytes | str) -> ListedFile:
    if isinstance(data, str):
        return ListedFile(path, len(data), text=data)
    return ListedFile(path, len(data), header=gguf.parse(data, len(data)))


def release(*tags: str, **more: bytes | str) -> dict[str, bytes | str]:
    files: dict[str, bytes | str] = {f"Phi-{tag}.gguf": model_file(tag) for tag in tags}
    return {".gitattributes": ATTRIBUTES, "README.md": CARD, **files, **more}


def judge(files: dict[str, bytes | str], repo: str = "org/Phi-GGUF", **how: bool) -> list[Finding]:
    rows = [listed(path, files[path]) for path in sorted(files)]
    return list(lint(Listing.of(rows, repo=repo, **how)))


def errors(found: list[Finding]) -> list[str]:
    return [one.what for one in found if one.severity == "error"]


def test_a_whole_ladder_passes() -> None:
    """Every variant that a mint makes, but for Q2_K_S and the ternary ones (see below)."""
    tags = sorted({name for name, f in FTYPES.items() if not f.ternary} - {"Q2_K_S"})
    assert len(tags) > 20
    assert judge(release("F16", *tags)) == []


def test_each_variant_alone_passes() -> None:
    for tag in FTYPES:
        assert errors(judge(release(tag))) == [], tag


@pytest.mark.parametrize(
    ("files", "said", "mend"),
    [
        (release("Q4_K_M", "F16", "BF16"),
         "`llama-cli -hf org/Phi-GGUF:F16` takes Phi-BF16.gguf; wanted: Phi-F16.gguf",
         "rename Phi-BF16.gguf"),
        (release("Q4_K_M", "F16", "BF16"), "F16 and BF16 in one repository", "one 16-bit file"),
        (release("Q4_K_M", "Q2_K", "Q2_K_S"),
         "`docker model pull hf.co/org/Phi-GGUF:Q2_K` takes Phi-Q2_K.gguf, Phi-Q2_K_S.gguf",
         "rename Phi-Q2_K_S"),
        ({**release("Q4_K_M"), "preset.ini": ""}, "takes preset.ini", "remove preset.ini"),
        ({**release("Q4_K_M"), "preset.ini": ""}, "preset.ini in the root", "into a folder"),
        (release("Q4_K_M", "Q4_K"),
         "tag Q4_K: `https://huggingface.co/org/Phi-GGUF, label Q4_K` takes no file",
         "that this client knows"),
        ({**release("Q4_K_M"), "Phi-v2-Q4_K_M.gguf": model_file("Q4_K_M")},
         "Phi-Q4_K_M.gguf and Phi-v2-Q4_K_M.gguf both stand for the tag Q4_K_M", "rename one"),
        ({**release("Q4_K_M"), "Phi-Q8_0-Q2_K.gguf": model_file("Q2_K"),
          "Phi-Q8_0.gguf": model_file("Q8_0")},
         "llama.cpp, tag Q8_0: `llama-cli -hf org/Phi-GGUF:Q8_0` takes Phi-Q8_0-Q2_K.gguf",
         "rename Phi-Q8_0-Q2_K.gguf, or publish one of them"),
        ({**release("Q4_K_M"), "Phi-Compact.gguf": model_file("Q8_0")},
         "the Hub's file list, tag COMPACT", "end the file's name in -COMPACT.gguf"),
        ({**release("Q4_K_M"), "Phi.gguf": model_file("Q8_0")},
         "Phi.gguf: its tag '' is no name of a variant", "end the file's name in -VARIANT.gguf"),
        ({**release(), "Phi-imatrix-Q8_0.gguf": model_file("Q8_0")},
         "there is no model", "add the variants' files"),
        ({**release("Q4_K_M"), "Phi-Q8_0-00001-of-00002.gguf": model_file("Q8_0")},
         "of 2 parts, number 2 is not there", "llama-gguf-split --split"),
        ({**release("Q4_K_M"), "Phi-Q8_0-00001-of-00001.gguf": model_file("Q8_0")},
         "Ollama, tag Q8_0: `ollama run hf.co/org/Phi-GGUF:Q8_0` takes no file",
         "end the file's name in -Q8_0.gguf"),
        ({**release("Q4_K_M"), "Phi-Q8_0-1-of-2.gguf": model_file("Q8_0")},
         "not as clients name parts", "five digits"),
        ({**release("Q4_K_M"), "calibration.gguf": model_file(
            "F16", general__type=string("imatrix"))},
         "calibration.gguf is an importance matrix", "put `imatrix` into its name"),
        ({**release("Q4_K_M"), "a b.txt": ""}, "'a b.txt' is outside the grammar", "use letters"),
        ({**release("Q4_K_M"), "readme.md": ""},
         "README.md and readme.md differ in case", "rename"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q8_0")},
         "is named Q4_K_M, and its general.file_type says Q8_0", "its own file"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", phi3__context_length=None)},
         "has no phi3.context_length", "convert and quantize"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", general__architecture=None)},
         "has no general.architecture", "convert and quantize"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", general__quantization_version=None)},
         "has no general.quantization_version", "convert and quantize"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", tokenizer__ggml__tokens=None)},
         "has no vocabulary", "convert and quantize"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", tokenizer__chat_template=None)},
         "has no tokenizer.chat_template", "put the source's template"),
        ({**release("Q8_0"), "Phi-Q4_K_M.gguf": model_file(
            "Q4_K_M", tokenizer__chat_template=string("{{ evil }}"))},
         "Q4_K_M and Q8_0 have different chat templates", "of one FP16 file"),
        ({**release("Q8_0"), "Phi-Q4_K_M.gguf": model_file(
            "Q4_K_M", tokenizer__ggml__tokens=array(8, text("a"), 1))},
         "Q4_K_M and Q8_0 have different vocabularies", "of one FP16 file"),
        ({**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", split__count=scalar(2, 3))},
         "its header tells of 3 parts", "llama-gguf-split"),
        ({k: v for k, v in release("Q4_K_M").items() if k != "README.md"}, "no README.md", "write"),
        ({**release("Q4_K_M"), "README.md": "# Phi"}, "does not start with a line `---`", "write"),
        ({**release("Q4_K_M"), "README.md": "---\na: 1\n"}, "has no second line `---`", "write"),
        ({**release("Q4_K_M"), "README.md": "---\na: [\n---\n"}, "is no YAML", "write"),
        ({**release("Q4_K_M"), "README.md": "---\n!!python/object/apply:os.system [x]\n---\n"},
         "is no YAML: could not determine a constructor", "write"),
        ({**release("Q4_K_M"), "README.md": "---\n" + "[" * 5000 + "\n---\n"},
         "is no YAML", "write"),
        ({**release("Q4_K_M"), "README.md": "---\n- a\n---\n"}, "is no mapping", "write"),
        ({**release("Q4_K_M"), "README.md": "---\na: " + "x" * 70000 + "\n---\n"},
         "is longer than 64 KiB", "write"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("base_model: ", "model: ")},
         "base_model names no repository", "base_model: OWNER/NAME"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("quantized\n", "finetune\n", 1)},
         "base_model_relation is not `quantized`", "base_model_relation: quantized"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("mit", "no")},
         "license is missing or no text", "license: mit"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("mit", "other")},
         "`other` without license_link", "license_link"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("mit", "mit\nlicense_link: javascript:1")},
         "license_link is no https address", "license_link"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("mit", "mit\nlicense_link: LICENSE")},
         "license_link is LICENSE, and there is no such file", "license_link"),
        ({**release("Q4_K_M"), "README.md": CARD.replace("[gguf", "[ggml")},
         "tags does not list `gguf`", "tags: [gguf]"),
        ({**release("Q4_K_M"), ".gitattributes": "*.bin filter=lfs -text\n"},
         "routes Phi-Q4_K_M.gguf (of 1) not to LFS", "*.gguf filter=lfs diff=lfs"),
        ({**release("Q4_K_M"), ".gitattributes": ATTRIBUTES + "Phi-* -filter\n"},
         "routes Phi-Q4_K_M.gguf (of 1) not to LFS", "*.gguf filter=lfs diff=lfs"),
        ({**release("Q4_K_M"), "params": "{stop: x}"}, "params is no JSON object", '"stop"'),
        ({**release("Q4_K_M"), "params": '{"stop": "x"}'}, "params is no JSON object", '"stop"'),
        ({**release("Q4_K_M"), "template": "{% for m in x %}"}, "template is Jinja", "remove it"),
    ],
)  # fmt: skip
def test_bad_layouts_are_refused(files: dict[str, bytes | str], said: str, mend: str) -> None:
    found = [one for one in judge(files) if one.severity == "error" and said in one.what]
    assert found, errors(judge(files))
    assert any(mend in one.mend for one in found)


@pytest.mark.parametrize(
    "repo",
    [
        "Phi-GGUF",
        "org/a/b",
        "org/-a",
        "org/a--b",
        "org/a..b",
        "org/a.git",
        "org/ä",
        "o/" + "a" * 99,
    ],
)
def test_bad_names_of_repositories_are_refused(repo: str) -> None:
    assert any("no name of a repository" in what for what in errors(judge(release("Q8_0"), repo)))


def test_warnings_do_not_refuse() -> None:
    ternary = judge(release("Q4_K_M", "TQ1_0", "TQ2_0"))
    assert [one.severity for one in ternary] == ["warning", "warning"]
    assert "the tag Q1_0 is not shipped, and takes Phi-TQ1_0.gguf" in ternary[0].what
    assert "no Q4_K_M" in judge(release("Q8_0"))[0].what
    assert "does not end in -GGUF" in judge(release("Q4_K_M"), "org/Phi")[0].what
    folder = {**release(), "gguf/Phi-Q4_K_M.gguf": model_file("Q4_K_M")}
    assert [one.severity for one in judge(folder)] == ["warning"]
    assert judge({**release("Q4_K_M"), "Phi-imatrix.gguf": model_file("F16")}) == []


def test_a_base_model_needs_no_chat_template() -> None:
    files = {**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", tokenizer__chat_template=None)}
    assert judge(files, chat=False) == []


def test_sizes_beyond_the_hubs_limits_are_refused() -> None:
    rows = [listed(path, data) for path, data in sorted(release("Q4_K_M", "Q8_0").items())]
    for size, severity in ((600 * 10**9, "error"), (300 * 10**9, "warning"), (0, "error")):
        grown = [replace(r, size=size) if r.path == "Phi-Q8_0.gguf" else r for r in rows]
        found = [one for one in lint(Listing.of(grown)) if one.rule == "size"]
        assert [one.severity for one in found] == [severity]


def test_an_advertised_file_that_is_absent_is_refused() -> None:
    rows = [listed(path, data) for path, data in sorted(release("Q4_K_M").items())]
    pairs = [("Q4_K_M", "Phi-Q4_K_M.gguf"), ("Q8_0", "Phi-Q8_0.gguf")]
    found = lint(Listing.of(rows, advertised=pairs))
    assert [one.what for one in found] == [
        "Q8_0 is advertised, and its file Phi-Q8_0.gguf is not there"
    ]


def test_what_comes_without_a_tag_is_advertised() -> None:
    rows = [listed(path, data) for path, data in sorted(release("Q6_K", "Q8_0").items())]
    pairs = [("Q8_0", "Phi-Q8_0.gguf")]
    found = [one for one in lint(Listing.of(rows, advertised=pairs)) if one.severity == "error"]
    assert {one.rule for one in found} == {"default"}
    assert "Ollama, no tag: `ollama run hf.co/OWNER/NAME` takes Phi-Q6_K.gguf" in [
        one.what for one in found
    ]


@pytest.mark.parametrize("length", [scalar(4, 0), scalar(7, 1), scalar(6, 4096), string("4096")])
def test_a_context_length_is_a_number(length: bytes) -> None:
    files = {**release(), "Phi-Q4_K_M.gguf": model_file("Q4_K_M", phi3__context_length=length)}
    assert len(errors(judge(files))) == 1


def test_require_clean_names_every_error() -> None:
    rows = [listed(path, data) for path, data in sorted(release("F16", "BF16").items())]
    with pytest.raises(IntegrityError) as caught:
        require_clean(Listing.of(rows))
    assert caught.value.what.count("mend: ") >= 2
    clean = [listed(path, data) for path, data in sorted(release("Q8_0").items())]
    assert [one.rule for one in require_clean(Listing.of(clean))] == ["default"]


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def test_folders_and_listings(tmp_path: Path) -> None:
    folder = write(tmp_path / "good", release("Q4_K_M", "Q8_0"))
    # What `git clone` and `hf download --local-dir` keep beside the files is none of them.
    write(folder, {".git/config": "", ".cache/huggingface/download/README.md.metadata": "",
                   ".cache/huggingface/.gitignore": "*"})  # fmt: skip
    listing = from_folder(folder, repo="org/Phi-GGUF")
    assert lint(listing) == ()
    assert not [path for path in listing.paths if path.startswith(".cache")]
    tree = [{"type": "file", "path": f.path, "size": f.size} for f in listing.files]
    tree.append({"type": "directory", "path": "x", "size": 0})
    assert from_json(json.dumps(tree).encode()).paths == listing.paths
    assert lint(from_json(json.dumps(list(listing.paths)).encode())) == ()
    (folder / "bad-Q8_0.gguf").write_bytes(b"GGUF" + bytes(30))
    with pytest.raises(gguf.GgufError):
        from_folder(folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b'[{"path": 1}]', b'[{"path": "a", "size": -1}]', b"[" * 90_000,
     b'["\\u001b[31m"]', json.dumps(["a" * 1025]).encode(),
     json.dumps(["a"] * 10_001).encode()],
)  # fmt: skip
def test_listings_that_are_none(data: bytes) -> None:
    with pytest.raises(UserError):
        from_json(data)


def test_a_thousand_models_are_told_in_one_line() -> None:
    listing = from_json(json.dumps([f"m-{n}.gguf" for n in range(1000)]).encode())
    assert [one.what for one in lint(listing)] == ["there are 1000 models in it, more than 256"]


def test_aliases_in_front_matter_stay_small() -> None:
    bomb = "---\na: &a [x, x]\n" + "".join(
        f"{'bcdefghijklmnopqrst'[n]}: &{'bcdefghijklmnopqrst'[n]} [*{'abcdefghijklmnopqrs'[n]}"
        f", *{'abcdefghijklmnopqrs'[n]}]\n" for n in range(19)
    ) + "---\n"  # fmt: skip
    assert len(front_matter(bomb)) == 20


def test_the_command(quantmint: Quantmint, tmp_path: Path) -> None:
    good = write(tmp_path / "good", release("Q4_K_M", "Q8_0"))
    ran = quantmint("lint", good, "--repo", "org/Phi-GGUF")
    assert (ran.code, ran.out) == (0, "2 tags, 0 errors, 0 warnings\n")
    bad = write(tmp_path / "bad", release("Q4_K_M", "F16", "BF16"))
    ran = quantmint("lint", bad, "--json")
    assert ran.code == 5
    assert "this layout must not be published" in ran.err
    told = json.loads(ran.out)
    assert told["tags"]["F16"] == "Phi-F16.gguf"
    assert {one["rule"] for one in told["findings"]} == {"tag", "pairs"}
    listing = tmp_path / "tree.json"
    listing.write_text(json.dumps(["a-Q4_K_M.gguf", "README.md", ".gitattributes"]))
    assert quantmint("lint", listing).code == 0
    assert quantmint("lint", tmp_path / "none").code == 2
