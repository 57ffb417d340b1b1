"""Pulling as a person does it: from a hub and from folders, verified, chosen, placed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import quantmint as package
from fault_tools import TOKEN
from helpers import Ran
from hub import Hub
from pulling import MODEL, OWNER, REPO, SEEDS, TITLE, Publisher, model_bytes, serve, to_folder
from quantmint.errors import IntegrityError, RegistryError, UserError
from quantmint.home import Home
from quantmint.registry.hf_cache import cache_folder
from quantmint.registry.machine import Machine
from quantmint.registry.pull.choose import Wishes
from quantmint.registry.pull.engine import Pulled, Puller, Request
from quantmint.registry.pull.kept import all_kept
from quantmint.registry.pull.placing import placed_files
from quantmint.registry.pull.reference import parse_reference
from quantmint.registry.store import Store
from quantmint.registry.trust_root import TrustRoot

Quantmint = Callable[..., Ran]
Q4, Q8 = f"{TITLE}-Q4_K_M.gguf", f"{TITLE}-Q8_0.gguf"
GIB = 1 << 30


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.delenv("QUANTMINT_REGISTRY", raising=False)
        yield running


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "publisher")


@pytest.fixture
def trusted(publisher: Publisher, home: Home) -> Publisher:
    TrustRoot(home.keys).trust(publisher.key.public, (f"{OWNER}/*",))
    return publisher


def machine(memory: int = 16 * GIB, cores: int = 4) -> Machine:
    return Machine(
        cpu="A CPU", cores=cores, kernels=("x64",), memory=memory, available=memory, gpus=()
    )


def pull(home: Home, ref: str, *, memory: int = 16 * GIB, **options: object) -> Pulled:
    wishes = Wishes(**{k: options.pop(k) for k in ("variant", "context") if k in options})  # type: ignore[arg-type]
    request = Request(reference=parse_reference(ref), wishes=wishes, **options)  # type: ignore[arg-type]
    return Puller(home, machine=machine(memory)).pull(request)


def objects(home: Home) -> set[str]:
    return {path.name for path in Store(home.store).open().blobs()}


def test_a_signed_release_of_a_hub(hub: Hub, home: Home, trusted: Publisher) -> None:
    files = trusted.files()
    serve(hub.add(REPO), files, 1)
    done = pull(home, f"hub:{REPO}", strict=True)
    assert done.path == home.models / MODEL / Q8
    assert done.path.read_bytes() == files[Q8]
    assert done.resolved.warnings == ()
    assert done.kept.signer == trusted.key.public.id
    assert TrustRoot(home.keys).policy().seen[f"{OWNER}/{MODEL}"].release == 1
    asked = len(hub.asked(Q8))
    again = pull(home, f"{REPO}@1")
    assert again.path == done.path
    assert len(hub.asked(Q8)) == asked  # not a byte of the model a second time
    assert again.got is not None
    assert again.got.fetched == 0


def test_a_model_by_its_name(
    hub: Hub, home: Home, trusted: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    hub.add("other/Phi-3-nano-GGUF")
    with pytest.raises(UserError, match="no registry is named"):
        pull(home, MODEL)
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"hub:{OWNER}")
    assert pull(home, f"{MODEL}:Q4_K_M@1").path.name == Q4
    with pytest.raises(UserError, match="there is no model phi-9"):
        pull(home, "phi-9")


def test_the_first_registry_that_has_the_model_is_taken(
    hub: Hub, home: Home, trusted: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trusted.files(1, model="other", title="Other", repository=None)
    serve(hub.add(f"{OWNER}/Other-GGUF"), other, 1)
    to_folder(tmp_path / "other", other, "v1", tmp_path / "work")
    hub.add("x/unsigned").commit({"x-Q8_0.gguf": model_bytes()})
    to_folder(tmp_path / "right", trusted.files(), "v1", tmp_path / "work")
    named = [f"hub:{OWNER}/Other-GGUF", f"file:{tmp_path / 'other'}", "hub:x/unsigned"]
    for wrong in (*[[each] for each in named], named):
        monkeypatch.setenv("QUANTMINT_REGISTRY", " ".join(wrong))
        with pytest.raises(UserError, match=f"there is no model {MODEL} in {wrong[0]}"):
            pull(home, MODEL)
    monkeypatch.setenv("QUANTMINT_REGISTRY", " ".join([*named, f"file:{tmp_path / 'right'}"]))
    assert pull(home, MODEL, strict=True).kept.place == f"file:{tmp_path / 'right'}"
    # What is named after the model and holds another is gone past, too.
    serve(hub.add(REPO), trusted.files(1, model="other", title="Other"), 1)
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"hub:{OWNER} file:{tmp_path / 'right'}")
    assert pull(home, MODEL, strict=True).kept.place == f"file:{tmp_path / 'right'}"
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"hub:{OWNER}")
    with pytest.raises(IntegrityError, match="is of model 'other'"):
        pull(home, MODEL)


def test_a_registry_in_a_folder(
    home: Home, trusted: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "registry" / f"{TITLE}-GGUF"
    first = trusted.files(1)
    second = trusted.files(2, {"Q8_0": model_bytes((1, 2, 9))})
    to_folder(root, first, "v1", tmp_path / "work")
    to_folder(root, second, "v2", tmp_path / "work")
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"file:{root.parent}")
    done = pull(home, MODEL, strict=True)
    assert done.path.read_bytes() == second[Q8]
    older = pull(home, f"{MODEL}:Q4_K_M@1", to=tmp_path / "out")
    assert older.path == tmp_path / "out" / Q4
    assert older.path.read_bytes() == first[Q4]
    plain = pull(home, f"file:{root}/releases/{_only(root / 'releases', 'v2-')}", strict=True)
    assert plain.path.read_bytes() == second[Q8]


def _only(folder: Path, prefix: str) -> str:
    (found,) = [path.name for path in folder.iterdir() if path.name.startswith(prefix)]
    return found


def test_a_repository_without_a_manifest(hub: Hub, home: Home) -> None:
    repo = hub.add("somebody/Phi-3-nano-GGUF")
    big, small = model_bytes((1, 2, 3)), model_bytes((1, 2))
    repo.commit({"x-Q8_0.gguf": big, "x-Q4_K_M.gguf": small, "mmproj-x.gguf": b"GGUF", "a": b"b"})
    done = pull(home, "somebody/Phi-3-nano-GGUF")
    assert done.path == home.models / "somebody" / "Phi-3-nano-GGUF" / "x-Q8_0.gguf"
    assert done.path.read_bytes() == big
    assert "has no quantmint manifest" in done.resolved.warnings[0]
    assert any("no quality was measured" in line for line in done.resolved.warnings)
    assert done.resolved.choice.taken.memory > len(big)
    with pytest.raises(IntegrityError, match="no quantmint manifest"):
        pull(home, "somebody/Phi-3-nano-GGUF", strict=True)


def test_subfolders_of_a_repository_are_kept(hub: Hub, home: Home, quantmint: Quantmint) -> None:
    one, two = model_bytes((1,)), model_bytes((2,))
    hub.add("somebody/both").commit({"a/model-Q8_0.gguf": one, "b/model-Q8_0.gguf": two})
    first = pull(home, "somebody/both:A_MODEL_Q8_0")
    second = pull(home, "somebody/both:B_MODEL_Q8_0")
    folder = home.models / "somebody" / "both"
    assert (first.path, second.path) == (folder / "a/model-Q8_0.gguf", folder / "b/model-Q8_0.gguf")
    assert (first.path.read_bytes(), second.path.read_bytes()) == (one, two)
    assert {row["ref"] for row in json.loads(quantmint("list", "--json").out)} == {
        "somebody/both:A_MODEL_Q8_0", "somebody/both:B_MODEL_Q8_0",
    }  # fmt: skip
    assert quantmint("verify", "somebody/both").code == 0
    assert quantmint("rm", "somebody/both:A_MODEL_Q8_0").code == 0
    assert [path for path in folder.rglob("*") if path.is_file()] == [second.path]
    assert not first.path.parent.exists()


def test_a_file_that_lies_where_an_older_version_put_it_is_removed(hub: Hub, home: Home) -> None:
    hub.add("somebody/big").commit({"a/m-Q8_0.gguf": model_bytes((1,))})
    done = pull(home, "somebody/big")
    flat = home.models / "somebody" / "big" / "m-Q8_0.gguf"
    done.path.rename(flat)
    assert placed_files(Store(home.store), home, done.kept, "Q8_0") == [flat]


def test_parts_of_one_model_come_together(hub: Hub, home: Home) -> None:
    repo = hub.add("somebody/big")
    parts = {f"m-Q4_0-0000{n}-of-00002.gguf": model_bytes((n,)) for n in (1, 2)}
    repo.commit(parts)
    done = pull(home, "somebody/big:Q4_0")
    assert done.path.name == "m-Q4_0-00001-of-00002.gguf"
    assert {path.name: path.read_bytes() for path in done.path.parent.iterdir()} == parts


def test_the_best_that_fits_is_taken(hub: Hub, home: Home, trusted: Publisher) -> None:
    variants = {name: model_bytes(SEEDS[name]) for name in ("Q8_0", "Q4_K_M", "Q2_K")}
    serve(hub.add(REPO), trusted.files(1, variants), 1)
    assert pull(home, REPO, memory=3 * GIB).resolved.offer.variant == "Q4_K_M"
    before = objects(home)
    with pytest.raises(UserError, match="no variant fits: the smallest, Q2_K, needs") as refused:
        pull(home, REPO, memory=GIB)
    assert refused.value.mend
    assert objects(home) == before


def test_only_the_tensors_that_differ_are_fetched(hub: Hub, home: Home, trusted: Publisher) -> None:
    files = trusted.files()
    serve(hub.add(REPO), files, 1)
    pull(home, f"{REPO}:Q8_0")
    second = pull(home, f"{REPO}:Q4_K_M").got  # its first tensor is Q8_0's
    assert second is not None
    assert second.reused >= 408_000
    assert second.fetched < len(files[Q4]) - 400_000
    changed = trusted.files(2, {"Q8_0": model_bytes(SEEDS["Q8_0"], template="other" * 50)})
    serve(hub.repos[REPO], changed, 2)
    third = pull(home, f"{REPO}:Q8_0")
    assert third.got is not None
    assert third.got.fetched < 10_000  # the header alone
    assert third.path.read_bytes() == changed[Q8]


def test_the_hubs_cache_is_used_both_ways(hub: Hub, home: Home, trusted: Publisher) -> None:
    from huggingface_hub import hf_hub_download

    files = trusted.files()
    commit = serve(hub.add(REPO), files, 1)
    blob = cache_folder() / f"models--{REPO.replace('/', '--')}" / "blobs"
    blob.mkdir(parents=True)
    digest = hashlib.sha256(files[Q8]).hexdigest()
    (blob / digest).write_bytes(files[Q8][:-1] + b"\0")  # damaged: it is not taken
    first = pull(home, f"{REPO}:Q8_0", hub_cache=False)
    assert first.got is not None
    assert first.got.adopted == ()
    digest = hashlib.sha256(files[Q4]).hexdigest()
    (blob / digest).write_bytes(files[Q4])
    (blob / hashlib.sha256(files[Q8]).hexdigest()).unlink()
    second = pull(home, f"{REPO}:Q4_K_M")
    assert second.got is not None
    assert second.got.adopted == (Q4,)
    assert hub.asked(f"{commit}/{Q4}") == []
    pull(home, f"{REPO}:Q8_0", hub_cache=True)
    found = hf_hub_download(
        REPO, Q8, cache_dir=cache_folder(), endpoint=hub.url, local_files_only=True
    )
    assert Path(found).read_bytes() == files[Q8]


def test_offline_what_is_here_is_found(
    hub: Hub, home: Home, trusted: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    done = pull(home, f"{REPO}:Q4_K_M")
    monkeypatch.setenv("QUANTMINT_OFFLINE", "1")
    asked = len(hub.log)
    for ref in (
        REPO,
        MODEL,
        f"{MODEL}@1",
        f"sha256:{hashlib.sha256(done.path.read_bytes()).hexdigest()}",
    ):
        assert pull(home, ref).path == done.path
    with pytest.raises(UserError, match="is not on this machine"):
        pull(home, f"{MODEL}:Q8_0")
    assert len(hub.log) == asked
    TrustRoot(home.keys).revoke(trusted.key.public.id, "lost")
    with pytest.raises(IntegrityError, match="revoked"):
        pull(home, MODEL)


def test_another_file_under_the_name_is_left_alone(
    hub: Hub, home: Home, trusted: Publisher, tmp_path: Path
) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    (tmp_path / Q8).write_bytes(b"mine")
    with pytest.raises(UserError, match="is another file"):
        pull(home, f"{REPO}:Q8_0", to=tmp_path)
    assert (tmp_path / Q8).read_bytes() == b"mine"


def test_a_private_repository_and_its_token(
    hub: Hub, home: Home, trusted: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub.add(REPO, private=True), trusted.files(), 1)
    with pytest.raises(UserError, match="no such repository"):
        pull(home, REPO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pull(home, REPO).path.name == Q8
    assert [seen for seen in hub.log if seen.server == "cdn" and seen.token] == []


def test_the_command_line(
    hub: Hub, home: Home, trusted: Publisher, quantmint: Quantmint, tmp_path: Path
) -> None:
    files = trusted.files()
    serve(hub.add(REPO, private=True), files, 1)
    env = {"HF_TOKEN": TOKEN}
    tried = quantmint("pull", REPO, "--dry-run", "--explain", "--memory", "3GB", env=env)
    assert tried.code == 0, tried.err
    assert f"would pull {MODEL}:Q4_K_M release 1" in tried.out
    assert "does not fit: needs" in tried.err
    assert not home.models.exists()
    ran = quantmint("pull", f"{REPO}:Q4_K_M", "--strict", env=env)
    assert (ran.code, ran.out) == (0, f"{home.models / MODEL / Q4}\n"), ran.err
    told = json.loads(quantmint("pull", f"{REPO}:Q4_K_M", "--json", env=env).out)
    assert told["path"] == str(home.models / MODEL / Q4)
    assert told["signer"] == trusted.key.public.id
    assert told["fetched"] == 0
    assert TOKEN not in ran.err + ran.out + tried.err + tried.out
    wrong = quantmint("pull", f"{REPO}:Q9", env=env)
    assert (wrong.code, wrong.out) == (2, "")
    assert "there is no variant 'Q9'" in wrong.err
    assert "Traceback" not in wrong.err


def test_from_python(hub: Hub, home: Home, trusted: Publisher) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    path = package.pull(REPO, variant="Q4_K_M", strict=True)
    assert path == home.models / MODEL / Q4
    hub.add("somebody/else").commit({"a": b"b"})
    with pytest.raises(RegistryError, match="no GGUF model"):
        package.pull("somebody/else")


def test_from_python_nothing_unsigned_comes_without_a_word(hub: Hub, home: Home) -> None:
    hub.add("somebody/plain").commit({"x-Q8_0.gguf": model_bytes()})
    with pytest.warns(package.PullWarning, match="no quantmint manifest") as told:
        package.pull("somebody/plain", variant="Q8_0")
    assert {Path(one.filename).name for one in told} == {Path(__file__).name}
    with warnings.catch_warnings(), pytest.raises(package.PullWarning):
        warnings.simplefilter("error", package.PullWarning)
        package.pull("somebody/plain", variant="Q8_0")


def test_why_nothing_can_be_taken(
    hub: Hub, home: Home, trusted: Publisher, quantmint: Quantmint
) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    words = ["pull", REPO, "--explain"]
    for more, code, told in (
        (["--memory", "1MB"], 2, "does not fit: needs 4.6 GB"),
        (["--min-speed", "1000"], 2, "too slow: "),
        (["--variant", "Q9"], 2, "not asked for"),
    ):
        ran = quantmint(*words, *more, env={"HF_TOKEN": ""})
        assert (ran.code, ran.out) == (code, ""), ran.err
        table, _, error = ran.err.partition("error: ")
        assert error
        assert "machine: " in table
        assert all(name in table for name in ("Q8_0", "Q4_K_M"))
        assert told in table
    assert "machine: " not in quantmint("pull", REPO, "--memory", "1MB").err


def test_why_a_withdrawn_variant_can_not_be_taken(
    hub: Hub, home: Home, trusted: Publisher, quantmint: Quantmint
) -> None:
    files = trusted.files()
    digest = hashlib.sha256(files[Q4]).hexdigest()
    serve(hub.add(REPO), {**files, **trusted.status({"v1": {Q4: digest}})}, 1)
    ran = quantmint("pull", f"{REPO}:Q4_K_M", "--explain", env={"HF_TOKEN": ""})
    assert (ran.code, ran.out) == (5, "")
    table, _, error = ran.err.partition("error: ")
    assert "the variant Q4_K_M was withdrawn by its publisher" in error
    rows = {line.split()[0]: line for line in table.splitlines() if line.split()[:1]}
    assert rows["Q4_K_M"].rstrip().endswith("withdrawn by its publisher")
    assert rows["Q8_0"].rstrip().endswith("not asked for")
    assert "->" not in table
    assert "machine: " not in quantmint("pull", f"{REPO}:Q4_K_M").err
    ran = quantmint("pull", f"{REPO}:TQ1_0", "--explain", env={"HF_TOKEN": ""})
    assert (ran.code, "machine: " in ran.err, "not asked for" in ran.err) == (2, True, True)
    assert "TQ1_0 was withheld by its publisher: top1 0.31 is below 0.8" in ran.err


def test_mirrors_and_lm_studio(
    hub: Hub, home: Home, trusted: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = trusted.files()
    serve(hub.add(REPO), files, 1)
    hub.faults.altered.add(Q8)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / Q8).write_bytes(files[Q8])
    monkeypatch.setenv("LMSTUDIO_MODELS", str(tmp_path / "lm"))
    done = pull(home, f"{REPO}:Q8_0", mirrors=(f"file:{mirror}",), lm_studio=True)
    assert done.also == (tmp_path / "lm" / REPO / Q8,)
    assert done.also[0].read_bytes() == files[Q8]
    with Hub() as second:
        serve(second.add(REPO), files, 1)
        sha = hub.repos[REPO].branches["main"]
        second.repos[REPO].commits[sha] = second.repos[REPO].commits.popitem()[1]
        hub.faults.altered.add(Q4)
        assert pull(home, f"{REPO}:Q4_K_M", mirrors=(second.url,)).path.read_bytes() == files[Q4]
    with pytest.raises(UserError, match="is no mirror"):
        pull(home, REPO, mirrors=("ftp://x",))


def test_a_digest_is_looked_up_in_the_registries(
    home: Home, trusted: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = trusted.files()
    to_folder(tmp_path / "registry" / "a", files, "v1", tmp_path / "work")
    digest = hashlib.sha256(files[Q4]).hexdigest()
    with pytest.raises(UserError, match="is not on this machine"):
        pull(home, f"sha256:{digest}")
    monkeypatch.setenv("QUANTMINT_REGISTRY", f"file:{tmp_path / 'registry'}")
    assert pull(home, f"sha256:{digest}", strict=True).path.read_bytes() == files[Q4]


def test_a_killed_pull_is_gone_on_with(
    hub: Hub, home: Home, trusted: Publisher, quantmint: Quantmint
) -> None:
    big = trusted.files(1, {"Q8_0": model_bytes((1, 2, 3), rows=200_000)})
    serve(hub.add(REPO, private=True), big, 1)
    env = {**os.environ, "HF_TOKEN": TOKEN, "QUANTMINT_HOME": str(home.root)}
    command = [sys.executable, "-m", "quantmint", "pull", REPO]
    with subprocess.Popen([*command, "--rate", "6MB"], env=env, stderr=subprocess.PIPE) as child:
        staging = home.store / "staging"
        while child.poll() is None and not _has_come_far(staging):
            time.sleep(0.02)
        child.kill()
    assert _has_come_far(staging)
    assert list(home.models.rglob("*")) == []
    ran = quantmint("pull", REPO, "--json", env={"HF_TOKEN": TOKEN})
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert Path(told["path"]).read_bytes() == big[Q8]
    assert told["fetched"] < len(big[Q8])
    assert list(staging.glob("part-*")) == []


def _has_come_far(staging: Path) -> bool:
    """Return whether a journal says of some part of the model that it has come."""
    for path in staging.glob("part-*/journal"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, row = path.read_bytes().splitlines(keepends=True)[:2]
            if json.loads(head)["size"] > 1 << 20 and row.endswith(b"\n"):
                return True
    return False


def test_shells_complete_commands_and_models(hub: Hub, home: Home, trusted: Publisher) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    pull(home, f"{REPO}:Q4_K_M")
    script = str(Path(sys.executable).with_name("quantmint"))

    def completed(**asked: str) -> str:
        env = {**os.environ, "_QUANTMINT_COMPLETE": "bash_complete", **asked}
        ran = subprocess.run([script], env=env, capture_output=True, text=True, check=False)
        return ran.stdout

    assert completed(COMP_CWORD="1", COMP_WORDS="quantmint ou") == "plain,outdated\n"
    found = completed(COMP_CWORD="2", COMP_WORDS="quantmint show phi")
    assert found == f"plain,{MODEL}:Q4_K_M\n"


def test_every_pull_is_one_reference(hub: Hub, home: Home, trusted: Publisher) -> None:
    serve(hub.add(REPO), trusted.files(), 1)
    pull(home, f"{REPO}:Q8_0")
    pull(home, f"{REPO}:Q4_K_M")
    (kept,) = all_kept(Store(home.store).open())
    assert sorted(kept.variants) == ["Q4_K_M", "Q8_0"]
