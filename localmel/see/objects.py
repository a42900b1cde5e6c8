"""Cut the objects out of pictures and encode each of them.

In: pictures, a detector (detectors.py), an image encoder.  Out: for each picture the vectors of its objects, best
first, and which boxes were dropped.  A detector may return anything, so boxes are checked against the picture before
anything is cut.  With a folder, boxes and vectors are kept there: each picture is processed once, and a run that was
stopped goes on.  Knows no mention and no entity."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localmel.encode.space import ImageEncoder, Space
from localmel.engines.pictures import MOST_BYTES, Picture, open_picture
from localmel.errors import BadInput, BadPicture, shell_line
from localmel.kb.packed import Lists
from localmel.store.arrays import VectorCache, key_of
from localmel.store.journal import Journal

if TYPE_CHECKING:
    from PIL.Image import Image

_PICTURES_AT_ONCE = 64
BROKEN, OUTSIDE, SMALL, TWICE, BEYOND = "no box", "outside the picture", "too small", "twice", "one too many"
"The reasons to drop a box."


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """The box of an object in pixels from the upper left corner, with the detector's score (higher is surer)."""

    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0
    label: str = ""


class Detector(Protocol):
    """Finds what may be objects in a picture."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Return everything besides the picture that the boxes depend on: equal facts give equal boxes."""
        ...

    def boxes(self, image: Image) -> Sequence[Box]:
        """Return the boxes in an RGB picture, in any order.  They may be outside it, or not be boxes at all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSettings:
    """Settings of which boxes are cut out."""

    most: int = 16
    "At most this many objects per picture, those with the highest scores."
    smallest: int = 8
    "Least length of a side in pixels; a smaller crop shows nothing when it is scaled up."

    def __post_init__(self) -> None:
        if self.most < 1 or self.smallest < 1:
            raise BadInput(
                f"cannot cut objects: most is {self.most} and smallest {self.smallest}; both must be 1 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBoxes:
    """The boxes of a detector that can be cut out, and how many were dropped."""

    boxes: tuple[Box, ...]  # whole pixels inside the picture; best first, equal scores from left to right
    dropped: Mapping[str, int]  # by reason


def kept_boxes(found: Iterable[Box], width: int, height: int, settings: ObjectSettings) -> KeptBoxes:
    """Clip boxes to a picture of this size, and drop those that cannot be cut out."""
    dropped: Counter[str] = Counter()
    whole: list[Box] = []
    for box in found:
        sides = (box.left, box.top, box.right, box.bottom)
        if not all(map(math.isfinite, (*sides, box.score))) or box.left >= box.right or box.top >= box.bottom:
            dropped[BROKEN] += 1
            continue
        left, top = max(0, math.floor(box.left)), max(0, math.floor(box.top))
        right, bottom = min(width, math.ceil(box.right)), min(height, math.ceil(box.bottom))
        if left >= right or top >= bottom:
            dropped[OUTSIDE] += 1
        elif min(right - left, bottom - top) < settings.smallest:
            dropped[SMALL] += 1
        else:
            whole.append(Box(left=left, top=top, right=right, bottom=bottom, score=box.score, label=box.label))
    whole.sort(key=lambda box: (-box.score, box.left, box.top, box.right, box.bottom, box.label))
    kept: dict[tuple[float, ...], Box] = {}
    for box in whole:
        place = (box.left, box.top, box.right, box.bottom)
        if place in kept:
            dropped[TWICE] += 1
        elif len(kept) == settings.most:
            dropped[BEYOND] += 1
        else:
            kept[place] = box
    return KeptBoxes(boxes=tuple(kept.values()), dropped=dict(sorted(dropped.items())))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectVectors:
    """The objects in m pictures."""

    space: Space
    lists: Lists  # of each row; values (all objects, width) float16, unit rows
    boxes: tuple[tuple[Box, ...], ...]  # of each row, as its vectors
    dropped: Mapping[str, int]
    "How many boxes of all pictures were not cut out, by reason."
    unreadable: tuple[str, ...]
    "One message for each picture that cannot be read."

    def of(self, row: int) -> NDArray[Any]:
        """Return the vectors of one row's objects, (objects, width)."""
        made: NDArray[Any] = self.lists.values[self.lists.starts[row] : self.lists.starts[row + 1]]
        return made

    def note(self) -> str:
        """Return a sentence about what was dropped; empty where nothing was."""
        parts = [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        parts += [f"{len(self.unreadable):,} unreadable, for example {self.unreadable[0]}"] if self.unreadable else []
        return f"objects that were not cut out: {'; '.join(parts)}" if parts else ""


def objects_of_files(
    paths: Sequence[Path | None],
    detector: Detector,
    encoder: ImageEncoder,
    settings: ObjectSettings | None = None,
    *,
    folder: Path | None = None,
    on_pictures: Callable[[int], None] = lambda _: None,
) -> ObjectVectors:
    """Find and encode the objects in each row's picture; a row without a readable picture has none.

    `on_pictures` gets the number of distinct pictures just done.  Raises JournalBusy while another process writes into
    the folder."""
    different = list(dict.fromkeys(path for path in paths if path is not None))
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(folder / "boxes.jsonl")) if folder else None
        work = _Work(detector, encoder, settings or ObjectSettings(), journal, folder)
        for first in range(0, len(different), _PICTURES_AT_ONCE):
            work.look_at(different[first : first + _PICTURES_AT_ONCE])
            on_pictures(len(different[first : first + _PICTURES_AT_ONCE]))
    width = encoder.image_space.width
    none = np.zeros((0, width), np.float16)
    rows = [work.vectors.get(path, none) if path else none for path in paths]
    return ObjectVectors(
        space=encoder.image_space,
        lists=Lists(starts=np.cumsum([0, *map(len, rows)]), values=np.concatenate([none, *rows])),
        boxes=tuple(work.boxes.get(path, ()) if path else () for path in paths),
        dropped=dict(sorted(work.dropped.items())),
        unreadable=tuple(work.unreadable),
    )


