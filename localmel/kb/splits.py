"""Benchmark mentions with their gold, from JSON lines.

In: a file with one object per line: id, sentence, mention, answer (an entity id, or null for NIL).  Out: a Split.
A line that does not fit is an error with its number; nothing is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, BadMention, ImportProblem, shell_line
from localmel.kb.mentions import listed_mentions
from localmel.records import EntityId, Mention, MentionId, Span, Split


def read_split(path: Path) -> Split:
    """Every mention of the file, in its order.  The first occurrence in the sentence is the one meant.

    Benchmarks have mentions that do not stand in their sentence word for word ("Hermann Beckerath" for "Hermann von
    Beckerath"): such a mention is put in front of its sentence."""
    if not path.is_file():
        raise BadInput(f"there is no split {path}", hint=shell_line("ls", path.parent))
    mentions: list[Mention] = []
    gold: dict[MentionId, EntityId | None] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                mention, answer = _mention_with_gold(json.loads(line.decode()))
                if mention.id in gold:
                    raise ValueError(f"id {mention.id!r} stands twice")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadInput) as error:
                raise ImportProblem(f"not a mention ({error})", source=str(path), line=number) from None
            mentions.append(mention)
            gold[mention.id] = answer
    return Split(name=path.stem, mentions=tuple(mentions), gold=gold)


def _mention_with_gold(row: dict[str, Any]) -> tuple[Mention, EntityId | None]:
    mention_id, answer = row["id"], row["answer"]
    if not isinstance(mention_id, str) or not isinstance(answer, str | None):
        raise TypeError(f"id {mention_id!r} or answer {answer!r} is no text")
    return _mention(mention_id, row["mention"], row["sentence"]), answer


def _mention(mention_id: MentionId, surface: str, sentence: str) -> Mention:
    try:
        span = listed_mentions(sentence, [surface])[0]
    except BadMention:
        sentence = f"{surface}: {sentence}"
        span = Span(start=0, end=len(surface))
    return Mention(id=mention_id, surface=sentence[span.start : span.end], context=sentence, span=span)
