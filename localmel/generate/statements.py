"""Collect what is said of each mention: in its sentence, in the writing of its picture, and by a model.

In: mentions, and the answers of a model where one was asked.  Out: one Description per mention.  Each picture is read
once.  Asks no model itself, and knows nothing of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localmel.engines.pictures import open_picture
from localmel.errors import BadPicture
from localmel.generate.embedded import stated_triples
from localmel.generate.visible_text import VisibleLine, visible_lines
from localmel.records import Description, Mention, MentionId, Unparsed
from localmel.settings import GenerateSettings
from localmel.store import progress


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureText:
    """The writing in one picture."""

    lines: tuple[VisibleLine, ...] = ()
    notes: tuple[str, ...] = ()
    "What was done to the picture before it was read."
    problem: BadPicture | None = None
    "Why the picture cannot be used, if it cannot."


class Statements:
    """Reads sentences and pictures as the settings of one profile say, and remembers every picture it has read."""

    def __init__(self, settings: GenerateSettings) -> None:
        self._settings = settings
        self._pictures: dict[Path, PictureText] = {}

    @property
    def n_unreadable(self) -> int:
        """The number of pictures so far that could not be read."""
        return sum(one.problem is not None for one in self._pictures.values())

    def read(self, image: Path) -> PictureText:
        """Return the writing in a picture; a picture that cannot be read has a `problem` and no lines."""
        if image not in self._pictures:
            try:
                picture = open_picture(image)
            except BadPicture as error:
                self._pictures[image] = PictureText(problem=error)
            else:
                lines = visible_lines(picture, self._settings) if self._reads_writing else ()
                self._pictures[image] = PictureText(lines=lines, notes=tuple(picture.notes))
        return self._pictures[image]

    def describe(self, mention: Mention, answer: Description | Unparsed | None = None) -> Description:
        """Describe one mention: the model's triples first, if it gave an answer, then those of sentence and picture.

        Next to a model's answer the latter count only where the profile sets `read_writing`."""
        lines = self.read(mention.image).lines if mention.image and self._reads_writing else ()
        stated = stated_by(mention, lines)
        if not isinstance(answer, Description):
            return stated
        also = stated.triples if self._settings.read_writing else ()
        return replace(answer, triples=tuple(dict.fromkeys((*answer.triples, *also))))

    def describe_all(
        self, mentions: Sequence[Mention], answers: Mapping[MentionId, Description] | None = None
    ) -> list[Description]:
        """Describe many mentions, in order, and report progress as one step."""
        progress.begin("reading mentions", len(mentions))
        found = []
        for mention in mentions:
            found.append(self.describe(mention, (answers or {}).get(mention.id)))
            progress.advance(1)
        return found

    @property
    def _reads_writing(self) -> bool:
        return self._settings.backend == "embedded" or self._settings.read_writing


def stated_by(mention: Mention, lines: Sequence[VisibleLine]) -> Description:
    """Describe a mention by its sentence and by lines that were read in its picture."""
    return Description(mention_id=mention.id, triples=stated_triples(mention, lines))
