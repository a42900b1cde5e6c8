"""What stands for a mention when it is encoded: the text around it, alone or behind its surface.

In: a mention.  Out: text.  Training and linking take it from here, so that a network sees what it was trained on."""

from __future__ import annotations

from localmel.records import Mention

_WINDOW = 250
"Characters before and after a mention that are its context, in a text longer than twice this."


def context_around(mention: Mention) -> str:
    """The text around the mention, cut at words where it is long."""
    text, span = mention.context, mention.span
    if len(text) <= 2 * _WINDOW:
        return text
    before = text[max(0, span.start - _WINDOW) : span.start]
    after = text[span.end : span.end + _WINDOW]
    if span.start > _WINDOW:
        before = before.partition(" ")[2]
    if span.end + _WINDOW < len(text):
        after = after.rpartition(" ")[0]
    return f"{before}{mention.surface}{after}"


def mention_text(mention: Mention) -> str:
    """The text of the mention itself ("Jordan: Jordan in a Bulls shirt"): mentions of one text differ."""
    return f"{mention.surface}: {context_around(mention)}"
