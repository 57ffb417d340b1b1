"""A SOCKS5 proxy on loopback (RFC 1928, RFC 1929): it sends every name to this machine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass
class SocksProxy:
    """Connects to 127.0.0.1 at the port that it is asked for, whatever the host is called.

    With `login` it asks for that name and password; `refuses` is the code of every answer, and
    `greets` what it says at first instead of what a proxy says.
    """

    login: tuple[str, str] | None = None
    refuses: int = 0
    greets: bytes | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client:
            target = self._agreed(client)
            if target is None:
                return
            with target:
                back = threading.Thread(target=_pump, args=(target, client), daemon=True)
                back.start()
                _pump(client, target)
                back.join()

    def _agreed(self, client: socket.socket) -> socket.socket | None:
        """Do what comes before the bytes: methods, a login, an address."""
        methods = _read(client, _read(client, 2)[1])
        if self.greets is not None:
            client.sendall(self.greets)
            return None
        method = 0 if self.login is None else 2
        client.sendall(b"\5" + bytes([method if method in methods else 255]))
        if method not in methods:
            return None
        if self.login is not None:
            name = _read(client, _read(client, 2)[1])
            word = _read(client, _read(client, 1)[0])
            right = (name.decode(), word.decode()) == self.login
            client.sendall(b"\1" + bytes([not right]))
            if not right:
                return None
        kind = _read(client, 4)[3]
        sizes: dict[int, Callable[[], int]] = {
            1: lambda: 4, 3: lambda: _read(client, 1)[0], 4: lambda: 16,
        }  # fmt: skip
        host = _read(client, sizes[kind]())
        port = struct.unpack(">H", _read(client, 2))[0]
        self.asked.append((host.decode() if kind == 3 else host.hex(), port))
        client.sendall(b"\5" + bytes([self.refuses]) + b"\0\1\0\0\0\0\0\0")
        return None if self.refuses else socket.create_connection(("127.0.0.1", port), timeout=10)


def _read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
