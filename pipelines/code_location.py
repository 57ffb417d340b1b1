"""The definitions behind Dagster's pages: loaded again when the process that holds them is gone.

Dagster restarts its outer code server but not the inner one; without that the pages stay empty and
no run starts until somebody presses "Reload definitions".
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from quantmint.pipelines import loopback

GONE: Final = "Could not reach user code server"
SECONDS: Final = 10.0
LOAD_SECONDS: Final = 60.0  # many models on a busy machine
_ASK: Final = """{ workspaceOrError { ... on Workspace { locationEntries {
  name locationOrLoadError { ... on PythonError { message } } } } } }"""
_RELOAD: Final = """mutation($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"""


def reload_all(page: str) -> list[str]:
    """Reload every location, say because a model file was edited; return their names.

    Runs that were started before go on: each loads its definitions for itself.
    """
    return _reload(page, lambda _: True)


def reload_if_gone(page: str) -> list[str]:
    """Reload the locations whose code server is gone; return their names.

    What a location itself can't load is left alone: its page says why.
    """
    return _reload(page, lambda error: GONE in error)


def _reload(page: str, wanted: Callable[[str], bool]) -> list[str]:
    """Reload the locations whose error, empty if they load, is a wanted one."""
    try:
        names = [
            str(entry["name"])
            for entry in _ask(page, _ASK)["workspaceOrError"]["locationEntries"]
            if wanted((entry["locationOrLoadError"] or {}).get("message") or "")
        ]
        for name in names:
            _ask(page, _RELOAD, name=name)
    except (urllib.error.URLError, OSError, ValueError, LookupError, TypeError):
        return []  # the web server itself is looked after elsewhere
    return names


def _ask(page: str, query: str, **variables: str) -> Any:  # noqa: ANN401
    body = json.dumps({"query": query, "variables": variables}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{page}/graphql", body, headers)  # noqa: S310 - loopback
    seconds = LOAD_SECONDS if query is _RELOAD else SECONDS
    with loopback.ask(request, seconds) as answer:
        return json.load(answer)["data"]
