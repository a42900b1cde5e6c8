"""The nouns that pass between the stages: frozen, slotted, keyword-only, checked once when made.

Knows no file, no model and no KB.  A prediction (Ranking, Link) never holds the right answer, and a Mention knows
neither; only a Split holds gold, and only training and evaluation read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

_CONTROLS = frozenset("\t\n\r")
EntityId = str
MentionId = str
Source = Literal["kb", "text", "image", "ocr"]
"Where a triple was read: the knowledge base, the sentence, the picture, or writing inside the picture."


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """One fact in words, as models see it.  Ids stay in the KB."""

    head: str
    relation: str
    tail: str
    source: Source

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(f"triple source {self.source!r} is not one of {get_args(Source)}")
        if not self.relation.strip() or not self.tail.strip():
            raise ValueError(f"triple of {self.head!r} has an empty relation or tail")

    @property
    def phrase(self) -> str:
        """Return relation and tail in words, the form in which triples are compared."""
        return f"{self.relation}: {self.tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One entity of the KB.  Its triples are `kb.triples(id)`."""

    id: EntityId
    label: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    image: str | None = None
    popularity: float | None = None
    "Any number that is higher for entities that are meant more often; None if the KB gives none."

    def __post_init__(self) -> None:
        if not self.id or self.id != self.id.strip():
            raise ValueError(f"entity id {self.id!r} is empty or has blanks around it")
        if not _CONTROLS.isdisjoint(self.id):
            raise ValueError(f"entity id {self.id!r} holds a tab or a line break")
        if not self.label.strip():
            raise ValueError(f"entity {self.id!r} has no label")
        if self.popularity is not None and not math.isfinite(self.popularity):
            raise ValueError(f"entity {self.id!r} has popularity {self.popularity}, not a number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A half-open range of characters (code points) in a context."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"span {self.start}:{self.end} is empty or reversed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A name in a context, with the picture that goes with it.  `context[span]` is the surface."""

    id: MentionId
    surface: str
    context: str
    span: Span
    image: Path | None = None

    def __post_init__(self) -> None:
        found = self.context[self.span.start : self.span.end]
        if found != self.surface or self.span.end > len(self.context):
            raise ValueError(f"span {self.span.start}:{self.span.end} holds {found!r}, not {self.surface!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A parsed answer of the generator about one mention."""

    mention_id: MentionId
    entity_type: str = ""
    summary: str = ""
    triples: tuple[Triple, ...] = ()
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unparsed:
    """A mention about which the generator said nothing that could be read."""

    mention_id: MentionId
    problem: str
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An entity that may be meant.  A higher score is better, everywhere."""

    entity_id: EntityId
    score: float

    def __post_init__(self) -> None:
        if math.isnan(self.score):
            raise ValueError(f"candidate {self.entity_id!r} has no score (NaN)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The candidates of one mention."""

    mention_id: MentionId
    candidates: tuple[Candidate, ...]
    "Best first, each entity once; rank = position + 1."

    def __post_init__(self) -> None:
        ids = [candidate.entity_id for candidate in self.candidates]
        if len(set(ids)) != len(ids):
            raise ValueError(f"ranking of {self.mention_id!r} repeats an entity")
        scores = [candidate.score for candidate in self.candidates]
        if any(later > earlier for earlier, later in pairwise(scores)):
            raise ValueError(f"ranking of {self.mention_id!r} is not best first")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """An entity whose picture in the KB resembles the mention's.  Resemblance is not proof, so its number is shown."""

    entity_id: EntityId
    label: str
    similarity: float
    "Cosine."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A triple about the mention and a triple of the entity that agree."""

    mention_triple: Triple
    entity_triple: Triple
    similarity: float
    "Between 0 and 1; 1 if both have the same words."


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The answer for one mention."""

    mention_id: MentionId
    entity_id: EntityId | None
    "None is NIL: the entity is not in the KB."
    probability: float
    "Probability that `entity_id` (or NIL) is right."
    decided_by: str
    evidence: tuple[Evidence, ...]
    ranking: Ranking

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"link of {self.mention_id!r} has probability {self.probability}")
        if self.mention_id != self.ranking.mention_id:
            raise ValueError(f"link of {self.mention_id!r} carries the ranking of {self.ranking.mention_id!r}")
        if self.entity_id is not None and all(self.entity_id != one.entity_id for one in self.ranking.candidates):
            raise ValueError(
                f"link of {self.mention_id!r} leads to {self.entity_id!r}, which is not one of its candidates"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Mentions with their gold.  Only training and evaluation may read `gold`."""

    name: str
    mentions: tuple[Mention, ...]
    gold: Mapping[MentionId, EntityId | None] = field(repr=False)

    def __post_init__(self) -> None:
        ids = {mention.id for mention in self.mentions}
        if len(ids) != len(self.mentions):
            raise ValueError(f"split {self.name!r} repeats a mention")
        if ids != set(self.gold):
            raise ValueError(f"split {self.name!r} has mentions without gold or gold without mentions")
