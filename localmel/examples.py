"""Link the shipped examples: pictures drawn for this project whose writing decides who is meant.

In: a linker.  Out: each example linked with its picture and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.captions import LinkedMention
from localmel.linker import Linker
from localmel.records import EntityId
from localmel.settings.shipped import shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture, its neutral sentence, and the entity that the picture says is meant."""

    id: str
    picture: Path
    text: str
    mention: str
    answer: EntityId
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResult:
    """One example linked twice."""

    example: Example
    with_picture: LinkedMention
    without_picture: LinkedMention

    @property
    def is_right(self) -> bool:
        """Return whether the mention is linked to the expected entity with the picture."""
        return self.with_picture.link.entity_id == self.example.answer

    @property
    def is_right_without(self) -> bool:
        """Return whether the mention is linked to the expected entity even without the picture."""
        return self.without_picture.link.entity_id == self.example.answer

    def to_json(self) -> dict[str, Any]:
        """Return what `localmel demo --json` prints."""
        return {
            "id": self.example.id,
            "image": str(self.example.picture),
            "text": self.example.text,
            "expected": self.example.answer,
            "entity": self.with_picture.link.entity_id,
            "probability": round(self.with_picture.link.probability, 4),
            "entity_without_picture": self.without_picture.link.entity_id,
            "why": self.example.why,
        }


def read_examples() -> Iterator[Example]:
    """Read the examples in their shipped order."""
    folder = shipped("examples")
    for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Example(
            id=row["id"],
            picture=folder / row["image"],
            text=row["text"],
            mention=row["mention"],
            answer=row["answer"],
            why=row["why"],
        )


def link_examples(linker: Linker) -> list[ExampleResult]:
    """Link every example with and without its picture."""
    return [
        ExampleResult(
            example=example,
            with_picture=linker.link(example.picture, example.text, [example.mention]).mentions[0],
            without_picture=linker.link(None, example.text, [example.mention]).mentions[0],
        )
        for example in read_examples()
    ]
