"""The vectors of a KB: one for the text of each entity, one for each phrase (relation, tail), one for each relation.

In: a packed KB and an encoder.  Out: `<kb>/vectors/<space>/`, memory-mapped float16, tied to the state of the KB
and to the encoder's weights.  After a change only texts not seen before are encoded; an interrupted run goes on
where it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import Space, TextEncoder
from localmel.errors import BadInput, CorruptArtifact, KbBusy, shell_line
from localmel.kb.packed import PackedKb, entity_texts, load_packed, pack, phrase_texts, relation_texts
from localmel.kb.store import KnowledgeBase
from localmel.store import progress
from localmel.store.artifacts import (
    create_arrays,
    flush_arrays,
    map_arrays,
    new_folder,
    read_manifest,
)
from localmel.store.cache import KnownVectors, key_of
from localmel.weights.catalog import MINILM

KIND, VERSION = "KB vectors", 1
_FILE = "vectors.safetensors"
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KbVectors:
    """Vectors of one KB in one space.  n entities, p phrases, r relations."""

    space: Space
    entities: NDArray[Any]  # (n, width) float16, unit rows
    phrases: NDArray[Any]  # (p, width) float16, unit rows; zero for a bare date or number, which no vector can tell
    relations: NDArray[Any]  # (r, width) float16, unit rows


def load_vectors(kb: KnowledgeBase, space: Space) -> tuple[PackedKb, KbVectors]:
    """The packed KB and its vectors.  Raises BadInput, with the command, where there are none or the KB has changed."""
    try:
        packed = load_packed(kb)
        manifest = read_manifest(_folder(kb, space), kind=KIND, version=VERSION)
    except FileNotFoundError:
        raise _not_indexed(kb, space, "never indexed, or changed since") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=how_to_index(kb, space.name)) from None
    if manifest["made_from"] != packed.fingerprint or manifest["weights_sha256"] != space.weights_sha256:
        raise _not_indexed(kb, space, "changed since it was indexed")
    arrays = map_arrays(_folder(kb, space) / _FILE)
    if "relations" not in arrays:
        raise _not_indexed(kb, space, "indexed by an earlier version")
    return packed, KbVectors(space=space, **{name: arrays[name] for name in ("entities", "phrases", "relations")})


def how_to_index(kb: KnowledgeBase, space_name: str) -> str:
    """The command that makes or refreshes what is derived from a KB."""
    note = "" if space_name == MINILM.name else f"with the --profile whose encoder is {space_name}"
    return shell_line("localmel index", kb.folder, note=note)


def _not_indexed(kb: KnowledgeBase, space: Space, why: str) -> BadInput:
    fact = f"kb {kb.name!r} has no index by {space.name} ({len(kb):,} entities, {why})"
    return BadInput(fact, hint=how_to_index(kb, space.name))


def index_kb(
    kb: KnowledgeBase,
    encoder: TextEncoder,
) -> int:
    """Pack the KB and encode what is new.  Returns how many texts were encoded.

    `on_total` announces a step and its size, `on_done` how many more of it are done."""
    progress.begin("reading triples", len(kb))
    packed = pack(kb, on_entities=progress.advance)
    return _refresh(kb, packed, encoder)


def _refresh(
    kb: KnowledgeBase,
    packed: PackedKb,
    encoder: TextEncoder,
) -> int:
    space = encoder.space
    n_entities, n_phrases = len(packed.rows), len(packed.phrase_triple)
    ((n_relations,),) = kb.select("SELECT COUNT(*) FROM relations")
    folder = _folder(kb, space)
    known = _Texts(folder, space)
    progress.begin("encoding", n_entities + n_phrases + n_relations)
    facts = {
        "made_from": packed.fingerprint,
        "space": space.name,
        "weights_sha256": space.weights_sha256,
    }
    with new_folder(folder, kind=KIND, version=VERSION, facts=facts) as temporary:
        arrays = create_arrays(
            temporary / _FILE,
            {
                "entities": ("<f2", (n_entities, space.width)),
                "phrases": ("<f2", (n_phrases, space.width)),
                "relations": ("<f2", (n_relations, space.width)),
                "entity_keys": ("<i8", (n_entities,)),
                "phrase_keys": ("<i8", (n_phrases,)),
                "relation_keys": ("<i8", (n_relations,)),
            },
        )
        with kb.reading():
            if kb.fingerprint != packed.fingerprint:
                raise KbBusy(f"kb {kb.name!r} was changed while it was indexed", hint=how_to_index(kb, space.name))
            for name, keys, texts in (
                ("entities", "entity_keys", entity_texts(kb)),
                ("phrases", "phrase_keys", _without_numbers(phrase_texts(kb, packed))),
                ("relations", "relation_keys", relation_texts(kb)),
            ):
                start = 0
                while batch := list(islice(texts, _TEXTS_AT_ONCE)):
                    end = start + len(batch)
                    arrays[keys][start:end], arrays[name][start:end] = known.vectors(batch, encoder)
                    start = end
        flush_arrays(arrays)
    known.forget()
    return known.encoded


def _without_numbers(texts: Iterator[str]) -> Iterator[str]:
    """A phrase whose tail begins with four digits, or is nothing but a number, becomes the empty text."""
    for text in texts:
        tail = text.partition(": ")[2]
        yield "" if tail[:4].isdigit() or tail.lstrip("+-").replace(".", "").isdigit() else text


def _folder(kb: KnowledgeBase, space: Space) -> Path:
    return kb.folder / "vectors" / space.name


def _key(text: str) -> int:
    return key_of(text.encode("utf-8", "replace"))


class _Texts:
    """The vectors of texts: those of an earlier run, and those that are made now."""

    def __init__(self, folder: Path, space: Space) -> None:
        self.encoded = 0
        self._width = space.width
        self._known = KnownVectors(folder, width=space.width, sha256=space.weights_sha256)
        try:
            manifest = read_manifest(folder, kind=KIND, version=VERSION, every_byte=True)
            arrays = map_arrays(folder / _FILE)
        except (FileNotFoundError, CorruptArtifact):
            return
        if manifest["weights_sha256"] == space.weights_sha256:
            names = (("entity_keys", "entities"), ("phrase_keys", "phrases"), ("relation_keys", "relations"))
            for keys, vectors in names:
                if keys in arrays:
                    self._known.take_over(arrays[keys], arrays[vectors])

    def vectors(self, texts: list[str], encoder: TextEncoder) -> tuple[NDArray[Any], NDArray[Any]]:
        """The keys and vectors of these texts; what is not known is encoded and written down."""
        keys = np.array([_key(text) for text in texts], np.int64)
        vectors = np.zeros((len(texts), self._width), np.float16)
        missing = []
        for place, (key, text) in enumerate(zip(keys.tolist(), texts, strict=True)):
            if not text:
                continue
            if (known := self._known.find(key)) is None:
                missing.append(place)
            else:
                vectors[place] = known
        progress.advance(len(texts) - len(missing))
        if missing:
            vectors[missing] = encoder.encode([texts[place] for place in missing])
            self._known.write(keys[missing], vectors[missing])
            self.encoded += len(missing)
        return keys, vectors

    def forget(self) -> None:
        """The index stands: what a run had written down is not needed any more."""
        self._known.forget()


def drop_index(kb: KnowledgeBase) -> None:
    """Remove everything derived from the KB."""
    for folder in chain([kb.folder / "packed"], (kb.folder / "vectors").glob("*")):
        shutil.rmtree(folder, ignore_errors=True)
