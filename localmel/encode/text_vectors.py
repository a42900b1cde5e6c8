"""Vectors of the texts that stand beside the descriptions of a KB: of its abstracts, or of what a model wrote.

In: a packed KB with such texts, and an encoder.  Out: `<kb>/vectors/<space>.abstracts/` or `<space>.written/`: one unit
row for each entity in row order, zero where it has no such text; memory-mapped float16, tied to the state of the KB, of
these texts and to the encoder's weights.  Texts seen before are not encoded again; an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import Space, TextEncoder
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.kb.texts import ABSTRACT, WRITTEN, TextSource, named_texts, texts_state, the_model
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest
from localmel.store.cache import KnownVectors, key_of

KIND, VERSION = "vectors of KB texts", 1
FOLDERS: dict[TextSource, str] = {ABSTRACT: "abstracts", WRITTEN: "written"}
_FILE = "vectors.safetensors"
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextVectors:
    """Vectors of one kind of text, n entities in row order."""

    space: Space
    source: TextSource
    model: str
    "Who wrote the texts; empty for abstracts."
    vectors: NDArray[Any]  # (n, width) float16, unit rows; zero where there is no text

    def has_text(self, positions: NDArray[Any]) -> NDArray[Any]:
        """(m,) positions -> (m,) bool: whether the entity has such a text."""
        there: NDArray[Any] = self.vectors[positions].any(axis=1)
        return there


def index_texts(
    kb: KnowledgeBase,
    encoder: TextEncoder,
    source: TextSource,
    *,
    model: str = "",
) -> int:
    """Encode what is new of these texts.  Returns how many texts were encoded.

    Raises BadInput where the KB has none, UsageError where several models wrote and none is named."""
    with kb.reading():
        facts = _facts(kb, encoder.space, source, model)
        n, space, folder = len(kb), encoder.space, _folder(kb, encoder.space, source)
        known = _known(folder, space)
        progress.begin(f"encoding {FOLDERS[source]}", n)
        encoded = 0
        with new_folder(folder, kind=KIND, version=VERSION, facts=facts) as temporary:
            arrays = create_arrays(temporary / _FILE, {"vectors": ("<f2", (n, space.width)), "keys": ("<i8", (n,))})
            texts = named_texts(kb, source, str(facts["model"]))
            start = 0
            while batch := list(islice(texts, _TEXTS_AT_ONCE)):
                here = slice(start, start + len(batch))
                arrays["keys"][here] = np.array([key_of(text.encode("utf-8", "replace")) for text in batch], np.int64)
                encoded += _fill(arrays["vectors"][here], arrays["keys"][here], batch, known, encoder)
                progress.advance(len(batch))
                start += len(batch)
            flush_arrays(arrays)
    known.forget()
    return encoded


def load_texts(kb: KnowledgeBase, space: Space, source: TextSource, *, model: str = "") -> TextVectors:
    """The vectors of these texts.  Raises BadInput, with the command, where they are not there or not up to date."""
    hint = shell_line("localmel kb texts", kb.folder, note="with --encode and the --profile of this encoder")
    facts = _facts(kb, space, source, model)
    folder = _folder(kb, space, source)
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION)
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no vectors of its {FOLDERS[source]}", hint=hint) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=hint) from None
    if changed := [name for name, value in facts.items() if manifest.get(name) != value]:
        fact = f"the vectors of the {FOLDERS[source]} of kb {kb.name!r} are of another {', '.join(changed)}"
        raise BadInput(fact, hint=hint)
    return TextVectors(
        space=space, source=source, model=str(facts["model"]), vectors=map_arrays(folder / _FILE)["vectors"]
    )


def _facts(kb: KnowledgeBase, space: Space, source: TextSource, model: str) -> dict[str, Any]:
    """What the vectors are tied to."""
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


def _folder(kb: KnowledgeBase, space: Space, source: TextSource) -> Path:
    return kb.folder / "vectors" / f"{space.name}.{FOLDERS[source]}"


def _known(folder: Path, space: Space) -> KnownVectors:
    known = KnownVectors(folder, width=space.width, sha256=space.weights_sha256)
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION, every_byte=True)
        if manifest["weights_sha256"] == space.weights_sha256:
            arrays = map_arrays(folder / _FILE)
            known.take_over(arrays["keys"], arrays["vectors"])
    except (FileNotFoundError, CorruptArtifact):
        pass  # what cannot be used again is encoded anew
    return known


def _fill(
    vectors: NDArray[Any], keys: NDArray[Any], texts: Sequence[str], known: KnownVectors, encoder: TextEncoder
) -> int:
    """Write the vectors (n, width) of these texts; returns how many had to be encoded."""
    missing = []
    for place, (key, text) in enumerate(zip(keys.tolist(), texts, strict=True)):
        if not text:
            continue
        if (found := known.find(key)) is None:
            missing.append(place)
        else:
            vectors[place] = found
    if missing:
        vectors[missing] = encoder.encode([texts[place] for place in missing])
        known.write(keys[missing], vectors[missing])
    return len(missing)
