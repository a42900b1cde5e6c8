"""Benchmark mentions with their gold, from JSON lines.

In: a file with one object per line: id, sentence, mention, answer (an entity id, or null for NIL).  Out: a Split.
A line that does not fit is an error with its number; nothing is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

from localmel.errors import BadInput, BadMention, ImportProblem
from localmel.kb.mentions import listed_mentions
from localmel.records import EntityId, Mention, MentionId, Span, Split


def read_split(path: Path) -> Split:
    """Every mention of the file, in its order.  The first occurrence in the sentence is the one meant.

    Benchmarks have mentions that do not stand in their sentence word for word ("Hermann Beckerath" for "Hermann von
    Beckerath"): such a mention is put in front of its sentence."""
    if not path.is_file():
        raise BadInput(f"there is no split {path}")
    mentions: list[Mention] = []
    gold: dict[MentionId, EntityId | None] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                mentions.append(_mention(row["id"], row["mention"], row["sentence"]))
                gold[row["id"]] = row["answer"]
            except (ValueError, KeyError, TypeError, AttributeError, BadInput) as error:
                raise ImportProblem(f"not a mention ({error})", source=str(path), line=number) from None
    return Split(name=path.stem, mentions=tuple(mentions), gold=gold)


def _mention(mention_id: MentionId, surface: str, sentence: str) -> Mention:
    try:
        span = listed_mentions(sentence, [surface])[0]
    except BadMention:
        sentence = f"{surface}: {sentence}"
        span = Span(start=0, end=len(surface))
    return Mention(id=mention_id, surface=sentence[span.start : span.end], context=sentence, span=span)
