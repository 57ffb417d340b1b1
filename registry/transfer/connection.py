"""One client per thread, whose sockets another thread can cut.

A time-out of the client's counts from byte to byte: a server that drips one now and then is never
late. So somebody watches how much each connection brings, and cuts those that bring too little.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from quantmint.registry.transfer import proxies
from quantmint.registry.transfer.model import Limits

if TYPE_CHECKING:
    import httpx2

AGENT = "quantmint/1"


class Connection:
    """A client, how many bytes it has brought, and a way to cut it.

    Raises:
        UserError: the environment names a proxy that can't be used.
    """

    def __init__(self, limits: Limits, context: ssl.SSLContext) -> None:
        import httpx2

        proxies.refuse_unusable()
        timeout = httpx2.Timeout(limits.patience, connect=limits.connect)
        self.client = httpx2.Client(
            verify=context,
            timeout=timeout,
            follow_redirects=False,
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity", "Accept": "*/*"},
        )
        self.count = 0
        self._sockets: deque[weakref.ref[socket.socket]] = deque(maxlen=8)
        self._busy = False
        self._marked = (0.0, 0)

    def send(self, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        """Ask for an address; the answer's body is still to be read, and to be closed.

        Raises:
            httpx2.HTTPError: no answer came.
        """
        import httpx2

        request = self.client.build_request(
            "GET", url, headers=dict(headers), extensions={"trace": self._trace}
        )
        try:
            return self.client.send(request, stream=True)
        except httpx2.ProxyError:
            self._close()
            raise
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            raise
        except Exception as error:  # a SOCKS proxy talks nonsense: the client has no error for it
            self._close()
            raise httpx2.ProxyError("the proxy does not answer as one", request=request) from error

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Have `is_slow` look at it while the block runs."""
        self.mark()
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Let it be slow while the block runs: it waits for us, not we for it."""
        self._busy = False
        try:
            yield
        finally:
            self.mark()
            self._busy = True

    def mark(self) -> None:
        """Begin to count anew."""
        self._marked = (time.monotonic(), self.count)

    def is_slow(self, limits: Limits) -> bool:
        """Return whether it brought too little since it was last marked, if that is long ago."""
        since, count = self._marked
        if not self._busy or time.monotonic() - since < limits.patience:
            return False
        if self.count - count >= limits.least:
            self.mark()
            return False
        return True

    def cut(self) -> None:
        """Cut whatever it is connected to; its thread sees that as a connection lost."""
        self.mark()
        for one in self._known():
            with contextlib.suppress(OSError, ValueError):
                one.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        """Close what the client leaves open where a SOCKS proxy refuses."""
        for one in self._known():
            one.close()

    def _known(self) -> list[socket.socket]:
        return [one for known in list(self._sockets) if (one := known()) is not None]

    def _trace(self, event: str, info: Mapping[str, object]) -> None:
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            stream = info.get("return_value")
            found = stream.get_extra_info("socket") if hasattr(stream, "get_extra_info") else None
            if isinstance(found, socket.socket):
                self._sockets.append(weakref.ref(found))


class Pool:
    """Connections that are lent to threads and kept for the next one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._free: list[Connection] = []
        self.lent: list[Connection] = []
        self._context: ssl.SSLContext | None = None

    @contextlib.contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection for the length of the block."""
        with self._lock:
            one = self._free.pop() if self._free else self._made()
            self.lent.append(one)
        try:
            yield one
        finally:
            with self._lock:
                self.lent.remove(one)
                self._free.append(one)

    def cut(self, *, slow_only: bool = False) -> None:
        """Cut those that are lent; with `slow_only` those of them that bring too little."""
        with self._lock:
            lent = list(self.lent)
        for one in lent:
            if not slow_only or one.is_slow(self._limits):
                one.cut()

    def close(self) -> None:
        """Close them all."""
        for one in self._free:
            one.client.close()
        self._free.clear()

    def _made(self) -> Connection:
        import httpx2

        if self._context is None:
            self._context = httpx2.create_ssl_context()
        return Connection(self._limits, self._context)
