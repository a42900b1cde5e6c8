"""Import modules one after the other and say what came of each: the part of `probe` that runs in its own process.

In: names of modules as arguments.  Out: lines of JSON behind a mark; after torch also the GPUs that it sees.
Run as a script, so that nothing but the standard library is there before the first of them."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

MARK = "@localmel-probe "
"Begins the lines that are ours among whatever the packages print."


def _say(**what: Any) -> None:
    os.write(1, f"\n{MARK}{json.dumps(what)}\n".encode())


def _tried(name: str) -> str:
    """Why a module cannot be imported; empty where it can."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 whatever a broken package raises is what is asked for
        return f"{type(error).__name__}: {error}"[:500]
    return ""


def _gpus() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    found: dict[str, Any] = {"gpus": [], "problem": ""}
    if torch.version.cuda is None:
        return found
    try:
        torch.cuda.init()
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            found["gpus"].append(
                {
                    "name": facts.name,
                    "free_bytes": free,
                    "total_bytes": total,
                    "capability": f"{facts.major}.{facts.minor}",
                }
            )
    except (RuntimeError, AssertionError, OSError) as error:
        found["problem"] = str(error).splitlines()[0][:500]
    return found


def _run(names: Sequence[str]) -> None:
    for name in names:
        _say(begin=name)
        why = _tried(name)
        _say(why=why)
        if name == "torch" and not why:
            _say(**_gpus())


if __name__ == "__main__":
    _run(sys.argv[1:])
