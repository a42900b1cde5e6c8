"""What a sentence says a name is: "Macron, the French president", "Golding is a novelist", "Foster (actress)".

In: a mention.  Out: triples with source "text".  Works on the words alone; knows no KB and no model."""

from __future__ import annotations

import re

from localmel.records import Mention, Triple

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
    """The descriptions that stand directly beside the mention, each once, nearest rules first."""
    after = mention.context[mention.span.end : mention.span.end + 200]
    before = mention.context[max(0, mention.span.start - 100) : mention.span.start]
    phrases = [found.group("phrase") for rule in _AFTER if (found := rule.search(after))]
    if (found := _BEFORE.search(before)) and not _BREAKS.search(found.group("phrase")):
        phrases.append(found.group("phrase"))
    different = dict.fromkeys(" ".join(phrase.split()) for phrase in phrases)
    return tuple(
        Triple(head=mention.surface, relation=RELATION, tail=phrase, source="text") for phrase in different if phrase
    )
