"""How good generated triples are, compared with the KB's triples of the right entity.

In: triples generated for each mention, triples of its gold entity, and a similarity of phrases.  Out: precision, recall
and the share that the KB does not contain, with intervals.  A triple that the KB lacks is unknown, not wrong, because
the KB is incomplete.  Knows no model and no KB: the caller passes `similarity`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.evaluate.resamples import Estimate, Resamples
from localmel.records import MentionId, Triple

Statements = Mapping[tuple[str, str], Triple]
"Folded relation and tail -> a triple that states them."
Similarity = Callable[[Sequence[str], Sequence[str]], "NDArray[Any]"]
"Phrases of n and of m triples -> (n, m) cosines."
THRESHOLD = 0.8
"Two phrases with at least this cosine count as saying the same; every report states it."


@dataclass(frozen=True, slots=True, kw_only=True)
class TripleQuality:
    """Over mentions whose gold is in the KB.  Shares are of triples; intervals resample whole sentences."""

    n_mentions: int
    n_said: int
    "Generated triples; a repeated one counts once per mention."
    n_known: int
    "Triples of the gold entities."
    precision: Estimate | None
    "Share of the generated triples that the KB states about the gold, word for word (ignoring case and spaces)."
    recall: Estimate | None
    "Share of the KB's triples that were generated, word for word."
    near_precision: Estimate | None
    "Like precision, but a cosine of at least the threshold suffices."
    near_recall: Estimate | None
    unknown: Estimate | None
    "Share of the generated triples with nothing similar in the KB; they may be right."
    by_chance: float | None
    "Near precision against the gold of another mention: the level that triples which fit anyone reach."
    by_source: Mapping[str, tuple[int, float]]
    "Source of triples -> their number, and their near precision."
    threshold: float


def triple_quality(
    said: Mapping[MentionId, Sequence[Triple]],
    known: Mapping[MentionId, Sequence[Triple]],
    clusters: Mapping[MentionId, str],
    similarity: Similarity,
    *,
    threshold: float = THRESHOLD,
    samples: int = 2000,
    seed: int = 0,
) -> TripleQuality:
    """Compare the generated triples (`said`) with those of the gold entities (`known`).

    The mentions in `known` count; one without generated triples still lowers recall.  Relation and tail are compared,
    not the head, which is the mention's surface on one side and the entity's label on the other."""
    ids = sorted(known)
    mine, theirs = ([_once(table.get(one, ())) for one in ids] for table in (said, known))
    counts = np.zeros((len(ids), 6))
    sources: dict[str, list[bool]] = {}
    for line, (generated, stated) in enumerate(zip(mine, theirs, strict=True)):
        same, like = _matches(generated, stated, similarity, threshold)
        counts[line, :3] = same.any(axis=1).sum(), like.any(axis=1).sum(), len(generated)
        counts[line, 3:] = same.any(axis=0).sum(), like.any(axis=0).sum(), len(stated)
        for number, triple in enumerate(generated.values()):
            sources.setdefault(triple.source, []).append(bool(like[number].any()))
    resamples = Resamples([clusters[one] for one in ids], samples=samples, seed=seed)

    def share(above: NDArray[Any], below: NDArray[Any]) -> Estimate | None:
        return resamples.share(above, below, np.arange(len(ids))) if below.sum() else None

    said_exactly, said_nearly, n_said, known_exactly, known_nearly, n_known = counts.T
    return TripleQuality(
        n_mentions=len(ids),
        n_said=int(n_said.sum()),
        n_known=int(n_known.sum()),
        precision=share(said_exactly, n_said),
        recall=share(known_exactly, n_known),
        near_precision=share(said_nearly, n_said),
        near_recall=share(known_nearly, n_known),
        unknown=share(n_said - said_nearly, n_said),
        by_chance=_by_chance(mine, theirs, similarity, threshold),
        by_source={name: (len(found), float(np.mean(found))) for name, found in sorted(sources.items())},
        threshold=threshold,
    )


def _by_chance(
    mine: Sequence[Statements], theirs: Sequence[Statements], similarity: Similarity, threshold: float
) -> float | None:
    """Compare every mention with the gold of the mention half the list away, unless both golds state the same."""
    half = (len(mine) + 1) // 2
    n_said = n_found = 0
    for generated, stated, strangers in zip(mine, theirs, [*theirs[half:], *theirs[:half]], strict=True):
        if stated.keys() != strangers.keys():
            n_said += len(generated)
            n_found += int(_matches(generated, strangers, similarity, threshold)[1].any(axis=1).sum())
    return n_found / n_said if n_said else None


def folded(text: str) -> str:
    """Normalise a text: ignore case, spacing and how characters are composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _once(triples: Sequence[Triple]) -> Statements:
    """Index triples by what they state, without repetitions."""
    found: dict[tuple[str, str], Triple] = {}
    for triple in triples:
        found.setdefault((folded(triple.relation), folded(triple.tail)), triple)
    return found


def _matches(
    generated: Statements, stated: Statements, similarity: Similarity, threshold: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which pairs agree word for word, and which are at least similar; both (n_generated, n_stated)."""
    shape = (len(generated), len(stated))
    if not all(shape):
        return np.zeros(shape, bool), np.zeros(shape, bool)
    same = np.array([[one == other for other in stated] for one in generated], bool)
    cosines = similarity([one.phrase for one in generated.values()], [one.phrase for one in stated.values()])
    return same, same | (np.asarray(cosines) >= threshold)
