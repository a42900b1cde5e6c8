"""Define what the linker takes, a captioned picture, and what it returns, its links.

In: a text, a picture, the spans of names.  Out: one LinkedCaption each, also as the JSON that the command prints.
Knows no model and no KB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, BadMention
from localmel.records import Alike, Description, Entity, Link, Mention, Span, Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A text, the picture that goes with it, and the spans of its names (None: find them)."""

    text: str
    image: Path | None = None
    spans: tuple[Span, ...] | None = None

    def __post_init__(self) -> None:
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInput(
                f"character {error.start} of the text is half a surrogate pair ({self.text[error.start]!r})",
                hint="pass UTF-8",
            ) from None
        for span in self.spans or ():
            if span.end > len(self.text):
                raise BadMention(
                    f"span {span.start}:{span.end} ends beyond the {len(self.text)} characters of the text"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedMention:
    """One mention with its link and everything that led to it."""

    mention: Mention
    link: Link
    entity: Entity | None
    candidates: tuple[Entity, ...]
    "The candidates, in the order of `link.ranking`."
    description: Description
    nil_probability: float
    "The probability that no entity of the KB is right, whatever the link."
    n_stated: int
    "How many of the description's triples, the first ones, were stated; the rest come from candidates."
    alike: tuple[Alike, ...] = ()
    "Entities whose KB pictures resemble the mention's, if the matcher was trained to look for them."


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedCaption:
    """The answer for one captioned picture."""

    profile: str
    kb: str
    caption: Caption
    mentions: tuple[LinkedMention, ...]
    notes: tuple[str, ...]
    "What was done to the picture before it was read, and what went wrong."
    seconds: dict[str, float]

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return what `localmel link --json` prints; `explain` adds each mention's triples and the notes."""
        return {
            "profile": self.profile,
            "kb": self.kb,
            "image": str(self.caption.image) if self.caption.image else None,
            "text": self.caption.text,
            "links": [_mention_json(linked, explain=explain) for linked in self.mentions],
            **({"notes": list(self.notes)} if explain else {}),
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
        }


def _mention_json(linked: LinkedMention, *, explain: bool) -> dict[str, Any]:
    mention, link = linked.mention, linked.link
    return {
        "mention": {"surface": mention.surface, "start": mention.span.start, "end": mention.span.end},
        "entity": _entity_json(linked.entity) if linked.entity else None,
        "probability": round(link.probability, 4),
        "decided_by": link.decided_by,
        **({"triples": [_triple_json(triple) for triple in linked.description.triples]} if explain else {}),
        "evidence": [
            {
                "mention_triple": [pair.mention_triple.head, pair.mention_triple.relation, pair.mention_triple.tail],
                "entity_triple": [pair.entity_triple.head, pair.entity_triple.relation, pair.entity_triple.tail],
                "similarity": pair.similarity,
                "source": pair.mention_triple.source,
            }
            for pair in link.evidence
        ],
        "candidates": [
            {"id": candidate.entity_id, "label": entity.label, "score": round(candidate.score, 6)}
            for candidate, entity in zip(link.ranking.candidates, linked.candidates, strict=True)
        ],
        **({"alike": [_alike_json(one) for one in linked.alike]} if linked.alike else {}),
    }


def _alike_json(alike: Alike) -> dict[str, Any]:
    return {"id": alike.entity_id, "label": alike.label, "similarity": round(alike.similarity, 4)}


def _triple_json(triple: Triple) -> dict[str, str]:
    return {"head": triple.head, "relation": triple.relation, "tail": triple.tail, "source": triple.source}


def _entity_json(entity: Entity) -> dict[str, str]:
    return {"id": entity.id, "label": entity.label, "description": entity.description}
