"""The command line: which commands there are, loading each only when it is used."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Final, NamedTuple

import click
from click.shell_completion import CompletionItem

from quantmint.errors import UserError
from quantmint.registry.commands.extras import mint_module


class Entry(NamedTuple):
    """One command: the module that holds it under its own name, and its line in `--help`."""

    module: str
    help: str
    needs_build: bool = False


# `--help` prints these lines without importing a single command.
COMMANDS: Final = {
    "pull": Entry(
        "quantmint.registry.commands.pull",
        "Fetch the variant of a model that fits this machine, verified.",
    ),
    "run": Entry(
        "quantmint.registry.commands.run", "Chat with a model on this machine's best kernel."
    ),
    "serve": Entry(
        "quantmint.registry.commands.serve", "Serve a model's OpenAI-compatible API on loopback."
    ),
    "list": Entry("quantmint.registry.commands.list", "List the models that are on this machine."),
    "show": Entry(
        "quantmint.registry.commands.show",
        "Print what is known of a model that is on this machine.",
    ),
    "outdated": Entry(
        "quantmint.registry.commands.outdated",
        "Say what newer releases changed, and whether it matters.",
    ),
    "rm": Entry(
        "quantmint.registry.commands.rm",
        "Remove a model that was pulled, or one variant of it, and free the disk.",
    ),
    "export": Entry(
        "quantmint.registry.commands.export",
        "Write a model into one file, for machines without a network.",
    ),
    "import": Entry(
        "quantmint.registry.commands.import_",
        "Take a model out of a file that `quantmint export` wrote; no network is used.",
    ),
    "models": Entry(
        "quantmint.pipelines.commands.models", "List the models that can be built.", True
    ),
    "plan": Entry(
        "quantmint.pipelines.commands.plan",
        "Print what building a model would do, and the disk it needs.",
        True,
    ),
    "build": Entry(
        "quantmint.pipelines.commands.build", "Build and test a model's variants.", True
    ),
    "release": Entry(
        "quantmint.pipelines.commands.release",
        "Publish what passed of a model: signed, tested again, in one commit.",
        True,
    ),
    "kernels": Entry(
        "quantmint.pipelines.commands.kernels", "List or build the kernels of the matrix.", True
    ),
    "quantize": Entry(
        "quantmint.native.ladder.command",
        "Make every variant of a GGUF model in one pass over it.",
        True,
    ),
    "ui": Entry(
        "quantmint.pipelines.commands.ui", "Serve the Dagster and MLflow pages on loopback.", True
    ),
    "doctor": Entry(
        "quantmint.pipelines.commands.doctor",
        "Say what this machine has and lacks, with the command that mends it.",
        True,
    ),
    "inspect": Entry(
        "quantmint.registry.commands.inspect", "Check a GGUF file and print its facts."
    ),
    "keys": Entry(
        "quantmint.registry.commands.keys",
        "Make keys that sign releases, and say whose are trusted.",
    ),
    "lint": Entry(
        "quantmint.registry.commands.lint",
        "Check that every client would find the right file in a repository.",
    ),
    "verify": Entry(
        "quantmint.registry.commands.verify",
        "Hash again every object of the store, a pulled model (REF), or a release's FOLDER.",
    ),
    "gc": Entry("quantmint.registry.commands.gc", "Free the disk of what nothing needs."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command.

        Raises:
            UserError: it belongs to the mint, which is not installed.
        """
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        load = partial(mint_module, command=cmd_name) if entry.needs_build else import_module
        module = load(entry.module)
        name = cmd_name.replace("-", "_")
        command = getattr(module, name, None) or getattr(module, f"{name}_")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return what completes a command's name, without importing any."""
        return [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        from quantmint.errors import nearest

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise UserError(
                f"there is no command {args[0][:40]!r}{nearest(args[0], COMMANDS)}",
                mend="quantmint --help",
            )
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="quantmint")
def cli() -> None:
    """A mint for quantized language models.

    Converts a checkpoint to GGUF, quantizes it to every variant, tests each variant on native
    kernels, and publishes only what passed.

    State lives below QUANTMINT_HOME. Exit codes: 2 you, 3 the source, 4 the build, 5 integrity,
    6 the registry, 70 a bug.
    """
