"""Benchmark mentions with their gold, from JSON lines.

In: a file with one object per line: id, sentence, mention, answer (an entity id, or null for NIL), and optionally
image (a path relative to the file; null or empty for none).  Out: a Split.
A line that does not fit is an error with its number; nothing is dropped in silence.  Whether a picture is there is
not looked at; a path that leads out of the folder of the file is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from localmel.benchmarks.benchmark import SPLITS, Benchmark, SplitBuilder, place_mention
from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.reading import Problems
from localmel.kb.importers.tables import TablesSource
from localmel.records import EntityId, MentionId, Split


class SplitLine(NamedTuple):
    """One line as the file has it, its types checked and its id the only one of the file."""

    mention_id: MentionId
    surface: str
    sentence: str
    answer: EntityId | None
    image: Path | None


def read_split(path: Path) -> Split:
    """Every mention of the file, in its order.  The first occurrence in the sentence is the one meant.

    Benchmarks have mentions that do not stand in their sentence word for word ("Hermann Beckerath" for "Hermann von
    Beckerath"): such a mention is put in front of its sentence."""
    lines = list(split_lines(path))
    mentions = [place_mention(line.mention_id, line.surface, line.sentence, image=line.image) for line in lines]
    return Split(name=path.stem, mentions=tuple(mentions), gold={line.mention_id: line.answer for line in lines})


def split_lines(path: Path) -> Iterator[SplitLine]:
    """Every line of the file but blank ones.  Raises ImportProblem at the first that does not fit or repeats an id."""
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
                    raise ValueError(f"id {found.mention_id!r} stands twice")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise ImportProblem(f"not a mention ({error})", source=str(path), line=number) from None
            ids.add(found.mention_id)
            yield found


def _split_line(row: dict[str, Any], folder: Path) -> SplitLine:
    if not isinstance(row, dict):
        raise TypeError(f"it is {type(row).__name__}, not an object")
    mention_id, answer, surface, sentence = row["id"], row["answer"], row["mention"], row["sentence"]
    if not isinstance(mention_id, str) or not isinstance(answer, str | None):
        raise TypeError(f"id {mention_id!r} or answer {answer!r} is no text")
    if not isinstance(surface, str) or not isinstance(sentence, str):
        raise TypeError(f"mention {surface!r:.60} or sentence {sentence!r:.60} is no text")
    if not surface:
        raise ValueError("the mention is empty")
    for text in (mention_id, surface, sentence):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"character {error.start} of {text!r:.40} is half of one") from None
    return SplitLine(mention_id, surface, sentence, answer, _image(row.get("image"), folder))


def _image(named: object, folder: Path) -> Path | None:
    if named is None or named == "":
        return None
    if not isinstance(named, str):
        raise TypeError(f"image {named!r:.60} is no text")
    path = PurePosixPath(named)
    if path.is_absolute() or ".." in path.parts or "\0" in named:
        raise ValueError(f"image {named!r:.200} leads out of the folder of the file")
    return folder / path


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
