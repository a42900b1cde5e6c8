"""Describe each candidate of a mention by numbers: the features that the evidence scorer weighs.

In: the mention's surface, the words and vectors of its context, its candidates by position in the packed KB.
Out: a matrix with one row per candidate and one column per entry of FEATURES, in that order.
To add a feature, append an entry to FEATURES and fit a scorer; scorers fitted before read their own columns by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.distance import Prefix

from localmel.encode.kb_vectors import KbVectors
from localmel.kb.names import NameMatch
from localmel.kb.packed import PackedKb
from localmel.kb.words import fold_mention, stems_of
from localmel.retrieve.candidates import Candidates

MOST_PHRASES = 512
"""An entity with more phrases than this is sampled: every k-th phrase, and every phrase that shares a word with the
context."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MentionContext:
    """The context of one mention before its candidates are examined."""

    surface: str
    words: NDArray[Any]  # (w,) uint32: stems of the context without those of the surface, ascending
    word_weights: NDArray[Any]  # (w,) float32
    vectors: NDArray[Any]  # (v, width) float32, unit rows: the sentence first, then the mention's own triples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Support:
    """Agreement of each phrase of each candidate with the context.  q phrases, over all candidates."""

    phrases: NDArray[Any]  # (q,) phrase numbers
    owner: NDArray[Any]  # (q,) index of the candidate
    similarity: NDArray[Any]  # (v, q) cosine with each context vector
    overlap: NDArray[Any]  # (q,) summed weight of the context words that occur in the tail
    share: NDArray[Any]  # (q,) the overlap as a share of the tail's total weight


def context_of(surface: str, words: Sequence[str], vectors: NDArray[Any], packed: PackedKb) -> MentionContext:
    """Collect the context of a mention; `words` are folded and may repeat."""
    own = set(stems_of(fold_mention(surface).split()))
    stems = np.array(sorted(set(stems_of(words)) - own), np.uint32)
    return MentionContext(surface=surface, words=stems, word_weights=packed.weights(stems), vectors=vectors)


