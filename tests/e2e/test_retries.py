"""Steps that need a server of others are tried again by the service; nothing else ever is."""

# No postponed annotations here: Dagster reads the type of `context` when an op is defined.

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest

from quantmint.assets.graph.line import PATIENCE, explained
from quantmint.assets.sources import hub
from quantmint.errors import IntegrityError, QuantmintError, RegistryError, SourceError
from quantmint.home import Home
from quantmint.pipelines.assembly import executor
from quantmint.pipelines.instance import open_instance
from quantmint.registry.publish.trouble import Contact, Patience

pytestmark = pytest.mark.e2e

SOON = dg.RetryPolicy(max_retries=2, delay=0.1)


def count(folder: str, name: str) -> int:
    """Note one more try of a step; return how many there were before."""
    tries = list(Path(folder).glob(f"{name}-*"))
    (Path(folder) / f"{name}-{len(tries)}").touch()
    return len(tries)


@dg.op(config_schema={"folder": str}, retry_policy=SOON)
def passes_later(context: dg.OpExecutionContext) -> None:
    with explained():
        if count(context.op_config["folder"], "later") < 1:
            raise SourceError("the Hub is down", retryable=True)


@dg.op(config_schema={"folder": str}, retry_policy=SOON)
def stays(context: dg.OpExecutionContext) -> None:
    with explained():
        count(context.op_config["folder"], "stays")
        raise RegistryError("the Hub is down", retryable=True)


@dg.op(config_schema={"folder": str}, retry_policy=SOON)
def damaged(context: dg.OpExecutionContext) -> None:
    with explained():
        count(context.op_config["folder"], "damaged")
        raise IntegrityError("other bytes than were promised")


@dg.op(config_schema={"folder": str}, retry_policy=SOON)
def mistaken(context: dg.OpExecutionContext) -> None:
    with explained():
        count(context.op_config["folder"], "mistaken")
        raise ValueError("a bug")


@dg.job(executor_def=executor())
def tries() -> None:
    passes_later()
    stays()
    damaged()
    mistaken()


OPS = ("passes_later", "stays", "damaged", "mistaken")


def test_the_service_tries_again_what_may_pass_and_nothing_else(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    config = {"ops": {name: {"config": {"folder": str(tmp_path)}} for name in OPS}}
    with open_instance(home) as instance:
        again = dg.reconstructable(tries)
        with dg.execute_job(again, instance=instance, run_config=config) as result:
            ended = {
                event.step_key: event.event_type_value
                for event in result.all_events
                if event.event_type_value in {"STEP_SUCCESS", "STEP_FAILURE"}
            }
    assert ended == {
        "passes_later": "STEP_SUCCESS", "stays": "STEP_FAILURE", "damaged": "STEP_FAILURE",
        "mistaken": "STEP_FAILURE",
    }  # fmt: skip
    tried = Counter(path.name.partition("-")[0] for path in tmp_path.glob("*-*"))
    assert tried == {"later": 2, "stays": 3, "damaged": 1, "mistaken": 1}


def test_at_a_keyboard_the_message_is_there_at_once(tmp_path: Path) -> None:
    config = {"ops": {"stays": {"config": {"folder": str(tmp_path)}}}}
    result = tries.execute_in_process(run_config=config, op_selection=["stays"],
                                      raise_on_error=False)  # fmt: skip
    assert not result.success
    assert len(list(tmp_path.glob("stays-*"))) == 1


def test_the_waits_grow_and_are_spread() -> None:
    waits = [PATIENCE.calculate_delay(attempt) for attempt in range(1, 5)]
    usual = [20 * (2**n - 1) for n in range(1, 5)]
    assert all(abs(wait - at) <= 20 for wait, at in zip(waits, usual, strict=True))
    assert waits != usual


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "may_pass"), [(500, True), (503, True), (429, True), (404, False), (400, False)]
)
def test_which_answers_of_the_hub_may_pass(
    status: int, may_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        with pytest.raises(SourceError) as caught:
            hub.resolve("my-org/model", "main")
        assert caught.value.retryable is may_pass
        assert published(url).retryable is may_pass


def test_a_hub_that_is_down_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not at the top: the step's process imports this module without the folder of tests.
    from kills.service import free_port

    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(SourceError) as caught:
        hub.resolve("my-org/model", "main")
    assert caught.value.retryable
    assert published(url).retryable


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(SourceError) as caught:
            hub.resolve("my-org/model", "main")
    assert caught.value.retryable
    assert time.monotonic() - began < 30


def published(url: str) -> QuantmintError:
    """Return what is said when publishing meets that server."""
    from huggingface_hub import HfApi

    contact = Contact(endpoint=url, repo="my-org/model", token=None, patience=Patience(tries=1))
    with pytest.raises(QuantmintError) as caught:
        contact.ask("asking", lambda: HfApi(endpoint=url).model_info("my-org/model"))
    return caught.value
