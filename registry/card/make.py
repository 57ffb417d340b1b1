"""The card as a whole. Equal manifests and facts give equal bytes; nothing is written by hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from quantmint.registry.card import numbers
from quantmint.registry.card.escape import code, escaped, fenced
from quantmint.registry.card.facts import CardFacts
from quantmint.registry.card.front import front_matter
from quantmint.registry.hub_address import PUBLIC_HUB
from quantmint.registry.manifest.release import (
    MANIFEST_FILE,
    MODEL_SIGNATURE_FILE,
    OPENSSF_KEY_FILE,
    Manifest,
)

PICTURES = {
    "size-kld.png": "Size of each file against its divergence from FP16",
    "speed.png": "Tokens per second by variant and kernel",
}


def make_card(manifest: Manifest, facts: CardFacts) -> bytes:
    """Return `README.md` of a release, in UTF-8."""
    parts = [
        f"# {escaped(manifest.title)}, GGUF",
        *_intro(manifest, facts),
        *(_files(manifest) if manifest.variants else ()),
        *_running(manifest, facts),
        *_details(manifest),
        *_provenance(manifest, facts),
        *_withheld(manifest),
        *_changes(manifest),
    ]
    return (front_matter(manifest, facts) + "\n" + "\n\n".join(parts) + "\n").encode()


def _intro(manifest: Manifest, facts: CardFacts) -> Iterator[str]:
    base = f"[{escaped(facts.base_model)}]({facts.base_hub}/{facts.base_model})"
    yield (
        f"Quantized from {base} with llama.cpp {code(manifest.toolchain.llama_cpp_commit[:12])}. "
        f"Release {manifest.release} of {manifest.created[:10]}: each file was measured as it is, "
        "passed its gates, and was tested again on the bytes read back before it was published."
    )
    if manifest.variants:
        yield f"**Which file?** {numbers.pick_line(manifest)}"
    else:
        yield "**Withdrawn.** This model is no longer released."


def _files(manifest: Manifest) -> Iterator[str]:
    yield "## Files"
    yield numbers.files_table(manifest)
    yield numbers.quality_note(manifest)
    listed = {file.path for file in manifest.files if file.role == "picture"}
    if "size-kld.png" in listed:
        yield f"![{PICTURES['size-kld.png']}](size-kld.png)"


def _running(manifest: Manifest, facts: CardFacts) -> Iterator[str]:
    if not manifest.variants:
        return
    one = numbers.usual(manifest)
    name, repo = one.variant, manifest.repository
    yield "## How to run it"
    yield "quantmint (checks the signature and every byte):"
    # Without a repository the reader knows which folder the registry is, and we do not.
    at = _hub_first(facts)
    yield fenced(f"{at}quantmint pull {repo or 'file:FOLDER'}:{name}", "sh")
    if repo is not None:
        yield "llama.cpp:"
        yield fenced(f"{at}llama-cli -hf {repo}:{name}\n{at}llama-server -hf {repo}:{name}", "sh")
        if facts.hub == PUBLIC_HUB:  # the only one that these two know
            yield "Ollama:"
            yield fenced(f"ollama run hf.co/{repo}:{name}", "sh")
            yield "LM Studio:"
            yield fenced(f"lms get {PUBLIC_HUB}/{repo}@{name}", "sh")
    else:
        yield "llama.cpp, in the folder of the release:"
        yield fenced(f"llama-cli -m {one.file.path}\nllama-server -m {one.file.path}", "sh")
    yield from _prompt(manifest, facts)


def _hub_first(facts: CardFacts) -> str:
    """Return what stands before a command that would else ask the public hub for that name."""
    return "" if facts.hub == PUBLIC_HUB else f"HF_ENDPOINT={shlex.quote(facts.hub)} "


def _prompt(manifest: Manifest, facts: CardFacts) -> Iterator[str]:
    yield "### Prompt format"
    if manifest.chat_template_sha256 is None:
        yield "The file has no chat template; it was tested with prompts as they stand here:"
    else:
        yield "The chat template is in every file, and clients use it by themselves. One turn:"
    yield fenced(facts.prompt or "{prompt}")
    if facts.stops:
        stops = ", ".join(code(stop) for stop in facts.stops)
        yield f"A turn ends with one of: {stops} (Ollama reads them from {code('params')})."
    if manifest.context_length is not None:
        yield f"Longest context: {manifest.context_length} tokens."


def _details(manifest: Manifest) -> Iterator[str]:
    more = list(numbers.more_contexts(manifest))
    tasks, speed = numbers.tasks_table(manifest), numbers.speed_table(manifest)
    if more or tasks or speed:
        yield "## Measurements"
    yield from more
    if tasks:
        yield "### Tasks"
        yield ("Multiple-choice items answered rightly by log-likelihood, and the difference to "
               "FP16 on the same items with its 95 % interval.")  # fmt: skip
        yield tasks
    if speed:
        yield "### Speed"
        yield "Tokens per second: the median of the repetitions, with the least and the most."
        yield speed
        if any(file.path == "speed.png" for file in manifest.files):
            yield f"![{PICTURES['speed.png']}](speed.png)"


def _provenance(manifest: Manifest, facts: CardFacts) -> Iterator[str]:
    source, tools = manifest.source, manifest.toolchain
    rows = [
        (
            "source",
            f"{code(source.name)}" + (f" at {code(source.commit)}" if source.commit else ""),
        ),
        ("llama.cpp", f"{code(tools.llama_cpp_commit)} out of {escaped(tools.llama_cpp)}"),
        ("compiler", escaped(f"{tools.compiler}, CMake {tools.cmake}")),
        ("measured on", ", ".join(code(k.kernel) for k in tools.kernels) or numbers.NONE),
    ]
    if manifest.calibration is not None:
        text = manifest.calibration.text
        made_from = f"from {escaped(text.name)} ({code(text.sha256)})"
        matrix = code(manifest.calibration.imatrix_sha256)
        rows.append(("importance matrix", f"{matrix} {made_from}"))
    rows.append(("license", _license(manifest, facts)))
    rows += [("assay text", f"{escaped(t.name)} ({code(t.sha256)})") for t in manifest.assay]
    yield "## Where it comes from"
    yield "\n".join(f"- {name}: {said}" for name, said in rows)
    yield (
        f"{code(MANIFEST_FILE)} lists every file with its sha256, and is signed with the Ed25519 "
        f"key {code(facts.key_id)}. Compare that id with what the publisher says elsewhere, then "
        "verify a downloaded copy of this repository:"
    )
    scope = f"{manifest.publisher}/{manifest.model}"
    repo = manifest.repository
    fetch = (
        f"{_hub_first(facts)}hf download {repo} --local-dir FOLDER\n" if repo is not None else ""
    )
    yield fenced(
        f"{fetch}quantmint keys trust FOLDER/{facts.key_file} --for {scope}\n"
        "quantmint verify FOLDER --strict",
        "sh",
    )
    if any(file.path == OPENSSF_KEY_FILE for file in manifest.files):
        yield (f"With OpenSSF's tool instead (it knows no release numbers and no expiry), and the "
               f"key that the manifest lists as {code(OPENSSF_KEY_FILE)}:")  # fmt: skip
        yield fenced(
            "pip install model-signing pyOpenSSL\n"
            f"model_signing verify key FOLDER --signature FOLDER/{MODEL_SIGNATURE_FILE} "
            f"--public_key FOLDER/{OPENSSF_KEY_FILE} --no-ignore-git-paths",
            "sh",
        )
    yield f"The release expires on {manifest.expires[:10]}: a newer one should be there by then."


def _license(manifest: Manifest, facts: CardFacts) -> str:
    name = facts.license_name or facts.license
    files = [file.path for file in manifest.files if file.role == "license"]
    links = ", ".join(f"[{escaped(path)}]({path})" for path in files)
    return escaped(name) + (f"; its text: {links}" if links else "")


def _withheld(manifest: Manifest) -> Iterator[str]:
    if manifest.withheld:
        yield "## Withheld"
        yield "Made, tested, and not published:"
        yield "\n".join(
            f"- {code(row.variant)}: {escaped(row.reason)}" for row in manifest.withheld
        )


def _changes(manifest: Manifest) -> Iterator[str]:
    yield "## Must I download again?"
    head, *lines = manifest.changes or ("First release.",)
    yield escaped(head)
    if lines:
        yield "\n".join(f"- {escaped(line)}" for line in lines)
    if manifest.yanked:
        yield "Withdrawn releases, not to be used:"
        yield "\n".join(
            f"- release {row.release} ({code(row.manifest_sha256[:16])}): {escaped(row.reason)}"
            for row in manifest.yanked
        )
