"""Open a picture once and safely, as an upright RGB picture of bounded size.

In: a path.  Out: pixels.  Refuses, with the reason, a file that is missing, empty, cut off, not a picture, or too large
to be decoded without harm.  Knows no model."""

from __future__ import annotations

import base64
import io
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadPicture, shell_line

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 64 * 1024 * 1024
MOST_PIXELS = 100_000_000
LONGEST_SIDE = 2048
"Larger pictures are scaled down to this size, at which legible writing stays legible."
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"Formats made of pixels.  One that is a program (EPS goes to Ghostscript) is refused, whatever its name."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A decoded picture, with notes on what was changed."""

    path: Path
    image: Image  # RGB, upright, longest side at most what was asked for
    notes: tuple[str, ...]

    def pixels(self) -> NDArray[Any]:
        """Return the pixels, red first.  Returns (height, width, 3) uint8."""
        return np.asarray(self.image)

    def data_url(self) -> str:
        """Return the pixels as PNG in a URL, the form in which a picture travels inside JSON."""
        written = io.BytesIO()
        self.image.save(written, "PNG", compress_level=1)
        return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"


def open_picture(path: Path, *, longest_side: int = LONGEST_SIDE) -> Picture:
    """Decode a picture and scale it down to `longest_side`.  Raises BadPicture.

    It is turned upright by its EXIF tag; CMYK and palettes become RGB, transparent parts become white; an animation
    gives its first frame."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadPicture(f"there is no picture {_named(path)} ({reason})", hint="give - for no picture") from None
    if stat.S_ISDIR(found.st_mode):
        raise BadPicture(f"{_named(path)} is a folder, not a picture", hint="name one picture in it")
    if not stat.S_ISREG(found.st_mode):
        raise BadPicture(f"cannot read {_named(path)}: it is not an ordinary file", hint=shell_line("ls -l", path))
    size = found.st_size
    if size == 0:
        raise BadPicture(f"{_named(path)} is empty (0 bytes)", hint=shell_line("ls -l", path))
    if size > MOST_BYTES:
        raise BadPicture(f"{_named(path)} has {size:,} bytes; a picture may have {MOST_BYTES:,}", hint="scale it down")
    return _decode(path, size, longest_side)


def _named(path: Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 200 else f"{text[:100]}…{text[-99:]}")


def _decode(path: Path, size: int, longest_side: int) -> Picture:
    from PIL import Image, UnidentifiedImageError

    Image.init()
    readable = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=readable) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise _too_many(path, f"{width:,} x {height:,}")
                notes = _notes(image)
                image.draft("RGB", (longest_side, longest_side))
                picture = _upright_rgb(image, longest_side)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        fact = f"cannot read {_named(path)}: it is not a picture ({size:,} bytes)"
        raise BadPicture(fact, hint=shell_line("file", path)) from None
    except PermissionError:
        raise BadPicture(f"cannot read {_named(path)}: permission denied", hint=shell_line("ls -l", path)) from None
    except Image.DecompressionBombError as error:
        raise _too_many(
            path, next((f"{int(pixels):,}" for pixels in re.findall(r"\d+", str(error))), "too many")
        ) from None
    except Exception as error:  # noqa: BLE001 - on damaged bytes decoders raise whatever they stumble over
        fact = f"{_named(path)} is damaged or cut off ({str(error) or type(error).__name__}; {size:,} bytes)"
        raise BadPicture(fact, hint=shell_line("file", path)) from None
    if max(width, height) > longest_side:
        notes = (*notes, f"scaled down from {width} x {height}")
    return Picture(path=path, image=picture, notes=notes)


def _too_many(path: Path, pixels: str) -> BadPicture:
    return BadPicture(f"{_named(path)} has {pixels} pixels; a picture may have {MOST_PIXELS:,}", hint="scale it down")


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


def _upright_rgb(image: Image, longest_side: int) -> Image:
    """Return an upright RGB picture, scaled down as early as possible so that a large one is held only once."""
    from PIL import ImageOps

    image.load()
    if image.mode in ("1", "P", "PA"):  # these cannot be scaled smoothly
        exif = image.getexif()
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.getexif().update(exif)
    image.thumbnail((longest_side, longest_side))
    return _on_white(ImageOps.exif_transpose(image))


def _on_white(image: Image) -> Image:
    from PIL import Image as Images

    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Images.new("RGBA", layer.size, "white")
        return Images.alpha_composite(white, layer).convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, np.float64))
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / max(high - low, 1e-9) * 255
        return Images.fromarray(scaled.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
