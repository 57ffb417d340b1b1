"""Fetching one file as anybody would: the plain address, redirects, ranges; hashed by the caller.

The Hub's own way to download is not used here: it would go the way that the upload went (xet, its
cache), and this must be what the simplest of clients gets.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from quantmint.errors import IntegrityError, RegistryError
from quantmint.files import full_disk_explained
from quantmint.registry.publish.trouble import Contact

if TYPE_CHECKING:
    import httpx2

MOST_REDIRECTS = 5


def fetch(contact: Contact, revision: str, path: str, size: int, target: Path) -> Path:
    """Fetch a file of at most `size` bytes to `target`; a cut transfer goes on where it stopped.

    The token goes to the configured host alone: it is dropped on a redirect to another origin.

    Raises:
        UserError, RegistryError: it can't be fetched.
        IntegrityError: it is larger than it should be.
    """
    from huggingface_hub import get_session

    where = f"{quote(revision, safe='')}/{quote(path)}"
    url = f"{contact.endpoint}/{contact.repo}/resolve/{where}"
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_explained(target.parent), target.open("xb") as file:
        contact.ask(f"fetching {path}", lambda: _transfer(get_session(), contact, url, size, file))
    return target


def _transfer(
    client: httpx2.Client, contact: Contact, url: str, size: int, file: IO[bytes]
) -> None:
    """Fetch what `file` lacks."""
    import httpx2

    file.seek(0, 2)
    headers = {"Accept-Encoding": "identity"}
    if file.tell():
        headers["Range"] = f"bytes={file.tell()}-"
    for _ in range(MOST_REDIRECTS):
        own = dict(headers)
        if contact.token is not None and _origin(url) == _origin(contact.endpoint):
            own["Authorization"] = f"Bearer {contact.token}"
        request = client.stream("GET", url, headers=own, timeout=60, follow_redirects=False)
        with request as response:
            if response.has_redirect_location:
                url = urljoin(url, response.headers["Location"])
                continue
            if response.status_code == 416:
                file.truncate(0)
                raise httpx2.RemoteProtocolError("the range was refused")
            response.raise_for_status()
            _continue_or_restart(response, file)
            _write(response, size, file)
            return
    raise RegistryError(f"{contact.endpoint} redirects {MOST_REDIRECTS} times without an end")


def _continue_or_restart(response: httpx2.Response, file: IO[bytes]) -> None:
    """Go on behind what is there if that is what the answer holds, else begin anew."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {file.tell()}-")
    if response.status_code != 206 or not begins:
        file.seek(0)
        file.truncate(0)


def _write(response: httpx2.Response, size: int, file: IO[bytes]) -> None:
    import httpx2

    for chunk in response.iter_raw():
        if file.tell() + len(chunk) > size:
            raise IntegrityError(
                f"{response.url.path} is larger than the {size} bytes it should be"
            )
        with full_disk_explained(Path(file.name).parent):
            file.write(chunk)
            file.flush()
    if file.tell() < size and response.headers.get("Content-Length") is None:
        raise httpx2.RemoteProtocolError("the transfer ended early")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    split = urlsplit(url)
    return split.scheme, split.hostname, split.port
