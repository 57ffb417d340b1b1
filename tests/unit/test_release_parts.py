"""Parts of the release stage: terms, stop tokens, changelog, one-line text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from quantmint.assets.release import settling
from quantmint.assets.release.changes import changelog, same_content
from quantmint.assets.release.described import LONGEST, one_line
from quantmint.assets.release.history import Local
from quantmint.assets.release.stops import params_bytes, stop_texts
from quantmint.assets.release.terms import Terms
from quantmint.errors import UserError
from quantmint.pipelines.assembly import build_definitions
from quantmint.pipelines.spec import load_model
from quantmint.registry.gguf import Gguf
from quantmint.registry.manifest.measured import Gate
from quantmint.registry.manifest.release import (
    OPENSSF_KEY_FILE,
    Manifest,
    OtherFile,
    Variant,
    Withheld,
)
from quantmint.registry.manifest.types import time_text
from quantmint.registry.tensors import TensorTable, read_table
from releases import Release, make_release, sha_of, write_release

PHI = (
    "{% for m in messages %}{{'<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n'}}"
    "{% endfor %}<|user|><|assistant|>"
)


def test_the_asset_is_there_only_where_a_model_file_declares_a_release(tmp_path: Path) -> None:
    text = "model: phi-3-nano\nsource: {embedded: phi-3-nano}\nvariants: [Q4_K_M, Q8_0]\n"
    path = tmp_path / "phi-3-nano.yaml"
    key = dg.AssetKey(["phi-3-nano", "release"])
    path.write_text(text)
    assert (
        key not in build_definitions([load_model(path)]).resolve_asset_graph().get_all_asset_keys()
    )
    path.write_text(text + "release: {hub: my-org/Phi-3-nano-GGUF, license: mit}\n")
    graph = build_definitions([load_model(path)]).resolve_asset_graph()
    parents = {parent.path[-1] for parent in graph.get(key).parent_keys}
    assert {"Q4_K_M", "Q8_0"} <= parents
    assert {name.partition("_on_")[0] for name in parents} == {"Q4_K_M", "Q8_0"}
    assert len(parents) >= 4  # each on a kernel, too


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one of hub and path"),
        ({"hub": "a/b", "path": "c", "publisher": "a"}, "exactly one of hub and path"),
        ({"path": "folder"}, "needs `publisher:`"),
        ({"hub": "a/b/c"}, "is no Hub repository"),
        ({"hub": "a/b", "license": "other"}, "needs license_name"),
        ({"hub": "a/b", "license_link": "javascript:x"}, "an https address"),
        ({"hub": "a/b", "languages": ["english language"]}, "is no language"),
        ({"hub": "a/b", "publisher": "../x"}, "publisher"),
        ({"hub": "a/b", "expires_days": 0}, "expires_days"),
    ],
)
def test_terms_that_can_not_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Terms(**given)


def test_terms_have_defaults(tmp_path: Path) -> None:
    terms = Terms(hub="my-org/Phi-GGUF")
    assert (terms.owner, terms.target(tmp_path)) == ("my-org", "my-org/Phi-GGUF")
    local = Terms(path="../registry", publisher="me")
    assert local.target(tmp_path / "models") == f"file:{tmp_path}/models/../registry"
    assert Terms(path="file:/srv/r", publisher="me").target(tmp_path) == "file:/srv/r"


def header(values: dict[str, Any]) -> Gguf:
    return Gguf(3, values, (), 32, 0, 0)


def test_stop_texts_are_control_tokens_alone() -> None:
    tokens = ["a", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    values = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1, 3, 3, 3, 3, 1],
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": PHI + "<|system|><|im_end|>",
    }
    # <|system|> is an ordinary token here, and <|im_end|> is not in the vocabulary at all.
    expected = ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>")
    assert stop_texts(header(values)) == expected
    assert stop_texts(header({**values, "tokenizer.ggml.eos_token_id": 99})) == expected[1:]
    assert stop_texts(header({})) == ()
    assert params_bytes(("<|end|>",)) == b'{\n  "stop": [\n    "<|end|>"\n  ]\n}\n'


def test_one_line_is_what_a_signed_document_takes() -> None:
    assert one_line("a\n b\tc") == "a b c"
    assert one_line("x\x1b[31m") == "x\N{REPLACEMENT CHARACTER}[31m"
    assert len(one_line("x" * 5000)) == LONGEST


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return make_release(tmp_path)


@pytest.fixture
def manifest(release: Release) -> Manifest:
    return write_release(release)


def tables_of(release: Release) -> Any:
    def read(variant: Variant) -> TensorTable:
        data = release.path(variant.tensors.path).read_bytes()
        return read_table(data, what=variant.tensors.path)

    return read


def with_file(variant: Variant, path: str | None = None) -> Variant:
    entry = variant.file.model_copy(update={"sha256": "9" * 64})
    tensors = variant.tensors.model_copy(update={"path": path or variant.tensors.path})
    return variant.model_copy(update={"file": entry, "tensors": tensors})


def test_the_first_release_says_so(manifest: Manifest, release: Release) -> None:
    assert changelog(manifest, None, tables_of(release)) == ("First release.",)


def test_the_same_files_need_no_download(manifest: Manifest, release: Release) -> None:
    later = manifest.model_copy(update={"release": 3, "created": "2026-05-01T00:00:00Z"})
    assert same_content(later, manifest)
    lines = changelog(later, manifest, tables_of(release))
    assert lines == (
        "Since release 2: nothing must be downloaded again.",
        "Q8_0: the same file.",
        "Q4_K_M: the same file.",
    )


def test_new_measurements_are_told_and_need_no_download(
    manifest: Manifest, release: Release
) -> None:
    q8, q4 = manifest.variants
    slower = q4.model_copy(update={"kernels": ()})
    later = manifest.model_copy(update={"release": 3, "variants": (q8, slower)})
    assert not same_content(later, manifest)
    lines = changelog(later, manifest, tables_of(release))
    assert lines[0].endswith("nothing must be downloaded again.")
    assert "Q4_K_M: the same file, measured anew." in lines


def test_judged_again_by_itself_it_is_the_same_release(manifest: Manifest) -> None:
    """The regression watch says `first measured` once, and `none is worse` ever after."""
    q8, q4 = manifest.variants

    def judged(check: str, reason: str) -> Manifest:
        gates = (*q8.gates, Gate(check=check, reason=reason))
        files = [
            file.model_copy(update={"sha256": sha_of(reason.encode())})
            if file.role == "measurements"
            else file
            for file in manifest.files
        ]
        variants = (q8.model_copy(update={"gates": gates}), q4)
        return manifest.model_copy(update={"variants": variants, "files": tuple(files)})

    first, again = judged("regression", "first measured"), judged("regression", "none is worse")
    assert first != again
    assert same_content(first, again)
    assert not same_content(judged("divergence", "KLD 0.01"), judged("divergence", "KLD 0.02"))


def test_the_same_weights_under_another_header(manifest: Manifest, release: Release) -> None:
    q8, q4 = manifest.variants
    later = manifest.model_copy(update={"release": 3, "variants": (q8, with_file(q4))})
    lines = changelog(later, manifest, tables_of(release))
    assert lines[0].endswith("only headers changed; no weights must be downloaded again.")
    assert any("Q4_K_M: the same weights with other metadata" in line for line in lines)
    template = later.model_copy(update={"chat_template_sha256": "1" * 64})
    lines = changelog(template, manifest, tables_of(release))
    assert any("Q4_K_M: the same weights with another chat template" in line for line in lines)
    assert "The chat template changed." in lines


def test_other_weights_must_be_downloaded(manifest: Manifest, release: Release) -> None:
    q8, q4 = manifest.variants
    # Its table is Q8_0's: one tensor has other bytes.
    other = with_file(q4, q8.tensors.path)
    later = manifest.model_copy(update={"release": 3, "variants": (q8, other)})
    lines = changelog(later, manifest, tables_of(release))
    assert lines[0] == "Since release 2: some files must be downloaded again."
    assert "Q4_K_M: other weights: download again." in lines
    gone = changelog(later, manifest, lambda _: None)
    assert "Q4_K_M: other weights: download again." in gone


def test_variants_come_and_go(manifest: Manifest, release: Release) -> None:
    q8, _ = manifest.variants
    later = manifest.model_copy(
        update={
            "release": 3,
            "variants": (q8,),
            "withheld": (Withheld(variant="Q4_K_M", reason="no"),),
        }
    )
    lines = changelog(later, manifest, tables_of(release))
    assert "Q4_K_M: no longer released, withheld now." in lines
    assert "Q4_K_M: new in this release." in changelog(manifest, later, tables_of(release))


def test_pictures_and_programs_alone_make_no_release(manifest: Manifest) -> None:
    tools = manifest.toolchain.model_copy(update={"quantmint": "9.9"})
    assert same_content(manifest.model_copy(update={"toolchain": tools}), manifest)
    other = manifest.toolchain.model_copy(update={"llama_cpp_commit": "abcdef0"})
    assert not same_content(manifest.model_copy(update={"toolchain": other}), manifest)


def test_a_signature_that_is_to_be_added_makes_a_release_and_a_license_does(
    manifest: Manifest, release: Release
) -> None:
    key = OtherFile(path=OPENSSF_KEY_FILE, size=1, sha256="0" * 64, role="key")
    signed = manifest.model_copy(update={"files": (*manifest.files, key)})
    assert not same_content(signed, manifest)
    assert same_content(manifest, signed)  # one that is there already does no harm
    lines = changelog(signed, manifest, tables_of(release))
    assert "It is signed for OpenSSF's model-signing as well." in lines
    text = OtherFile(path="LICENSE", size=1, sha256="0" * 64, role="license")
    licensed = manifest.model_copy(update={"files": (*manifest.files, text)})
    assert not same_content(licensed, manifest)
    assert "The license or its files changed." in changelog(licensed, manifest, tables_of(release))


def made(number: int, *, published: bool = True, **said: Any) -> Any:
    body = {"published": {"file:x": "1"} if published else {}, **said}
    return Local(SimpleNamespace(body=body), SimpleNamespace(release=number))  # type: ignore[arg-type]


def test_a_release_that_came_to_nothing_does_not_hide_the_published_one() -> None:
    def newest(*known: Any, at_least: int = 0) -> list[int]:
        return [local.manifest.release for local in settling._newest(list(known), at_least)]

    assert newest(made(1), made(2), made(3, published=False)) == [3, 2]
    assert newest(made(1), made(2, published=False, yanked="bad")) == [2]
    assert newest(made(1), made(2, published=False, yanked="bad", given_up=True)) == [2, 1]
    assert newest(made(1), made(2), at_least=5) == []
    assert newest() == []


@pytest.mark.parametrize(("day", "holds"), [(0, True), (74, True), (76, False), (400, False)])
def test_a_release_is_signed_anew_in_the_last_quarter_of_its_life(
    manifest: Manifest, day: int, holds: bool
) -> None:
    begun = datetime(2026, 2, 1, tzinfo=UTC)
    fields = {"created": time_text(begun), "expires": time_text(begun + timedelta(days=100))}
    desk: Any = SimpleNamespace(now=begun + timedelta(days=day))
    assert settling._holds(desk, manifest.model_copy(update=fields)) == holds


@pytest.mark.parametrize(
    ("to", "expected"),
    [("", "org/Name-GGUF"), ("hub:Org/name-gguf", "Org/name-gguf"), ("file:/tmp/x", "file:/tmp/x")],
)
def test_where_a_release_goes(to: str, expected: str) -> None:
    assert Terms(hub="org/Name-GGUF").place(to, Path("/base")) == expected


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("hub:other/Name-GGUF", "these are releases of org, and other/Name-GGUF is other's"),
        ("hub:org/Second-GGUF", "these are releases of org/Name-GGUF, which they name"),
    ],
)
def test_where_a_release_does_not_go(to: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Terms(hub="org/Name-GGUF").place(to, Path("/base"))
    path = Terms(path="registry", publisher="org", license="mit", base_model="a/b")
    assert path.place("hub:org/Second-GGUF", Path("/base")) == "org/Second-GGUF"
