"""The card: made whole from the manifest, and nothing foreign in it is ever markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from quantmint.registry.card.escape import code, escaped, fenced
from quantmint.registry.card.facts import CardFacts
from quantmint.registry.card.make import make_card
from quantmint.registry.card.numbers import pick_line
from quantmint.registry.hub_address import shown_hub
from quantmint.registry.linter.card import check_card, front_matter
from quantmint.registry.linter.listing import ListedFile, Listing
from quantmint.registry.manifest.measured import MemoryAt
from quantmint.registry.manifest.release import Manifest, OtherFile, Withheld, Yanked
from releases import DIVERGENCE, make_release, write_release

GB = 10**9
FACTS = CardFacts(
    base_model="microsoft/Phi-3-nano", license="mit", languages=("en", "fr"),
    prompt="<|user|>\n{prompt}<|end|>\n<|assistant|>\n", stops=("<|end|>", "<|user|>"),
    key_id="a" * 64, key_file="release-key.pem",
)  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_release(make_release(tmp_path))


def text_of(manifest: Manifest, facts: CardFacts = FACTS) -> str:
    return make_card(manifest, facts).decode()


def changed(manifest: Manifest, **fields: Any) -> Manifest:
    return manifest.model_copy(update=fields)


def test_equal_manifests_give_equal_bytes(manifest: Manifest) -> None:
    assert make_card(manifest, FACTS) == make_card(manifest, FACTS)
    assert make_card(manifest, FACTS) != make_card(changed(manifest, release=9), FACTS)


def test_the_front_matter_is_what_the_linter_asks_for(manifest: Manifest) -> None:
    text = text_of(manifest)
    matter = front_matter(text)
    assert matter["base_model"] == "microsoft/Phi-3-nano"
    assert matter["base_model_relation"] == "quantized"
    assert matter["quantized_by"] == "my-org"
    assert matter["language"] == ["en", "fr"]
    assert {"gguf", "imatrix", "conversational"} <= set(matter["tags"])
    readme = ListedFile("README.md", len(text), text=text)
    assert list(check_card(Listing.of([readme]))) == []


def test_what_a_reader_looks_for_is_there(manifest: Manifest) -> None:
    text = text_of(manifest)
    for variant in manifest.variants:
        assert f"[{variant.file.path}]({variant.file.path})" in text
    at = DIVERGENCE
    assert f"{at.ppl:.3f} ± {at.ppl_error:.3f}" in text
    assert f"{at.kld_mean:.5f} ± {at.kld_error:.5f} | {at.kld_p99:.4f} | {at.top1:.2%}" in text
    assert "60/100: -1.0% [-5.0%, +3.0%]" in text
    assert "100 (96 to 101)" in text
    for line in (
        "llama-cli -hf my-org/Phi-3-nano-GGUF:Q4_K_M",
        "ollama run hf.co/my-org/Phi-3-nano-GGUF:Q4_K_M",
        "lms get https://huggingface.co/my-org/Phi-3-nano-GGUF@Q4_K_M",
        "quantmint pull my-org/Phi-3-nano-GGUF:Q4_K_M",
        "quantmint keys trust FOLDER/release-key.pem --for my-org/phi-3-nano",
        "<|user|>\n{prompt}<|end|>\n<|assistant|>",
        "`<|end|>`, `<|user|>`",
        "`TQ1_0`: top1 0.31 is below 0.8",
        "First release.",
        "a" * 64,
        manifest.toolchain.llama_cpp_commit,
        "calibration.txt",
    ):
        assert line in text


def test_licenses_and_the_openssf_key_stand_in_the_card_if_the_release_has_them(
    manifest: Manifest,
) -> None:
    plain = text_of(manifest)
    assert "- license: mit\n" in plain
    assert "model_signing" not in plain
    more = tuple(
        OtherFile(path=path, size=1, sha256=str(n) * 64, role=role)
        for n, (path, role) in enumerate(
            (("LICENSE", "license"), ("NOTICE.txt", "license"), ("openssf-key.pem", "key"))
        )
    )
    text = text_of(changed(manifest, files=(*manifest.files, *more)))
    wanted = "license: mit; its text: [LICENSE](LICENSE), [NOTICE.txt](NOTICE.txt)"
    assert wanted in text
    assert (
        "model_signing verify key FOLDER --signature FOLDER/model.sig --public_key "
        "FOLDER/openssf-key.pem --no-ignore-git-paths"
    ) in text


def test_on_another_hub_every_command_asks_that_one(manifest: Manifest) -> None:
    facts = replace(FACTS, hub="https://hub.example:8443", base_hub="https://weights.example")
    text = text_of(manifest, facts)
    at = "HF_ENDPOINT=https://hub.example:8443 "
    for line in (
        f"{at}quantmint pull my-org/Phi-3-nano-GGUF:Q4_K_M",
        f"{at}llama-cli -hf my-org/Phi-3-nano-GGUF:Q4_K_M",
        f"{at}llama-server -hf my-org/Phi-3-nano-GGUF:Q4_K_M",
        f"{at}hf download my-org/Phi-3-nano-GGUF --local-dir FOLDER",
        "(https://weights.example/microsoft/Phi-3-nano)",
    ):
        assert line in text
    for other in ("huggingface.co", "hf.co/", "lms get"):
        assert other not in text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("https://me:secret@hub.example:8443/sub/", "https://hub.example:8443/sub"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
    ],
)
def test_a_hub_is_shown_without_a_password(address: str, shown: str) -> None:
    assert shown_hub(address) == shown


def test_without_a_repository_no_command_names_one(manifest: Manifest) -> None:
    text = text_of(changed(manifest, repository=None))
    assert "llama-cli -m Phi-3-nano-Q4_K_M.gguf" in text
    assert "quantmint pull file:FOLDER:Q4_K_M" in text
    assert "ollama" not in text.replace("Ollama reads them", "")
    assert "lms get" not in text


def test_the_file_for_a_memory_is_the_best_that_fits(manifest: Manifest) -> None:
    q8, q4 = manifest.variants

    def sized(variant: Any, gigabytes: int, kld: float) -> Any:
        memory = (MemoryAt(context=4096, weights=gigabytes * GB, cache=0, compute=0),)
        at = DIVERGENCE.model_copy(update={"kld_mean": kld})
        return variant.model_copy(update={"memory": memory, "divergence": (at,)})

    rows = (sized(q8, 7, 0.001), sized(q4, 3, 0.02))
    line = pick_line(changed(manifest, variants=rows))
    assert line == (
        "By free memory (with 4096 tokens of context): 4 GB: `Q4_K_M` · 8 GB or more: `Q8_0`."
    )
    # The larger file is not the better one merely because it is larger.
    worse = (sized(q8, 7, 0.5), sized(q4, 3, 0.02))
    assert "Q8_0" not in pick_line(changed(manifest, variants=worse))


def test_pictures_stand_in_the_card_only_if_the_release_has_them(manifest: Manifest) -> None:
    assert "](size-kld.png)" not in text_of(manifest)
    plot = OtherFile(path="size-kld.png", size=1, sha256="0" * 64, role="picture")
    assert "](size-kld.png)" in text_of(changed(manifest, files=(*manifest.files, plot)))


HOSTILE = (
    "</td><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/p.png)",
    "a | b | c",
    "`code` and ``more``",
    "**bold** _it_ ~~gone~~ $x$",
    "see https://evil.example or www.evil.example",
    "ask @somebody",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "line\n\n## Files\n\nforged",
    "---\nlicense: other\n---",
)


def markup_of(text: str) -> list[tuple[str, str]]:
    """Return everything in a card that is more than text: links, images, HTML, emphasis."""
    body = text.split("---\n", 2)[2]
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = [t for block in parser.parse(body) for t in (block, *(block.children or ()))]
    found = [(t.type, str(t.attrs.get("href") or t.attrs.get("src") or "")) for t in tokens]
    plain = {"text", "inline", "softbreak", "paragraph_open", "paragraph_close"}
    listed = ("list", "heading", "list_item")
    return [row for row in found if row[0] not in plain and not row[0].startswith(listed)]


@pytest.mark.parametrize("foreign", HOSTILE)
def test_foreign_text_is_never_markup(manifest: Manifest, foreign: str) -> None:
    line = " ".join(foreign.split())
    hostile = changed(
        manifest,
        withheld=(Withheld(variant="TQ1_0", reason=line),),
        changes=(line, line),
        yanked=(Yanked(release=1, manifest_sha256="0" * 64, reason=line),),
    )
    text = text_of(hostile)
    plain = text_of(
        changed(
            manifest,
            withheld=(Withheld(variant="TQ1_0", reason="x"),),
            changes=("x", "x"),
            yanked=(Yanked(release=1, manifest_sha256="0" * 64, reason="x"),),
        )
    )
    assert markup_of(text) == markup_of(plain)
    for bare in ("://evil", "www.evil", " @somebody"):  # what a hub links without any markup
        assert bare not in text
    headings = [row for row in text.splitlines() if row.startswith("#")]
    expected = [row for row in plain.splitlines() if row.startswith("#")]
    assert headings == expected
    assert front_matter(text) == front_matter(plain)


def test_facts_of_a_header_stay_in_their_block(manifest: Manifest) -> None:
    prompt = "```\n# forged\n[a](javascript:x)\n````\n{prompt}"
    facts = CardFacts(
        base_model="a/b", license="mit", prompt=prompt, stops=("`<|end|>`", "a|b"),
        key_id="a" * 64, key_file="k.pem",
    )  # fmt: skip
    text = text_of(manifest, facts)
    assert f"`````text\n{prompt}\n`````" in text
    assert "`` `<|end|>` ``" in text


def test_yaml_cannot_be_broken_out_of(manifest: Manifest) -> None:
    facts = CardFacts(
        base_model="a/b", license="other", license_name='x\nbase_model: evil/c\n---\n"',
        license_link="LICENSE", key_id="a" * 64, key_file="k.pem",
    )  # fmt: skip
    text = text_of(manifest, facts)
    assert front_matter(text)["base_model"] == "a/b"
    assert front_matter(text)["license_name"] == 'x base_model: evil/c --- "'
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("_x_", "\\_x\\_"),
        ("a|b", "a\\|b"),
        ("1 < 2 & 3", "1 &lt; 2 &amp; 3"),
        ("two\nlines", "two lines"),
    ],
)
def test_escaping(text: str, written: str) -> None:
    assert escaped(text) == written


def test_code_and_fences_outgrow_the_backticks_inside() -> None:
    assert code("a`b") == "`` a`b ``"
    assert fenced("```") == "````text\n```\n````"
