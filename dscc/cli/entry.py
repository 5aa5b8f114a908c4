"""The group of commands, and the one place where errors become a line and an exit status.

A command's module is imported when the command is used or listed; none imports TVM, NumPy or rich at its top, which is
why `dscc --help` answers at once.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import click

import dscc
from dscc.cli import interrupt
from dscc.errors import DsccError, unknown

_LOG = logging.getLogger(__name__)
COMMANDS = (
    *("bench", "compile", "inspect", "list", "opt", "plugins", "profile", "run", "serve", "targets", "tune"),
    "verify",
)


class Commands(click.Group):
    """Finds the command NAME in the module dscc.cli.NAME."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"dscc.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-p", "plugins", metavar="NAME", multiple=True, help="Load the plug-in NAME; no:NAME blocks one.")
@click.version_option(dscc.__version__, message="dscc %(version)s")
def cli(plugins: tuple[str, ...]) -> None:
    """Compile trained models to fast native code."""
    if plugins:
        from dscc.plugins import configure

        configure(plugins)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 for an error that we explain, 130 for Ctrl-C."""
    warnings.showwarning = _show_warning
    interrupt.watch()
    try:
        # A command that ends with click's Exit makes its status the value of this call; all others return None.
        status = cli.main(args=list(sys.argv[1:] if args is None else args), prog_name="dscc", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.ctx.get_help() if err.ctx else "", err=True)
        return 1
    except click.ClickException as err:
        _say("error", _usage(err))
        return 1
    except DsccError as err:
        _say("error", str(err))
        return 1
    except (KeyboardInterrupt, click.Abort):
        _say("error", "interrupted")
        return 130
    except MemoryError:
        _say("error", "out of memory; give the machine more, or compile a smaller model")
        return 1
    except Exception as err:
        if interrupt.seen():
            _LOG.debug("what the interrupt ended in: %r", err)
            _say("error", "interrupted")
            return 130
        # TVM replaces the hook by one that hides tracebacks, and what arrives here is a bug of ours.
        sys.excepthook = sys.__excepthook__
        raise
    return status or 0


def _say(kind: str, text: str) -> None:
    sys.stdout.flush()
    print(f"dscc: {kind}: {text}", file=sys.stderr, flush=True)


def _usage(err: click.ClickException) -> str:
    """click's complaint in the wording of our own errors."""
    if isinstance(err, click.NoSuchOption):
        params = err.ctx.command.params if err.ctx else []
        known = [name for param in params if isinstance(param, click.Option) for name in param.opts]
        return unknown("option", err.option_name, [*known, "--help"])
    if isinstance(err, click.BadParameter) and err.param and isinstance(err.param.type, click.Choice):
        wrong = re.match(r"'([^']*)' is not one of", err.message)
        kind = err.param.opts[0] if isinstance(err.param, click.Option) else err.param.name
        if wrong and kind:
            return unknown(kind, wrong[1], map(str, err.param.type.choices))
    text = " ".join(err.format_message().split()).removesuffix(".")
    if isinstance(err, click.BadParameter):
        text = re.sub(r"^Invalid value for ('[^']*')( / '[^']*')*:", r"\1:", text)
    return text[:1].lower() + text[1:]


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our warnings are one line for the user; those of libraries keep the form that their authors expect."""
    if category.__module__.partition(".")[0] == "dscc":
        _say("warning", str(message))
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), file=file or sys.stderr, end="")
