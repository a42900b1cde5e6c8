"""The KB as arrays: the phrases (relation, tail) of each entity, and the words in them.

In: a KB.  Out: `<kb>/packed/`, memory-mapped, tied to the KB's fingerprint.  A phrase that many entities share is
stored once.  Rows follow `KnowledgeBase` rows in ascending order; "position" means the place in that order."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact, KbBusy, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold, stems
from localmel.records import Triple
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest

KIND, VERSION = "packed KB", 2
_FOLDER, _FILE = "packed", "packed.safetensors"
_TEXT_TRIPLES = 8
"How many triples are in the text that an entity is embedded by."
_LISTS = {"phrases": "i", "phrase_words": "I", "description_words": "I", "label_words": "I", "label_text": "B"}
"The lists of PackedKb and the type codes of their values."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lists:
    """A list of numbers for each of n owners, laid end to end (CSR)."""

    starts: NDArray[Any]  # (n + 1,) int64
    values: NDArray[Any]

    def of(self, owners: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the values of these owners end to end, and for each value the index into `owners` it belongs to."""
        starts = np.asarray(self.starts[owners])
        lengths = np.asarray(self.starts[owners + 1]) - starts
        index = np.repeat(np.arange(len(owners)), lengths)
        places = (
            np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
        )
        return np.asarray(self.values[places]), index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedKb:
    """The arrays of one KB with n entities, p phrases, r relations and w different word stems."""

    fingerprint: str
    rows: NDArray[Any]  # (n,) int64, ascending
    popularity: NDArray[Any]  # (n,) float32, NaN if the KB gives none
    phrases: Lists  # entity position -> phrase numbers
    phrase_words: Lists  # phrase -> stems of its tail
    description_words: Lists  # entity position -> stems of its description
    label_words: Lists  # entity position -> stems of its label
    label_text: Lists  # entity position -> its folded label, in UTF-8
    phrase_triple: NDArray[Any]  # (p,) int64: a KB triple row with the phrase
    phrase_relation: NDArray[Any]  # (p,) int32: its relation, by place among the KB's relations in row order
    stems: NDArray[Any]  # (w,) uint32, ascending
    stem_entities: NDArray[Any]  # (w,) int32: how many entities have each stem

    def positions(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the positions of KB rows.  Raises BadInput for a row that the KB did not have when it was packed."""
        places: NDArray[Any] = np.searchsorted(self.rows, rows)
        if len(places) and (places.max() == len(self.rows) or (self.rows[places] != rows).any()):
            raise BadInput(
                "the KB has changed since its index was read", hint="localmel index NAME   # and start again"
            )
        return places

    def weights(self, wanted: NDArray[Any]) -> NDArray[Any]:
        """Return the inverse entity frequency of each stem, from 0 (in every entity) to 1 (in at most one)."""
        n = max(len(self.rows), 2)
        if not len(self.stems):
            return np.ones(len(wanted), np.float32)
        places = np.minimum(np.searchsorted(self.stems, wanted), len(self.stems) - 1)
        counts = np.where(self.stems[places] == wanted, self.stem_entities[places], 0)
        weights: NDArray[Any] = (1.0 - np.log(np.maximum(counts, 1)) / np.log(n)).astype(np.float32)
        return weights

    def folded_labels(self, positions: NDArray[Any]) -> list[str]:
        """Return the folded label of each entity at `positions`."""
        text = self.label_text
        return [
            bytes(text.values[text.starts[place] : text.starts[place + 1]]).decode("utf-8")
            for place in positions.tolist()
        ]

    def phrase_triples(self, kb: KnowledgeBase, phrases: list[int], head: str) -> list[Triple]:
        """Return phrases as triples of `head`, in words."""
        rows = [int(self.phrase_triple[phrase]) for phrase in phrases]
        sql = "SELECT t.triple, r.label, t.tail FROM triples t JOIN relations r USING (relation) WHERE t.triple IN ({})"
        words = {triple: (relation, tail) for triple, relation, tail in kb.select_in(sql, rows)}
        if len(words) < len(set(rows)):
            raise BadInput("the KB has changed since its index was read", hint=shell_line("localmel index", kb.folder))
        return [Triple(head=head, relation=words[row][0], tail=words[row][1], source="kb") for row in rows]


def load_packed(kb: KnowledgeBase) -> PackedKb:
    """Load the packed arrays of `kb`.  Raises FileNotFoundError if they are missing or the KB has changed since."""
    folder = kb.folder / _FOLDER
    manifest = read_manifest(folder, kind=KIND, version=VERSION)
    if manifest.get("made_from") != kb.fingerprint:
        raise FileNotFoundError(f"{folder} was made from another state of the KB")
    found = map_arrays(folder / _FILE)
    try:
        return _packed(found, manifest["made_from"])
    except KeyError as error:
        raise CorruptArtifact(f"{folder} lacks {error}", hint=shell_line("localmel index", kb.folder)) from None


def _packed(found: dict[str, NDArray[Any]], fingerprint: str) -> PackedKb:
    lists: dict[str, Any] = {
        name: Lists(starts=found[f"{name}.starts"], values=found[f"{name}.values"]) for name in _LISTS
    }
    names = ("rows", "popularity", "phrase_triple", "phrase_relation", "stems", "stem_entities")
    arrays: dict[str, Any] = {name: found[name] for name in names}
    return PackedKb(fingerprint=fingerprint, **arrays, **lists)


def pack(kb: KnowledgeBase, on_entities: Callable[[int], None] = lambda _: None) -> PackedKb:
    """Write the arrays of `kb` and load them.  `on_entities` receives how many more entities are done."""
    with kb.reading():
        fingerprint = kb.fingerprint
        relations = kb.select("SELECT relation FROM relations ORDER BY relation")
        packing = _Packing({row: place for place, (row,) in enumerate(relations)})
        for done, (row, label, description, popularity, triples) in enumerate(_entities_with_triples(kb), 1):
            packing.add(row, label, description, popularity, triples)
            if done % 1000 == 0:
                on_entities(1000)
    arrays = packing.arrays()
    with new_folder(kb.folder / _FOLDER, kind=KIND, version=VERSION, facts={"made_from": fingerprint}) as folder:
        written = create_arrays(
            folder / _FILE, {name: (value.dtype.str, value.shape) for name, value in arrays.items()}
        )
        for name, value in arrays.items():
            np.copyto(written[name], value)
        flush_arrays(written)
    try:
        return load_packed(kb)
    except FileNotFoundError:
        raise KbBusy(
            f"kb {kb.name!r} changed while it was packed", hint=shell_line("localmel index", kb.folder)
        ) from None


def entity_texts(kb: KnowledgeBase, *, with_triples: bool = True) -> Iterator[str]:
    """Yield the text to embed each entity by, in position order: label, description, first triples (no bare dates)."""
    for _, label, description, _, triples in _entities_with_triples(kb):
        facts = [f"{relation} {tail}" for _, _, relation, tail in triples if not tail[:4].isdigit()]
        text = f"{label}: {description}" if description else label
        yield f"{text}. {'; '.join(facts[:_TEXT_TRIPLES])}" if with_triples and facts else text


def phrase_texts(kb: KnowledgeBase, packed: PackedKb) -> Iterator[str]:
    """Return the text of each phrase ("occupation: painter"), in phrase order."""
    sql = "SELECT t.triple, r.label, t.tail FROM triples t JOIN relations r USING (relation) ORDER BY t.triple"
    wanted = {int(triple): phrase for phrase, triple in enumerate(packed.phrase_triple)}
    texts = [""] * len(wanted)
    for triple, relation, tail in kb.stream(sql):
        if (phrase := wanted.get(triple)) is not None:
            texts[phrase] = f"{relation}: {tail}"
    return iter(texts)


_TripleWords = list[tuple[int, int, str, str]]  # triple row, relation row, relation, tail


def relation_texts(kb: KnowledgeBase) -> Iterator[str]:
    """Yield the label of each relation, in row order."""
    return (label for (label,) in kb.select("SELECT label FROM relations ORDER BY relation"))


def _entities_with_triples(kb: KnowledgeBase) -> Iterator[tuple[int, str, str, float | None, _TripleWords]]:
    """Yield every entity with its triples, in row order, from two parallel streams."""
    relations = dict(kb.select("SELECT relation, label FROM relations"))
    sql = "SELECT head, triple, relation, tail FROM triples ORDER BY head, triple"
    groups = groupby(kb.stream(sql), key=lambda values: values[0])
    head, group = next(groups, (None, iter(())))
    sql = "SELECT row, label, description, popularity FROM entities ORDER BY row"
    for row, label, description, popularity in kb.stream(sql):
        triples: _TripleWords = []
        if head == row:
            triples = [(triple, relation, relations[relation], tail) for _, triple, relation, tail in group]
            head, group = next(groups, (None, iter(())))
        yield row, label, description, popularity, triples


class _Packing:
    """Collects the arrays entity by entity."""

    def __init__(self, relations: dict[int, int]) -> None:
        self._relations = relations
        self._rows, self._popularity = array("q"), array("f")
        self._phrase_triple, self._phrase_relation = array("q"), array("i")
        self._numbers: dict[tuple[int, str], int] = {}
        self._phrase_stems: list[tuple[int, ...]] = []
        self._stem_entities: dict[int, int] = {}
        self._lists = {name: (array("q", [0]), array(code)) for name, code in _LISTS.items()}

    def add(self, row: int, label: str, description: str, popularity: float | None, triples: _TripleWords) -> None:
        self._rows.append(row)
        self._popularity.append(float("nan") if popularity is None else popularity)
        phrases = dict.fromkeys(self._phrase(triple, relation, tail) for triple, relation, _, tail in triples)
        described, named = stems(description), stems(label)
        for name, values in (("phrases", phrases), ("description_words", described), ("label_words", named)):
            self._append(name, values)
        self._append("label_text", fold(label).encode("utf-8"))
        standing = set(described).union(named, *(self._phrase_stems[phrase] for phrase in phrases))
        for word in standing:
            self._stem_entities[word] = self._stem_entities.get(word, 0) + 1

    def _phrase(self, triple: int, relation: int, tail: str) -> int:
        number = self._numbers.setdefault((relation, tail), len(self._numbers))
        if number == len(self._phrase_triple):
            self._phrase_triple.append(triple)
            self._phrase_relation.append(self._relations[relation])
            words = tuple(stems(tail))
            self._phrase_stems.append(words)
            self._append("phrase_words", words)
        return number

    def _append(self, name: str, values: Any) -> None:
        starts, flat = self._lists[name]
        flat.extend(values)
        starts.append(len(flat))

    def arrays(self) -> dict[str, NDArray[Any]]:
        known = sorted(self._stem_entities)
        result: dict[str, NDArray[Any]] = {
            "rows": np.frombuffer(self._rows, np.int64) if self._rows else np.zeros(0, np.int64),
            "popularity": np.array(self._popularity, np.float32),
            "phrase_triple": np.array(self._phrase_triple, np.int64),
            "phrase_relation": np.array(self._phrase_relation, np.int32),
            "stems": np.array(known, np.uint32),
            "stem_entities": np.array([self._stem_entities[word] for word in known], np.int32),
        }
        for name, (starts, flat) in self._lists.items():
            result[f"{name}.starts"] = np.array(starts, np.int64)
            result[f"{name}.values"] = np.array(flat, {"i": np.int32, "I": np.uint32, "B": np.uint8}[flat.typecode])
        return result
