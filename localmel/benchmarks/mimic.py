"""WikiMEL, RichpediaMEL and WikiDiverse in the folders that MIMIC and M3EL share: one object per mention.

In: NAME_{train,dev,test}.json next to mention_image(s)/, kb_entity.json and kb_image/.  Out: splits, and entities.
The KB has no triples: the properties of an entity (`attr`) are one text of unspecified form, used as its description
if there is no `desc`.  `instance`, `type` and qid2id.json add nothing and are not read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from localmel.benchmarks.benchmark import (
    SPLITS,
    Benchmark,
    Remarks,
    SplitBuilder,
    benchmark_of,
    gold_of,
    object_in,
    picture_file,
    split_files,
    texts_in,
)
from localmel.benchmarks.json_lists import Element, read_list
from localmel.benchmarks.leaks import sentences_of
from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.reading import EntityRow, Problems, TripleRow, clean, excerpt, size_of
from localmel.kb.importers.tables import text_of
from localmel.records import Entity, MentionId, Split

WANTED = "NAME_train.json, NAME_dev.json, NAME_test.json"
_FILE = re.compile(r"(.+)_(train|dev|val|test)\.json")
_USUAL = {"wikimel": "WikiMEL", "richpediamel": "RichpediaMEL", "wikidiverse": "WikiDiverse"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MimicFolder:
    """One dataset in this form."""

    name: str
    folder: Path
    files: Mapping[str, Path]
    "Split -> its file."
    layout: str = "MIMIC"

    def read(self) -> Benchmark:
        """Read every mention.  Its id is the file's, prefixed with the split if ids only count rows."""
        pictures = _folder(self.folder, "mention_image", "mention_images")
        builders = {name: SplitBuilder(name) for name in SPLITS if name in self.files}
        for name, builder in builders.items():
            for element in read_list(self.files[name]):
                try:
                    _add(builder, element, pictures)
                except (ValueError, TypeError) as error:
                    fact = f"element {element.number} is not a mention ({error})"
                    raise ImportProblem(fact, source=str(self.files[name]), line=element.line) from None
        notes = [] if pictures.is_dir() else [f"no folder mention_image or mention_images in {self.folder}"]
        found = benchmark_of(self, builders)
        if clashing := _ids_with_two_sentences(found.splits):
            notes.append(
                f"ids that name different sentences in two splits: {clashing:,}; "
                "so ids are not compared between splits, and mentions are named SPLIT/ID"
            )
            remarks = {name: _under(name, remark) for name, remark in found.remarks.items()}
            splits = {name: _renamed(split) for name, split in found.splits.items()}
            found = replace(found, splits=splits, remarks=remarks)
        return replace(found, notes=tuple(notes))

    def kb_source(self, *, problems: Problems) -> MimicSource:
        """Return the entities of kb_entity.json."""
        path = self.folder / "kb_entity.json"
        if not path.is_file():
            raise BadInput(f"{self.folder} has no kb_entity.json", hint=shell_line("ls", self.folder))
        return MimicSource(path, problems=problems)


def find_mimic(folder: Path) -> list[MimicFolder]:
    """Return the datasets in this folder, by the names of their files; two spellings of one name are two datasets."""
    files = split_files(folder, _FILE)
    usual = {stem: _USUAL.get(re.sub(r"\W|_", "", stem).lower(), stem) for stem in files}
    times = Counter(usual.values())
    return [
        MimicFolder(name=usual[stem] if times[usual[stem]] == 1 else stem, folder=folder, files=found)
        for stem, found in files.items()
    ]


def _folder(parent: Path, *names: str) -> Path:
    """Return the first of these folders that exists, or the first name if none does."""
    return next((parent / name for name in names if (parent / name).is_dir()), parent / names[0])


def _add(builder: SplitBuilder, element: Element, pictures: Path) -> None:
    row = object_in(element.value)
    file_id = row.get("id")
    if file_id is None:
        mention_id = f"{builder.name}/{element.number}"
    elif isinstance(file_id, bool) or not isinstance(file_id, str | int) or not str(file_id).strip():
        raise TypeError(f"id is neither a text nor a whole number: {excerpt(file_id)}")
    else:
        mention_id = str(file_id)
    builder.add(
        mention_id,
        unquote(text_of(row, "mentions", required=True)),
        text_of(row, "sentence", required=True),
        gold_of(text_of(row, "answer", required=True)),
        image=picture_file(pictures, text_of(row, "imgPath")),
    )


def _ids_with_two_sentences(splits: Mapping[str, Split]) -> int:
    """Count the ids that name different sentences in two splits: they count rows and say nothing about identity."""
    sentences: dict[MentionId, set[str]] = {}
    clashing = set()
    for split in splits.values():
        for mention in split.mentions:
            found = sentences_of(mention)
            if sentences.setdefault(mention.id, found).isdisjoint(found):
                clashing.add(mention.id)
    return len(clashing)


def _renamed(split: Split) -> Split:
    return Split(
        name=split.name,
        mentions=tuple(replace(mention, id=f"{split.name}/{mention.id}") for mention in split.mentions),
        gold={f"{split.name}/{mention_id}": answer for mention_id, answer in split.gold.items()},
    )


def _under(split: str, remarks: Remarks) -> Remarks:
    return replace(
        remarks,
        not_in_sentence=tuple(f"{split}/{one}" for one in remarks.not_in_sentence),
        other_case=tuple(f"{split}/{one}" for one in remarks.other_case),
        empty=tuple(f"{split}/{one}" for one in remarks.empty),
    )


class MimicSource:
    """The entities of kb_entity.json, one after the other; there are no triples."""

    def __init__(self, path: Path, *, problems: Problems) -> None:
        self.left_out: Counter[str] = Counter()
        self._path = path
        self._pictures = path.parent / "kb_image"
        self._problems = problems

    @property
    def total_bytes(self) -> int:
        """Return the size of the file."""
        return size_of(self._path)

    def entities(self) -> Iterator[EntityRow]:
        """Yield one entity per object of the list."""
        for element in read_list(self._path):
            try:
                entity = self._entity(object_in(element.value))
            except (ValueError, TypeError) as error:
                fact = f"element {element.number} is not an entity ({error})"
                self._problems.report(fact, self._path, element.line)
                continue
            yield EntityRow(entity=entity, source=str(self._path), line=element.line)

    def triples(self) -> Iterator[TripleRow]:
        """Yield nothing."""
        return iter(())

    def _entity(self, row: dict[str, Any]) -> Entity:
        names = texts_in(row, "image_list") if row.get("image_list") is not None else []
        return Entity(
            id=text_of(row, "qid", required=True).strip(),
            label=clean(unquote(text_of(row, "entity_name", required=True))),
            description=clean(text_of(row, "desc")) or clean(text_of(row, "attr")),
            image=self._picture(names[0]) if names else None,
        )

    def _picture(self, name: str) -> str | None:
        """Return the file in kb_image; a name that leads out of that folder counts as a missing file."""
        path = self._pictures / name
        if "/" in name or not path.is_file():
            self.left_out["picture of an entity whose file is not in kb_image"] += 1
            return None
        return str(path.absolute())
