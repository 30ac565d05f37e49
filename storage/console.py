"""What all commands share: the `twinlens` group, `--output text|json`, one-line errors and exit codes.

Results go to stdout, progress to stderr. Exit codes: 0 it worked, 1 the user can mend it, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from typing import Any, TypeVar

import click

from .errors import TwinlensError
from .origins import check_origins

F = TypeVar("F", bound=Callable[..., Any])

output_option: Callable[[F], F] = click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Print results for people or for programs.",
)


def emit(output: str, value: Any, text: str) -> None:
    """Print the result of a command to stdout: `value` as JSON, or `text`.

    A reader that has gone (`| head -1`) is not an error.
    """
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    try:
        click.echo(json.dumps(value, ensure_ascii=plain, indent=2, allow_nan=False) if output == "json" else text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()


class CommandGroup(click.Group):
    """Commands are entry points of the group `twinlens.commands` and are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all installed commands, sorted."""
        return sorted(_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one command, or None where no such command is installed."""
        entry = _commands().get(cmd_name)
        return entry.load() if entry else None


def _commands() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="twinlens.commands")}


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twinlens")
def twinlens() -> None:
    """Search pictures and words by meaning, in an index built beforehand."""


def run(command: click.Command) -> None:
    """Run a command as a program and exit: errors are one line on stderr, never a traceback."""
    _accept_all_signs()
    try:
        check_origins()
        code = command.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted; what was published has not changed, a build goes on when it is run again", 130)
    except click.UsageError as error:
        code = _fail(f"{error.format_message().rstrip('.')}. See `{_path(error)} --help`.", 1)
    except click.ClickException as error:
        code = _fail(error.format_message(), 1)
    except (TwinlensError, OSError, MemoryError) as error:
        code = _fail(str(error) or type(error).__name__, 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    click.echo("error: " + " ".join(message.split()), err=True)
    return code


def _path(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "twinlens"


def _accept_all_signs() -> None:
    """Let a terminal that knows few signs show the others as escapes, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    # Python would complain when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the `twinlens` command."""
    run(twinlens)
