"""What a publisher finds on main of its own registry: it signs nothing on that it did not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from attacks.signed import Publisher
from pulling import model_bytes
from quantmint.errors import IntegrityError
from quantmint.home import Home
from quantmint.registry.publish import FolderTarget, Options, yank
from quantmint.registry.publish.files import STATUS, STATUS_SIGNATURE
from quantmint.registry.publish.status import STATUS_TYPE, Status, read_status
from quantmint.registry.publish.target import Change
from quantmint.registry.signing.envelope import seal
from quantmint.registry.signing.status import status_believer
from quantmint.registry.trust_root import TrustRoot

OWNER, MODEL = "org", "model"


class Desk:
    """A publisher, its registry in a folder with a release, and whom its home trusts."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.publisher, self.work = Publisher(folder / "publisher"), folder / "work"
        self.target = FolderTarget(folder / "registry")
        self.trust = TrustRoot(home.keys)
        self.trust.trust(self.publisher.key.public, (f"{OWNER}/*",))
        self.work.mkdir()

    def options(self) -> Options:
        believe = status_believer(self.trust.policy(), f"{OWNER}/{MODEL}")
        return Options(
            work=self.work, believe=believe,
            sign=lambda body: seal(body, STATUS_TYPE, [self.publisher.key]),
        )  # fmt: skip

    def write(self, files: dict[str, bytes], remove: tuple[str, ...] = ()) -> None:
        """Change main as anybody can who may write there."""
        head = self.target.prepare(private=False)
        self.target.apply(Change(parent=head, title="x", description="", add=files, remove=remove))

    def read(self) -> Status:
        head = self.target.at("main")
        return read_status(self.target, head, self.work, self.options().believe)


@pytest.fixture
def desk(home: Home, tmp_path: Path) -> Desk:
    found = Desk(home, tmp_path)
    found.write({"m.gguf": model_bytes(), **said(found.publisher, "v1")})
    return found


def said(by: Publisher, name: str) -> dict[str, bytes]:
    """Return a status that withdraws a release, signed by that key."""
    status = Status().yanked(name, "0" * 40, "it says wrong things", {})
    return status.as_files(lambda body: seal(body, STATUS_TYPE, [by.key]))


def test_its_own_word_counts_whatever_the_plain_file_says(desk: Desk) -> None:
    desk.write({STATUS: b'{"format":1,"releases":{}}'})
    assert desk.read().releases["v1"].state == "yanked"


def test_a_strangers_word_is_refused_and_nothing_is_signed(desk: Desk, tmp_path: Path) -> None:
    desk.write(said(Publisher(tmp_path / "stranger"), "v2"))
    before = desk.target.at("main").commit
    with pytest.raises(IntegrityError, match="which nobody trusts here"):
        desk.read()
    desk.target.tag("v1", before, "a release")
    with pytest.raises(IntegrityError, match="is not the publisher's"):
        yank("v1", desk.target, reason="bad", options=desk.options())
    assert desk.target.at("main").commit == before


def test_an_unsigned_word_is_refused(desk: Desk) -> None:
    desk.write({}, remove=(STATUS_SIGNATURE,))
    with pytest.raises(IntegrityError, match="is not signed: anybody who can write there"):
        desk.read()


def test_a_revoked_keys_word_is_not_carried_on(desk: Desk) -> None:
    desk.trust.revoke(desk.publisher.key.public.id, "stolen")
    assert desk.read() == Status()
