"""Make the fused vectors of a KB's entities, one per entity, with one fusion network.

In: an indexed KB and a trained network.  Out: `<kb>/fused/<network>/`, memory-mapped float16, tied to the state of the
KB, to its pictures if the network uses them, and to the network's bytes.  An interrupted run resumes after the last
finished piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, load_images
from localmel.encode.kb_vectors import KbVectors, how_to_index
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.index import (
    IndexFacts,
    Recall,
    VectorIndex,
    build_index,
    choose,
    load_index,
    recall_against_exact,
    sampled,
)
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import KgmelMatcher
from localmel.matchers.kgmel.kb_triples import KbTriples, pieces_of
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.kind import SCAN, index_kind, kb_state
from localmel.matchers.trained import MatcherCard
from localmel.store import progress
from localmel.store.artifacts import (
    MANIFEST,
    create_arrays,
    flush_arrays,
    map_arrays,
    new_folder,
    read_manifest,
    write_json,
)

if TYPE_CHECKING:
    from localmel.kb.packed import PackedKb


KIND, VERSION = "fused vectors", 1
_FILE, _PROGRESS = "fused.safetensors", "progress.json"
_BY_TORCH = 20_000
"Number of entities from which importing torch pays off."


def load_fused(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard) -> NDArray[Any]:
    """Return unit rows in position order, (n, width) float16.  Raises BadInput, with the command, if there are none."""
    folder = fused_folder(kb, matcher)
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION)
    except FileNotFoundError:
        raise _not_fused(kb, packed, matcher, "never fused with this network") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=how_to_index(kb, matcher.text_space.name)) from None
    state = kb_state(packed, _images_for(kb, packed, matcher))
    if manifest.get("made_from") != state or manifest.get("network_sha256") != matcher.sha256:
        raise _not_fused(kb, packed, matcher, "fused before it changed")
    return map_arrays(folder / _FILE)["entities"]


def _images_for(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard) -> KbImages | None:
    return load_images(kb, packed, matcher.image_space) if matcher.image_space else None


def fuse_kb(kb: KnowledgeBase, packed: PackedKb, vectors: KbVectors, matcher: KgmelMatcher) -> NDArray[Any]:
    """Load the fused vectors of all entities, after computing them if they do not exist yet.

    Raises BadInput if the network uses pictures and the KB's have no vectors in its space."""
    images = _images_for(kb, packed, matcher)
    matcher.check_spaces(vectors.space, images.space if images else None)
    try:
        return load_fused(kb, packed, matcher)
    except (BadInput, CorruptArtifact):
        pass
    triples = KbTriples(packed, vectors)
    n = len(packed.rows)
    fuse = _by_torch(matcher) if n >= _BY_TORCH else matcher.network.fuse
    made_from = kb_state(packed, images)
    facts = {"made_from": made_from, "network_sha256": matcher.sha256, "sampled": triples.n_sampled()}
    growing = _Growing(
        kb.folder / "fused" / f".{matcher.sha256[:16]}.growing", facts, (n, matcher.network.settings.width)
    )
    progress.begin("fusing", n)
    for number, piece in enumerate(pieces_of(triples.counts())):
        if number >= growing.pieces:
            seen = {"image": images.vectors[piece], "has_image": images.there[piece]} if images else {}
            growing.add(piece, fuse(text=vectors.entities[piece], triples=triples.of(piece), **seen))
        progress.advance(len(piece))
    growing.seal(fused_folder(kb, matcher))
    return load_fused(kb, packed, matcher)


def fused_folder(kb: KnowledgeBase, matcher: MatcherCard) -> Path:
    """Return the folder of the KB's vectors for this network."""
    return kb.folder / "fused" / matcher.sha256[:16]


def _not_fused(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard, why: str) -> BadInput:
    return BadInput(
        f"kb {kb.name!r} has no fused vectors ({len(packed.rows):,} entities, {why})",
        hint=how_to_index(kb, matcher.text_space.name),
    )


def _by_torch(matcher: KgmelMatcher) -> Callable[..., NDArray[Any]]:
    """Return the same function using all CPU cores, or the GPU if there is one."""
    import torch

    from localmel.matchers.kgmel.inputs import packed_triples
    from localmel.matchers.kgmel.network import FusionNetwork
    from localmel.matchers.kgmel.ranking import unit_rows

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = FusionNetwork(matcher.network.settings)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in matcher.network.weights.items()})
    module.eval().to(device)

    def fuse(*, text: NDArray[Any], triples: Any, has_image: NDArray[Any] | None = None, **image: Any) -> NDArray[Any]:
        with torch.no_grad():
            dense = {"text": text, **image}
            given: dict[str, Any] = {
                name: torch.from_numpy(np.asarray(rows, np.float32)).to(device) for name, rows in dense.items()
            }
            if has_image is not None:
                given["has_image"] = torch.from_numpy(has_image).to(device)
            made = module.embed(triples=packed_triples(triples).to(device), **given)
            fused: NDArray[Any] = unit_rows(made, "row", np.arange(len(text))).cpu().numpy()
        return fused

    return fuse


