"""Candidates of mentions by name and by a trained matcher: what `CandidateFinder` is for the fusion network.

In: surfaces, and what the matcher sees of the mentions.  Out: for each mention those whose name fits and the best of
the matcher, each with the matcher's score where a cosine would stand.

The evidence scorer knows cosines of the fusion network.  A matcher's score is brought to their scale by a straight
line: the mean of the best and of the 16th over the matcher's validation mentions, which its card keeps, come to lie
where those of the fusion network that ships lie.  Order is not changed by it; probabilities are not fitted to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import CorruptArtifact, shell_line
from localmel.kb.names import NameIndex
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.folder import MatcherFolder
from localmel.matchers.kb_search import MatcherSearch
from localmel.records import Mention
from localmel.retrieve.candidates import Candidates, united, with_cosines
from localmel.settings import RetrieveSettings

_BEST, _SIXTEENTH = 0.639, 0.402
"Mean cosines of the network that ships, over 5,499 validation mentions against 146,175 entities."


class MatcherFinder:
    """A `Finder` by a matcher's scores."""

    def __init__(
        self,
        kb: KnowledgeBase,
        packed: PackedKb,
        search: MatcherSearch,
        matcher: MatcherFolder[Any],
        settings: RetrieveSettings,
    ) -> None:
        self._packed, self._search, self._settings = packed, search, settings
        self._names = NameIndex(kb, use_counts=settings.use_counts)
        self._as_cosine = cosine_scale(matcher)

    def given(self, mentions: Sequence[Mention]) -> Any:
        """What `find` wants of mentions."""
        return self._search.given(mentions)

    def find(self, surfaces: Sequence[str], mentions: Any) -> list[Candidates]:
        """surfaces: (m,); mentions: of these, by `given`.  One answer for each."""
        named = [self._names.find(surface, limit=self._settings.by_name) for surface in surfaces]
        near = self._search.best(mentions, min(self._settings.by_vector, len(self._packed.rows))).entities
        both = [united(matches, own, self._packed) for matches, own in zip(named, near, strict=True)]
        cosines = self.cosines(mentions, [positions for positions, _ in both])
        return with_cosines(both, cosines, self._search.alike(mentions))

    def cosines(self, mentions: Any, places: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `Finder`: scores on the scale of cosines."""
        return [self._as_cosine(scores) for scores in self._search.scores_of(mentions, places)]


def cosine_scale(matcher: MatcherFolder[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What brings its scores (n,) to where the fusion network's cosines lie.  Raises CorruptArtifact; see above."""
    best, sixteenth = _levels(matcher)
    slope = (_BEST - _SIXTEENTH) / (best - sixteenth)

    def as_cosine(scores: NDArray[Any]) -> NDArray[Any]:
        cosines: NDArray[Any] = np.clip(_SIXTEENTH + slope * (scores - sixteenth), -1.0, 1.0).astype(np.float32)
        return cosines

    return as_cosine


def _levels(matcher: MatcherFolder[Any]) -> tuple[float, float]:
    """Mean score of the best and of the 16th.  Raises CorruptArtifact for a card without them."""
    try:
        search: Mapping[str, Any] = matcher.card["search"]
        best, sixteenth = float(search["first"]), float(search["last"])
        if not best > sixteenth:
            raise ValueError(f"the best has {best}, the 16th {sixteenth}")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(
            f"the card of {matcher.folder} does not say where its scores lie ({error})",
            hint=shell_line("ls", matcher.folder, note="localmel train writes one that does"),
        ) from None
    return best, sixteenth
