"""The command line: translate what was typed, call the library, print the result.

stdout is data, stderr is progress and errors.  Only this package knows Typer, Rich and exit codes."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command `localmel` and exit with its code."""
    from localmel.settings import go_offline

    go_offline()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: send output nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        from localmel.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before Typer could handle it
        sys.exit(130)


__all__ = ["main"]
