"""The vectors of a KB's texts: of entities, phrases (relation, tail), relations, abstracts and written descriptions.

In: a packed KB and an encoder.  Out: memory-mapped float16 in `<kb>/vectors/`: `<space>/` for what is in the KB itself,
`<space>.abstracts/` and `<space>.written/` for texts that were added to it.  Each folder is tied to the state of what
it was made from and to the encoder's weights.  Only new texts are encoded, and an interrupted run goes on where it
was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from localmel.encode.space import Space, TextEncoder
from localmel.errors import BadInput, CorruptArtifact, KbBusy, shell_line
from localmel.kb.packed import PackedKb, entity_texts, load_packed, pack, phrase_texts, relation_texts
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, TextSource, named_texts, texts_state, the_model
from localmel.settings import EncodeSettings
from localmel.store import progress
from localmel.store.arrays import VectorCache, key_of
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest

KIND, VERSION = "KB vectors", 1
TEXTS_KIND, TEXTS_VERSION = "vectors of KB texts", 1
FOLDERS: dict[TextSource, str] = {ABSTRACT: "abstracts", WRITTEN: "written"}
_FILE = "vectors.safetensors"
_PAIRS = (("entity_keys", "entities"), ("phrase_keys", "phrases"), ("relation_keys", "relations"))
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KbVectors:
    """The vectors of n entities, p phrases and r relations in one space."""

    space: Space
    entities: NDArray[Any]  # (n, width) float16, unit rows
    phrases: NDArray[Any]  # (p, width) float16, unit rows; zero for a bare date or number
    relations: NDArray[Any]  # (r, width) float16, unit rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextVectors:
    """The vectors of one kind of added text, for n entities in row order."""

    space: Space
    source: TextSource
    model: str
    "The model that wrote the texts; empty for abstracts."
    vectors: NDArray[Any]  # (n, width) float16, unit rows; zero where there is no text

    def has_text(self, positions: NDArray[Any]) -> NDArray[Any]:
        """Return which entities have such a text, (m,) bool.  positions: (m,)."""
        there: NDArray[Any] = self.vectors[positions].any(axis=1)
        return there


def how_to_index(kb: KnowledgeBase, space_name: str) -> str:
    """Return the command that makes or refreshes what is derived from a KB."""
    by_default = space_name == EncodeSettings().model
    note = "" if by_default else f"with the --profile whose encoder is {space_name}"
    return shell_line("localmel index", kb.folder, note=note)


def load_vectors(kb: KnowledgeBase, space: Space) -> tuple[PackedKb, KbVectors]:
    """Return the packed KB and its vectors.  Raises BadInput, with the command, where they are missing or stale."""
    again = how_to_index(kb, space.name)

    def not_indexed(why: str) -> BadInput:
        return BadInput(f"kb {kb.name!r} has no index by {space.name} ({len(kb):,} entities, {why})", hint=again)

    folder = _folder(kb, space)
    try:
        packed = load_packed(kb)
        manifest = read_manifest(folder, kind=KIND, version=VERSION)
        arrays = map_arrays(folder / _FILE)
    except FileNotFoundError:
        raise not_indexed("never indexed, or changed since") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=again) from None
    if manifest["made_from"] != packed.fingerprint or manifest["weights_sha256"] != space.weights_sha256:
        raise not_indexed("changed since it was indexed")
    if "relations" not in arrays:
        raise not_indexed("indexed by an earlier version")
    return packed, KbVectors(space=space, **{name: arrays[name] for _, name in _PAIRS})


def index_kb(kb: KnowledgeBase, encoder: TextEncoder) -> int:
    """Pack the KB and encode what is new.  Returns how many texts were encoded."""
    progress.begin("reading triples", len(kb))
    packed = pack(kb, on_entities=progress.advance)
    ((n_relations,),) = kb.select("SELECT COUNT(*) FROM relations")
    sizes = {"entities": len(packed.rows), "phrases": len(packed.phrase_triple), "relations": n_relations}
    space, folder = encoder.space, _folder(kb, encoder.space)
    work = _Encoding(folder, _PAIRS, encoder, kind=KIND, version=VERSION)
    progress.begin("encoding", sum(sizes.values()))
    facts = {"made_from": packed.fingerprint, "space": space.name, "weights_sha256": space.weights_sha256}
    with new_folder(folder, kind=KIND, version=VERSION, facts=facts) as temporary:
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {name: ("<f2", (n, space.width)) for name, n in sizes.items()}
        shapes |= {keys: ("<i8", (sizes[name],)) for keys, name in _PAIRS}
        arrays = create_arrays(temporary / _FILE, shapes)
        with kb.reading():
            if kb.fingerprint != packed.fingerprint:
                raise KbBusy(f"kb {kb.name!r} was changed while it was indexed", hint=how_to_index(kb, space.name))
            texts = (entity_texts(kb), _without_numbers(phrase_texts(kb, packed)), relation_texts(kb))
            for (keys, name), some in zip(_PAIRS, texts, strict=True):
                work.fill(arrays[keys], arrays[name], some)
        flush_arrays(arrays)
    work.cache.delete()
    return work.encoded


def _without_numbers(texts: Iterator[str]) -> Iterator[str]:
    """Replace a phrase whose tail begins with four digits, or is just a number, by the empty text."""
    for text in texts:
        tail = text.partition(": ")[2]
        yield "" if tail[:4].isdigit() or tail.lstrip("+-").replace(".", "").isdigit() else text


def drop_index(kb: KnowledgeBase) -> None:
    """Delete everything that is derived from the KB."""
    for folder in chain([kb.folder / "packed"], (kb.folder / "vectors").glob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def index_texts(kb: KnowledgeBase, encoder: TextEncoder, source: TextSource, *, model: str = "") -> int:
    """Encode what is new of the abstracts, or of the descriptions by a model.  Returns how many texts were encoded.

    Raises BadInput where the KB has none, UsageError where several models wrote some and none is named."""
    with kb.reading():
        facts = _facts_of_texts(kb, encoder.space, source, model)
        n, space, folder = len(kb), encoder.space, _folder(kb, encoder.space, source)
        work = _Encoding(folder, (("keys", "vectors"),), encoder, kind=TEXTS_KIND, version=TEXTS_VERSION)
        progress.begin(f"encoding {FOLDERS[source]}", n)
        with new_folder(folder, kind=TEXTS_KIND, version=TEXTS_VERSION, facts=facts) as temporary:
            arrays = create_arrays(temporary / _FILE, {"vectors": ("<f2", (n, space.width)), "keys": ("<i8", (n,))})
            work.fill(arrays["keys"], arrays["vectors"], named_texts(kb, source, str(facts["model"])))
            flush_arrays(arrays)
    work.cache.delete()
    return work.encoded


def load_texts(kb: KnowledgeBase, space: Space, source: TextSource, *, model: str = "") -> TextVectors:
    """Return the vectors of these texts.  Raises BadInput, with the command, where they are missing or stale."""
    hint = shell_line("localmel kb texts", kb.folder, note="with --encode and the --profile of this encoder")
    facts = _facts_of_texts(kb, space, source, model)
    folder = _folder(kb, space, source)
    try:
        manifest = read_manifest(folder, kind=TEXTS_KIND, version=TEXTS_VERSION)
        vectors = map_arrays(folder / _FILE)["vectors"]
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no vectors of its {FOLDERS[source]}", hint=hint) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=hint) from None
    if changed := [name for name, value in facts.items() if manifest.get(name) != value]:
        fact = f"the vectors of the {FOLDERS[source]} of kb {kb.name!r} have another {', '.join(changed)}"
        raise BadInput(fact, hint=hint)
    return TextVectors(space=space, source=source, model=str(facts["model"]), vectors=vectors)


def _facts_of_texts(kb: KnowledgeBase, space: Space, source: TextSource, model: str) -> dict[str, Any]:
    """Return what the vectors of texts are tied to."""
    chosen = the_model(kb, model) if source == WRITTEN else ""
    state = texts_state(kb, source, chosen)
    if not state:
        what, command = ("descriptions that a model wrote", shell_line("localmel kb describe", kb.folder))
        if source != WRITTEN:
            what, command = "abstracts", f"{shell_line('localmel kb abstracts', kb.folder)} FILE"
        raise BadInput(f"kb {kb.name!r} has no {what}", hint=command)
    return {
        "made_from": kb.fingerprint,
        "texts": state,
        "model": chosen,
        "space": space.name,
        "weights_sha256": space.weights_sha256,
    }


def _folder(kb: KnowledgeBase, space: Space, source: TextSource | None = None) -> Path:
    return kb.folder / "vectors" / (f"{space.name}.{FOLDERS[source]}" if source else space.name)


class _Encoding:
    """Fills arrays with the vectors of texts; a text that was encoded before is not encoded again."""

    def __init__(
        self, folder: Path, pairs: tuple[tuple[str, str], ...], encoder: TextEncoder, *, kind: str, version: int
    ) -> None:
        self.encoded = 0
        self._encoder, sha256 = encoder, encoder.space.weights_sha256
        self.cache = VectorCache(folder, width=encoder.space.width, sha256=sha256)
        self.cache.reuse_index(folder, _FILE, pairs, kind=kind, version=version, sha256=sha256)

    def fill(self, keys: NDArray[Any], vectors: NDArray[Any], texts: Iterator[str]) -> None:
        """Write the keys (n,) and vectors (n, width) of n texts.  An empty text gets a row of zeros."""
        start = 0
        while batch := list(islice(texts, _TEXTS_AT_ONCE)):
            here = slice(start, start + len(batch))
            start = here.stop
            keys[here] = [key_of(text.encode("utf-8", "replace")) for text in batch]
            self._fill_some(keys[here], vectors[here], batch)

    def _fill_some(self, keys: NDArray[Any], vectors: NDArray[Any], texts: list[str]) -> None:
        missing = []
        for place, (key, text) in enumerate(zip(keys.tolist(), texts, strict=True)):
            if not text:
                continue
            if (found := self.cache.find(key)) is None:
                missing.append(place)
            else:
                vectors[place] = found
        progress.advance(len(texts) - len(missing))
        if missing:
            vectors[missing] = self._encoder.encode([texts[place] for place in missing], progress.advance)
            self.cache.write(keys[missing], vectors[missing])
            self.encoded += len(missing)
