"""`quantmint keys`: keys that sign releases, and keys that are believed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from quantmint import names
from quantmint.errors import UserError
from quantmint.home import find_home
from quantmint.registry.keys import (
    DEFAULT_NAME,
    PASSPHRASE,
    KeyFolder,
    new_trusted_key,
    passphrase_from_environment,
)
from quantmint.registry.signing.ed25519 import KEY_FILE_LIMIT, PREFIX, PublicKey, read_public_key
from quantmint.registry.text import table
from quantmint.registry.trust_policy import ANY
from quantmint.registry.trust_root import TrustRoot


@click.group()
def keys() -> None:
    """Make keys that sign releases, and say whose are trusted."""


@keys.command()
@click.argument("name", default=DEFAULT_NAME)
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase, and encrypt the key.")
@click.option("--model-signing", is_flag=True, help="Make a P-256 key for the OpenSSF tool.")
@click.option("--json", "as_json", is_flag=True, help="Print the public half for programs.")
def new(name: str, passphrase: bool, model_signing: bool, as_json: bool) -> None:
    """Make a key, and trust it on this machine.

    The private half stays in QUANTMINT_HOME/keys, readable by you alone; back it up, for nobody
    can make it again. QUANTMINT_KEY_PASSPHRASE, if set, encrypts it.
    """
    root = find_home().keys
    if model_signing:
        from quantmint.registry.signing.openssf import new_key

        click.echo(new_key(root, name), nl=False)
        return
    word = passphrase_from_environment()
    if passphrase and word is None:
        word = click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    key = new_trusted_key(root, name, word).public
    if as_json:
        click.echo(json.dumps({"name": name, "id": key.id, "key": key.text, "pem": key.pem}))
        return
    click.echo(f"key {name}  {key.id}")
    click.echo(f"others trust it with: quantmint keys trust {key.text} --for OWNER/MODEL")


@keys.command()
@click.argument("key", default=DEFAULT_NAME)
@click.option("--pem", is_flag=True, help="Print it as PEM, for other tools.")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def show(key: str, pem: bool, as_json: bool) -> None:
    """Print the public half of a key: yours by name, a trusted one by its id."""
    public = _public(key)
    if pem:
        click.echo(public.pem, nl=False)
    elif as_json:
        click.echo(json.dumps({"id": public.id, "key": public.text, "pem": public.pem}))
    else:
        click.echo(f"id   {public.id}\nkey  {public.text}")


@keys.command()
@click.argument("key")
@click.option("--for", "scopes", multiple=True, help="owner/model, owner/*, model; more than once.")
@click.option("--name", default="", help="What you call its owner.")
@click.option("--json", "as_json", is_flag=True, help="Print what is trusted now, for programs.")
def trust(key: str, scopes: tuple[str, ...], name: str, as_json: bool) -> None:
    """Believe a publisher's key: a file, or the word `ed25519:...`.

    Without --for it counts for every model. Compare the id with what the publisher says elsewhere.
    """
    trusted = TrustRoot(find_home().keys).trust(_given(key), scopes or (ANY,), name)
    if as_json:
        click.echo(json.dumps({"id": trusted.key.id, "for": list(trusted.scopes), "name": name}))
        return
    click.echo(f"trusted {trusted.key.id}  for {', '.join(trusted.scopes)}")


@keys.command()
@click.argument("keyid")
@click.option("--reason", default="", help="Why; it is told when a release is refused.")
@click.option("--json", "as_json", is_flag=True, help="Print the key's id for programs.")
def revoke(keyid: str, reason: str, as_json: bool) -> None:
    """Never believe a key again, whenever it signed."""
    if reason and not reason.isprintable():
        raise UserError("the reason holds control characters", mend="write it in one plain line")
    root = TrustRoot(find_home().keys)
    full = root.find(keyid)
    root.revoke(full, reason)
    click.echo(json.dumps({"id": full, "reason": reason}) if as_json else f"revoked {full}")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list for programs.")
def list_keys(as_json: bool) -> None:
    """List your own keys, and all that are trusted or revoked."""
    root = find_home().keys
    policy = TrustRoot(root).policy()
    rows: list[dict[str, object]] = []
    lines: list[list[str]] = []
    for keyid in sorted({*policy.trusted, *policy.revoked}):
        trusted, reason = policy.trusted.get(keyid), policy.revoked.get(keyid)
        scopes = list(trusted.scopes) if trusted and reason is None else []
        label = trusted.label if trusted else ""
        state = "trusted" if reason is None else "revoked"
        lines.append([keyid, state, ", ".join(scopes) or reason or "", label])
        rows.append({"id": keyid, "state": state, "for": scopes, "name": label, "reason": reason})
    own = KeyFolder(root).names()
    for_openssf = sorted(path.stem for path in (root / "model-signing").glob("[!.]*.pem"))
    if as_json:
        click.echo(json.dumps({"own": own, "model_signing": for_openssf, "keys": rows}, indent=2))
        return
    click.echo(table(["id", "state", "for", "name"], lines))
    click.echo(f"own private keys: {', '.join(own) or 'none'}")
    if for_openssf:
        click.echo(f"own keys for model-signing: {', '.join(for_openssf)}")


def _public(word: str) -> PublicKey:
    """Return the public half of an own key, or a trusted key by its id or the start of it."""
    root = find_home().keys
    folder = KeyFolder(root)
    if word in folder.names():
        return folder.load(word, _passphrase(folder, word)).public
    trusted = TrustRoot(root).policy().trusted
    found = [keyid for keyid in trusted if keyid.startswith(word)] if len(word) >= 8 else []
    if len(found) == 1:
        return trusted[found[0]].key
    if names.DIGEST.fullmatch(word):
        raise UserError(f"key {word} is not known here", mend="quantmint keys list")
    return folder.load(word).public


def _passphrase(folder: KeyFolder, name: str) -> str | None:
    word = passphrase_from_environment()
    if word is None and folder.is_encrypted(name):
        if not sys.stdin.isatty():
            raise UserError(f"the key {name!r} is encrypted", mend=f"set {PASSPHRASE}")
        word = click.prompt(f"passphrase of {name}", hide_input=True, err=True)
    return word


def _given(word: str) -> PublicKey:
    if word.startswith(PREFIX):
        return read_public_key(word)
    path = Path(word).expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(KEY_FILE_LIMIT + 1).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(
            f"{word[:200]} can't be read as a key file: {error.strerror}",
            mend=f"give a file, or the word that begins with {PREFIX}",
        ) from None
    return read_public_key(text)
