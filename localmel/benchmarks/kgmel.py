"""The splits of KGMEL's own layout: one object per sentence, with parallel lists of mentions and answers.

In: data/dataset/NAME.json, data/dataset/image/NAME/ and the mapping files.  Out: splits; a mention is called
ID-INDEX after its sentence and its place in the list, so that two mentions with one gold stay two.
The splits are lists of sentence ids.  A sentence may be in two of them: it is read into both, and the checker says
so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.benchmarks.benchmark import (
    SPLITS,
    Benchmark,
    SplitBuilder,
    gold_of,
    numbered,
    picture_file,
    spans_in,
    whole,
)
from localmel.benchmarks.json_lists import Element, read_list, read_object
from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.reading import EntityRow, Problems, TripleRow, excerpt, read_blocks, size_of
from localmel.kb.importers.tables import text_of
from localmel.records import Entity, EntityId, MentionId

WANTED = "dataset/NAME.json, also under data/"
SPLIT_MAP = "ids_split_mappings.json"
CANDIDATES = "qids_candidate.json"
ANSWERS = "qids_answer.json"
PICTURES = "ids_image.json"
BLANK = "ids_blank_image.json"
_MAPPINGS = (SPLIT_MAP, CANDIDATES, ANSWERS, PICTURES, BLANK)
_USUAL_PLACES = ("dataset/mapping", "mapping", "mappings", "dataset", "KB", ".")
_PICTURE_FOLDERS = {"image", "images", "kb_image", "mention_image", "mention_images"}


def published_key(mention_id: MentionId, answer: EntityId | None) -> str:
    """What the published code calls this mention: "<sentence id>-<gold>".  Two mentions may have the same one."""
    sentence_id = mention_id.rpartition("-")[0].partition("#")[0]
    return f"{sentence_id}-{answer or 'nil'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KgmelFolder:
    """One dataset in this layout."""

    name: str
    folder: Path
    "What the user gave; mapping files are looked for below it."
    data: Path
    "The folder that holds dataset/ and KB/."
    layout: str = "KGMEL"

    def read(self) -> Benchmark:
        """Every mention of every sentence that the split map names."""
        of_sentence = self._splits_of_sentences()
        blank = {str(one).strip() for one in self._listed(BLANK) or ()}
        builders = {name: SplitBuilder(name) for name in SPLITS if any(name in found for found in of_sentence.values())}
        path = self.data / "dataset" / f"{self.name}.json"
        seen: dict[str, str] = {}
        answers: set[EntityId] = set()
        left_out = 0
        for element in read_list(path):
            try:
                sentence = _sentence(element, blank, self.data / "dataset" / "image" / self.name)
            except (ValueError, TypeError) as error:
                fact = f"element {element.number} is no sentence with mentions ({error})"
                raise ImportProblem(fact, source=str(path), line=element.line) from None
            key = sentence.id if sentence.id not in seen else numbered(sentence.id, seen)
            seen[key] = sentence.id
            splits = of_sentence.get(sentence.id, ())
            left_out += not splits
            answers.update(answer for answer in sentence.answers if answer)
            for name in splits:
                _add(builders[name], key, sentence)
        missing = len(of_sentence.keys() - set(seen.values()))
        return Benchmark(
            name=self.name,
            layout=self.layout,
            folder=self.folder,
            splits={name: builder.split() for name, builder in builders.items()},
            remarks={name: builder.remarks() for name, builder in builders.items()},
            notes=tuple(self._notes(left_out=left_out, missing=missing, answers=answers)),
        )

    def kb_source(
        self,
        *,
        problems: Problems,
    ) -> KgmelSource:
        """The candidates of the dataset that have a label, and their triples."""
        candidates = self._listed(CANDIDATES, needed=True)
        if candidates is None:
            fact = f"there is no {CANDIDATES} below {self.folder}; it says which entities are the KB of {self.name}"
            raise BadInput(fact, hint=shell_line("ls", self.data / "dataset" / "mapping"))
        pictures = self._listed(PICTURES)
        return KgmelSource(
            self.data / "KB",
            dataset=self.name,
            candidates=set(map(str, candidates)),
            with_picture=None if pictures is None else set(map(str, pictures)),
            problems=problems,
        )

    def _splits_of_sentences(self) -> dict[str, tuple[str, ...]]:
        found = self._mapping(SPLIT_MAP, needed=True)
        if found is None:
            fact = f"there is no {SPLIT_MAP} below {self.folder}; it says which sentence is in which split"
            raise BadInput(fact, hint=shell_line("find", self.folder, note=f"-name {SPLIT_MAP}"))
        path, value = found
        if not isinstance(value, dict) or not all(isinstance(ids, list) for ids in value.values()):
            raise BadInput(f"{path}: the splits of {self.name} are no lists of ids: {excerpt(value)}")
        of_sentence: dict[str, dict[str, None]] = {}
        for key, ids in value.items():
            name = "val" if key == "dev" else key
            if name not in SPLITS:
                raise BadInput(f"{path}: {excerpt(key)} is none of train, val (dev) and test")
            for one in ids:
                try:
                    of_sentence.setdefault(_id(one), {})[name] = None
                except TypeError as error:
                    raise BadInput(f"{path}: {self.name}, {name}: {error}") from None
        return {one: tuple(names) for one, names in of_sentence.items()}

    def _listed(self, name: str, *, needed: bool = False) -> list[Any] | None:
        """The list of this dataset in a mapping file; None where there is none."""
        found = self._mapping(name, needed=needed)
        if found is None:
            return None
        path, value = found
        if not isinstance(value, list) or not all(type(one) in (str, int) for one in value):
            raise BadInput(f"{path}: what it has for {self.name} is no list of ids: {excerpt(value)}")
        return value

    def _mapping(self, name: str, *, needed: bool) -> tuple[Path, Any] | None:
        path = _find(name, self.folder, self.data)
        if path is None:
            return None
        datasets = read_object(path)
        if self.name in datasets:
            return path, datasets[self.name]
        if not needed:
            return None
        known = ", ".join(map(excerpt, datasets)) or "nothing"
        raise BadInput(f"{path} has nothing for {self.name!r}; it has {known}", hint=shell_line("head -c 300", path))

    def _notes(self, *, left_out: int, missing: int, answers: set[EntityId]) -> list[str]:
        notes = []
        if left_out:
            notes.append(f"sentences in no split, left out: {left_out:,}")
        if missing:
            notes.append(f"ids of {SPLIT_MAP} without a sentence: {missing:,}")
        if self._listed(BLANK) is None:
            notes.append(f"{BLANK} has nothing for it: sentences without a picture cannot be told from those with one")
        listed = self._listed(ANSWERS)
        if listed is not None and (unlisted := answers - set(map(str, listed))):
            notes.append(f"answers that are not in {ANSWERS}: {len(unlisted):,}")
        return notes


def find_kgmel(folder: Path) -> list[KgmelFolder]:
    """The datasets below this folder, by their files in dataset/ or data/dataset/."""
    return [
        KgmelFolder(name=path.stem, folder=folder, data=data)
        for data in (folder, folder / "data")
        for path in sorted((data / "dataset").glob("*.json"))
        if path.name not in _MAPPINGS and path.is_file()
    ]


def _find(name: str, folder: Path, data: Path) -> Path | None:
    """A mapping file: in its usual places, else wherever it stands below the folder.  Two are one too many."""
    for place in _USUAL_PLACES:
        if (data / place / name).is_file():
            return data / place / name
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _PICTURE_FOLDERS and not one.startswith("."))
        if name in files:
            found.append(Path(parent) / name)
    if len(found) > 1:
        fact = f"{name} stands in several places: {', '.join(map(str, found))}"
        raise BadInput(fact, hint=shell_line("cp", found[0], data / "dataset", note="the one that is meant"))
    return found[0] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    id: str
    text: str
    surfaces: tuple[str, ...]
    answers: tuple[EntityId | None, ...]
    image: Path | None


def _sentence(element: Element, blank: set[str], pictures: Path) -> _Sentence:
    row = element.value
    if not isinstance(row, dict):
        raise TypeError(f"not an object in braces: {excerpt(row)}")
    sentence_id = _id(row.get("id"))
    surfaces, answers = _texts(row, "mention"), _texts(row, "answer")
    labels = _texts(row, "entity") if "entity" in row else surfaces
    if not len(surfaces) == len(answers) == len(labels):
        raise ValueError(
            f"its lists have different lengths: {len(surfaces)} mention, {len(labels)} entity, {len(answers)} answer"
        )
    named = text_of(row, "imgPath")
    return _Sentence(
        id=sentence_id,
        text=whole(text_of(row, "sentence", required=True)),
        surfaces=tuple(map(whole, surfaces)),
        answers=tuple(map(gold_of, answers)),
        image=None if sentence_id in blank else picture_file(pictures, named),
    )


def _texts(row: Mapping[str, Any], key: str) -> list[str]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{key} is no list of texts: {excerpt(value)}")
    return value


def _id(value: object) -> str:
    """Ids are whole numbers in one file and texts in another; both mean the same."""
    if type(value) is int or (isinstance(value, str) and value.strip()):
        return whole(str(value).strip())
    raise TypeError(f"id {excerpt(value)} is neither a whole number nor a text")


def _add(builder: SplitBuilder, key: str, sentence: _Sentence) -> None:
    if key != sentence.id:
        builder.repeated(sentence.id)
    spans = spans_in(sentence.text, sentence.surfaces)
    for index, (surface, answer, span) in enumerate(zip(sentence.surfaces, sentence.answers, spans, strict=True)):
        builder.add(f"{key}-{index}", surface, sentence.text, answer, image=sentence.image, span=span)


def count_published_keys(gold: Mapping[MentionId, EntityId | None]) -> int:
    """How many mentions the published code can tell apart."""
    return len({published_key(mention_id, answer) for mention_id, answer in gold.items()})


_COMPRESSED = ("", ".gz", ".bz2", ".zst")


class KgmelSource:
    """The candidates of one dataset with their triples."""

    def __init__(
        self,
        folder: Path,
        *,
        dataset: str,
        candidates: Set[EntityId],
        with_picture: Set[str] | None,
        problems: Problems,
    ) -> None:
        self.left_out: Counter[str] = Counter()
        self._entities = _table(folder, "QID2Label.tsv")
        self._relations = _table(folder, "PID2Label.tsv")
        self._triples = _table(folder, f"Triples-{dataset}.tsv")
        self._pictures = next((folder / one for one in ("image", "kb_image") if (folder / one).is_dir()), None)
        self._candidates = candidates
        self._with_picture = with_picture
        self._problems = problems
        self._labels: dict[EntityId, str] = {}

    @property
    def total_bytes(self) -> int:
        """The size of the three files."""
        return size_of(self._entities) + size_of(self._relations) + size_of(self._triples)

    def entities(self) -> Iterator[EntityRow]:
        """Every candidate that has a label, in the order of the labels."""
        self._labels.clear()
        source = str(self._entities)
        for number, entity_id, label, description in self._labelled(self._entities):
            if entity_id in self._labels:
                self.left_out["label of an id that has one already"] += 1
                continue
            self._labels[entity_id] = label
            if entity_id in self._candidates:
                entity = Entity(id=entity_id, label=label, description=description, image=self._picture(entity_id))
                yield EntityRow(entity=entity, source=source, line=number)
        if without := sum(candidate not in self._labels for candidate in self._candidates):
            self.left_out["entity of the dataset without a label"] += without

    def triples(self) -> Iterator[TripleRow]:
        """Every triple of an entity of the KB whose relation and tail have labels."""
        relations = {relation: label for _, relation, label, _ in self._labelled(self._relations)}
        source = str(self._triples)
        labels, candidates = self._labels, self._candidates
        for block in read_blocks(self._triples, self._problems):
            for number, line in enumerate(block.lines, block.first):
                fields = [field.strip() for field in line.split("\t")]
                if len(fields) != 3:
                    if line.strip():
                        self._report(
                            f"{len(fields)} fields between tabs, not head, relation, tail", line, source, number
                        )
                    continue
                head, predicate, tail_id = fields
                relation, tail = relations.get(predicate), labels.get(tail_id)
                if head not in candidates or head not in labels:
                    self.left_out["triple whose head is no entity of the dataset with a label"] += 1
                elif relation is None:
                    self.left_out["triple whose relation has no label"] += 1
                elif tail is None:
                    self.left_out["triple whose tail has no label (a literal, for example)"] += 1
                else:
                    yield TripleRow(head, predicate, relation, tail_id, tail, source, number)

    def _labelled(self, path: Path) -> Iterator[tuple[int, str, str, str]]:
        """Line, id, label, description of every row with a label."""
        for block in read_blocks(path, self._problems):
            for number, line in enumerate(block.lines, block.first):
                fields = [field.strip() for field in line.split("\t")]
                if not 2 <= len(fields) <= 3 or not fields[0]:
                    if line.strip():
                        self._report(
                            f"{len(fields)} fields between tabs, not id, label, description", line, str(path), number
                        )
                elif not fields[1]:
                    self.left_out[f"empty label in {path.name}"] += 1
                else:
                    yield number, fields[0], fields[1], fields[2] if len(fields) == 3 else ""

    def _report(self, fact: str, line: str, source: str, number: int) -> None:
        self._problems.report(ImportProblem(f"{fact}: {excerpt(line)}", source=source, line=number))

    def _picture(self, entity_id: EntityId) -> str | None:
        """The file QID_0.jpg, for the entities that are said to have one."""
        if self._with_picture is not None and f"{entity_id}_0" not in self._with_picture:
            return None
        path = self._pictures / f"{entity_id}_0.jpg" if self._pictures and "/" not in entity_id else None
        if path is not None and path.is_file():
            return str(path.absolute())
        if self._with_picture is not None:
            self.left_out["picture of an entity whose file is not there"] += 1
        return None


def _table(folder: Path, name: str) -> Path:
    for suffix in _COMPRESSED:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise BadInput(f"there is no {name} in {folder}", hint=shell_line("ls", folder))
