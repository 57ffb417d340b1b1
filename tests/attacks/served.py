"""Bytes that are others than promised, answers without end or sense, names, credentials."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evil import COMMIT, answer, endless, row
from fault_tools import TOKEN
from gguf_builder import File, Row, string
from pulling import REPO, model_bytes, to_folder
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, UserError
from quantmint.files import canonical_json

from . import ENVELOPE, Q8, T8, Scene, attack

# Bytes that are not those that were promised.


@attack(IntegrityError, "has not the sha256", seen=True)
def other_bytes_of_the_same_size(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    altered = third[Q8][:-1] + bytes([third[Q8][-1] ^ 1])
    s.evil.pages[Q8] = answer(altered)
    return REPO


@attack(QuantmintError, Q8, seen=True)
def a_model_that_ends_early(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    s.evil.pages[Q8] = answer(third[Q8][:1000], Content_Length=str(len(third[Q8])))
    return REPO


@attack(IntegrityError, "has not the sha256", seen=True)
def a_model_without_an_end(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[Q8] = endless(b"GGUF")
    return REPO


@attack(IntegrityError, "listed with other bytes than the manifest says", seen=True)
def another_digest_in_the_list(s: Scene) -> str:
    third = s.third()
    s.serve(third)
    s.evil.rows = [row(path, data) for path, data in third.items()]
    for listed in s.evil.rows:
        if listed["path"] == Q8:
            listed["lfs"]["oid"] = "0" * 64
    return REPO


@attack(IntegrityError, "has not the sha256", seen=True)
def another_table_of_tensors(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[T8] = answer(s.second[T8])
    return REPO


@attack(IntegrityError, "no well-formed GGUF file")
def a_model_that_no_parser_should_see(s: Scene) -> str:
    bomb = b"GGUF" + (3).to_bytes(4, "little") + (1 << 40).to_bytes(8, "little") * 2
    s.serve({"x-Q8_0.gguf": bomb + bytes(5000)})
    return "somebody/bomb"


@attack(IntegrityError, "no well-formed GGUF file")
def a_program_by_the_name_of_a_model(s: Scene) -> str:
    s.serve({"x-Q8_0.gguf": b"\x7fELF" + bytes(5000)})
    return "somebody/elf"


@attack(RegistryError, "is not what it lists")
def other_bytes_than_gits_name(s: Scene) -> str:
    data = model_bytes((1,))
    s.serve({"x-Q8_0.gguf": data})
    s.evil.rows = [row("x-Q8_0.gguf", data, lfs=None, oid="0" * 40)]
    return "somebody/plain"


@attack(RegistryError, "lists no digest of x-Q8_0.gguf")
def a_file_without_a_digest(s: Scene) -> str:
    data = model_bytes((1,))
    s.serve({"x-Q8_0.gguf": data})
    s.evil.rows = [row("x-Q8_0.gguf", data, lfs=None, oid=None)]
    return "somebody/plain"


# Answers without an end, or without sense.


@attack(RegistryError, "more than 1[0-9]+ bytes")
def an_endless_envelope(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[ENVELOPE] = endless(b"x")
    return REPO


@attack(RegistryError, "can't be read: (an answer took longer|the connection failed)")
def a_list_that_drips(s: Scene) -> str:
    def drops() -> Iterator[bytes]:
        while True:
            time.sleep(0.1)
            yield b" "

    s.evil.pages[f"/tree/{COMMIT}"] = lambda: (200, {}, drops())
    return REPO


@attack(RegistryError, "more than 8388608 bytes")
def an_endless_list(s: Scene) -> str:
    s.evil.pages[f"/tree/{COMMIT}"] = endless(b" ")
    return REPO


@attack(RegistryError, "more than 64 pages of files")
def a_list_that_leads_in_circles(s: Scene) -> str:
    here = f'<{s.evil.url}/api/models/{REPO}/tree/{COMMIT}?x=1>; rel="next"'
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[]", Link=here)
    return REPO


@attack(RegistryError, "more than 4096 files")
def a_list_of_too_many_files(s: Scene) -> str:
    s.evil.rows = [row(f"f{n}.txt", b"") for n in range(4097)]
    return REPO


@attack(RegistryError, "packs its answers")
def a_packed_envelope(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[ENVELOPE] = answer(b"\x1f\x8b" + bytes(100), Content_Encoding="gzip")
    return REPO


@attack(RegistryError, "what no registry says")
def a_list_that_is_nested_too_deep(s: Scene) -> str:
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[" * 200_000)
    return REPO


@attack(RegistryError, "what no registry says: the size of")
def a_file_of_less_than_nothing(s: Scene) -> str:
    s.evil.rows = [row("x.gguf", b"", size=-1)]
    return "somebody/odd"


@attack(RegistryError, "what no registry says: the size of")
def a_file_larger_than_any_disk(s: Scene) -> str:
    s.evil.rows = [row("x.gguf", b"", size=1 << 70)]
    return "somebody/odd"


@attack(RegistryError, "what no registry says")
def a_commit_that_is_a_path(s: Scene) -> str:
    s.evil.commit = "../../../etc"
    return REPO


@attack(UserError, "no space left on the disk")
def a_file_larger_than_this_disk(s: Scene) -> str:
    """A header that a file of 8 TB would have."""
    large = [Row("token_embd.weight", (1 << 20, 1 << 21), 0, 0, 1 << 43)]
    values: list[tuple[bytes | str, bytes]] = [("general.architecture", string("phi3"))]
    header = File(values, large).header()
    header += bytes(-len(header) % 32)
    s.serve({"x-Q8_0.gguf": header})
    size = len(header) + (1 << 43)
    s.evil.rows = [row("x-Q8_0.gguf", b"", size=size, lfs={"oid": "a" * 64})]
    return "somebody/odd:Q8_0"


@attack(IntegrityError, "nothing more of it was fetched")
def a_file_of_another_size_than_its_header_says(s: Scene) -> str:
    s.serve({"x-Q8_0.gguf": model_bytes((1,))})
    s.evil.rows = [row("x-Q8_0.gguf", b"", size=1 << 43, lfs={"oid": "a" * 64})]
    return "somebody/odd:Q8_0"


# Names that would lead elsewhere.

NAMES = (
    "../evil.gguf", "../../home/evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", ".evil.gguf",
    "a//evil.gguf", "evil.gguf/", "C:\\evil.gguf", "evil\n.gguf", "a/./evil.gguf", "~/evil.gguf",
    "e\u202evil.gguf", "%2e%2e/evil.gguf", "x" * 300 + ".gguf", "evil.gguf.", "-evil.gguf",
)  # fmt: skip


@attack(RegistryError, "no GGUF model in it")
def names_that_lead_elsewhere(s: Scene) -> str:
    s.evil.rows = [row(name, b"GGUF") for name in NAMES]
    return "somebody/names"


def _registry(s: Scene, change: Callable[[dict[str, Any]], None]) -> str:
    """Serve release 3 from a folder, and change its newest record."""
    root = s.folder / "registry"
    to_folder(root, s.third(repository=None), "v3", s.folder / "work")
    value = json.loads((root / "main.json").read_bytes())
    change(value)
    (root / "main.json").unlink()
    (root / "main.json").write_bytes(canonical_json(value))
    return f"file:{root}"


@attack(RegistryError, "the file name")
def a_folders_file_outside_of_it(s: Scene) -> str:
    (s.folder / "outside").mkdir(parents=True)
    (s.folder / "outside" / "x").write_bytes(s.third()[Q8])
    return _registry(s, lambda value: value["files"][Q8].update(at="../outside/x"))


@attack(IntegrityError, "has the sha256 .*, not", seen=True)
def a_folders_model_that_is_a_link_to_a_secret(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    root = Path(ref.removeprefix("file:"))
    at = root / json.loads((root / "main.json").read_bytes())["files"][Q8]["at"]
    secret = s.folder / "secret"
    secret.write_bytes(b"s" * at.stat().st_size)
    at.unlink()
    at.symlink_to(secret)
    return ref


@attack(RegistryError, "is refused")
def a_folders_record_that_never_ends(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    main = Path(ref.removeprefix("file:")) / "main.json"
    main.unlink()
    os.mkfifo(main)
    return ref


@attack(RegistryError, "commit 00000001 is another one than its tag names")
def a_folders_tag_that_was_moved(s: Scene) -> str:
    ref = _registry(s, lambda _: None)
    root = Path(ref.removeprefix("file:"))
    commit = root / "commits" / "00000001.json"
    data = commit.read_bytes().replace(b'"description":""', b'"description":"x"')
    assert data != commit.read_bytes()
    commit.unlink()
    commit.write_bytes(data)
    return f"{ref}@3"


# Credentials.


@attack(RegistryError, "goes on at another host")
def a_list_that_goes_on_at_another_host(s: Scene) -> str:
    there = f'<{s.thief.url}/api/models/{REPO}/tree/{COMMIT}?x=1>; rel="next"'
    s.evil.pages[f"/tree/{COMMIT}"] = answer("[]", Link=there)
    return REPO


@attack(QuantmintError, ".", seen=True)
def the_model_at_another_host(s: Scene) -> str:
    s.serve(s.third())
    s.evil.pages[Q8] = answer("", 302, Location=f"{s.thief.url}/x/{Q8}")
    return REPO


@attack(RegistryError, "redirects without an end")
def redirects_in_circles(s: Scene) -> str:
    here = f"{s.evil.url}/api/models/{REPO}/revision/main"
    s.evil.pages["/revision/main"] = answer("", 307, Location=here)
    return REPO


@attack(RegistryError, "which is not followed")
def a_redirect_into_a_network(s: Scene) -> str:
    s.evil.pages["/revision/main"] = answer("", 302, Location="ftp://10.0.0.1/x")
    return REPO


@attack(UserError, "no such repository")
def an_answer_that_repeats_the_token(s: Scene) -> str:
    s.evil.pages["/revision/main"] = answer(f'{{"error": "{TOKEN}"}}', 401)
    return REPO
