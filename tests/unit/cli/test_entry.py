"""How the command line ends: with a line and an exit status, never with a traceback of an error that we know."""

import importlib
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click
import pytest

from dscc.cli import entry as cli
from dscc.cli import interrupt
from dscc.cli.progress import Stages
from dscc.errors import DsccError
from dscc.plugins import PluginWarning


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The command `raise` raises what the test puts into the list."""
    raised: list[Any] = []

    @click.command("raise")
    def command() -> None:
        raise raised[0]

    before = warnings.showwarning
    monkeypatch.setattr(interrupt, "watch", lambda: None)  # it changes handlers of the whole process
    monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: command)
    monkeypatch.setattr(cli, "COMMANDS", ("raise",))
    yield raised
    warnings.showwarning = before


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (DsccError("what 'value'; do this"), 1, "dscc: error: what 'value'; do this\n"),
        (KeyboardInterrupt(), 130, "\ndscc: error: interrupted\n"),  # after the ^C that the terminal shows
        (click.Abort(), 130, "dscc: error: interrupted\n"),
        (click.BadParameter("Expected more."), 1, "dscc: error: invalid value: Expected more\n"),
        (MemoryError(), 1, "dscc: error: out of memory; give the machine more, or compile a smaller model\n"),
    ],
)
def test_known_errors_are_one_line(command: list[Any], capsys: Any, raised: Any, status: int, said: str) -> None:
    command.append(raised)
    assert cli.main(["raise"]) == status
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_command_may_choose_its_exit_status(command: list[Any], status: int) -> None:
    command.append(click.exceptions.Exit(status))
    assert cli.main(["raise"]) == status


def test_an_interrupt_that_became_another_error(command: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupt does that is raised in a function called by C++."""
    monkeypatch.setattr(interrupt, "seen", lambda: True)
    command.append(RuntimeError("KeyboardInterrupt"))
    assert cli.main(["raise"]) == 130


def test_an_interrupt_that_was_lost_ends_the_next_stage() -> None:
    """As one that is raised while a destructor runs."""

    class Lossy:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    try:
        interrupt.watch()
        with Stages("test") as stages:
            stages("first")
            del_me = Lossy()
            del del_me
            assert interrupt.seen()
            with pytest.raises(KeyboardInterrupt):
                stages("second")
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook
        interrupt._seen = False


def test_bugs_keep_their_traceback(command: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", lambda *args: None)  # as TVM leaves it
    command.append(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["raise"])
    assert sys.excepthook is sys.__excepthook__


def test_our_warnings_are_one_line_and_those_of_others_are_not(capsys: Any) -> None:
    cli._show_warning(PluginWarning("plug-in 'x' is not used"), PluginWarning, "file.py", 3)
    cli._show_warning(UserWarning("theirs"), UserWarning, "file.py", 3)
    said = capsys.readouterr().err.splitlines()
    assert said == ["dscc: warning: plug-in 'x' is not used", "file.py:3: UserWarning: theirs"]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_file_and_describes_itself(name: str) -> None:
    command = importlib.import_module(f"dscc.cli.{name}").command
    assert command.name == name
    assert command.short_help.endswith(".") and command.help


def test_help_is_quick() -> None:
    """`dscc --help` answers in under 0.3 s on an idle machine: the best of five, in processor time, which a busy one
    does not change much."""
    best = min(_seconds() for _ in range(5))
    assert best < 0.3


def _seconds() -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "dscc.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "dscc.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert first.stdout and first.stderr
    first.stdout.close()
    assert first.stderr.read() == b""
    assert first.wait() == 1
