"""What speaks for each candidate of a mention, as numbers.

In: the mention's words and context vectors, its candidates by position in the packed KB.  Out: a matrix with one row
for each candidate and one named column for each feature.  Columns are grouped so that a group can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.distance import Prefix

from localmel.kb.words import fold_mention, stems_of

if TYPE_CHECKING:
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.names import NameMatch
    from localmel.kb.packed import PackedKb
    from localmel.retrieve.candidates import Candidates

NAME = (
    "name exact",
    "name demonym",
    "name part",
    "name some words",
    "name fuzzy",
    "name similarity",
    "name is label",
    "name ends with surface",
    "name begins with surface",
    "name words",
    "surface words",
    "exact names in list",
    "found by vector only",
    "surface has no capital",
    "likest name",
    "likest name by words",
    "likest name by beginning",
)
CONTEXT = (
    "fused cosine",
    "fused cosine below best",
    "fused rank",
    "text cosine",
    "text cosine below best",
    "phrase cosine",
    "phrase cosine below best",
    "phrase cosine top 3",
    "phrase cosine top 3 below best",
    "description overlap",
    "description overlap below best",
    "tail overlap",
    "tail overlap below best",
    "best tail share",
    "rest of name in context",
    "rest of name in context below best",
    "rest of name missing",
    "named elsewhere in context",
    "stated triples",
)
COUNTS = (
    "phrases",
    "phrases below most",
    "popularity share",
    "popularity rank",
    "has popularity",
    "has description",
    "description words",
)
"How much the KB knows of an entity, whatever the mention."
FEATURES = NAME + CONTEXT + COUNTS
MOST_PHRASES = 512
"Of an entity with more phrases than this, every k-th is looked at, and those that share a word with the context."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContextOf:
    """What is known about one mention before its candidates are looked at."""

    surface: str
    words: NDArray[Any]  # (w,) uint32 stems of the context without the surface, ascending
    word_weights: NDArray[Any]  # (w,) float32
    vectors: NDArray[Any]  # (v, width) float32, unit rows: the sentence first, then the mention's own triples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Support:
    """How well each phrase of each candidate agrees with the context.  q phrases, over all candidates."""

    phrases: NDArray[Any]  # (q,) phrase numbers
    owner: NDArray[Any]  # (q,) index of the candidate
    similarity: NDArray[Any]  # (v, q) cosine with each context vector
    overlap: NDArray[Any]  # (q,) weight of the context words that stand in the tail
    share: NDArray[Any]  # (q,) the same as a share of the tail's own weight


def context_of(surface: str, words: Sequence[str], vectors: NDArray[Any], packed: PackedKb) -> ContextOf:
    """Gather the context of a mention; `words` are folded and may repeat."""
    own = set(stems_of(fold_mention(surface).split()))
    stems = np.array(sorted(set(stems_of(words)) - own), np.uint32)
    return ContextOf(surface=surface, words=stems, word_weights=packed.weights(stems), vectors=vectors)


def support_of(context: ContextOf, positions: NDArray[Any], packed: PackedKb, vectors: KbVectors) -> Support:
    """Compare every phrase of every candidate with the context."""
    phrases, owner = packed.phrases.of(positions)
    different, place = np.unique(phrases, return_inverse=True)
    overlap, share = (of_phrase[place] for of_phrase in _shared_words(different, context, packed))
    counts = np.bincount(owner, minlength=len(positions))
    if len(phrases) and counts.max() > MOST_PHRASES:
        step = np.maximum(1, -(-counts // MOST_PHRASES))[owner]
        nth = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        kept = (nth % step == 0) | (overlap > 0)
        phrases, owner, overlap, share = phrases[kept], owner[kept], overlap[kept], share[kept]
        different, place = np.unique(phrases, return_inverse=True)
    similarity = (context.vectors @ vectors.phrases[different].astype(np.float32).T)[:, place]
    return Support(phrases=phrases, owner=owner, similarity=similarity, overlap=overlap, share=share)


def _shared_words(phrases: NDArray[Any], context: ContextOf, packed: PackedKb) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each phrase the weight of the context words in its tail, and that as a share of the tail's own weight."""
    words, owner = packed.phrase_words.of(phrases)
    weights = packed.weights(words)
    overlap = np.bincount(owner, weights * np.isin(words, context.words), minlength=len(phrases))
    total = np.bincount(owner, weights, minlength=len(phrases))
    return overlap, overlap / np.maximum(total, 1e-6)


