"""KGMEL's own layout: one object per sentence with parallel lists of mentions and answers, and a KB in tables.

In: data/dataset/NAME.json, data/dataset/image/NAME/, the mapping files, and in data/KB/ QID2Label.tsv, PID2Label.tsv
and Triples-NAME.tsv, none with a header.  Out: splits, and rows for a KB.  A mention is called ID-INDEX after its
sentence and its place in the list, so that two mentions with one gold stay two.  Splits are lists of sentence ids; a
sentence in two of them is read into both, and the check reports it.  As in the published code, entities without a label
and triples whose tail or relation has none (literals, too) are left out of the KB; here they are counted."""

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
    benchmark_of,
    gold_of,
    numbered,
    object_in,
    picture_file,
    spans_in,
    texts_in,
    whole,
)
from localmel.benchmarks.json_lists import Element, read_list, read_object
from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.reading import (
    EntityRow,
    Problems,
    TripleRow,
    excerpt,
    numbered_lines,
    plain_or_compressed,
    size_of,
)
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
    """Return the published code's name for this mention: "<sentence id>-<gold>".  Two mentions may share one."""
    sentence_id = mention_id.rpartition("-")[0].partition("#")[0]
    return f"{sentence_id}-{answer or 'nil'}"


def count_published_keys(gold: Mapping[MentionId, EntityId | None]) -> int:
    """Count the mentions that the published code can tell apart."""
    return len({published_key(mention_id, answer) for mention_id, answer in gold.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class KgmelFolder:
    """One dataset in this layout."""

    name: str
    folder: Path
    "The folder that the user named; mapping files are looked for below it."
    data: Path
    "The folder that holds dataset/ and KB/."
    layout: str = "KGMEL"

    def read(self) -> Benchmark:
        """Read every mention of every sentence that the split map names."""
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
                fact = f"element {element.number} is not a sentence with mentions ({error})"
                raise ImportProblem(fact, source=str(path), line=element.line) from None
            key = sentence.id if sentence.id not in seen else numbered(sentence.id, seen)
            seen[key] = sentence.id
            splits = of_sentence.get(sentence.id, ())
            left_out += not splits
            answers.update(answer for answer in sentence.answers if answer)
            for name in splits:
                _add(builders[name], key, sentence)
        missing = len(of_sentence.keys() - set(seen.values()))
        return benchmark_of(self, builders, self._notes(left_out=left_out, missing=missing, answers=answers))

    def kb_source(self, *, problems: Problems) -> KgmelSource:
        """Return the candidates of the dataset that have a label, and their triples."""
        candidates = self._listed(CANDIDATES, needed=True)
        if candidates is None:
            fact = f"there is no {CANDIDATES} below {self.folder}; it lists the entities in the KB of {self.name}"
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
            fact = f"there is no {SPLIT_MAP} below {self.folder}; it lists the sentences of each split"
            raise BadInput(fact, hint=shell_line("find", self.folder, note=f"-name {SPLIT_MAP}"))
        path, value = found
        if not isinstance(value, dict) or not all(isinstance(ids, list) for ids in value.values()):
            raise BadInput(f"{path}: the splits of {self.name} are not lists of ids: {excerpt(value)}")
        of_sentence: dict[str, dict[str, None]] = {}
        for key, ids in value.items():
            name = "val" if key == "dev" else key
            if name not in SPLITS:
                raise BadInput(f"{path}: {excerpt(key)} is not train, val (dev) or test")
            for one in ids:
                try:
                    of_sentence.setdefault(_id(one), {})[name] = None
                except TypeError as error:
                    raise BadInput(f"{path}: {self.name}, {name}: {error}") from None
        return {one: tuple(names) for one, names in of_sentence.items()}

    def _listed(self, name: str, *, needed: bool = False) -> list[Any] | None:
        """Return the list of this dataset in a mapping file, None if there is none."""
        found = self._mapping(name, needed=needed)
        if found is None:
            return None
        path, value = found
        if not isinstance(value, list) or not all(type(one) in (str, int) for one in value):
            raise BadInput(f"{path}: its value for {self.name} is not a list of ids: {excerpt(value)}")
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
            notes.append(f"{BLANK} has no list for it: blank pictures cannot be told from real ones")
        listed = self._listed(ANSWERS)
        if listed is not None and (unlisted := answers - set(map(str, listed))):
            notes.append(f"answers that are not in {ANSWERS}: {len(unlisted):,}")
        return notes


def find_kgmel(folder: Path) -> list[KgmelFolder]:
    """Return the datasets below this folder, by their files in dataset/ or data/dataset/."""
    return [
        KgmelFolder(name=path.stem, folder=folder, data=data)
        for data in (folder, folder / "data")
        for path in sorted((data / "dataset").glob("*.json"))
        if path.name not in _MAPPINGS and path.is_file()
    ]


def _find(name: str, folder: Path, data: Path) -> Path | None:
    """Find a mapping file: in its usual places, else anywhere below the folder.  Two are one too many."""
    for place in _USUAL_PLACES:
        if (data / place / name).is_file():
            return data / place / name
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _PICTURE_FOLDERS and not one.startswith("."))
        if name in files:
            found.append(Path(parent) / name)
    if len(found) > 1:
        fact = f"there are several files {name}: {', '.join(map(str, found))}"
        raise BadInput(fact, hint=shell_line("cp", found[0], data / "dataset", note="the one that is meant"))
    return found[0] if found else None


# --- sentences ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    id: str
    text: str
    surfaces: tuple[str, ...]
    answers: tuple[EntityId | None, ...]
    image: Path | None


def _sentence(element: Element, blank: set[str], pictures: Path) -> _Sentence:
    row = object_in(element.value)
    sentence_id = _id(row.get("id"))
    surfaces, answers = texts_in(row, "mention"), texts_in(row, "answer")
    labels = texts_in(row, "entity") if "entity" in row else surfaces
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


def _id(value: object) -> str:
    """Return an id as text; ids are whole numbers in one file and texts in another, with the same meaning."""
    if type(value) is int or (isinstance(value, str) and value.strip()):
        return whole(str(value).strip())
    raise TypeError(f"id {excerpt(value)} is neither a whole number nor a text")


def _add(builder: SplitBuilder, key: str, sentence: _Sentence) -> None:
    if key != sentence.id:
        builder.repeated(sentence.id)
    spans = spans_in(sentence.text, sentence.surfaces)
    for index, (surface, answer, span) in enumerate(zip(sentence.surfaces, sentence.answers, spans, strict=True)):
        builder.add(f"{key}-{index}", surface, sentence.text, answer, image=sentence.image, span=span)


# --- the KB ---------------------------------------------------------------------------------------------------------


class KgmelSource:
    """The candidates of one dataset with their triples.

    Keeps one label per id in memory and no triple.  A quote is an ordinary character, "NA" and "null" are labels."""

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
        """Return the size of the three files."""
        return size_of(self._entities, self._relations, self._triples)

    def entities(self) -> Iterator[EntityRow]:
        """Yield every candidate that has a label, in the order of the labels."""
        self._labels.clear()
        for number, entity_id, label, description in self._labelled(self._entities):
            if entity_id in self._labels:
                self.left_out["label of an id that has one already"] += 1
                continue
            self._labels[entity_id] = label
            if entity_id in self._candidates:
                entity = Entity(id=entity_id, label=label, description=description, image=self._picture(entity_id))
                yield EntityRow(entity=entity, source=str(self._entities), line=number)
        if without := sum(candidate not in self._labels for candidate in self._candidates):
            self.left_out["entity of the dataset without a label"] += without

    def triples(self) -> Iterator[TripleRow]:
        """Yield every triple of an entity of the KB whose relation and tail have labels."""
        relations = {relation: label for _, relation, label, _ in self._labelled(self._relations)}
        source = str(self._triples)
        labels, candidates = self._labels, self._candidates
        for number, (head, predicate, tail_id) in self._fields(self._triples, 3, 3, "head, relation, tail"):
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
        """Yield line, id, label and description of every row with a label."""
        for number, fields in self._fields(path, 2, 3, "id, label, description"):
            if not any(fields):
                continue
            if not fields[0]:
                self._report(path, number, fields, "id, label, description")
            elif not fields[1]:
                self.left_out[f"empty label in {path.name}"] += 1
            else:
                yield number, fields[0], fields[1], fields[2] if len(fields) == 3 else ""

    def _fields(self, path: Path, least: int, most: int, wanted: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the stripped fields between the tabs of every line with `least` to `most` of them."""
        for number, line in numbered_lines(path, self._problems):
            fields = [field.strip() for field in line.split("\t")]
            if least <= len(fields) <= most:
                yield number, fields
            elif line.strip():
                self._report(path, number, fields, wanted)

    def _report(self, path: Path, line: int, fields: list[str], wanted: str) -> None:
        shown = excerpt("\t".join(fields))
        self._problems.report(f"{len(fields)} fields between tabs, not {wanted}: {shown}", path, line)

    def _picture(self, entity_id: EntityId) -> str | None:
        """Return the file QID_0.jpg of an entity that is listed with a picture."""
        if self._with_picture is not None and f"{entity_id}_0" not in self._with_picture:
            return None
        path = self._pictures / f"{entity_id}_0.jpg" if self._pictures and "/" not in entity_id else None
        if path is not None and path.is_file():
            return str(path.absolute())
        if self._with_picture is not None:
            self.left_out["picture of an entity whose file is not there"] += 1
        return None


def _table(folder: Path, name: str) -> Path:
    if found := plain_or_compressed(folder / name):
        return found
    raise BadInput(f"there is no {name} in {folder}", hint=shell_line("ls", folder))