class _Growing:
    """Fused vectors being written in place, with a record of how many pieces are done."""

    def __init__(self, folder: Path, facts: dict[str, Any], shape: tuple[int, int]) -> None:
        self._folder, self._facts, self.pieces = folder, facts, 0
        try:
            progress = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
            self._arrays = map_arrays(folder / _FILE, writable=True)
            if progress["facts"] == facts and self._arrays["entities"].shape == shape:
                self.pieces = progress["pieces"]
                return
        except (OSError, ValueError, KeyError, TypeError, CorruptArtifact):
            pass
        folder.mkdir(parents=True, exist_ok=True)
        self._arrays = create_arrays(folder / _FILE, {"entities": ("<f2", shape)})

    def add(self, rows: NDArray[Any], vectors: NDArray[Any]) -> None:
        self._arrays["entities"][rows] = vectors
        flush_arrays(self._arrays)
        self.pieces += 1
        write_json(self._folder / _PROGRESS, {"facts": self._facts, "pieces": self.pieces})

    def seal(self, target: Path) -> None:
        """Move the finished file to its final place."""
        import shutil

        with new_folder(target, kind=KIND, version=VERSION, facts=self._facts) as temporary:
            (self._folder / _FILE).replace(temporary / _FILE)
        shutil.rmtree(self._folder, ignore_errors=True)


_ASKED, _K, _SEED = 500, 16, 0


def build_entity_index(
    kb: KnowledgeBase, packed: PackedKb, fused: NDArray[Any], matcher: KgmelMatcher, kind: str
) -> Recall | None:
    """Build the index that `kind` names, unless it exists.  fused: (n, width) unit rows in position order.

    Returns its recall against an exact search for vectors of the KB itself; None for a scan or an existing index."""
    kind = index_kind(kind, len(fused))
    if kind == SCAN:
        return None
    try:
        load_entity_index(kb, packed, matcher, kind)
        return None
    except (BadInput, CorruptArtifact):
        pass
    settings = choose(kind, len(fused))
    progress.begin(f"building index {kind}", len(fused))
    index = build_index(fused, settings)
    index.save(index_folder(kb, matcher, kind), _facts(kb, packed, matcher))
    return recall_against_exact(index, fused, sampled(fused, _ASKED, _SEED), min(_K, len(fused)))


def load_entity_index(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard, kind: str) -> VectorIndex | None:
    """Return the index of that kind; None for a scan.  Raises BadInput, with the command, if no valid one exists."""
    kind = index_kind(kind, len(packed.rows))
    if kind == SCAN:
        return None
    choose(kind, len(packed.rows))  # an unknown kind is an error here, not a folder that is missing
    folder = index_folder(kb, matcher, kind)
    again = shell_line("localmel index", kb.folder, "--index", kind)
    try:
        return load_index(folder, _facts(kb, packed, matcher))
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no index of kind {kind}", hint=again) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=again) from None
    except BadInput as error:
        raise BadInput(f"kb {kb.name!r} has changed since its index was built ({error.fact})", hint=again) from None


def indexes_of(kb: KnowledgeBase, matcher: MatcherCard) -> dict[str, int]:
    """Return the kind and size in bytes of each existing index."""
    found = {}
    for folder in sorted(fused_folder(kb, matcher).parent.glob(f"{matcher.sha256[:16]}.*")):
        if (folder / MANIFEST).is_file():
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found[str(facts["index"])] = sum(one["bytes"] for one in facts["files"].values())
    return found


def index_folder(kb: KnowledgeBase, matcher: MatcherCard, kind: str) -> Path:
    """Return the folder of the index of that kind."""
    folder = fused_folder(kb, matcher)
    return folder.with_name(f"{folder.name}.{kind}")


def _facts(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard) -> IndexFacts:
    images = load_images(kb, packed, matcher.image_space) if matcher.image_space else None
    return IndexFacts(
        space=f"fused {matcher.sha256[:16]}",
        width=FusionSettings(**matcher.card["fusion"]).width,
        made_from=kb_state(packed, images),
    )
