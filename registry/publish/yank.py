"""Withdrawing a release: said on main, tagged, and gone from main if it was there."""

from __future__ import annotations

from collections.abc import Collection

from quantmint.errors import RegistryError, UserError, nearest
from quantmint.registry.publish.engine import YANKED, Options, Published, work_folder
from quantmint.registry.publish.files import ATTRIBUTES, CARD, KEPT, check_release
from quantmint.registry.publish.status import read_status
from quantmint.registry.publish.target import Change, Refs, Snapshot, Target

SUFFIX = ".gguf"


def yank(
    release: str,
    target: Target,
    *,
    reason: str,
    options: Options,
    withdrawn: Collection[str] | None = None,
) -> Published:
    """Withdraw a release: one commit on main, and the tag `yanked/RELEASE` on its own commit.

    The commit says so in the status file, with the digest of each GGUF file that main does not
    serve in a later release (or of the paths in `withdrawn` alone): no release may bring these
    bytes again, and no puller may use them. If main carries the release, its files go from main
    and the card says why. The release's tag and the bytes in the history stay: what was published
    stays provable.

    Raises:
        UserError: there is no such release or file, or no reason was given.
        RegistryError: the registry refused or failed, or main has moved.
    """
    check_release(release)
    if not reason.strip() or len(reason) > 500:
        raise UserError("a yank needs a reason of at most 500 characters: users will read it")
    head = target.at("main")
    refs = target.refs()
    if release not in refs.tags:
        raise UserError(f"{target.name} has no release {release}{_near(release, refs)}")
    yanked = target.at(refs.tags[release])
    with work_folder(options.work) as folder:
        status = read_status(target, head, folder, options.believe)
    known = status.releases.get(release)
    is_said = known is not None and known.state == "yanked"
    if not is_said:
        served = frozenset[str | None]()
        if not _carries(head, yanked):
            served = frozenset(entry.sha256 for entry in head.files.values())
        files = _withdrawn(yanked, withdrawn, served)
        said = status.yanked(release, yanked.commit, reason, files)
        add = said.as_files(options.sign)
        change = _change(release, reason, head, yanked, add)
        head = target.apply(change)
        # The commit itself is looked at: main may be somebody else's next one by now.
        if not change.is_done(target.at(head.commit)):
            raise RegistryError(f"commit {head.commit[:12]} does not show the yank of {release}")
    is_tagged = YANKED + release in refs.tags
    if not is_tagged:
        target.tag(YANKED + release, yanked.commit, reason)
    return Published(
        target=target.name, release=release, digest="", commit=head.commit,
        changed=not (is_said and is_tagged),
    )  # fmt: skip


def _withdrawn(
    yanked: Snapshot, paths: Collection[str] | None, served: frozenset[str | None]
) -> dict[str, str]:
    """Return the sha256 by path of what nobody may use any more.

    What a later release on main serves as well stays: who withdraws that names it, or its release.
    """
    known = {path: entry.sha256 for path, entry in yanked.files.items() if entry.sha256}
    if paths is None:
        return {
            path: sha256
            for path, sha256 in known.items()
            if path.endswith(SUFFIX) and sha256 not in served
        }
    for path in paths:
        if path not in known:
            raise UserError(f"the release has no large file {path!r}{nearest(path, known)}")
    return {path: known[path] for path in paths}


def _change(
    release: str, reason: str, head: Snapshot, yanked: Snapshot, add: dict[str, bytes]
) -> Change:
    """Return the commit: it takes files from main only if main carries this very release."""
    title = f"Yank {release}"
    if not _carries(head, yanked):
        return Change(parent=head, title=title, description=reason, add=add)
    gone = sorted(set(yanked.files) - KEPT - {CARD})
    notice = f"---\ntags: [yanked]\n---\n# Release {release} was withdrawn\n\n{reason.strip()}\n"
    return Change(
        parent=head,
        title=title,
        description=reason,
        add={**add, CARD: notice.encode()},
        remove=tuple(gone),
    )


def _carries(head: Snapshot, yanked: Snapshot) -> bool:
    """Return whether main still holds each file of the release, whatever became of its card."""
    own = {p: e for p, e in yanked.files.items() if p not in KEPT | {CARD, ATTRIBUTES}}
    return bool(own) and all(head.files.get(path) == entry for path, entry in own.items())


def _near(release: str, refs: Refs) -> str:
    names = [name for name in refs.tags if not name.startswith(YANKED)]
    return nearest(release, names) if names else "; it has none"