def features_of(
    context: ContextOf,
    candidates: Candidates,
    support: Support,
    packed: PackedKb,
    vectors: KbVectors,
) -> NDArray[Any]:
    """(n candidates, len(FEATURES)) float32."""
    positions = candidates.positions
    columns = [
        *_name_columns(context.surface, candidates.matches),
        *_likeness_columns(context.surface, candidates.matches, packed.folded_labels(positions)),
        *_fused_columns(candidates.cosine),
        *_context_columns(context, candidates, support, packed, vectors),
        *_count_columns(positions, packed),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _name_columns(surface: str, matches: Sequence[NameMatch | None]) -> list[NDArray[Any]]:
    folded = fold_mention(surface)
    rows = []
    for match in matches:
        if match is None:
            rows.append((0.0,) * 10)
            continue
        rows.append(
            (
                match.kind == "exact",
                match.kind == "demonym",
                match.kind == "part",
                match.kind == "some words",
                match.kind == "fuzzy",
                match.similarity if match.kind != "part" else fuzz.ratio(folded, match.folded) / 100,
                match.is_label,
                match.folded.endswith(folded),
                match.folded.startswith(folded),
                match.folded.count(" ") + 1,
            )
        )
    table = np.array(rows, np.float32).reshape(len(matches), 10)
    surface_words = np.full(len(matches), folded.count(" ") + 1, np.float32)
    exact = np.full(len(matches), np.log1p(table[:, 0].sum()), np.float32)
    by_vector = np.array([match is None for match in matches], np.float32)
    common = np.full(len(matches), surface == surface.lower(), np.float32)
    return [*table.T, surface_words, exact, by_vector, common]


def _likeness_columns(surface: str, matches: Sequence[NameMatch | None], labels: Sequence[str]) -> list[NDArray[Any]]:
    """How like the surface the label is, or the name that was found where that is more like it.

    Edit similarity, similarity of the sets of words, and the share of the surface that both begin with: also where the
    name index saw no likeness ("Finnish", "Finland")."""
    folded = fold_mention(surface)

    def likeness(name: str) -> tuple[float, float, float]:
        same = Prefix.similarity(folded, name) / max(len(folded), 1)
        return fuzz.ratio(folded, name) / 100, fuzz.token_set_ratio(folded, name) / 100, same

    likest = np.array([likeness(label) for label in labels], np.float32).reshape(len(labels), 3)
    for place, match in enumerate(matches):
        if match and match.folded != labels[place]:
            np.maximum(likest[place], likeness(match.folded), out=likest[place])
    return list(likest.T)


def _fused_columns(cosine: NDArray[Any]) -> list[NDArray[Any]]:
    """The fusion network's opinion: the cosine, its distance from the best, and how many candidates are above."""
    above = (cosine[None, :] > cosine[:, None]).sum(axis=1)
    return [cosine, cosine - cosine.max(initial=-1.0), np.log1p(above)]


def _context_columns(
    context: ContextOf, candidates: Candidates, support: Support, packed: PackedKb, vectors: KbVectors
) -> list[NDArray[Any]]:
    positions = candidates.positions
    n = len(positions)
    cosine = (vectors.entities[positions].astype(np.float32) @ context.vectors.T).max(axis=1)
    phrase, top3 = _best_phrases(support, n)
    scale = max(float(context.word_weights.sum()), 1.0)
    described = _weight_shared(context, *packed.description_words.of(positions), n) / scale
    tails = _tail_overlap(context, positions, support, packed) / scale
    share = np.zeros(n)
    np.maximum.at(share, support.owner, support.share * np.minimum(support.overlap, 1.0))
    rest, missing, elsewhere = _rest_of_name(context, positions, packed)
    elsewhere = elsewhere * [match is None for match in candidates.matches]  # what its name leads to is meant by it
    stated = np.full(n, np.log1p(len(context.vectors) - 1))  # with much written in the picture the sentence says less
    columns = []
    for values in (cosine, phrase, top3, described, tails):
        columns += [values, values - values.max(initial=-1.0)]
    return [*columns, share, rest, rest - rest.max(initial=0.0), missing, elsewhere, stated]


def _best_phrases(support: Support, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The highest cosine of any phrase with any context vector, and the mean of the three highest."""
    best, top3 = np.zeros(n), np.zeros(n)
    if not len(support.owner):
        return best, top3
    strongest = support.similarity.max(axis=0)
    order = np.lexsort((-strongest, support.owner))
    owner, ordered = support.owner[order], strongest[order]
    starts = np.searchsorted(owner, np.arange(n))
    counts = np.bincount(owner, minlength=n)
    nth = np.arange(len(owner)) - starts[owner]
    first, among3 = nth == 0, nth < 3
    best[owner[first]] = ordered[first]
    top3 = np.bincount(owner[among3], ordered[among3], minlength=n) / np.maximum(np.minimum(counts, 3), 1)
    return best, top3


def _weight_shared(context: ContextOf, words: NDArray[Any], owner: NDArray[Any], n: int) -> NDArray[Any]:
    """For each owner the weight of the context words among its words, each counted once."""
    result = np.zeros(n)
    if not len(context.words) or not len(words):
        return result
    place = np.minimum(np.searchsorted(context.words, words), len(context.words) - 1)
    hit = context.words[place] == words
    pairs = np.unique(owner[hit].astype(np.int64) * len(context.words) + place[hit])
    return np.bincount(pairs // len(context.words), context.word_weights[pairs % len(context.words)], minlength=n)


def _tail_overlap(context: ContextOf, positions: NDArray[Any], support: Support, packed: PackedKb) -> NDArray[Any]:
    hits = support.overlap > 0
    words, index = packed.phrase_words.of(support.phrases[hits])
    return _weight_shared(context, words, support.owner[hits][index], len(positions))


def _rest_of_name(
    context: ContextOf, positions: NDArray[Any], packed: PackedKb
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Weight of the label's words beyond the surface: those that stand in the context, those that do not.

    And whether the whole label stands in the context and shares no word with the surface: it is another name there."""
    n = len(positions)
    words, owner = packed.label_words.of(positions)
    own = np.array(list(stems_of(fold_mention(context.surface).split())), np.uint32)
    beyond = ~np.isin(words, own)
    apart = np.bincount(owner, ~beyond, minlength=n) == 0
    words, owner = words[beyond], owner[beyond]
    weights, present = packed.weights(words), np.isin(words, context.words)
    missing = np.bincount(owner, ~present, minlength=n)
    elsewhere = apart & (missing == 0) & (np.bincount(owner, minlength=n) > 0)
    return (
        np.bincount(owner, weights * present, minlength=n),
        np.bincount(owner, weights * ~present, minlength=n),
        elsewhere.astype(np.float64),
    )


def _count_columns(positions: NDArray[Any], packed: PackedKb) -> list[NDArray[Any]]:
    phrases = np.log1p(packed.phrases.starts[positions + 1] - packed.phrases.starts[positions])
    described = packed.description_words.starts[positions + 1] - packed.description_words.starts[positions]
    popularity = np.asarray(packed.popularity[positions], np.float64)
    known = ~np.isnan(popularity)
    filled = np.where(known, popularity, 0.0)
    share = filled / max(float(filled.sum()), 1e-12)
    rank = np.where(known, np.log1p((filled[None, :] > filled[:, None]).sum(axis=1)), np.log1p(len(positions)))
    return [phrases, phrases - phrases.max(initial=0.0), share, rank, known, described > 0, np.log1p(described)]
