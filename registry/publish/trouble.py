"""What goes wrong at a hub: what is tried again, and what is said in the end."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from quantmint.errors import QuantmintError, RegistryError, UserError
from quantmint.registry.transfer.addresses import waiting_time

T = TypeVar("T")
XET_STATUS: Final = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
AGAIN: Final = "run the same command again; what was uploaded is kept"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried, and how long is waited between: seconds, doubled each time.

    A hub that asks for a longer wait gets it, up to `most` seconds.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 30.0
    most: float = 900.0
    sleep: Callable[[float], None] = time.sleep

    def waits(self) -> Iterator[float]:
        """Yield the waits between the tries."""
        for turn in range(self.tries - 1):
            yield min(self.longest, self.first * 2**turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Whom we speak to and as whom; turns the client's errors into ours, and tries again."""

    endpoint: str
    repo: str
    token: str | None = field(repr=False)
    patience: Patience = Patience()
    report: Callable[[str], None] = lambda _: None

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """Return what `call` gives, trying again what may pass. It must be safe to repeat.

        Raises:
            UserError, RegistryError: see `explain`.
        """
        for wait in self.patience.waits():
            try:
                return call()
            except Exception as error:  # noqa: BLE001 - explained, or tried again
                self.wait_or_raise(error, what, wait)
        try:
            return call()
        except Exception as error:
            raise self.explain(error, what) from error

    def wait_or_raise(self, error: Exception, what: str, wait: float) -> None:
        """Wait before the next try, or raise what can't pass by waiting."""
        if isinstance(error, QuantmintError):
            raise error
        asked = retry_after(error)
        if not may_pass(error) or (asked is not None and asked > self.patience.most):
            raise self.explain(error, what) from error
        wait = wait if asked is None else asked
        self.report(f"{what}: {self.brief(error)}; trying again in {wait:.0f} s")
        self.patience.sleep(wait)

    def explain(self, error: Exception, what: str) -> QuantmintError:
        """Return our error for one of the client's."""
        if isinstance(error, QuantmintError):
            return error
        found = _from_chain(error)
        if isinstance(found, _offline_error()):
            return UserError(
                f"publishing to {self.endpoint} needs the network, and HF_HUB_OFFLINE forbids it",
                mend="unset HF_HUB_OFFLINE, and run again",
            )
        status = status_of(found)
        if status is not None:
            return self._refused(status, found, what)
        if isinstance(found, ValueError):
            return RegistryError(f"{what}: {self.brief(found)}", mend=AGAIN)
        proxy = _proxy_for(self.endpoint)
        through = f" through the proxy {proxy}" if proxy else ""
        return RegistryError(
            f"{what}: {self.endpoint} can't be reached{through} ({self.brief(found)})",
            mend=f"check the network, HF_ENDPOINT and the proxy settings; then {AGAIN}",
            retryable=True,
        )

    def _refused(self, status: int, error: BaseException, what: str) -> QuantmintError:
        code = _headers(error).get("X-Error-Code", "")
        if code == "GatedRepo":
            return UserError(
                f"{self.repo} is gated: its owner asks for an agreement first",
                mend=f"accept it at {self.endpoint}/{self.repo}, and run again",
            )
        if status == 401:
            return self._no_token()
        if status == 403:
            return UserError(
                f"the token may not write to {self.repo} on {self.endpoint}",
                mend=f"make a token with write access to {self.repo.partition('/')[0]} at "
                f"{self.endpoint}/settings/tokens, then `hf auth login`",
            )
        if code == "RepoNotFound":
            return UserError(
                f"there is no repository {self.repo} on {self.endpoint}, or it is hidden from you",
                mend="check the name, and whose token it is: hf auth whoami",
            )
        return self._failed(status, error, what)

    def _failed(self, status: int, error: BaseException, what: str) -> RegistryError:
        """Return the error for what the registry, not the person, must mend."""
        if status in {409, 412}:
            return RegistryError(
                f"{what}: {self.endpoint} reports a conflict: somebody else changed {self.repo}",
                mend=f"look at its newest commits, then {AGAIN}",
            )
        if status == 429:
            asked = retry_after(error)
            wait = "" if asked is None else f" for another {asked:.0f} s"
            said, mend = f"limits the rate of requests{wait}", f"wait, then {AGAIN}"
        elif status in PASSING:
            said, mend = f"failed again and again (HTTP {status})", f"wait a while, then {AGAIN}"
        else:
            said, mend = f"refused (HTTP {status}): {self.brief(error)}", AGAIN
        return RegistryError(
            f"{what}: {self.endpoint} {said}", mend=mend, retryable=status in PASSING
        )

    def _no_token(self) -> UserError:
        if self.token:
            said = "does not accept the token: it may have expired or been revoked"
        else:
            said = "asks for a token, and there is none"
        return UserError(
            f"{self.endpoint} {said}",
            mend="hf auth login  (or set HF_TOKEN to a token with write access)",
        )

    def brief(self, error: BaseException) -> str:
        """Return an error's first line without the token, whoever put it there."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = (lines or [type(error).__name__])[0][:200]
        return text.replace(self.token, "***") if self.token else text


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error stands for, if it does."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return status
    found = XET_STATUS.search(str(error))  # hf_xet says it in words only
    return int(found[1]) if found else None


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed a little later."""
    import httpx2

    found = _from_chain(error)
    status = status_of(found)
    if status is not None:
        return status in PASSING
    if isinstance(found, (_offline_error(), httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)):
        return False
    # hf_xet reports what its transport could not mend as ConnectionError, RuntimeError or OSError.
    return isinstance(found, httpx2.TransportError | OSError | RuntimeError)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds that the hub asks to wait, if it does."""
    return waiting_time(_headers(_from_chain(error)).get("Retry-After"))


def _headers(error: BaseException) -> dict[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return {str(name).title(): str(value) for name, value in headers.items()}


def _from_chain(error: BaseException) -> BaseException:
    """Return the error below the client's wrappers that says most: with a status, if any."""
    import httpx2

    chain = [error]
    while chain[-1].__cause__ is not None and len(chain) < 8:
        chain.append(chain[-1].__cause__)
    kinds = (_offline_error(), httpx2.TransportError)
    telling = [e for e in chain if status_of(e) is not None or isinstance(e, kinds)]
    return telling[0] if telling else chain[-1]


def _offline_error() -> type[Exception]:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return OfflineModeIsEnabled


def _proxy_for(endpoint: str) -> str | None:
    """Return the proxy that the environment names for this address, without its password."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    split = urlsplit(endpoint)
    if proxy_bypass(split.hostname or ""):
        return None
    proxies = getproxies()
    named = proxies.get(split.scheme) or proxies.get("all")
    if not named:
        return None
    proxy = urlsplit(named if "//" in named else f"//{named}")
    return f"{proxy.hostname}:{proxy.port}" if proxy.port else proxy.hostname


def token_from(explicit: str | None) -> str | None:
    """Return the token to use: the given one, `HF_TOKEN`, or that of `hf auth login`.

    Raises:
        UserError: it holds characters that no token has.
    """
    from huggingface_hub import get_token

    token = explicit or get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError(
            "the token holds characters that no token has",
            mend="hf auth login  (or set HF_TOKEN anew, without spaces and line ends)",
        )
    return token


def endpoint_from(explicit: str | None) -> str:
    """Return the hub to use: the given one, `HF_ENDPOINT`, or the public one."""
    return (explicit or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
