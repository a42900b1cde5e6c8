"""Benchmarks in localmel's own form: NAME-train.jsonl, NAME-val.jsonl, NAME-test.jsonl in one folder.

In: one object per line: id, sentence, mention, answer (an entity id, or null for NIL), and optionally image (a path
relative to the file; null or empty for none); the KB is entities.jsonl and triples.tsv next to them or in kb/, plain or
compressed.  Out: splits, and the tables as a source.  A line that does not fit or repeats an id is an error with its
number.  Whether a picture exists is not checked; a path that leads out of the file's folder is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from localmel.benchmarks.benchmark import SPLITS, Benchmark, SplitBuilder, benchmark_of, place_mention, split_files
from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.reading import Problems, plain_or_compressed
from localmel.kb.importers.tables import TablesSource
from localmel.records import EntityId, MentionId, Split

WANTED = "NAME-train.jsonl, NAME-val.jsonl, NAME-test.jsonl"
_FILE = re.compile(r"(.+)-(train|val|test)\.jsonl")


class SplitLine(NamedTuple):
    """One line of a file, its types checked and its id unique in the file."""

    mention_id: MentionId
    surface: str
    sentence: str
    answer: EntityId | None
    image: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesFolder:
    """One dataset in this form."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    "Split -> its file."
    layout: str = "JSON lines"

    def read(self) -> Benchmark:
        """Read every mention of every file."""
        builders = {name: SplitBuilder(name) for name in SPLITS if name in self.files}
        for name, builder in builders.items():
            for line in split_lines(self.files[name]):
                builder.add(line.mention_id, line.surface, line.sentence, line.answer, image=line.image)
        return benchmark_of(self, builders)

    def kb_source(self, *, problems: Problems) -> TablesSource:
        """Return the tables in the folder, or in kb/ below it."""
        entities, triples = (
            plain_or_compressed(self.folder / name, self.folder / "kb" / name)
            for name in ("entities.jsonl", "triples.tsv")
        )
        if entities is None:
            fact = f"no KB comes with {self.name}: there is no entities.jsonl in {self.folder} or its folder kb"
            raise BadInput(fact, hint="localmel kb build NAME --entities FILE --triples FILE")
        return TablesSource(entities=entities, triples=triples, problems=problems)


def find_own(folder: Path) -> list[LinesFolder]:
    """Return the datasets in this folder, by the names of their files."""
    return [LinesFolder(name=name, folder=folder, files=found) for name, found in split_files(folder, _FILE).items()]


def read_split(path: Path) -> Split:
    """Read every mention of one file, in its order.  A mention is placed where it first occurs in its sentence."""
    lines = list(split_lines(path))
    mentions = [place_mention(line.mention_id, line.surface, line.sentence, image=line.image) for line in lines]
    return Split(name=path.stem, mentions=tuple(mentions), gold={line.mention_id: line.answer for line in lines})


def split_lines(path: Path) -> Iterator[SplitLine]:
    """Yield every line that is not blank.  Raises ImportProblem at the first that does not fit or repeats an id."""
    if not path.is_file():
        raise BadInput(f"there is no split {path}", hint=shell_line("ls", path.parent))
    ids: set[MentionId] = set()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = _split_line(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), path.parent)
                if found.mention_id in ids:
                    raise ValueError(f"id {found.mention_id!r} repeats")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ImportProblem(f"not a mention ({error})", source=str(path), line=number) from None
            ids.add(found.mention_id)
            yield found


def _split_line(row: dict[str, Any], folder: Path) -> SplitLine:
    if not isinstance(row, dict):
        raise TypeError(f"it is {type(row).__name__}, not an object")
    mention_id, answer, surface, sentence = row["id"], row["answer"], row["mention"], row["sentence"]
    if not isinstance(mention_id, str) or not isinstance(answer, str | None):
        raise TypeError(f"id {mention_id!r} or answer {answer!r} is not a text")
    if not isinstance(surface, str) or not isinstance(sentence, str):
        raise TypeError(f"mention {surface!r:.60} or sentence {sentence!r:.60} is not a text")
    if not surface:
        raise ValueError("the mention is empty")
    for text in (mention_id, surface, sentence):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} of {text!r:.40} is only half a character") from None
    return SplitLine(mention_id, surface, sentence, answer, _image(row.get("image"), folder))


def _image(named: object, folder: Path) -> Path | None:
    if named is None or named == "":
        return None
    if not isinstance(named, str):
        raise TypeError(f"image {named!r:.60} is not a text")
    path = PurePosixPath(named)
    if path.is_absolute() or ".." in path.parts or "\0" in named:
        raise ValueError(f"image {named!r:.200} leads out of the folder of the file")
    return folder / path
