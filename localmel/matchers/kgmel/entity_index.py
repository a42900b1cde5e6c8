"""The index over a KB's fused vectors, where a profile asks for one.

In: a KB, its fused vectors, the kind of index.  Out: an index that stands beside the vectors, tied to them.
Below a million entities `auto` needs none: a scan in memory is fast enough and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from localmel.encode.kb_images import load_images
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
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import KgmelMatcher
from localmel.matchers.kgmel.fused import fused_folder
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.kind import SCAN, index_kind, kb_state
from localmel.matchers.trained import MatcherCard
from localmel.store import progress
from localmel.store.artifacts import MANIFEST

if TYPE_CHECKING:
    from localmel.kb.packed import PackedKb

_ASKED, _K, _SEED = 500, 16, 0


def build_entity_index(
    kb: KnowledgeBase,
    packed: PackedKb,
    fused: NDArray[Any],
    matcher: KgmelMatcher,
    kind: str,
) -> Recall | None:
    """Build the index that `kind` names, unless it stands.  fused: (n, width) unit rows in position order.

    Returns its recall against an exact search for vectors of the KB itself; None for a scan, or where it stood."""
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
    """The index of that kind; None for a scan.  Raises BadInput with the command where there is none that fits."""
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
    """Kind of each index that stands, and its size in bytes."""
    found = {}
    for folder in sorted(fused_folder(kb, matcher).parent.glob(f"{matcher.sha256[:16]}.*")):
        if (folder / MANIFEST).is_file():
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            found[str(facts["index"])] = sum(one["bytes"] for one in facts["files"].values())
    return found


def index_folder(kb: KnowledgeBase, matcher: MatcherCard, kind: str) -> Path:
    """Where the index of that kind stands."""
    folder = fused_folder(kb, matcher)
    return folder.with_name(f"{folder.name}.{kind}")


def _facts(kb: KnowledgeBase, packed: PackedKb, matcher: MatcherCard) -> IndexFacts:
    images = load_images(kb, packed, matcher.image_space) if matcher.image_space else None
    return IndexFacts(
        space=f"fused {matcher.sha256[:16]}",
        width=FusionSettings(**matcher.card["fusion"]).width,
        made_from=kb_state(packed, images),
    )
