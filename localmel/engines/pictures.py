"""Open a picture once, safely: whatever the file is, what comes out is an upright RGB picture of bounded size.

In: a path.  Out: pixels.  Refuses, with the reason, what is missing, empty, cut off, no picture, or too large to be
decoded without harm.  Knows no model."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.errors import BadPicture

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

MOST_BYTES = 64 * 1024 * 1024
MOST_PIXELS = 100_000_000
LONGEST_SIDE = 2048
"Larger pictures are scaled down to this; writing that can be read at all is read at this size."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture and what was done to it on the way."""

    path: Path
    image: Image  # RGB, upright, longest side at most LONGEST_SIDE
    notes: tuple[str, ...]

    def pixels(self) -> NDArray[Any]:
        """(height, width, 3) uint8, red first."""
        import numpy as np

        return np.asarray(self.image)


def open_picture(path: Path) -> Picture:
    """Decode a picture.  Turned upright by its EXIF tag, CMYK and palettes become RGB, clear parts become white,
    of an animation the first frame is taken.  Raises BadPicture."""
    if path.is_dir():
        raise BadPicture(f"{path} is a folder, not a picture")
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise BadPicture(
            f"there is no picture {str(path)!r} ({type(error).__name__})", hint="give - for no picture"
        ) from None
    if not path.is_file():
        raise BadPicture(f"{path} is no ordinary file")
    if size == 0:
        raise BadPicture(f"{path} is empty (0 bytes)")
    if size > MOST_BYTES:
        raise BadPicture(f"{path} has {size:,} bytes; at most {MOST_BYTES:,} are read", hint="scale the picture down")
    return _decode(path, size)


def _decode(path: Path, size: int) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise BadPicture(
                        f"{path} has {width} x {height} pixels; at most {MOST_PIXELS:,} are decoded",
                        hint="scale the picture down",
                    )
                notes = _notes(image)
                image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
                upright = ImageOps.exif_transpose(image)
                upright.load()
                picture = _on_white(upright)
                picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture(f"{path} is no picture that can be read ({size:,} bytes)", hint=f"file {path}") from None
    except PermissionError:
        raise BadPicture(f"{path} may not be read", hint=f"ls -l {path}") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, MemoryError) as error:
        raise BadPicture(f"{path} is damaged or cut off ({error})", hint=f"file {path}") from None
    if (width, height) != upright.size and max(picture.size) == LONGEST_SIDE:
        notes = (*notes, f"scaled down from {width} x {height}")
    return Picture(path=path, image=picture, notes=notes)


def _notes(image: Image) -> tuple[str, ...]:
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"first of {frames} frames")
    if image.getexif().get(0x0112, 1) not in (0, 1):
        notes.append("turned upright")
    if image.mode not in ("RGB", "L"):
        notes.append(f"converted from {image.mode}")
    return tuple(notes)


def _on_white(image: Image) -> Image:
    from PIL import Image as Images

    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Images.new("RGBA", layer.size, "white")
        return Images.alpha_composite(white, layer).convert("RGB")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        import numpy as np

        values = np.asarray(image, np.float64)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / max(high - low, 1e-9) * 255
        return Images.fromarray(scaled.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
