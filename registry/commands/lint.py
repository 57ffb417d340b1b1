"""`quantmint lint FOLDER|LISTING`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from quantmint.errors import IntegrityError, UserError
from quantmint.registry.linter.run import from_folder, from_json
from quantmint.registry.linter.run import lint as lint_listing


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="FOLDER|LISTING")
@click.option("--repo", help="The repository's name, OWNER/NAME.")
@click.option("--no-chat", is_flag=True, help="The model is not meant for chats.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings for programs.")
def lint(target: Path, repo: str | None, no_chat: bool, as_json: bool) -> None:
    """Check that every client would find the right file in a repository.

    FOLDER holds the files as they would be published; LISTING is a JSON file with their paths,
    as the Hub's tree page gives it. Exit code 5 if anything would go wrong.
    """
    if target.is_dir():
        listing = from_folder(target, repo=repo, chat=not no_chat)
    elif target.is_file():
        listing = from_json(target.read_bytes(), repo=repo, chat=not no_chat)
    else:
        raise UserError(f"{target} is neither a folder nor a file", mend="quantmint lint FOLDER")
    found = lint_listing(listing)
    errors = sum(finding.severity == "error" for finding in found)
    if as_json:
        tags = dict(listing.advertised)
        click.echo(json.dumps({"tags": tags, "findings": [asdict(one) for one in found]}))
    else:
        for finding in found:
            click.echo(f"{finding.severity}  {finding.what}\n  mend: {finding.mend}")
        warnings = len(found) - errors
        click.echo(f"{len(listing.advertised)} tags, {errors} errors, {warnings} warnings")
    if errors:
        raise IntegrityError(
            f"{errors} errors: this layout must not be published", mend="see each finding's mend"
        )
