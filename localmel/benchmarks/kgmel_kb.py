"""The KB of KGMEL's own layout: labels of entities and relations, and the triples of one dataset.

In: QID2Label.tsv, PID2Label.tsv and Triples-NAME.tsv, none with a header, and the ids that are the dataset's KB.
Out: rows.  A quote is a character like any other, "NA" and "null" are labels.  Keeps one label per id in memory,
nothing of the triples.  As in the published code, entities without a label and triples whose tail or relation has
none (literals, too) are left out; here they are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

from localmel.errors import BadInput, ImportProblem, shell_line
from localmel.kb.importers.lines import read_blocks, size_of
from localmel.kb.importers.source import EntityRow, Problems, TripleRow, excerpt
from localmel.records import Entity, EntityId

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
