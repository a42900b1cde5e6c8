"""Which mentions a stage works on.

In: a file of JSON lines, or a benchmark folder with the names of splits.  Out: mentions, each id once.  Reads gold
only because the files hold it, and hands none on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localmel.benchmarks import read_benchmark
from localmel.benchmarks.json_lines import read_split
from localmel.errors import BadInput, UsageError
from localmel.records import Mention, Split


def mentions_from(
    data: Path, splits: Sequence[str] = (), dataset: str | None = None, *, most: int = 0
) -> tuple[Mention, ...]:
    """The mentions of a file, or of these splits of a folder (val where none is named), `most` at most (0: all).

    Raises BadInput where there are none or an id stands twice, UsageError where a file is given a split."""
    if data.is_file():
        if splits or dataset:
            raise UsageError(f"{data} is one file; --split and --dataset go with a benchmark folder")
        found: Sequence[Split] = [read_split(data)]
    else:
        benchmark = read_benchmark(data, dataset)
        wanted = tuple(dict.fromkeys(splits or ("val",)))
        if unknown := [name for name in wanted if name not in benchmark.splits]:
            there = ", ".join(benchmark.splits) or "none"
            first = next(iter(benchmark.splits), "val")
            raise BadInput(f"{benchmark.name} has no split {unknown[0]!r}; there are: {there}", hint=f"--split {first}")
        found = [benchmark.splits[name] for name in wanted]
    mentions = [mention for split in found for mention in split.mentions]
    ids: set[str] = set()
    for mention in mentions:
        if mention.id in ids:
            raise BadInput(f"mention {mention.id!r} stands in two splits", hint="give each split a run of its own")
        ids.add(mention.id)
    if not mentions:
        raise BadInput(f"{data} has no mentions", hint="localmel data check FOLDER")
    return tuple(mentions[:most] if most else mentions)
