"""The command that was typed, as it stands in manifests and cards.

In: the arguments of the process.  Out: one line that can be pasted into a shell."""

from __future__ import annotations

import shlex
import sys


def command_line() -> str:
    """`localmel` and everything behind it, quoted."""
    return shlex.join(["localmel", *sys.argv[1:]])
