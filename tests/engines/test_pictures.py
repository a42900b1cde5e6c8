"""What can be read comes out upright, in RGB and of bounded size; anything else is a BadPicture that says why."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from localmel.engines.pictures import LONGEST_SIDE, MOST_BYTES, MOST_PIXELS, open_picture
from localmel.errors import BadPicture

RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 220, 20)


def quarters(width: int = 80, height: int = 40) -> Image.Image:
    """Four colours, so that every turn and every mirror shows."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def corners(image: Image.Image) -> list[Any]:
    width, height = image.size
    spots = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [image.getpixel(spot) for spot in spots]


def is_near(found: Any, wanted: tuple[int, int, int], most: int = 12) -> bool:
    return all(abs(one - other) <= most for one, other in zip(found, wanted, strict=True))


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def refused(path: Path) -> BadPicture:
    with pytest.raises(BadPicture) as caught:
        open_picture(path)
    assert caught.value.exit_code == 3
    assert caught.value.hint, "a refusal names the next step"
    return caught.value


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, kind: int = 2) -> bytes:
    """A PNG by hand, for headers that no writer would write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (head, *chunks, (b"IEND", b"")))


# --- what is no picture ------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.jpg")
    assert str(tmp_path / "none.jpg") in error.fact
    assert "No such file" in error.fact


def test_an_empty_file_is_said_to_have_0_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "empty.jpg").fact


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path).fact


def test_text_under_the_name_of_a_picture_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture at all\n" * 50)
    assert "it is not a picture (1,050 bytes)" in refused(tmp_path / "notes.jpg").fact


def test_a_fifo_is_refused_at_once_and_not_waited_for(tmp_path: Path, in_proportion: Callable[[float], float]) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    started = time.monotonic()
    assert "not an ordinary file" in refused(tmp_path / "pipe.png").fact
    assert time.monotonic() - started < in_proportion(5)


def test_a_device_is_no_picture() -> None:
    assert "not an ordinary file" in refused(Path("/dev/zero")).fact


def test_a_postscript_program_is_not_run_whatever_its_name(tmp_path: Path) -> None:
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "poster.jpg").write_bytes(program)
    assert "it is not a picture" in refused(tmp_path / "poster.jpg").fact


def test_a_path_with_a_nul_or_longer_than_the_system_allows_is_refused() -> None:
    assert "embedded null byte" in refused(Path("a\0b.jpg")).fact
    for path in (Path("a" * 5000), Path("/".join(["a" * 200] * 30))):
        error = refused(path)
        assert "File name too long" in error.fact
        assert len(error.fact) < 400, "the path is shortened in the message"


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "symbolic links" in refused(tmp_path / "loop").fact


def test_a_path_in_a_hint_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "a b; rm -rf x.jpg"
    path.write_text("text")
    assert refused(path).hint == f"file '{path}'"


def test_a_file_that_may_not_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    """Run as another user where this one may read everything."""
    path = saved(tmp_path / "secret.png", quarters())
    path.chmod(0)
    if os.geteuid() != 0:
        assert "may not be read" in refused(path).fact
        return
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from localmel.engines.pictures import open_picture\n"
        "from localmel.errors import BadPicture\n"
        "Image.init()\n"
        "os.chdir(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_picture(Path('secret.png'))\n"
        "except BadPicture as error: print(error.fact)\n"
    )
    folder = tmp_path
    while folder != folder.parent and folder.stat().st_uid == os.geteuid():
        folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot read 'secret.png': permission denied" in done.stdout


# --- what is damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    whole = io.BytesIO()
    Image.effect_noise((300, 200), 60).convert("RGB").save(whole, kind)
    path = tmp_path / "cut"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
    error = refused(path)
    assert "damaged or cut off" in error.fact or "it is not a picture" in error.fact
    assert "bytes" in error.fact


def test_damaged_bytes_give_a_picture_or_a_bad_picture_and_nothing_else(tmp_path: Path) -> None:
    chance = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    path = tmp_path / "damaged"
    for kind, options in (
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
        ("PPM", {}),
    ):
        whole = io.BytesIO()
        quarters(64, 48).save(whole, kind, **options)
        for _ in range(60):
            data = bytearray(whole.getvalue())
            for _ in range(chance.randint(1, 12)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data)
            try:
                picture = open_picture(path)
            except BadPicture:
                outcomes["refused"] += 1
            else:
                assert picture.image.mode == "RGB"
                assert max(picture.image.size) <= LONGEST_SIDE
                outcomes["read"] += 1
    assert min(outcomes.values()) > 20, outcomes


# --- what is too large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(20_000, 10_000), (200_000, 100_000), (11_000, 10_000)])
def test_a_decompression_bomb_is_refused_fast_and_without_memory(
    tmp_path: Path, width: int, height: int, in_proportion: Callable[[float], float]
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height, (b"IDAT", zlib.compress(bytes(width * 30), 9))))
    assert path.stat().st_size < 100_000
    code = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from localmel.engines.pictures import open_picture\n"
        "from localmel.errors import BadPicture\n"
        "Image.init()\n"
        "before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()\n"
        "try: open_picture(Path(sys.argv[1]))\n"
        "except BadPicture as error: print(error.fact)\n"
        "seconds = time.perf_counter() - started\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, seconds)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    fact, numbers = done.stdout.splitlines()
    assert "pixels" in fact
    assert f"a picture may have {MOST_PIXELS:,}" in fact
    assert f"{width:,} x {height:,}" in fact or f"{width * height:,}" in fact
    kibibytes, seconds = map(float, numbers.split())
    assert kibibytes < 20_000
    assert seconds < in_proportion(1)


def test_a_text_in_a_picture_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    bomb = (b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000), 9))
    pixels = (b"IDAT", zlib.compress((b"\0" + b"\xff" * 6) * 2))
    (tmp_path / "note.png").write_bytes(png(2, 2, bomb, pixels))
    assert "damaged" in refused(tmp_path / "note.png").fact


def test_a_file_of_more_bytes_than_are_read_is_refused_unopened(tmp_path: Path) -> None:
    path = saved(tmp_path / "huge.png", quarters())
    os.truncate(path, MOST_BYTES + 1)
    assert f"{MOST_BYTES + 1:,} bytes" in refused(path).fact
    os.truncate(path, MOST_BYTES)
    assert open_picture(path).image.size == (80, 40)


# --- what comes out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_gives_the_same_upright_picture(tmp_path: Path, orientation: int, kind: str) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters()
    if orientation in turns:
        stored = stored.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(saved(tmp_path / "turned", stored, format=kind, exif=exif))
    assert picture.image.size == (80, 40)
    for found, wanted in zip(corners(picture.image), (RED, GREEN, BLUE, YELLOW), strict=True):
        assert is_near(found, wanted)
    assert ("turned upright" in picture.notes) == (orientation != 1)


def test_an_orientation_that_makes_no_sense_is_left_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert is_near(corners(open_picture(saved(tmp_path / "x.jpg", quarters(), exif=exif)).image)[0], RED)
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12" * 50
    assert open_picture(saved(tmp_path / "y.jpg", quarters(), exif=broken)).image.size == (80, 40)


def test_a_turned_palette_picture_comes_out_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = quarters().transpose(Image.Transpose.ROTATE_90).quantize(16)
    picture = open_picture(saved(tmp_path / "turned.png", stored, exif=exif))
    assert picture.image.size == (80, 40)
    assert is_near(corners(picture.image)[1], GREEN)


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    picture = open_picture(saved(tmp_path / "print.jpg", quarters().convert("CMYK"), quality=95))
    for found, wanted in zip(corners(picture.image), (RED, GREEN, BLUE, YELLOW), strict=True):
        assert is_near(found, wanted, most=30)
    assert "converted from CMYK" in picture.notes


def test_a_palette_keeps_its_colours(tmp_path: Path) -> None:
    picture = open_picture(saved(tmp_path / "palette.png", quarters().quantize(8)))
    assert is_near(corners(picture.image)[3], YELLOW)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_clear_parts_become_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 20))
    stored = image.convert(mode) if mode != "P" else image.quantize(4)
    picture = open_picture(saved(tmp_path / "clear.png", stored))
    assert picture.image.getpixel((2, 10)) == (0, 0, 0)
    assert picture.image.getpixel((17, 10)) == (255, 255, 255)


@pytest.mark.parametrize("top", [65535, 4095, 200])
def test_16_bit_grey_is_spread_over_what_the_eye_sees(tmp_path: Path, top: int) -> None:
    values = np.linspace(0, top, 256, dtype=np.uint16)[None, :].repeat(8, axis=0)
    picture = open_picture(saved(tmp_path / "deep.png", Image.fromarray(values)))
    seen = np.asarray(picture.image)[0, :, 0].astype(int)
    assert seen[0] == 0
    assert seen[-1] == 255
    assert (np.diff(seen) >= 0).all()


def test_16_bit_colour_keeps_its_colours(tmp_path: Path) -> None:
    line = b"\0" + struct.pack(">HHH", 65535, 0, 32768) * 4
    (tmp_path / "deep.png").write_bytes(png(4, 4, (b"IDAT", zlib.compress(line * 4)), depth=16))
    assert is_near(open_picture(tmp_path / "deep.png").image.getpixel((1, 1)), (255, 0, 128), most=1)


def test_floats_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    assert open_picture(saved(tmp_path / "f.tiff", Image.fromarray(values))).image.getpixel((7, 7)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in (RED, GREEN, BLUE)]
    path = saved(tmp_path / "moving", frames[0], format=kind, save_all=True, append_images=frames[1:], duration=100)
    picture = open_picture(path)
    assert is_near(picture.image.getpixel((15, 15)), RED)
    assert "first of 3 frames" in picture.notes


def test_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    assert is_near(corners(open_picture(saved(tmp_path / "x.avif", quarters(), quality=95)).image)[2], BLUE, most=30)


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    assert open_picture(saved(tmp_path / "dot.png", Image.new("RGB", (1, 1), RED))).image.size == (1, 1)


@pytest.mark.parametrize(("width", "height"), [(30_000, 2), (2, 30_000), (4096, 1024)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_is_scaled_down_and_says_so(tmp_path: Path, width: int, height: int, kind: str) -> None:
    picture = open_picture(saved(tmp_path / "wide", Image.new("RGB", (width, height), RED), format=kind))
    assert max(picture.image.size) == LONGEST_SIDE
    assert min(picture.image.size) == max(1, round(min(width, height) * LONGEST_SIDE / max(width, height)))
    assert f"scaled down from {width} x {height}" in picture.notes


def test_a_picture_of_the_longest_side_is_not_said_to_be_scaled(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "full.jpg", Image.new("RGB", (1000, LONGEST_SIDE), RED), exif=exif)
    assert open_picture(path).notes == ("turned upright",)


def test_a_plain_picture_has_no_notes_and_its_own_pixels(tmp_path: Path) -> None:
    picture = open_picture(saved(tmp_path / "plain.png", quarters()))
    assert picture.notes == ()
    assert picture.pixels().shape == (40, 80, 3)
    assert np.array_equal(picture.pixels(), np.asarray(quarters()))
