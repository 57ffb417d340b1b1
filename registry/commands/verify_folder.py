"""`quantmint verify FOLDER`: a release that was downloaded, against its signature."""

from __future__ import annotations

import json
from pathlib import Path

import click

from quantmint.errors import UserError
from quantmint.files import human_bytes
from quantmint.home import find_home
from quantmint.registry.bar import bar_for_people, shown
from quantmint.registry.manifest.codec import MANIFEST_LIMIT, from_bytes
from quantmint.registry.manifest.release import MANIFEST_FILE, Manifest
from quantmint.registry.signing.folder import read_capped, verify_folder
from quantmint.registry.signing.release import Expect, Verified
from quantmint.registry.text import table
from quantmint.registry.trust_root import TrustRoot


def verify_release_folder(folder: Path, *, strict: bool, deep: bool, as_json: bool) -> None:
    """Verify a release's folder under this home's trust, and print what was found.

    Raises:
        UserError: there is no release in the folder.
        IntegrityError: a file is missing, added or changed, or the signature is not to be
            believed.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise UserError(
            f"{folder} holds no {MANIFEST_FILE}: it is no release of ours",
            mend="give the folder of a release; without one, `quantmint verify` checks the store",
        )
    plain = read_capped(folder / MANIFEST_FILE, MANIFEST_LIMIT)
    said = from_bytes(Manifest, plain, what=MANIFEST_FILE)
    policy = TrustRoot(find_home().keys).policy()
    expect = Expect(said.model, said.publisher, said.release)
    from quantmint.registry.signing.openssf import check_listed

    with shown(bar_for_people()):
        verified = verify_folder(folder, policy, expect=expect, strict=strict, deep=deep)
        openssf = check_listed(folder, verified.manifest)
    if as_json:
        click.echo(json.dumps({**_facts(verified), "openssf": openssf}))
        return
    click.echo(_told(verified, openssf))


def _facts(verified: Verified) -> dict[str, object]:
    manifest = verified.manifest
    return {
        "publisher": manifest.publisher,
        "model": manifest.model,
        "release": manifest.release,
        "expires": manifest.expires,
        "manifest_sha256": verified.sha256,
        "signer": verified.signer,
        "warnings": list(verified.warnings),
        "files": {entry.path: entry.sha256 for entry in manifest.entries},
    }


def _told(verified: Verified, openssf: str | None) -> str:
    manifest = verified.manifest
    rows = [
        [v.variant, v.file.path, human_bytes(v.file.size), v.file.sha256] for v in manifest.variants
    ]
    parts = [table(["variant", "file", "size", "sha256"], rows, right="  r")]
    parts += [f"warning: {warning}" for warning in verified.warnings]
    count = len(manifest.entries)
    by = (
        f"signed with trusted key {verified.signer}" if verified.signer else "nobody vouches for it"
    )
    parts.append(
        f"{manifest.identity} release {manifest.release}: {count} files are as listed; {by}; "
        f"expires {manifest.expires[:10]}" + (f"; {openssf}" if openssf else "")
    )
    return "\n\n".join(parts)
