"""The index over a KB's fused vectors, where a profile asks for one.

In: a KB, its fused vectors, the kind of index.  Out: an index that stands beside the vectors, tied to them.
Below a million entities `auto` needs none: a scan in memory is fast enough and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from localmel.encode.kb_images import load_images
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.index import (
    LARGE_FROM,
    IndexFacts,
    Recall,
    VectorIndex,
    build_index,
    choose,
    load_index,
    recall_against_exact,
    sampled,
)
from localmel.index.settings import AUTO
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.fused import Network, fused_folder, fused_state, load_fused
from localmel.store import progress
from localmel.store.artifacts import MANIFEST

if TYPE_CHECKING:
    from localmel.kb.packed import PackedKb

SCAN, INT8 = "scan", "int8"
_ASKED, _K, _SEED = 500, 16, 0


def kind_for(kind: str, n_entities: int) -> str:
    """`auto` is a scan in memory below LARGE_FROM entities and int8 from there; any other kind is itself."""
    if kind != AUTO:
        return kind
    return INT8 if n_entities >= LARGE_FROM else SCAN


def ensure_index(
    kb: KnowledgeBase,
    space: Space,
    network: Network,
    kind: str,
) -> Recall | None:
    """`build_entity_index` over what stands on disk for that space and network."""
    if kind == SCAN:
        return None
    packed, _ = load_vectors(kb, space)
    fused = load_fused(kb, packed, network)
    return build_entity_index(kb, packed, fused, network, kind)


def build_entity_index(
    kb: KnowledgeBase,
    packed: PackedKb,
    fused: NDArray[Any],
    network: Network,
    kind: str,
) -> Recall | None:
    """Build the index that `kind` names, unless it stands.  fused: (n, width) unit rows in position order.

    Returns its recall against an exact search for vectors of the KB itself; None for a scan, or where it stood."""
    kind = kind_for(kind, len(fused))
    if kind == SCAN:
        return None
    try:
        load_entity_index(kb, packed, network, kind)
        return None
    except (BadInput, CorruptArtifact):
        pass
    settings = choose(kind, len(fused))
    progress.begin(f"building index {kind}", len(fused))
    index = build_index(fused, settings)
    index.save(index_folder(kb, network, kind), _facts(kb, packed, network))
    return recall_against_exact(index, fused, sampled(fused, _ASKED, _SEED), min(_K, len(fused)))


def load_entity_index(kb: KnowledgeBase, packed: PackedKb, network: Network, kind: str) -> VectorIndex | None:
    """The index of that kind; None for a scan.  Raises BadInput with the command where there is none that fits."""
    kind = kind_for(kind, len(packed.rows))
    if kind == SCAN:
        return None
    choose(kind, len(packed.rows))  # an unknown kind is an error here, not a folder that is missing
    folder = index_folder(kb, network, kind)
    again = shell_line("localmel index", kb.folder, "--index", kind)
    try:
        return load_index(folder, _facts(kb, packed, network))
    except FileNotFoundError:
        raise BadInput(f"kb {kb.name!r} has no index of kind {kind}", hint=again) from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=again) from None
    except BadInput as error:
        raise BadInput(f"kb {kb.name!r} has changed since its index was built ({error.fact})", hint=again) from None


def indexes_of(kb: KnowledgeBase, network: Network) -> dict[str, int]:
    """Kind of each index that stands, and its size in bytes."""
    found = {}
    for folder in sorted(fused_folder(kb, network).parent.glob(f"{network.sha256[:16]}.*")):
        if (folder / MANIFEST).is_file():
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found[str(facts["index"])] = sum(one["bytes"] for one in facts["files"].values())
    return found


def index_folder(kb: KnowledgeBase, network: Network, kind: str) -> Path:
    """Where the index of that kind stands."""
    folder = fused_folder(kb, network)
    return folder.with_name(f"{folder.name}.{kind}")


def _facts(kb: KnowledgeBase, packed: PackedKb, network: Network) -> IndexFacts:
    images = load_images(kb, packed, network.image_space) if network.image_space else None
    return IndexFacts(
        space=f"fused {network.sha256[:16]}",
        width=network.settings.width,
        made_from=fused_state(packed, images),
    )
