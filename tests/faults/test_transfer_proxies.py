"""Proxies: SOCKS5 as well as HTTP, and a setting that can't work is said by its name."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from fault_tools import TOKEN
from hub import Hub
from publishing import client_env
from quantmint.errors import RegistryError, UserError
from quantmint.registry.publish import hub_target
from quantmint.registry.pull.web import Web
from quantmint.registry.store import Store
from quantmint.registry.transfer import Fetched, Item, Limits, fetch_all
from transfer.origin import FaultyOrigin
from transfer.socks import SocksProxy

DATA = random.Random(5).randbytes(300_000)
LIMITS = Limits(part=65_536, patience=5.0, connect=2.0, tries=1, first=0.01, longest=0.02)
ITEM = Item(sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA), path="f")
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def get(store: Store, where: str) -> Fetched:
    (took,) = fetch_all([ITEM], [where], store, limits=LIMITS)
    return took


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("variable", "scheme"),
    [("ALL_PROXY", "socks5"), ("all_proxy", "socks5h"), ("HTTP_PROXY", "socks5")],
)
def test_a_socks_proxy_is_used_and_finds_the_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    with FaultyOrigin({"f": DATA}) as origin, SocksProxy() as proxy:
        monkeypatch.setenv(variable, f"{scheme}://{proxy.place}")
        port = port_of(origin.url)
        assert get(store, f"http://registry.invalid:{port}").fetched == len(DATA)
        assert set(proxy.asked) == {("registry.invalid", port)}
    assert store.path(ITEM.sha256).read_bytes() == DATA


def test_a_socks_proxy_gets_its_name_and_password(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyOrigin({"f": DATA}) as origin, SocksProxy(login=("me", "s3cret")) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://me:wrongword@{proxy.place}")
        with pytest.raises(RegistryError, match="Invalid username/password") as error:
            get(store, origin.url)
        assert "wrongword" not in str(error.value)
        assert "proxy settings" in str(error.value.mend)
        assert origin.log == []
        monkeypatch.setenv("ALL_PROXY", f"socks5://me:s3cret@{proxy.place}")
        assert get(store, origin.url).fetched == len(DATA)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (SocksProxy(refuses=5), "Connection refused"),
        (SocksProxy(refuses=77), "can't be fetched"),
        (SocksProxy(login=("me", "word")), "NO AUTHENTICATION"),
        (SocksProxy(greets=b""), "can't be fetched"),
        (SocksProxy(greets=b"\5"), "can't be fetched"),
        (SocksProxy(greets=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "can't be fetched"),
    ],
)
def test_a_socks_proxy_that_fails_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, proxy: SocksProxy, said: str
) -> None:
    with FaultyOrigin({"f": DATA}) as origin, proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.place}")
        with pytest.raises(RegistryError, match=said) as error:
            get(store, origin.url)
        assert error.value.mend
        assert origin.log == []


def test_xet_goes_through_the_same_proxy(
    hub: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in client_env(hub.url, "", tmp_path, xet=True).items():
        monkeypatch.setenv(name, value)
    hub.create("org/name").record({"f": hub.cas.offer(DATA)}, "main", "a file")
    with SocksProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{proxy.place}")
        (took,) = fetch_all(
            [ITEM], [f"{hub.url}/org/name/resolve/main"], store, limits=LIMITS, token=TOKEN
        )
        assert took.way == "xet"
        assert {port for _, port in proxy.asked} == {port_of(hub.url), port_of(hub.cdn_url)}


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks4://me:s3cret@127.0.0.1:9", "'socks4' is no kind of proxy"),
        ("s3cret me://127.0.0.1:9", "is no kind of proxy"),
        ("http://me:s3cret@127.0.0.1:port", "no address"),
        ("http://me:s3cret@[::1", "no address"),
        ("socks5://", "no host"),
    ],
)
def test_a_proxy_that_can_not_work_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with FaultyOrigin({"f": DATA}) as origin:
        for act in (
            lambda: get(store, origin.url),
            lambda: Web(origin.url).get(f"{origin.url}/f", 1 << 20),
            lambda: hub_target("org/name", endpoint=origin.url, token=TOKEN).prepare(private=True),
        ):
            with pytest.raises(UserError, match=said) as error:
                act()
            assert f"the proxy in {variable} can't be used" in error.value.what
            assert f"set {variable} to" in str(error.value.mend)
            assert "s3cret" not in f"{error.value}{error.value.__cause__}{error.value.__context__}"
        assert origin.log == []
        monkeypatch.setenv("NO_PROXY", "*")
        assert get(store, origin.url).fetched == len(DATA)
