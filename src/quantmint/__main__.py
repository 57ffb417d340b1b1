"""The console script: runs a command, and ends with the exit code of who must act."""

from __future__ import annotations

import os
import sys
import traceback

import click

from quantmint.errors import BugError, QuantmintError
from quantmint.registry.cli import cli


def main() -> None:
    """Run the command line."""
    if any(name.endswith("_COMPLETE") for name in os.environ):  # a shell may be asking
        from quantmint.registry.completing import register

        register()
    try:
        code = cli.main(standalone_mode=False)
    except QuantmintError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:  # noqa: BLE001 - the last line of defence: say that it is our fault
        traceback.print_exc()
        click.echo("error: this is a bug in quantmint; please report the lines above", err=True)
        sys.exit(BugError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
