"""The command line: translate what was typed, call the library, print what it says.

stdout is data, stderr is progress and errors.  Only this package knows Typer, Rich and exit codes."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Entry point of the command `localmel`."""
    from localmel.settings import go_offline

    go_offline()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the caller closed it
            stream.reconfigure(errors="backslashreplace")
    from localmel.cli.app import run

    sys.exit(run(sys.argv[1:]))


__all__ = ["main"]
