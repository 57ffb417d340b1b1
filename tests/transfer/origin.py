"""A server on loopback that misbehaves to order: raw sockets, so that nothing is put right."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    range: tuple[int, int] | None
    headers: dict[str, str]


@dataclass
class Reply:
    """An answer as it will be sent; a fault alters it. `body` goes out in pieces."""

    status: int
    headers: dict[str, str]
    body: bytes
    drip: float = 0.0
    stall: float = 0.0
    reset: bool = False
    cut_at: int | None = None
    chunked: bool = False
    endless: bool = False
    drip_head: float = 0.0


Fault = Callable[["FaultyOrigin", Asked, Reply], Reply | None]
REASONS = {200: "OK", 206: "Partial Content", 302: "Found"}


@dataclass
class FaultyOrigin:
    """Serves `files` by path, with ranges; `fault` may alter each answer, or give none at all."""

    files: dict[str, bytes]
    fault: Fault | None = None
    etag: str = '"one"'
    log: list[Asked] = field(default_factory=list)
    sent: int = 0
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"

    def right(self, asked: Asked) -> Reply:
        """Return what a good server answers."""
        data = self.files.get(asked.path)
        if data is None:
            return Reply(404, {}, b"no such file")
        named = {"ETag": self.etag, "Accept-Ranges": "bytes"}
        if asked.range is None:
            return Reply(200, named, data)
        start, end = asked.range[0], min(asked.range[1], len(data))
        if start >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        named["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return Reply(206, named, data[start:end])

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, contextlib.ExitStack() as stack:
            if self.tls is not None:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
                self._open.add(connection)
            reader = stack.enter_context(connection.makefile("rb"))
            while asked := _read(reader.readline):
                self.log.append(asked)
                reply: Reply | None = self.right(asked)
                assert reply is not None
                if self.fault is not None:
                    reply = self.fault(self, asked, reply)
                if reply is None or not self._send(connection, reply):
                    break
        self._open.discard(connection)

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        """Send an answer; return whether the connection may be used again."""
        headers = dict(reply.headers)
        if reply.chunked or reply.endless:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers.setdefault("Content-Length", str(len(reply.body)))
        head = f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'No')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        for at in range(len(head) if reply.drip_head else 0):
            connection.sendall(head[at : at + 1].encode())
            if self._closed.wait(reply.drip_head):
                return False
        connection.sendall(b"" if reply.drip_head else head.encode())
        body = reply.body if reply.cut_at is None else reply.body[: reply.cut_at]
        self._send_body(connection, reply, body)
        if reply.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return reply.cut_at is None and not reply.reset and not reply.stall

    def _send_body(self, connection: socket.socket, reply: Reply, body: bytes) -> None:
        if reply.drip:
            for at in range(len(body)):
                if self._closed.wait(reply.drip):
                    return
                connection.sendall(body[at : at + 1])
        elif reply.endless:
            while not self._closed.is_set():
                self._chunk(connection, body or b"x")
        elif reply.chunked:
            for at in range(0, len(body), 50_000):
                self._chunk(connection, body[at : at + 50_000])
            connection.sendall(b"0\r\n\r\n")
        else:
            connection.sendall(body)
            self.sent += len(body)
        if reply.stall:
            self._closed.wait(reply.stall)

    def _chunk(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        self.sent += len(data)


def _read(readline: Callable[[], bytes]) -> Asked | None:
    words = readline().split()
    if len(words) != 3:
        return None
    headers = {}
    while line := readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    asked = (int(found[1]), int(found[2] or 1 << 60) + 1) if found else None
    return Asked(words[1].decode("latin-1").lstrip("/"), asked, headers)


def wait_until(is_true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it never was.
    """
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
