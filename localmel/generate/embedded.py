"""Triples about a mention without a vision-language model: the writing in its picture, and what the sentence says
right next to the name ("Macron, the French president", "Golding is a novelist", "Foster (actress)").

In: a mention, and the lines read in its picture.  Out: triples, each with its source.  Works on the words alone; knows
no KB, no model and no candidate."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from localmel.generate.visible_text import VisibleLine
from localmel.records import Description, Mention, Triple

VISIBLE = "visible text"


def stated_triples(mention: Mention, lines: Sequence[VisibleLine]) -> tuple[Triple, ...]:
    """Return what is stated outright: appositions in the sentence, and each line of visible text.

    Lines that are short together are also joined into one, since a name is often set in two lines."""
    visible = [line.text for line in lines]
    if len(visible) > 1 and sum(len(text.split()) for text in visible) <= 12:
        visible.append(" ".join(visible))
    written = [Triple(head=mention.surface, relation=VISIBLE, tail=text, source="ocr") for text in visible]
    return (*appositions(mention), *written)


def described(mention: Mention, stated: Iterable[Triple], induced: Iterable[Triple]) -> Description:
    """Return all triples of one mention, stated ones first, each once."""
    return Description(mention_id=mention.id, triples=tuple(dict.fromkeys((*stated, *induced))))


_ARTICLE = r"(?:a|an|the)\s+"
_PHRASE = r"(?P<phrase>[^\W\d_][^,.;:()\[\]\n\"“”]{2,60}?)"
_STOPS = "who|which|that|where|and|but|with|at|on|during|while|when|after|before|from"
_END = rf"(?=\s*(?:[,.;:()\[\]\n\"“”]|$|\s(?:{_STOPS})\b))"
_AFTER = tuple(
    re.compile(pattern + _END, re.IGNORECASE)
    for pattern in (
        rf"\A\s*,\s*{_ARTICLE}{_PHRASE}",
        rf"\A\s+(?:is|was|were|are|became)\s+{_ARTICLE}{_PHRASE}",
        rf"\A\s*,?\s+as\s+{_ARTICLE}{_PHRASE}",
        rf"\A\s*\((?:{_ARTICLE})?{_PHRASE}(?=\))",
    )
)
_BEFORE = re.compile(rf"\b{_ARTICLE}(?P<phrase>(?:[^\W\d_][\w'’-]*\s+){{1,4}}),?\s*\Z", re.IGNORECASE)
_BREAKS = re.compile(
    r"\b(?:of|in|at|on|with|by|for|to|and|or|from|over|under|against|near|is|was|are|were|has|had)\b", re.I
)
RELATION = "described as"


def appositions(mention: Mention) -> tuple[Triple, ...]:
    """Return the descriptions directly next to the mention, each once."""
    after = mention.context[mention.span.end : mention.span.end + 200]
    before = mention.context[max(0, mention.span.start - 100) : mention.span.start]
    phrases = [found.group("phrase") for rule in _AFTER if (found := rule.search(after))]
    if (found := _BEFORE.search(before)) and not _BREAKS.search(found.group("phrase")):
        phrases.append(found.group("phrase"))
    different = dict.fromkeys(" ".join(phrase.split()) for phrase in phrases)
    return tuple(
        Triple(head=mention.surface, relation=RELATION, tail=phrase, source="text") for phrase in different if phrase
    )
