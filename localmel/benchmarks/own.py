"""Benchmarks in localmel's own form: NAME-train.jsonl, NAME-val.jsonl, NAME-test.jsonl in one folder.

In: these files, and for the KB entities.jsonl with triples.tsv beside them or in kb/, plain or compressed.
Out: splits, and the tables as a source.  An id that stands twice in a file is an error, as for `read_split`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localmel.benchmarks.benchmark import SPLITS, Benchmark, SplitBuilder
from localmel.benchmarks.json_lines import split_lines
from localmel.errors import BadInput
from localmel.kb.importers.source import Problems
from localmel.kb.importers.tables import TablesSource

WANTED = "NAME-train.jsonl, NAME-val.jsonl, NAME-test.jsonl"
_FILE = re.compile(r"(.+)-(train|val|test)\.jsonl")
_COMPRESSED = ("", ".gz", ".bz2", ".zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesFolder:
    """One dataset in this form."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    "Split -> its file."
    layout: str = "JSON lines"

    def read(self) -> Benchmark:
        """Every mention of every file."""
        builders = {name: SplitBuilder(name) for name in SPLITS if name in self.files}
        for name, builder in builders.items():
            for line in split_lines(self.files[name]):
                builder.add(line.mention_id, line.surface, line.sentence, line.answer, image=line.image)
        return Benchmark(
            name=self.name,
            layout=self.layout,
            folder=self.folder,
            splits={name: builder.split() for name, builder in builders.items()},
            remarks={name: builder.remarks() for name, builder in builders.items()},
        )

    def kb_source(
        self,
        *,
        problems: Problems,
    ) -> TablesSource:
        """The tables in the folder, or in kb/ below it."""
        entities, triples = (self._table(name) for name in ("entities.jsonl", "triples.tsv"))
        if entities is None:
            fact = f"{self.folder} has no entities.jsonl, nor has kb/ in it: no KB comes with {self.name}"
            raise BadInput(fact, hint="localmel kb build NAME --entities FILE --triples FILE")
        return TablesSource(entities=entities, triples=triples, problems=problems)

    def _table(self, name: str) -> Path | None:
        places = [folder / f"{name}{suffix}" for folder in (self.folder, self.folder / "kb") for suffix in _COMPRESSED]
        return next((path for path in places if path.is_file()), None)


def find_own(folder: Path) -> list[LinesFolder]:
    """The datasets in this folder, by the names of their files."""
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := _FILE.fullmatch(path.name)) and path.is_file():
            files.setdefault(match[1], {})[match[2]] = path
    return [LinesFolder(name=name, folder=folder, files=found) for name, found in files.items()]
