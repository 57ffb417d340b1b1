"""The test hub against the unmodified client: what no test of ours asks for elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fault_tools import TOKEN
from hub import Hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub(tokens=(TOKEN,)) as running:
        yield running


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    return HfApi(endpoint=hub.url, token=TOKEN)


def add(name: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(name, data)


def test_large_files_in_parts(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.multipart_from = 100_000
    data = bytes(range(256)) * 1000
    api.create_repo("org/name")
    api.create_commit("org/name", [add("m.gguf", data)], commit_message="parts")
    assert len([seen for seen in hub.log if "/part/" in seen.path]) == 3
    assert hub.repos["org/name"].files()["m.gguf"] == data
    found = api.hf_hub_download("org/name", "m.gguf", local_dir=tmp_path)
    assert Path(found).read_bytes() == data
    api.create_commit("org/name", [add("again.gguf", data)], commit_message="known")
    assert len([seen for seen in hub.log if "/part/" in seen.path]) == 3


def test_long_lists_come_in_pages(hub: Hub, api: HfApi) -> None:
    hub.page_size = 3
    hub.add("org/name").commit({f"d{i % 2}/{i}.txt": b"x" for i in range(8)} | {"top": b"x"})
    rows = list(api.list_repo_tree("org/name", recursive=True))
    assert len(rows) == 2 + 9
    assert len(hub.asked("/tree/")) == 4
    assert {row.path for row in api.list_repo_tree("org/name")} == {"d0", "d1", "top"}
    assert len(list(api.list_repo_tree("org/name", "d1"))) == 4


def test_a_pull_request_leaves_main(hub: Hub, api: HfApi) -> None:
    hub.create("org/name")
    info = api.create_commit("org/name", [add("x", b"x")], commit_message="ask", create_pr=True)
    assert info.pr_num == 1
    assert "x" not in hub.repos["org/name"].files()
    assert "x" in hub.repos["org/name"].files("refs/pr/1")


def test_commits_that_are_refused(hub: Hub, api: HfApi) -> None:
    hub.create("org/name")
    with pytest.raises(HfHubHTTPError) as failed:
        api.create_commit("org/name", [add("x", b"x")], commit_message="m", parent_commit="0" * 40)
    assert failed.value.response.status_code == 412
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.create_commit("org/name", [add("README.md", b"---\n{\n---\n")], commit_message="m")
    hub.faults.drop("/upload/", times=9, method="PUT")
    with pytest.raises(BadRequestError, match="unknown"):
        operation = add("m.gguf", b"never sent")
        operation._is_uploaded, operation._upload_mode = True, "lfs"
        operation._should_ignore = False
        api.create_commit("org/name", [operation], commit_message="m")


def test_names_and_rights(hub: Hub, api: HfApi) -> None:
    anyone = HfApi(endpoint=hub.url, token=False)
    hub.create("org/name", private=True)
    with pytest.raises(RepositoryNotFoundError):
        anyone.model_info("org/name")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/name", revision="v9")
    api.update_repo_settings("org/name", private=False, gated="auto")
    assert anyone.model_info("org/name").gated == "auto"
    with pytest.raises(GatedRepoError):
        anyone.auth_check("org/name")
    api.move_repo("org/name", "team/other")
    assert [info.id for info in api.list_models(author="team")] == ["team/other"]
    api.delete_repo("team/other")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("team/other")


def test_branches_and_tags_by_names_with_a_slash(hub: Hub, api: HfApi) -> None:
    hub.create("org/name")
    api.create_branch("org/name", branch="a/b")
    api.create_commit("org/name", [add("x", b"x")], commit_message="m", revision="a/b")
    api.create_tag("org/name", tag="yanked/v1", revision="a/b")
    with pytest.raises(HfHubHTTPError):
        api.create_tag("org/name", tag="yanked/v1")
    assert next(c.title for c in api.list_repo_commits("org/name", revision="yanked/v1")) == "m"
    api.delete_branch("org/name", branch="a/b")
    api.delete_tag("org/name", tag="yanked/v1")
    refs = api.list_repo_refs("org/name")
    assert ([b.name for b in refs.branches], refs.tags) == (["main"], [])


def test_collections(hub: Hub, api: HfApi) -> None:
    hub.create("org/name")
    slug = api.create_collection("My models", namespace="org").slug
    api.add_collection_item(slug, item_id="org/name", item_type="model", note="first")
    found = api.get_collection(slug)
    assert [(item.item_id, item.note) for item in found.items] == [("org/name", "first")]
    api.update_collection_metadata(slug, title="Ours")
    api.delete_collection_item(slug, item_object_id=found.items[0].item_object_id)
    assert (api.get_collection(slug).title, api.get_collection(slug).items) == ("Ours", [])
    assert api.create_collection("My models", namespace="org", exists_ok=True).slug == slug
    api.delete_collection(slug)
    assert hub.collections == {}