class _Work:
    """Finds boxes and vectors of pictures, or takes those of an earlier run."""

    def __init__(
        self,
        detector: Detector,
        encoder: ImageEncoder,
        settings: ObjectSettings,
        journal: Journal | None,
        folder: Path | None,
    ) -> None:
        self._detector, self._encoder, self._settings, self._journal = detector, encoder, settings, journal
        self._cache = (
            VectorCache(folder / "objects", width=encoder.image_space.width, sha256=encoder.image_space.weights_sha256)
            if folder
            else None
        )
        self.vectors: dict[Path, NDArray[Any]] = {}  # (objects, width) float16
        self.boxes: dict[Path, tuple[Box, ...]] = {}
        self.dropped: Counter[str] = Counter()
        self.unreadable: list[str] = []

    def look_at(self, paths: Sequence[Path]) -> None:
        """Find and encode the objects in some pictures."""
        keys: dict[Path, list[int]] = {}
        made: dict[int, NDArray[Any]] = {}
        new: dict[int, None] = {}

        def crops() -> Iterator[Picture]:
            for path in paths:
                picture = None
                try:
                    sha256 = _sha256(path)
                    kept = self._answered(sha256)
                    if kept is None:
                        picture = open_picture(path)
                        kept = self._found(picture, sha256)
                    keys[path] = [_key(sha256, box) for box in kept.boxes]
                    self.boxes[path] = kept.boxes
                    self.dropped.update(kept.dropped)
                    for box, key in zip(kept.boxes, keys[path], strict=True):
                        if self._vector(key) is None and key not in new:
                            picture = picture or open_picture(path)
                            new[key] = None
                            yield _cut(picture, box)
                except BadPicture as error:
                    self.unreadable.append(error.fact)

        vectors = self._encoder.encode_images(crops()).astype(np.float16)
        made.update(zip(new, vectors, strict=True))
        if self._cache and new:
            self._cache.write(np.array([*new], np.int64), vectors)
            self._cache.reuse(np.array([*new], np.int64), vectors)
        empty = np.zeros((0, self._encoder.image_space.width), np.float16)
        for path, own in keys.items():
            rows = [made[key] if key in made else self._vector(key) for key in own]
            self.vectors[path] = np.stack(rows) if rows else empty  # type: ignore[arg-type]  # none is missing now

    def _vector(self, key: int) -> NDArray[Any] | None:
        return self._cache.find(key) if self._cache else None

    def _question(self, sha256: str) -> str:
        asked = [dict(self._detector.facts), asdict(self._settings), sha256]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _answered(self, sha256: str) -> KeptBoxes | None:
        found = None if self._journal is None else self._journal.get(self._question(sha256))
        if found is None:
            return None
        names = Box.__dataclass_fields__
        boxes = tuple(Box(**dict(zip(names, values, strict=True))) for values in found["boxes"])
        return KeptBoxes(boxes=boxes, dropped=found["dropped"])

    def _found(self, picture: Picture, sha256: str) -> KeptBoxes:
        kept = kept_boxes(self._detector.boxes(picture.image), *picture.image.size, self._settings)
        if self._journal is not None:  # an empty journal is falsy
            answer = {"boxes": [astuple(box) for box in kept.boxes], "dropped": dict(kept.dropped)}
            self._journal.keep(self._question(sha256), answer)
        return kept


def _sha256(path: Path) -> str:
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES:  # reading a pipe would never end
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        pass
    open_picture(path)  # raises, and says what is wrong
    raise BadPicture(f"cannot read {path}", hint=shell_line("ls -l", path))


def _key(sha256: str, box: Box) -> int:
    return key_of(f"{sha256}\0{box.left}\0{box.top}\0{box.right}\0{box.bottom}".encode())


def _cut(picture: Picture, box: Box) -> Picture:
    place = (int(box.left), int(box.top), int(box.right), int(box.bottom))
    return Picture(path=picture.path, image=picture.image.crop(place), notes=(*picture.notes, "an object of it"))
