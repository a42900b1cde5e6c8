"""Sentences as if a part of them stood in the picture: training data that no pictures come with.

In: mentions.  Out: mentions with the lines read in their picture.  For a share of them a piece of the sentence becomes
visible text and the sentence a neutral one, so that writing is weighed as the words it consists of."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from localmel.generate.visible_text import VisibleLine
from localmel.records import Mention, Span

NEUTRAL = ("{}, photographed last year.", "This is {}.", "A picture of {}.", "{} seen here.", "Here we saw {} again.")


def with_moved_text(
    mentions: Sequence[Mention], *, share: float, seed: int
) -> Iterator[tuple[Mention, tuple[VisibleLine, ...]]]:
    """Each mention, of which a `share` lose a piece of their sentence to visible text.  Same seed, same pieces."""
    chance = random.Random(seed)
    for mention in mentions:
        words = (mention.context[: mention.span.start] + " " + mention.context[mention.span.end :]).split()
        if chance.random() >= share or len(words) < 4:
            yield mention, ()
            continue
        length = chance.randint(2, min(7, len(words)))
        start = chance.randint(0, len(words) - length)
        cut = chance.randint(1, length)
        piece = words[start : start + length]
        frame = chance.choice(NEUTRAL)
        begin = frame.index("{}")
        moved = Mention(
            id=mention.id,
            surface=mention.surface,
            context=frame.format(mention.surface),
            span=Span(start=begin, end=begin + len(mention.surface)),
            image=mention.image,
        )
        lines = [" ".join(part).upper() for part in (piece[:cut], piece[cut:]) if part]
        yield moved, tuple(VisibleLine(text=line, confidence=1.0) for line in lines)
