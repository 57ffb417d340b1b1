"""llama-cpp-python's OpenAI-compatible server, for this machine alone.

Host names are checked, so that no web page's name can stand for this machine; no other origin's
scripts are let in.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, Final

from quantmint.errors import UserError

HOSTS: Final = ("127.0.0.1", "localhost")
_GRACE: Final = 5


def bind(port: int) -> socket.socket:
    """Take a port on loopback, 0 for any that is free; nobody is listened to yet.

    Raises:
        UserError: another program has it.
    """
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOSTS[0], port))
    except OSError as error:
        taken.close()
        raise UserError(
            f"port {port} can't be served on: {error.strerror}",
            mend="--port 0 takes a free one",
        ) from None
    return taken


def make_app(model: str, name: str, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return the application, its model loaded.

    Raises:
        ValueError: the model does not load.
    """
    from fastapi.middleware.cors import CORSMiddleware
    from llama_cpp.server.app import create_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = create_app(
        server_settings=ServerSettings(host=HOSTS[0]),
        model_settings=[ModelSettings(model=model, model_alias=name, **options)],
    )
    app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    return app


def serve(app: Any, taken: socket.socket) -> None:  # noqa: ANN401
    """Serve until SIGTERM or SIGINT; who is being answered then has a few seconds more."""
    import uvicorn

    host, port = taken.getsockname()
    taken.listen(128)
    print(f"http://{host}:{port}/v1", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE)
    # uvicorn stops cleanly, then raises the signal again for whoever was there before it.
    # The interpreter is not taken down: llama.cpp's threads may still read what that would free.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    uvicorn.Server(config).run(sockets=[taken])
    os._exit(0)
