"""Draw the pictures of examples/examples.jsonl.

In: nothing but this file, Pillow and numpy.  Out: one examples/<scene>.jpg for each scene below.
The questions themselves are written by hand in examples.jsonl: the words in a picture decide an ambiguous name,
the sentence beside it decides nothing.  No picture is a photograph: all are drawn, seeded, the same on every run.

    python scripts/draw_examples.py            write the pictures
    python scripts/draw_examples.py --check    exit 1 if the committed files are not what this draws
"""
# ruff: noqa: E501 - an outline is a list of corners, and reads best on one line

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.random import RandomState  # not Generator: numpy promises that these numbers never change
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter, ImageFont

FOLDER = Path(__file__).resolve().parent.parent / "examples"
WIDTH, HEIGHT = 1280, 960  # a scene is drawn at twice the size of its picture
PICTURE_SIZE = (640, 480)
BLOCK = 16  # --check compares means over blocks of so many pixels
# Of 255.  Encoding again at quality 75 to 90 stays below it; a changed letter (three tried) does not.
BLOCK_TOLERANCE = 8.0


# --- brushes ---------------------------------------------------------------------------------------------------------


def fade(top: str, bottom: str, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A new surface that goes from one colour to another, top to bottom."""
    share = np.linspace(0, 1, height)[:, None, None]
    rows = np.array(ImageColor.getrgb(f"#{top}")) * (1 - share) + np.array(ImageColor.getrgb(f"#{bottom}")) * share
    return Image.fromarray(np.repeat(rows, width, axis=1).astype(np.uint8)).convert("RGBA")


def clear(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A new surface with nothing on it."""
    return Image.new("RGBA", (width, height))


def shade(colour: str, factor: float) -> str:
    """The colour made darker or lighter."""
    return "".join(f"{max(0, min(255, int(channel * factor))):02x}" for channel in ImageColor.getrgb(f"#{colour}"))


def paint(image: Image.Image, *shapes: str) -> None:
    """Paint shapes, divided by ';'.  Each is written like SVG: what, colour, corners, as in 'line:9 c81e28 0,0 50,80'.
    rect, oval and poly are filled, round:R is a rect with round corners; box:W, ring:W and line:W are strokes."""
    pencil = ImageDraw.Draw(image)
    for shape in ";".join(shapes).split(";"):
        kind, colour, *corners = shape.split()
        kind, _, size = kind.partition(":")
        points = [(float(x), float(y)) for x, y in (corner.split(",") for corner in corners)]
        match kind:
            case "rect":
                pencil.rectangle(points, fill=f"#{colour}")
            case "oval":
                pencil.ellipse(points, fill=f"#{colour}")
            case "poly":
                pencil.polygon(points, fill=f"#{colour}")
            case "round":
                pencil.rounded_rectangle(points, int(size), fill=f"#{colour}")
            case "box":
                pencil.rectangle(points, outline=f"#{colour}", width=int(size))
            case "ring":
                pencil.ellipse(points, outline=f"#{colour}", width=int(size))
            case "line":
                pencil.line(points, fill=f"#{colour}", width=int(size), joint="curve")
            case _:
                raise ValueError(f"no such shape: {shape!r}")


def veil(image: Image.Image, *shapes: str) -> None:
    """Paint see-through shapes: colours with eight digits, the last two their opacity."""
    layer = clear(*image.size)
    paint(layer, *shapes)
    image.alpha_composite(layer)


def write(
    image: Image.Image,
    colour: str,
    *lines: tuple[float, float, int, str],
    edge: str = "",
    gap: float = 0.03,
    left: bool = False,
) -> None:
    """Letter lines, each (x, y, size, text), centred on x or starting there; `edge` outlines the letters, `gap` spaces them."""
    pencil = ImageDraw.Draw(image)
    for x, y, size, text in lines:
        font, bold = ImageFont.load_default(size=size), size // (18 if edge else 34)
        advances = [font.getlength(letter) + gap * size for letter in text]
        x -= 0 if left else (sum(advances) - gap * size) / 2
        for letter, advance in zip(text, advances, strict=True):
            pencil.text((x, y), letter, f"#{colour}", font, "lm", stroke_width=bold, stroke_fill=f"#{edge or colour}")
            x += advance


def lamps(text: str, columns: int, colour: str) -> Image.Image:
    """A line of text on a matrix of lamps, lit or dark."""
    small = Image.new("RGBA", (columns, 18), "black")
    write(small, "ffffff", (columns / 2, 9, 16, text), gap=0)
    board = Image.new("RGBA", (columns * 6, 18 * 6), "#0e0e10")
    for (row, column), light in np.ndenumerate(np.asarray(small.convert("L"))):
        x, y = column * 6, row * 6
        paint(board, f"oval {shade(colour, 0.12 + 0.88 * min(1.0, light / 150))} {x},{y} {x + 5},{y + 5}")
    return board


def grain(image: Image.Image, random: RandomState, strength: float, cell: tuple[int, int], top: int = 0) -> None:
    """Roughen a surface below `top`; `cell` is the size of a speck: (130, 6) is wood, (4, 12) is grass."""
    part = image.crop((0, top, *image.size))
    specks = np.clip(128 + random.randn(part.height // cell[1] + 1, part.width // cell[0] + 1) * strength, 0, 255)
    layer = Image.fromarray(specks.astype(np.uint8)).resize(part.size, Image.Resampling.BILINEAR)
    rough = ImageChops.overlay(part.convert("RGB"), Image.merge("RGB", [layer] * 3))
    image.paste(Image.merge("RGBA", (*rough.split(), part.getchannel("A"))), (0, top))


def blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def glow(image: Image.Image, colour: str, box: tuple[float, float, float, float], opacity: int, radius: int) -> None:
    """A soft spot: a lamp if the colour is light, a shadow if it is dark."""
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse(box, fill=opacity)
    image.paste(ImageColor.getrgb(f"#{colour}"), mask=blur(mask, radius))


def place(scene: Image.Image, prop: Image.Image, corners: str, shadow: int = 14) -> None:
    """Put a prop in the scene, in perspective.  corners: top left, top right, bottom right, bottom left."""
    source = ((0, 0), (prop.width, 0), (prop.width, prop.height), (0, prop.height))
    equations: list[list[float]] = []
    for corner, (u, v) in zip(corners.split(), source, strict=True):
        x, y = map(float, corner.split(","))
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    matrix = tuple(np.linalg.solve(np.array(equations), np.array(source, dtype=float).ravel()))
    seen = prop.transform(scene.size, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC)
    fallen = blur(ImageChops.offset(seen.getchannel("A"), shadow // 2, shadow), shadow)
    scene.paste((0, 0, 0), mask=fallen.point([value // 2 for value in range(256)]))
    scene.alpha_composite(seen)


def photograph(scene: Image.Image, random: RandomState) -> Image.Image:
    """What a hand-held camera makes of a scene: a tilt, a little blur, uneven light, noise."""
    tilted = scene.convert("RGB").rotate(random.uniform(-2.5, 2.5), Image.Resampling.BICUBIC)
    margin = 34  # hides the corners that the tilt leaves empty
    cropped = tilted.crop((margin, margin, WIDTH - margin, HEIGHT - margin))
    picture = blur(cropped.resize(PICTURE_SIZE, Image.Resampling.LANCZOS), random.uniform(0.5, 0.8))
    pixels = np.asarray(picture).astype(float)
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    direction = random.uniform(0, 2 * math.pi)
    light = 1.03 + 0.13 * (x * math.cos(direction) + y * math.sin(direction)) - 0.16 * (x**2 + y**2)
    noise = random.randn(*pixels.shape[:2], 1) * 3.5 + random.randn(*pixels.shape) * 2
    return Image.fromarray(np.clip(pixels * light[..., None] + noise, 0, 255).astype(np.uint8))


# --- backgrounds that several scenes share -----------------------------------------------------------------------


def crowd(random: RandomState, top: int, bottom: int, size: int) -> Iterator[str]:
    """Spectators, as dots."""
    for x, y, red, green, blue in random.uniform((0, top, 50, 40, 40), (WIDTH, bottom, 200, 180, 180), (900, 5)):
        yield f"oval {int(red):02x}{int(green):02x}{int(blue):02x} {x},{y} {x + size},{y + size * 1.2}"


def bushes(random: RandomState, y: float, size: int, colour: str) -> Iterator[str]:
    """A row of round trees."""
    for x in range(-60, WIDTH + 60, size):
        reach = size * random.uniform(0.7, 1.3)
        yield f"oval {shade(colour, random.uniform(0.8, 1.15))} {x - reach},{y - reach} {x + reach},{y + reach}"


def houses(random: RandomState, places: Iterable[tuple[int, int, str]], dark: str, lit: str) -> Iterator[str]:
    """House fronts, each (left, top, colour), with windows of which some are lit."""
    for left, top, colour in places:
        yield f"rect {colour} {left},{top} {left + 230},850"
        for x in range(left + 26, left + 190, 52):
            for y in range(top + 34, 780, 76):
                yield f"rect {lit if random.rand() < 0.3 else dark} {x},{y} {x + 28},{y + 44}"


def brick_wall(random: RandomState, brick: str) -> Image.Image:
    scene = fade("96908a", "786e6a")
    for row, y in enumerate(range(0, HEIGHT, 42)):
        for x in range(-100 + 50 * (row % 2), WIDTH, 104):
            paint(scene, f"rect {shade(brick, random.uniform(0.8, 1.1))} {x},{y} {x + 96},{y + 35}")
    grain(scene, random, 20, (5, 5))
    return scene


def table(random: RandomState, wood: str) -> Image.Image:
    scene = fade(shade(wood, 1.15), shade(wood, 0.8))
    grain(scene, random, 30, (130, 6))
    paint(scene, *(f"line:5 {shade(wood, 0.5)} 0,{y} {WIDTH},{y + 14}" for y in (210, 455, 720)))
    return scene


# --- scenes: each returns what the camera sees ---------------------------------------------------------------------
# fmt: off


def jersey(random: RandomState) -> Image.Image:
    scene = fade("262a3e", "463e42")
    paint(scene, *crowd(random, 0, 640, 28), "rect b07a42 0,640 1280,960")
    scene = blur(scene, 11)
    paint(scene, *(f"line:118 70483a {640 + side * 330},330 {640 + side * 420},640 {640 + side * 380},970" for side in (-1, 1)))
    paint(scene, "round:60 6a4234 555,60 725,330; oval 7c523a 515,-190 765,150")
    cloth = clear(860, 800)
    paint(cloth, "poly bc1628 110,60 285,10 360,130 500,130 575,10 750,60 800,260 760,800 100,800 60,260")
    paint(cloth, "line:18 f5f5f5 275,10 358,134 502,134 585,10; line:18 141414 112,60 60,265; line:18 141414 748,60 800,265")
    write(cloth, "fafafa", (430, 205, 62, "CHICAGO"))
    write(cloth, "fafafa", (430, 315, 150, "BULLS"), (430, 555, 330, "23"), edge="141414", gap=0.1)
    place(scene, cloth, "215,190 1075,215 1045,1010 245,1000")
    for x in (330, 520, 845, 960):
        glow(scene, "3c000a", (x, 480, x + 34, 1010), 90, 18)
    return scene


def road_sign(random: RandomState) -> Image.Image:
    scene = fade("6ca4de", "e4ecf0")
    for x, y in ((150, 120), (330, 60), (1150, 70)):
        glow(scene, "ffffff", (x - 160, y - 26, x + 160, y + 34), 170, 22)
    paint(scene, "poly 6a8a58 0,560 260,500 560,580 900,490 1280,560 1280,960 0,960", *bushes(random, 640, 56, "4a7846"))
    paint(scene, "poly 62804a 0,620 1280,610 1280,960 0,960")
    grain(scene, random, 22, (4, 7), top=480)
    paint(scene, "poly 5c5c60 560,610 640,610 980,960 -60,960; line:3 e8e8e0 566,612 0,935; line:3 e8e8e0 636,612 950,960")
    paint(scene, "poly ecd678 590,650 596,650 580,700 572,700; poly ecd678 562,740 572,740 538,830 520,830; "
                 "poly ecd678 500,880 522,880 480,970 445,970; rect 868a8c 470,180 496,800; rect 868a8c 1020,180 1046,800")
    sign = clear(900, 470)
    paint(sign, "round:40 f0f4f0 0,0 899,469; round:30 0c6842 12,12 887,457; line:5 f0f4f0 50,180 850,180")
    paint(sign, "line:16 f6f8f6 740,410 820,330; poly f6f8f6 845,305 838,368 782,312")
    write(sign, "f6f8f6", (450, 105, 92, "CLARKE COUNTY"), (400, 260, 72, "University of Georgia"), (300, 385, 60, "EXIT ONLY"))
    place(scene, sign, "335,105 1165,160 1160,570 340,560")
    return scene


def concert_poster(random: RandomState) -> Image.Image:
    scene = brick_wall(random, "8e4a3a")
    paper = fade("44105c", "d63c60", 620, 860)
    veil(paper, *(f"poly fff0be2e {x},270 {(x + 310) / 2 - 60},760 {(x + 310) / 2 + 60},760" for x in (60, 210, 410, 560)))
    paint(paper, "oval 100818 275,330 345,410; poly 100818 250,430 370,430 350,570 385,740 325,740 310,610 295,740 235,740 270,570; "
                 "line:26 100818 262,445 170,330 205,300; line:12 100818 365,450 410,520 372,440 395,380")
    paint(paper, *(f"oval 180820 {x},{700 + 20 * math.sin(x)} {x + 62},800" for x in range(-20, 640, 44)))
    paint(paper, "rect 180820 0,745 620,860")
    write(paper, "ffe278", (310, 105, 132, "QUEEN"), (310, 800, 56, "ROCK BAND LIVE"))
    write(paper, "fff4e6", (310, 220, 52, "BOHEMIAN RHAPSODY"))
    notice = fade("dcd2be", "c8bea6", 330, 420)
    paint(notice, *(f"line:12 786f64 30,{y} {240 + y % 60},{y}" for y in (60, 110, 160, 210)))
    place(scene, notice, "905,330 1190,300 1240,700 930,720", shadow=6)
    place(scene, paper, "330,60 850,90 900,860 295,890", shadow=10)
    return scene


def planetarium(random: RandomState) -> Image.Image:
    scene = fade("080a22", "1e1a3e")
    for x, y, size in zip(random.uniform(0, WIDTH, 260), random.uniform(0, 760, 260), random.exponential(1.8, 260), strict=True):
        paint(scene, f"oval e6e8fa {x},{y} {x + size + 1},{y + size + 1}")
    glow(scene, "ff9628", (-210, 60, 330, 600), 200, 60)
    for reach, size, colour in ((460, 20, "b0a8a0"), (640, 34, "debe82"), (840, 36, "568ed6"), (1040, 28, "cc603e")):
        veil(scene, f"ring:3 8c8cb480 {60 - reach},{330 - reach * 0.62} {60 + reach},{330 + reach * 0.62}")
        x, y = 60 + reach * math.cos(-0.42), 330 + reach * 0.62 * math.sin(-0.42)
        paint(scene, f"oval {colour} {x - size},{y - size} {x + size},{y + size}")
        veil(scene, f"oval 00000050 {x - size * 0.2},{y - size} {x + size},{y + size}")
    paint(scene, "oval ffce5c -150,120 270,540")
    paint(scene, *(f"round:30 100c1a {x},850 {x + 120},1000; oval 0a0812 {x + 25},770 {x + 95},850" for x in range(-30, WIDTH, 150)))
    panel = fade("e8ecf8", "c4cee8", 800, 400)
    paint(panel, "box:12 283c78 0,0 799,399")
    write(panel, "182460", (400, 95, 78, "SMALLEST PLANET"), (400, 205, 68, "closest to the Sun"))
    write(panel, "b04614", (400, 310, 68, "SOLAR SYSTEM"))
    place(scene, panel, "450,395 1180,360 1190,750 460,760", shadow=18)
    return scene


def record_shop(random: RandomState) -> Image.Image:
    scene = brick_wall(random, "606870")
    paint(scene, "rect 8a8680 0,830 1280,960; rect 1c4634 90,150 1190,850; rect 342e28 150,330 830,770")
    glow(scene, "ffd68c", (200, 320, 780, 620), 150, 60)
    paint(scene, "rect 143226 890,330 1130,850; rect 285c44 898,338 1122,850; rect 96b0b4 920,360 1100,640; oval d2b054 906,690 930,714")
    for x, colour in ((255, "be3428"), (405, "dcaa3c"), (550, "78508c"), (700, "3c6eaa")):
        paint(scene, f"oval 0e0e10 {x - 72},608 {x + 72},752; oval {colour} {x - 24},656 {x + 24},704")
        paint(scene, *(f"ring:2 303034 {x - reach},{680 - reach} {x + reach},{680 + reach}" for reach in (60, 48, 36)))
    board = fade("ece2c4", "dcd2b0", 1040, 120)
    write(board, "1c4634", (520, 62, 76, "RECORD LABEL - LONDON"))
    place(scene, board, "115,175 1165,168 1165,285 115,292", shadow=8)
    poster = fade("f8f6f0", "e0dcce", 560, 240)
    write(poster, "1a1a1e", (280, 75, 76, "THE BEATLES"))
    paint(poster, *(f"oval e0b496 {x - 24},138 {x + 24},194; oval 3c2a20 {x - 30},126 {x + 30},168; poly 3c405a {x - 44},240 {x - 30},196 {x + 30},196 {x + 44},240"
                    for x in (130, 230, 330, 430)))
    place(scene, poster, "215,352 770,360 765,590 220,596", shadow=6)
    for x in range(90, 1190, 100):
        paint(scene, f"poly {'f0ece2' if x // 100 % 2 else 'a42c28'} {x + 10},60 {x + 110},60 {x + 100},160 {x},160")
    veil(scene, "poly ffffff1a 150,770 150,640 400,330 520,330")
    return scene


def paper_map(random: RandomState) -> Image.Image:
    scene = table(random, "865c3a")
    paper = fade("f0ead0", "eae2c4", 1000, 740)
    for x, y, size in random.uniform((0, 0, 30), (1000, 740, 110), (26, 3)):
        paint(paper, f"oval d6e2b8 {x - size},{y - size * 0.7} {x + size},{y + size * 0.7}")
    paint(paper, "line:14 7ab0d6 " + " ".join(f"{x},{420 + 70 * math.sin(x / 90) + x * 0.16:.1f}" for x in range(-20, 1040, 20)))
    for colour, road in (("de843c", "0,620 330,470 640,480 1000,300"), ("ce5446", "480,0 500,330 560,480 590,740"), ("ecce6e", "0,300 250,380 560,480 1000,560")):
        paint(paper, f"line:14 786450 {road}; line:9 {colour} {road}")
    paint(paper, *(f"line:5 966e96 {x},205 {x + 20},203" for x in range(0, 1000, 36)))
    paint(paper, "oval 282828 538,458 582,502; oval fafaf6 545,465 575,495; ring:8 c81e28 505,425 615,535")
    write(paper, "40342e", (500, 115, 84, "BOURBON COUNTY"), gap=0.08)
    write(paper, "6e3c5a", (245, 268, 64, "KENTUCKY"), gap=0.1)
    write(paper, "286096", (790, 660, 52, "Stoner Creek"))
    veil(paper, *(f"rect 3c321e{opacity} {x},0 {x + 125},740; rect 82785a80 {x - 2},0 {x + 1},740" for x, opacity in ((250, "1c"), (500, "0c"), (750, "1c"))))
    veil(paper, "rect ffffff1e 0,0 1000,370; rect 82785a60 0,369 1000,371")
    place(scene, paper, "120,90 1110,50 1200,850 60,880")
    paint(scene, "line:24 e2b028 1060,945 1260,600; poly f0d6aa 1049,935 1071,950 1040,976")
    return scene


def museum_plate(random: RandomState) -> Image.Image:
    scene = fade("68302e", "4a2022")
    grain(scene, random, 14, (7, 7))
    paint(scene, *(f"rect {colour} {210 + inset},{20 + inset} {1070 - inset},{570 - inset}"
                   for inset, colour in ((0, "7e5c22"), (14, "d4aa52"), (40, "9c742e"), (58, "e8c470"))))
    painting = fade("c4aa6e", "624c3c", 720, 410)
    for x, y, light in random.uniform((-40, 0, 0.8), (720, 410, 1.2), (900, 3)):
        paint(painting, f"line:9 {shade('d6be82' if y < 190 + 60 * math.sin(x / 140) else '74583e', light)} {x},{y} {x + 60},{y - 34}")
    paint(painting, "poly 462e24 330,190 372,184 720,350 720,410 520,410; oval 221816 318,170 388,244; rect 221816 338,130 356,180")
    painting = blur(painting, 5)
    glow(painting, "ffbe5a", (334, 200, 368, 232), 230, 5)
    glow(painting, "f6f0e2", (240, 60, 350, 130), 170, 18)
    scene.alpha_composite(painting, (280, 90))
    plate = fade("e2be6c", "a87e36", 900, 300)
    grain(plate, random, 16, (90, 2))
    paint(plate, "box:5 78561e 10,10 889,289", *(f"oval 60461c {x - 12},{y - 12} {x + 12},{y + 12}" for x in (36, 864) for y in (36, 264)))
    for shift, colour in ((2, "fae2a0"), (0, "3e280c")):  # a light edge below dark letters looks engraved
        write(plate, colour, (450 + shift, 85 + shift, 62, "RAIN, STEAM AND SPEED"), (450 + shift, 165 + shift, 58, "English painter"),
              (450 + shift, 235 + shift, 54, "oil on canvas"))
    place(scene, plate, "190,645 1085,625 1105,900 180,915", shadow=10)
    glow(scene, "fff6d6", (230, 640, 560, 760), 70, 50)
    return scene


def zoo_board(random: RandomState) -> Image.Image:
    scene = fade("aacce2", "e2e8d6")
    paint(scene, *bushes(random, 430, 70, "547046"), "rect 96924e 0,430 1280,960")
    grain(scene, random, 26, (4, 12), top=340)
    paint(scene, "line:30 3a261a 140,380 136,560; line:30 4a3020 200,380 206,560; line:30 3a261a 330,380 336,560; line:30 3a261a 392,380 386,560")
    paint(scene, "oval 5c3e28 84,262 330,450; oval 5c3e28 150,214 420,440; oval 4a3020 250,180 450,440; oval 3a261a 330,250 480,440; "
                 "oval 3a261a 400,300 496,444; poly 3a261a 420,410 480,410 452,490; line:10 e2d6be 440,290 462,258 452,236; "
                 "oval e2d6be 448,336 460,348; line:9 3a261a 95,335 66,400 74,450")
    paint(scene, "rect 70583e 0,560 1280,584; rect 70583e 0,680 1280,704", *(f"rect 624c34 {x},510 {x + 36},800" for x in (60, 420, 1230)))
    paint(scene, "rect 563c26 640,600 680,960; rect 563c26 1070,600 1110,960")
    board = fade("684a2c", "5c4026", 740, 520)
    grain(board, random, 24, (110, 4))
    paint(board, "round:20 2a543a 28,28 712,492")
    write(board, "faf0c4", (370, 110, 88, "BISON BISON"), (370, 415, 66, "NORTH AMERICA"))
    write(board, "f6f6ec", (370, 220, 62, "grazing mammal"), (370, 315, 62, "of the prairie"))
    place(scene, board, "520,205 1205,165 1210,690 530,680")
    return scene


def book_cover(random: RandomState) -> Image.Image:
    scene = table(random, "b28c62")
    glow(scene, "1e1208", (930, 50, 1290, 400), 120, 26)
    paint(scene, *(f"oval {colour} {1090 - reach},{200 - reach} {1090 + reach},{200 + reach}"
                   for reach, colour in ((170, "eceae4"), (122, "d6d2ca"), (104, "fafaf8"), (90, "4a2c1a"))))
    glow(scene, "1e1208", (300, 820, 970, 960), 150, 22)
    paint(scene, "poly eee6d0 318,836 905,896 925,866 940,100 962,118 950,905 900,932 318,872",
          *(f"line:2 c4b89c 320,{842 + step * 7} 903,{902 + step * 6} 946,{870 + step * 8} 958,130" for step in range(5)))
    cover = fade("184a6c", "0c2846", 600, 800)
    grain(cover, random, 12, (3, 3))
    paint(cover, "box:6 deb862 24,24 575,775; oval f0e2b4 330,330 480,480; poly 5c3622 130,560 420,560 380,630 180,630")
    for x, height in ((200, 120), (280, 180), (360, 130)):
        paint(cover, f"line:8 3c2418 {x},560 {x},{560 - height}; poly f6f0de {x - 38},545 {x - 30},{570 - height} {x + 44},{590 - height} {x + 40},545")
    for y in (640, 666, 692):
        paint(cover, "line:6 7eb2d0 " + " ".join(f"{x},{y + 8 * math.sin(x / 22 + y):.1f}" for x in range(40, 562, 6)))
    write(cover, "f4de9c", (300, 120, 88, "GULLIVER'S"), (300, 230, 98, "TRAVELS"), (300, 738, 46, "a novel of Lilliput"))
    place(scene, cover, "355,65 935,95 900,895 305,835", shadow=6)
    paint(scene, "line:22 2c303c 90,820 235,250; line:12 d2b45a 100,780 90,826")
    return scene


def terminal(random: RandomState) -> Image.Image:
    scene = fade("424a54", "282830")
    glow(scene, "ffdeaa", (820, -160, 1420, 420), 130, 90)
    paint(scene, "rect 6e543e 0,740 1280,960; poly 3a3c40 560,700 730,700 760,830 530,830; oval 46484c 460,800 830,862")
    screen = fade("18181a", "18181a", 960, 600)
    paint(screen, "rect 0c141c 22,22 937,577; rect 323842 22,22 937,64; rect 7ee28c 60,540 90,566; "
                  "oval ec6054 39,32 61,54; oval f0be46 73,32 95,54; oval 60c45a 107,32 129,54")
    write(screen, "7ee28c", (60, 125, 56, ">>> help()"), (60, 395, 56, ">>> import this"), left=True)
    write(screen, "f0f0ec", (60, 215, 56, "programming language"), (60, 305, 56, "indentation, readable code"), left=True)
    write(screen, "84aace", (60, 485, 52, "Explicit is better than implicit."), left=True)
    place(scene, screen, "150,75 1110,105 1100,715 165,720")
    keyboard = fade("c8cacc", "b8babc", 900, 200)
    paint(keyboard, *(f"round:8 3e4046 {x},{y} {x + 50},{y + 40}" for x in range(12, 860, 59) for y in range(10, 190, 47)))
    place(scene, keyboard, "290,845 1010,840 1080,985 240,990", shadow=10)
    paint(scene, "ring:18 c44636 30,790 130,890; round:16 c44636 75,760 195,925; oval c44636 75,745 195,782; oval 3c2218 85,750 185,778")
    return scene


def marquee(random: RandomState) -> Image.Image:
    scene = fade("10122c", "34243e")
    paint(scene, *houses(random, ((-20, 180, "1e1c2e"), (190, 90, "262338"), (930, 130, "1e1c2e"), (1100, 60, "262338")), "2c2c42", "ecc86e"))
    paint(scene, "rect 7a222c 240,120 1040,860; rect ecbe78 330,640 950,860; rect 26242e 0,850 1280,960",
          *(f"rect e2b85a {x},660 {x + 118},860; rect 50281e {x + 6},666 {x + 112},860; rect e2b85a {x + 96},760 {x + 102},790" for x in (350, 505, 660, 815)))
    for x in (380, 560, 760, 930):
        glow(scene, "ffbe6e", (x - 46, 850, x + 46, 980), 150, 24)
    paint(scene, "poly ffd882 640,0 742,250 538,250; poly ce2c3c 640,28 728,246 552,246")
    glow(scene, "ffbe78", (120, 160, 1160, 720), 110, 60)
    board = fade("961a24", "80141e", 1000, 430)
    paint(board, "rect fcf6e2 46,46 953,383; line:5 c4beaa 46,158 953,158; line:5 c4beaa 46,270 953,270",
          *(f"oval ffeca0 {x - 13},{y - 13} {x + 13},{y + 13}" for x in range(23, 1000, 53) for y in (23, 407)))
    write(board, "b01824", (500, 102, 82, "MUSICAL FILM"))
    write(board, "1a1a1e", (500, 214, 82, "RICHARD GERE"), (500, 327, 82, "ROXIE AND VELMA"))
    place(scene, board, "140,205 1130,245 1120,625 150,650", shadow=18)
    paint(scene, *(f"oval 0e0c14 {x - 24},{y - 54} {x + 24},{y - 2}; round:36 0e0c14 {x - 42},{y} {x + 42},1000"
                   for x, y in ((180, 734), (300, 754), (1010, 722), (1100, 744))))
    return scene


def playbill(random: RandomState) -> Image.Image:
    scene = fade("600e18", "340810")
    for x in range(-40, WIDTH, 96):
        glow(scene, "b02430", (x, -100, x + 34, 1060), int(random.uniform(110, 170)), 16)
    paint(scene, *(f"oval 8c6828 {x - 70},-90 {x + 70},130; oval cea650 {x - 64},-90 {x + 64},123" for x in range(30, WIDTH, 130)))
    paint(scene, "rect c49c48 0,0 1280,60; rect 4a3224 0,880 1280,960; rect 46464a 620,820 660,960")
    bill = fade("eee0b8", "e2d2a4", 760, 860)
    grain(bill, random, 12, (6, 6))
    paint(bill, "box:40 c49842 0,0 759,859; box:6 3c1e18 60,60 699,799; box:2 3c1e18 72,72 687,787; "
                "poly 3c2c24 255,495 300,492 315,425 445,425 460,492 505,495 480,514 280,514; ring:8 3c2416 350,516 410,576; "
                "round:10 3c2416 305,538 455,634; round:8 70482a 311,544 449,628; line:4 3c2416 311,570 449,570")
    write(bill, "3c1e18", (380, 130, 48, "PLAYWRIGHT'S NIGHT"), (380, 760, 38, "drama on Broadway"))
    write(bill, "96181c", (380, 245, 94, "DEATH OF"), (380, 355, 90, "A SALESMAN"))
    write(bill, "18284c", (380, 695, 78, "THE CRUCIBLE"))
    place(scene, bill, "290,85 960,120 985,855 270,880", shadow=20)
    glow(scene, "ffecbe", (330, 60, 700, 420), 60, 70)
    return scene


def bus(random: RandomState) -> Image.Image:
    scene = fade("96aabe", "ceccc6")
    paint(scene, *houses(random, ((-40, 120, "965c4a"), (200, 220, "b09678"), (960, 200, "a68e74"), (1100, 90, "8a5446")), "546270", "e2dcd0"))
    paint(scene, "rect 5c5c60 0,800 1280,960")
    scene = blur(scene, 7)
    glow(scene, "141418", (180, 820, 1100, 960), 190, 24)
    body = clear(900, 900)
    paint(body, "round:70 e8e8e2 10,10 890,850; rect c4941e 10,610 890,720; round:40 28343e 50,220 850,600; rect 141416 110,845 220,895; rect 141416 680,845 790,895; "
                "oval 3c2e28 190,350 290,470; round:40 22305c 150,460 330,598; "
                "line:12 14181c 450,225 450,600; line:6 14181c 200,600 380,500; line:6 14181c 560,600 740,490; "
                "round:14 18181c 1,250 49,400; round:14 18181c 851,250 899,400; round:18 0e0e10 60,45 840,205; rect f6f6f0 500,500 810,590",
          *(f"oval 787878 {x - 56},735 {x + 56},835; oval faf6d6 {x - 48},743 {x + 48},827" for x in (130, 770)))
    veil(body, "poly a0c0d038 90,598 300,225 420,225 210,598")
    body.alpha_composite(lamps("HARVARD SQUARE", 146, "ffb028").resize((740, 130)), (80, 60))
    write(body, "1c1c22", (450, 667, 72, "MASSACHUSETTS"))
    write(body, "96141e", (655, 547, 62, "BOSTON"))
    place(scene, body, "215,35 1055,75 1040,925 200,935")
    return scene


def statue(random: RandomState) -> Image.Image:
    scene = fade("c4d2e0", "e6e4d6")
    paint(scene, *bushes(random, 480, 120, "6e8c5a"), *bushes(random, 590, 90, "5a7c4a"), "rect 768e52 0,620 1280,960; poly c8bea6 0,700 1280,680 1280,800 0,830")
    grain(scene, random, 20, (5, 8), top=330)
    scene = blur(scene, 5)
    for shift, bronze in ((0, "2c3832"), (-7, "485c50")):  # the dark copy behind gives the rider thickness
        rider = clear()
        paint(rider, *(f"line:26 {bronze} {leg}" for leg in ("520,360 500,440 515,520", "560,360 575,440 560,520", "745,350 790,390 770,450", "725,360 715,450 730,520")))
        paint(rider, f"poly {bronze} 490,310 530,265 700,275 760,235 800,155 830,170 885,230 868,256 815,238 790,350 700,385 540,380; "
                     f"line:24 {bronze} 495,300 455,350 450,440; poly {bronze} 600,280 596,170 640,144 684,170 690,280 705,390 672,390 650,300; "
                     f"line:22 {bronze} 670,180 740,210 778,250; oval {bronze} 616,96 668,152; poly {bronze} 578,118 600,88 642,72 684,88 706,118 642,102")
        scene.alpha_composite(ImageChops.offset(rider, shift, shift))
    paint(scene, "rect cec8bc 400,518 900,560; poly bab4a8 430,560 870,560 890,910 410,910; poly 8c867c 870,560 930,575 950,890 890,910; poly c8c2b6 340,900 960,900 1010,960 290,960")
    plaque = fade("745834", "523c24", 720, 440)
    paint(plaque, "box:7 ceac68 14,14 705,425")
    write(plaque, "f2d898", (360, 100, 62, "SEVENTH PRESIDENT"), (360, 220, 51, "BATTLE OF NEW ORLEANS"), (360, 335, 66, "WAR OF 1812"))
    place(scene, plaque, "440,588 862,584 870,850 434,858", shadow=4)
    return scene


def scoreboard(random: RandomState) -> Image.Image:
    scene = fade("161e42", "54506e")
    paint(scene, "poly 32303c 0,560 1280,520 1280,760 0,780", *crowd(random, 560, 750, 15))
    paint(scene, *(f"rect {'2e703a' if row % 2 else '3a8042'} 0,{760 + row * 34} 1280,{794 + row * 34}" for row in range(6)))
    paint(scene, "poly ac7a4c 640,800 1010,960 270,960; poly f6f6f0 640,790 664,803 640,816 616,803; rect 3c3e46 330,500 354,760; rect 3c3e46 930,500 954,760")
    scene = blur(scene, 4)
    for x in (90, 1190):
        paint(scene, f"rect 464850 {x - 8},120 {x + 8},640")
        for lamp in range(6):
            left, top = x - 86 + 46 * (lamp % 3), 50 + 44 * (lamp // 3)
            glow(scene, "fffce6", (left, top, left + 80, top + 60), 210, 14)
    board = fade("18285c", "101c44", 1000, 560)
    paint(board, "box:8 d2d6e0 10,10 989,549")
    for y, colour, line in ((35, "ffd23c", "BASEBALL"), (205, "ffffff", "ARLINGTON TEXAS"), (375, "ff5a46", "HOME 5 GUEST 3")):
        board.alpha_composite(lamps(line, 150, colour).resize((920, 150)), (40, y))
    place(scene, board, "195,95 1080,70 1075,570 205,590", shadow=10)
    return scene


def election_poster(random: RandomState) -> Image.Image:
    scene, fence = fade("b8cee0", "d6dcd6"), clear()
    paint(scene, *bushes(random, 330, 110, "7c9c78"), "rect 60864a 0,330 1280,960")
    scene = blur(scene, 8)
    for x in range(-20, WIDTH, 118):
        paint(fence, f"poly {shade('aa967c', random.uniform(0.88, 1.1))} {x},180 {x + 54},110 {x + 108},180 {x + 108},880 {x},880")
    grain(fence, random, 24, (5, 80))
    scene.alpha_composite(fence)
    for x, lean, height in zip(range(0, WIDTH, 8), random.uniform(-26, 26, 160), random.uniform(50, 130, 160), strict=True):
        paint(scene, f"poly {shade('46783c', 0.6 + height / 200)} {x - 7},960 {x + lean},{930 - height} {x + 13},960")
    poster = fade("faf8f0", "e8e4d8", 720, 700)
    paint(poster, "rect 183070 0,0 720,130", *(f"poly dec4c4 {x},150 {x + 38},150 {x - 92},530 {x - 130},530" for x in range(140, 720, 76)))
    paint(poster, "poly 2e3650 170,540 200,452 310,410 410,410 520,452 550,540; poly f8f8f8 318,412 402,412 360,540; poly b21c2a 348,430 372,430 380,510 360,540 340,510; "
                  "rect ce9e7e 326,360 394,424; oval 967854 270,176 450,360; oval deb08e 280,206 440,396; oval 967854 276,180 444,246; "
                  "oval 2c2422 316,274 334,288; oval 2c2422 386,274 404,288; line:5 7a6040 308,258 340,254; line:5 7a6040 380,254 412,258; "
                  "line:7 c4906e 360,284 352,324 368,324; line:7 964640 330,346 348,356 372,356 390,346; rect b21c2a 0,530 720,700")
    write(poster, "fafafa", (360, 66, 66, "REPUBLICAN PARTY"), (360, 590, 88, "PRESIDENT"), (360, 664, 52, "1976"))
    place(scene, poster, "285,130 985,95 1010,790 300,830", shadow=8)
    paint(scene, *(f"oval 6e7074 {x - 8},{y - 8} {x + 8},{y + 8}" for x, y in ((300, 150), (970, 116), (996, 770), (312, 808))))
    return scene


# --- from scenes to files ----------------------------------------------------------------------------------------

SCENES = {scene.__name__.replace("_", "-"): scene for scene in (
    jersey, road_sign, concert_poster, planetarium, record_shop, paper_map, museum_plate, zoo_board,
    book_cover, terminal, marquee, playbill, bus, statue, scoreboard, election_poster,
)}
# fmt: on


def draw(name: str) -> bytes:
    """The picture of one scene, as a JPEG file.  The seed is made from the name."""
    random = RandomState(int.from_bytes(name.encode(), "big") % 2**32)
    file = io.BytesIO()
    photograph(SCENES[name](random), random).save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()


def same_picture(committed: bytes, drawn: bytes) -> bool:
    """Whether two JPEGs decode to the same picture: block by block, since encoders differ by a shade."""
    first, second = (
        np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=float) for file in (committed, drawn)
    )
    if first.shape != second.shape:
        return False
    blocks = np.abs(first - second).reshape(first.shape[0] // BLOCK, BLOCK, first.shape[1] // BLOCK, BLOCK, 3)
    return bool(blocks.mean(axis=(1, 3, 4)).max() <= BLOCK_TOLERANCE)


def differences() -> list[str]:
    """Every committed file that does not fit this script."""
    wrong = []
    for name in SCENES:
        path = FOLDER / f"{name}.jpg"
        if not path.is_file():
            wrong.append(f"{path.name} is missing")
        elif not same_picture(path.read_bytes(), draw(name)):
            wrong.append(f"{path.name} is not what this script draws")
    asked = {json.loads(line)["image"] for line in (FOLDER / "examples.jsonl").read_text(encoding="utf-8").splitlines()}
    known = {f"{name}.jpg" for name in SCENES}
    wrong += [f"{name} is drawn, but no question uses it" for name in sorted(known - asked)]
    strangers = (asked | {path.name for path in FOLDER.glob("*.jpg")}) - known
    return wrong + [f"{name} is drawn by no scene" for name in sorted(strangers)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures of examples/examples.jsonl.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the committed files differ")
    if parser.parse_args().check:
        wrong = differences()
        for line in wrong:
            print(f"examples: {line} (to draw again: python scripts/draw_examples.py)", file=sys.stderr)
        return 1 if wrong else 0
    for name in SCENES:
        (FOLDER / f"{name}.jpg").write_bytes(draw(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
