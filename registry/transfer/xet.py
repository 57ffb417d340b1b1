"""Fetching by xet, where the server offers it and `hf_xet` is installed.

It is the Hub's own client that does it, and it is only ever a quicker way: whatever goes wrong,
plain HTTP fetches the file, and either way the digest decides.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from quantmint.errors import RegistryError
from quantmint.registry.transfer import addresses
from quantmint.registry.transfer.connection import AGENT, Pool
from quantmint.registry.transfer.model import Item, Limits
from quantmint.registry.transfer.source import Source, XetOfferedError

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetConnectionInfo, XetFileData

_YES: Final = {"1", "on", "true", "yes"}


class Counts(Protocol):
    """What the Hub's client tells meanwhile."""

    total_bytes_completed: int
    total_transfer_bytes_completed: int


def is_usable(limits: Limits) -> bool:
    """Return whether xet may be used: installed, not switched off, and no cap to be kept."""
    off = os.environ.get("HF_HUB_DISABLE_XET", "").lower() in _YES
    if off or not limits.xet or limits.rate is not None:
        return False
    return importlib.util.find_spec("hf_xet") is not None


def fetch_by_xet(
    offered: XetOfferedError,
    target: Path,
    limits: Limits,
    pool: Pool,
    on_bytes: Callable[[int, int], None],
) -> None:
    """Fetch the item to `target`; `on_bytes` gets the bytes of the file and those on the wire.

    Raises:
        RegistryError: it failed, in whichever way. KeyboardInterrupt: it was stopped.
    """
    from huggingface_hub.utils._xet import (
        abort_xet_session,
        parse_xet_file_data_from_response,
    )

    source = offered.source
    offer = parse_xet_file_data_from_response(offered.response, endpoint=source.origin.base)
    if offer is None or addresses.place(offer.refresh_route) != source.place:
        raise RegistryError(f"{source.name} offers xet, but not by itself")
    moved = [0, 0, time.monotonic()]
    failed: list[BaseException] = []

    def progress(report: Counts, _items: object = None) -> None:
        now = (int(report.total_bytes_completed), int(report.total_transfer_bytes_completed))
        if now != (moved[0], moved[1]):
            moved[:] = [*now, time.monotonic()]

    def work() -> None:
        try:
            _download(source, offer, target, pool, progress)
        except BaseException as error:  # noqa: BLE001 - told by the thread that called
            failed.append(error)

    thread = threading.Thread(target=work, name="transfer-xet", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.05)
            on_bytes(int(moved[0]), int(moved[1]))
            pool.cut(slow_only=True)
            if time.monotonic() - moved[2] > 2 * limits.patience:
                raise RegistryError(f"{source.name} is silent over xet")
    except BaseException:
        abort_xet_session()  # type: ignore[no-untyped-call]
        thread.join(limits.patience)
        raise
    if failed:
        raise RegistryError(f"xet failed: {type(failed[0]).__name__}") from failed[0]


def _admitted(
    source: Source, offer: XetFileData, pool: Pool, headers: dict[str, str]
) -> XetConnectionInfo:
    """Ask the hub for a token for its xet store; once, as there is another way."""
    from huggingface_hub.utils._xet import parse_xet_connection_info_from_headers

    with pool.lend() as connection, connection.watched():
        response = connection.send(offer.refresh_route, headers)
        response.close()
    info = parse_xet_connection_info_from_headers(response.headers)
    if response.status_code != 200 or info is None:
        raise RegistryError(f"{source.name} gives no token for xet (HTTP {response.status_code})")
    return info


def _download(
    source: Source,
    offer: XetFileData,
    target: Path,
    pool: Pool,
    progress: Callable[[Counts, object], None],
) -> None:
    from hf_xet import XetFileInfo  # type: ignore[import-untyped]
    from huggingface_hub.utils._xet import (
        get_xet_session,
        xet_headers_without_auth,
    )

    item: Item = source.item
    headers = {"User-Agent": AGENT}
    if source.origin.token is not None:
        headers["authorization"] = f"Bearer {source.origin.token}"
    info = _admitted(source, offer, pool, headers)
    session = get_xet_session()  # type: ignore[no-untyped-call]
    with session.new_file_download_group(
        endpoint=info.endpoint,
        token=info.access_token,
        token_expiry_unix_secs=info.expiration_unix_epoch,
        token_refresh_url=offer.refresh_route,
        token_refresh_headers=headers,
        custom_headers=xet_headers_without_auth(headers),
        progress_callback=progress,
    ) as group:
        group.start_download_file(XetFileInfo(offer.file_hash, item.size), str(target.absolute()))
