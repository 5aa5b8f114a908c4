"""The command line: one file per command. A command parses its arguments and prints; the library does the work."""

from dscc.cli.entry import main

__all__ = ["main"]
