"""How good generated triples are: held against what the KB says of the right entity.

In: triples generated for each mention, triples of its gold entity, and a way to compare phrases.  Out: precision,
recall and the share that the KB does not know, with intervals.  A triple that the KB lacks is unknown, not wrong: the
KB is not complete.  Knows no model and no KB; what is like what is told by whoever passes `similarity`."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.evaluate.resamples import Estimate, Resamples, ratio
from localmel.records import MentionId, Triple

Statements = Mapping[tuple[str, str], Triple]
"Folded relation and tail -> the triple that says so."
Similarity = Callable[[Sequence[str], Sequence[str]], "NDArray[Any]"]
"Phrases of n and of m triples -> (n, m) cosines."
THRESHOLD = 0.8
"From this cosine on two phrases are taken to say the same; stands in every report."


@dataclass(frozen=True, slots=True, kw_only=True)
class TripleQuality:
    """Over mentions whose gold is in the KB.  Shares are of triples, intervals draw whole sentences."""

    n_mentions: int
    n_said: int
    "Generated triples, each once per mention."
    n_known: int
    "Triples of the gold entities."
    precision: Estimate | None
    "Share of the generated that the KB states of the gold, word for word (case and blanks aside)."
    recall: Estimate | None
    "Share of the KB's that were generated, word for word."
    near_precision: Estimate | None
    "As precision, but a cosine of at least the threshold is enough."
    near_recall: Estimate | None
    unknown: Estimate | None
    "Share of the generated with nothing like them in the KB: not to be called wrong."
    by_chance: float | None
    "Near precision against the gold of another mention: what triples that fit anyone would reach."
    by_source: Mapping[str, tuple[int, float]]
    "Where a triple was read -> how many, and their near precision."
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
    """`known` names the mentions that count; one without generated triples still lowers recall.

    Relation and tail are compared, not the head, which is the mention's surface on one side and the entity's label on
    the other."""
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
        if not (n := int(below.sum())):
            return None
        drawn = resamples.totals(np.stack([above, below], axis=1), np.arange(len(ids)))
        low, high = resamples.interval(ratio(drawn[:, 0], drawn[:, 1]), np.arange(len(ids)))
        return Estimate(value=float(above.sum()) / n, low=low, high=high, n=n)

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
    """Every mention against the gold of the one half the list away, unless both golds state the same."""
    half = (len(mine) + 1) // 2
    n_said = n_found = 0
    for generated, stated, strangers in zip(mine, theirs, [*theirs[half:], *theirs[:half]], strict=True):
        if stated.keys() != strangers.keys():
            n_said += len(generated)
            n_found += int(_matches(generated, strangers, similarity, threshold)[1].any(axis=1).sum())
    return n_found / n_said if n_said else None


def folded(text: str) -> str:
    """One form for texts that differ in case, blanks or the way characters are composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _once(triples: Sequence[Triple]) -> Statements:
    """Each statement once, under what it says."""
    found: dict[tuple[str, str], Triple] = {}
    for triple in triples:
        found.setdefault((folded(triple.relation), folded(triple.tail)), triple)
    return found


def _matches(
    generated: Statements, stated: Statements, similarity: Similarity, threshold: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Which say the same word for word, and which are at least alike.  (n_generated, n_stated) each."""
    shape = (len(generated), len(stated))
    if not all(shape):
        return np.zeros(shape, bool), np.zeros(shape, bool)
    same = np.array([[one == other for other in stated] for one in generated], bool)
    cosines = similarity([one.phrase for one in generated.values()], [one.phrase for one in stated.values()])
    return same, same | (np.asarray(cosines) >= threshold)