def support_of(context: MentionContext, positions: NDArray[Any], packed: PackedKb, vectors: KbVectors) -> Support:
    """Compare every phrase of every candidate with the context.  positions: (n,)."""
    phrases, owner = packed.phrases.of(positions)
    distinct, place = np.unique(phrases, return_inverse=True)
    overlap, share = (of_phrase[place] for of_phrase in _shared_words(distinct, context, packed))
    counts = np.bincount(owner, minlength=len(positions))
    if len(phrases) and counts.max() > MOST_PHRASES:
        step = np.maximum(1, -(-counts // MOST_PHRASES))[owner]
        nth = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        kept = (nth % step == 0) | (overlap > 0)
        phrases, owner, overlap, share = phrases[kept], owner[kept], overlap[kept], share[kept]
        distinct, place = np.unique(phrases, return_inverse=True)
    similarity = (context.vectors @ vectors.phrases[distinct].astype(np.float32).T)[:, place]
    return Support(phrases=phrases, owner=owner, similarity=similarity, overlap=overlap, share=share)


def _shared_words(
    phrases: NDArray[Any], context: MentionContext, packed: PackedKb
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return per phrase the weight of the context words in its tail, and that weight as a share of the tail's total."""
    words, owner = packed.phrase_words.of(phrases)
    weights = packed.weights(words)
    overlap = np.bincount(owner, weights * np.isin(words, context.words), minlength=len(phrases))
    total = np.bincount(owner, weights, minlength=len(phrases))
    return overlap, overlap / np.maximum(total, 1e-6)


def features_of(
    context: MentionContext, candidates: Candidates, support: Support, packed: PackedKb, vectors: KbVectors
) -> NDArray[Any]:
    """Return the value of every feature for every candidate, shape (n_candidates, len(FEATURES)), float32."""
    given = _Given(context=context, candidates=candidates, support=support, packed=packed, vectors=vectors)
    return np.stack([feature.column(given) for feature in FEATURES], axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Given:
    """One mention with its n candidates, and what several features share.  Arrays have shape (n,) unless noted."""

    context: MentionContext
    candidates: Candidates
    support: Support
    packed: PackedKb
    vectors: KbVectors

    @cached_property
    def n(self) -> int:
        return len(self.candidates.positions)

    @cached_property
    def folded(self) -> str:
        return fold_mention(self.context.surface)

    def constant(self, value: Any) -> NDArray[Any]:
        """Return a float32 column that holds the same value for every candidate."""
        return np.full(self.n, value, np.float32)

    @cached_property
    def label_similarity(self) -> NDArray[Any]:
        """Compare the surface with the label, or with the matched name where that is more similar.  (n, 3).

        Edit similarity, similarity of the sets of words, and the share of the surface that is a common prefix: these
        also catch similarities that the name index does not look for ("Finnish", "Finland")."""
        folded, labels = self.folded, self.packed.folded_labels(self.candidates.positions)

        def similarity(name: str) -> tuple[float, float, float]:
            prefix = Prefix.similarity(folded, name) / max(len(folded), 1)
            return fuzz.ratio(folded, name) / 100, fuzz.token_set_ratio(folded, name) / 100, prefix

        best = np.array([similarity(label) for label in labels], np.float32).reshape(len(labels), 3)
        for place, match in enumerate(self.candidates.matches):
            if match and match.folded != labels[place]:
                np.maximum(best[place], similarity(match.folded), out=best[place])
        return best

    @cached_property
    def text_cosine(self) -> NDArray[Any]:
        """The highest cosine of the entity's text with any context vector."""
        entities = self.vectors.entities[self.candidates.positions].astype(np.float32)
        cosine: NDArray[Any] = (entities @ self.context.vectors.T).max(axis=1)
        return cosine

    @cached_property
    def phrase_cosines(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The highest cosine of any phrase with any context vector, and the mean of the three highest."""
        n, support = self.n, self.support
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

    @cached_property
    def description_overlap(self) -> NDArray[Any]:
        """The share of the context's word weight that the description contains."""
        words, owner = self.packed.description_words.of(self.candidates.positions)
        return self._shared_weight(words, owner) / self._context_weight

    @cached_property
    def tail_overlap(self) -> NDArray[Any]:
        """The share of the context's word weight that the tails of the entity's triples contain."""
        hits = self.support.overlap > 0
        words, index = self.packed.phrase_words.of(self.support.phrases[hits])
        return self._shared_weight(words, self.support.owner[hits][index]) / self._context_weight

    @property
    def _context_weight(self) -> float:
        return max(float(self.context.word_weights.sum()), 1.0)

    def _shared_weight(self, words: NDArray[Any], owner: NDArray[Any]) -> NDArray[Any]:
        """Sum, per owner, the weights of the context words among its words; a repeated word counts once."""
        context = self.context
        if not len(context.words) or not len(words):
            return np.zeros(self.n)
        place = np.minimum(np.searchsorted(context.words, words), len(context.words) - 1)
        hit = context.words[place] == words
        pairs = np.unique(owner[hit].astype(np.int64) * len(context.words) + place[hit])
        weights = context.word_weights[pairs % len(context.words)]
        return np.bincount(pairs // len(context.words), weights, minlength=self.n)

    @cached_property
    def best_tail_share(self) -> NDArray[Any]:
        """The largest share of one tail that the context contains, discounted where little weight is shared."""
        share = np.zeros(self.n)
        np.maximum.at(share, self.support.owner, self.support.share * np.minimum(self.support.overlap, 1.0))
        return share

    @cached_property
    def rest_of_label(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Weigh the label's words that are not in the surface: those in the context, and those missing from it.

        The third array is 1 where the whole label occurs in the context and shares no word with the surface: there it
        is the name of something else in the sentence, unless the surface led to it by name."""
        words, owner = self.packed.label_words.of(self.candidates.positions)
        own = np.array(list(stems_of(self.folded.split())), np.uint32)
        beyond = ~np.isin(words, own)
        apart = np.bincount(owner, ~beyond, minlength=self.n) == 0
        words, owner = words[beyond], owner[beyond]
        weights, present = self.packed.weights(words), np.isin(words, self.context.words)
        missing = np.bincount(owner, ~present, minlength=self.n)
        elsewhere = apart & (missing == 0) & (np.bincount(owner, minlength=self.n) > 0)
        return (
            np.bincount(owner, weights * present, minlength=self.n),
            np.bincount(owner, weights * ~present, minlength=self.n),
            elsewhere.astype(np.float64) * [match is None for match in self.candidates.matches],
        )

    @cached_property
    def log_phrases(self) -> NDArray[Any]:
        starts, positions = self.packed.phrases.starts, self.candidates.positions
        counted: NDArray[Any] = np.log1p(starts[positions + 1] - starts[positions])
        return counted

    @cached_property
    def n_description_words(self) -> NDArray[Any]:
        starts, positions = self.packed.description_words.starts, self.candidates.positions
        counted: NDArray[Any] = starts[positions + 1] - starts[positions]
        return counted

    @cached_property
    def popularity(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The popularity, 0 where the KB has none, and whether the KB has one."""
        popularity = np.asarray(self.packed.popularity[self.candidates.positions], np.float64)
        present = ~np.isnan(popularity)
        return np.where(present, popularity, 0.0), present


def _number_above(values: NDArray[Any]) -> NDArray[Any]:
    """Return the logarithm of 1 + the number of candidates with a higher value."""
    above: NDArray[Any] = np.log1p((values[None, :] > values[:, None]).sum(axis=1))
    return above


def _below_best(read: Callable[[_Given], NDArray[Any]], floor: float = -1.0) -> Callable[[_Given], NDArray[Any]]:
    """Return a column with the distance of a value from the highest among the candidates."""

    def column(given: _Given) -> NDArray[Any]:
        values = read(given)
        distance: NDArray[Any] = values - values.max(initial=floor)
        return distance

    return column


def _name(read: Callable[[NameMatch, str], float]) -> Callable[[_Given], NDArray[Any]]:
    """Return a column read from the matched name and the folded surface; 0 for candidates found by vector only."""

    def column(given: _Given) -> NDArray[Any]:
        return np.array([read(match, given.folded) if match else 0.0 for match in given.candidates.matches], np.float64)

    return column


def _exact_names(given: _Given) -> NDArray[Any]:
    exact = sum(match is not None and match.kind == "exact" for match in given.candidates.matches)
    return given.constant(np.log1p(np.float32(exact)))


def _popularity_share(given: _Given) -> NDArray[Any]:
    popularity, _ = given.popularity
    share: NDArray[Any] = popularity / max(float(popularity.sum()), 1e-12)
    return share


def _popularity_rank(given: _Given) -> NDArray[Any]:
    popularity, present = given.popularity
    return np.where(present, _number_above(popularity), np.log1p(given.n))


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix."""

    name: str
    "How the files of a scorer refer to the column."
    groups: tuple[str, ...]
    "The ablations (`--without GROUP`) that a scorer with this feature contradicts."
    column: Callable[[_Given], NDArray[Any]]
    "Computes the values of all candidates, shape (n,)."


FEATURES: tuple[Feature, ...] = (
    # how the name matches
    Feature("name exact", ("names",), _name(lambda match, _: match.kind == "exact")),
    Feature("name demonym", ("names",), _name(lambda match, _: match.kind == "demonym")),
    Feature("name part", ("names",), _name(lambda match, _: match.kind == "part")),
    Feature("name some words", ("names",), _name(lambda match, _: match.kind == "some words")),
    Feature("name fuzzy", ("names",), _name(lambda match, _: match.kind == "fuzzy")),
    Feature(
        "name similarity",
        ("names",),
        _name(lambda match, own: fuzz.ratio(own, match.folded) / 100 if match.kind == "part" else match.similarity),
    ),
    Feature("name is label", ("names",), _name(lambda match, _: match.is_label)),
    Feature("name ends with surface", ("names",), _name(lambda match, own: match.folded.endswith(own))),
    Feature("name begins with surface", ("names",), _name(lambda match, own: match.folded.startswith(own))),
    Feature("name words", ("names",), _name(lambda match, _: match.folded.count(" ") + 1)),
    Feature("surface words", (), lambda given: given.constant(given.folded.count(" ") + 1)),
    Feature("exact names in list", ("names",), _exact_names),
    Feature(
        "found by vector only",
        ("names",),
        lambda given: np.array([match is None for match in given.candidates.matches], np.float32),
    ),
    Feature(
        "surface has no capital",
        (),
        lambda given: given.constant(given.context.surface == given.context.surface.lower()),
    ),
    Feature("likest name", ("names",), lambda given: given.label_similarity[:, 0]),
    Feature("likest name by words", ("names",), lambda given: given.label_similarity[:, 1]),
    Feature("likest name by beginning", ("names",), lambda given: given.label_similarity[:, 2]),
    # how the context agrees
    Feature("fused cosine", (), lambda given: given.candidates.cosine),
    Feature("fused cosine below best", (), _below_best(lambda given: given.candidates.cosine)),
    Feature("fused rank", (), lambda given: _number_above(given.candidates.cosine)),
    Feature("text cosine", ("text",), lambda given: given.text_cosine),
    Feature("text cosine below best", ("text",), _below_best(lambda given: given.text_cosine)),
    Feature("phrase cosine", ("triples",), lambda given: given.phrase_cosines[0]),
    Feature("phrase cosine below best", ("triples",), _below_best(lambda given: given.phrase_cosines[0])),
    Feature("phrase cosine top 3", ("triples",), lambda given: given.phrase_cosines[1]),
    Feature("phrase cosine top 3 below best", ("triples",), _below_best(lambda given: given.phrase_cosines[1])),
    Feature("description overlap", (), lambda given: given.description_overlap),
    Feature("description overlap below best", (), _below_best(lambda given: given.description_overlap)),
    Feature("tail overlap", ("triples",), lambda given: given.tail_overlap),
    Feature("tail overlap below best", ("triples",), _below_best(lambda given: given.tail_overlap)),
    Feature("best tail share", ("triples",), lambda given: given.best_tail_share),
    Feature("rest of name in context", (), lambda given: given.rest_of_label[0]),
    Feature("rest of name in context below best", (), _below_best(lambda given: given.rest_of_label[0], 0.0)),
    Feature("rest of name missing", (), lambda given: given.rest_of_label[1]),
    Feature("named elsewhere in context", (), lambda given: given.rest_of_label[2]),
    # the more the picture says, the less the sentence does
    Feature("stated triples", (), lambda given: np.full(given.n, np.log1p(len(given.context.vectors) - 1))),
    # how much the KB knows about the entity, whatever the mention
    Feature("phrases", ("counts", "triples"), lambda given: given.log_phrases),
    Feature("phrases below most", ("counts", "triples"), _below_best(lambda given: given.log_phrases, 0.0)),
    Feature("popularity share", ("counts",), _popularity_share),
    Feature("popularity rank", ("counts",), _popularity_rank),
    Feature("has popularity", ("counts",), lambda given: given.popularity[1]),
    Feature("has description", ("counts",), lambda given: given.n_description_words > 0),
    Feature("description words", ("counts",), lambda given: np.log1p(given.n_description_words)),
)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)


def features_in(group: str) -> frozenset[str]:
    """Return the names of the features that an ablation leaves out."""
    return frozenset(feature.name for feature in FEATURES if group in feature.groups)
