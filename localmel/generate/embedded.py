"""Triples about a mention without a vision-language model: what is written in the picture, what the sentence says
beside the name, and which phrases of the candidates the context confirms.

In: a mention, the lines read in its picture, and the comparison of its context with its candidates' phrases.
Out: one Description.  Every triple names its source.  Knows nothing of which candidate is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from localmel.generate.appositions import appositions
from localmel.generate.visible_text import VisibleLine
from localmel.records import Description, Mention, Triple

VISIBLE = "visible text"


def stated_triples(mention: Mention, lines: Sequence[VisibleLine]) -> tuple[Triple, ...]:
    """What is said outright: appositions in the sentence, and each line of visible text.

    Lines that together are short stand once more as one, since a name is often set in two lines."""
    visible = [line.text for line in lines]
    if len(visible) > 1 and sum(len(text.split()) for text in visible) <= 12:
        visible.append(" ".join(visible))
    written = [Triple(head=mention.surface, relation=VISIBLE, tail=text, source="ocr") for text in visible]
    return (*appositions(mention), *written)


def described(mention: Mention, stated: Iterable[Triple], induced: Iterable[Triple]) -> Description:
    """All triples of one mention, stated ones first, each once."""
    return Description(mention_id=mention.id, triples=tuple(dict.fromkeys((*stated, *induced))))
