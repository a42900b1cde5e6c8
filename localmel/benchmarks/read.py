"""Recognise a benchmark by its files, and read it.

In: a folder, and the name of the dataset if the folder holds several.  Out: a Benchmark, or the source of its KB.
An unknown folder is an error that lists what was looked for and what is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from localmel.benchmarks import json_lines, kgmel, mimic
from localmel.benchmarks.benchmark import Benchmark, BenchmarkFolder
from localmel.errors import BadInput, shell_line
from localmel.kb.importers.reading import KbSource, Problems

_SHOWN = 12


def read_benchmark(folder: Path, name: str | None = None) -> Benchmark:
    """Read the splits of the dataset in `folder`; `Benchmark.layout` names the layout that was found."""
    return find_benchmark(folder, name).read()


def benchmark_kb(folder: Path, name: str | None = None, *, problems: Problems) -> KbSource:
    """Return the KB that comes with the dataset, for `build_kb`."""
    return find_benchmark(folder, name).kb_source(problems=problems)


def find_benchmark(folder: Path, name: str | None = None) -> BenchmarkFolder:
    """Return the one dataset in `folder`, or the one of that name.  Raises BadInput with the names that exist."""
    found = _all_in(folder)
    if not found:
        raise BadInput(_unknown(folder), hint=shell_line("ls", folder))
    chosen = found if name is None else _named(name, found)
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{one.name} ({one.layout})" for one in found)
    hint = f"{shell_line('localmel data check', folder)} --dataset {found[0].name}"
    if chosen:
        raise BadInput(f"{folder} holds {len(chosen)} datasets; which one? There are: {known}", hint=hint)
    raise BadInput(f"{folder} holds no dataset {name!r}; there are: {known}", hint=hint)


def _all_in(folder: Path) -> list[BenchmarkFolder]:
    try:
        here: list[BenchmarkFolder] = [
            *mimic.find_mimic(folder),
            *kgmel.find_kgmel(folder),
            *json_lines.find_own(folder),
        ]
        if here:
            return here
        below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        return [found for path in below if os.access(path, os.R_OK | os.X_OK) for found in mimic.find_mimic(path)]
    except (OSError, ValueError) as error:  # ValueError: a name that no file system accepts
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"cannot look into {folder}: {why}", hint="name the folder of a benchmark") from None


def _named(name: str, found: list[BenchmarkFolder]) -> list[BenchmarkFolder]:
    """Return those with exactly this name, else those whose name differs only in capitals and punctuation."""
    exact = [one for one in found if one.name == name]
    return exact or [one for one in found if _plain(one.name) == _plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"\W|_", "", name).lower()


def _unknown(folder: Path) -> str:
    there = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    listed = ", ".join(there[:_SHOWN]) or "nothing"
    more = f" and {len(there) - _SHOWN:,} more" if len(there) > _SHOWN else ""
    return (
        f"{folder} is not a benchmark that localmel knows.  Looked for: {mimic.WANTED} (MIMIC, also one folder below); "
        f"{kgmel.WANTED} (KGMEL); {json_lines.WANTED} (JSON lines).  There is: {listed}{more}"
    )
