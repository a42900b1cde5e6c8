"""Writing in a picture is read by the real reader: what is there, in order, clean, and else nothing."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from localmel.engines.pictures import Picture, open_picture
from localmel.generate.visible_text import _printable, visible_lines
from localmel.settings import GenerateSettings

SETTINGS = GenerateSettings()


def drawn(lines: list[str], folder: Path, *, blur: float = 0.0, turn: int = 0) -> Picture:
    image = Image.new("RGB", (720, 110 * max(len(lines), 1) + 40), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=64)
    for number, line in enumerate(lines):
        draw.text((30, 30 + 110 * number), line, fill="black", font=font)
    image = image.filter(ImageFilter.GaussianBlur(blur)).rotate(turn, expand=True, fillcolor="white")
    image.save(folder / "drawn.png")
    return open_picture(folder / "drawn.png")


def test_the_lines_of_a_picture_are_read_from_top_to_bottom(tmp_path: Path) -> None:
    found = visible_lines(drawn(["CHICAGO BULLS", "Jordan 23", "Athens"], tmp_path), SETTINGS)
    assert [line.text for line in found] == ["CHICAGO BULLS", "Jordan 23", "Athens"]
    assert all(SETTINGS.least_confidence <= line.confidence <= 1 for line in found)


def test_a_picture_without_writing_has_no_lines(tmp_path: Path) -> None:
    assert visible_lines(drawn([], tmp_path), SETTINGS) == ()


@pytest.mark.parametrize("size", [(1, 1), (2, 2000), (2000, 2), (40, 40)])
def test_a_picture_of_any_shape_is_looked_at_without_harm(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (90, 120, 30)).save(tmp_path / "odd.png")
    assert visible_lines(open_picture(tmp_path / "odd.png"), SETTINGS) == ()


def test_a_long_strip_is_read_and_does_not_take_forever(
    tmp_path: Path, in_proportion: Callable[[float], float]
) -> None:
    image = Image.new("RGB", (2000, 60), "white")
    ImageDraw.Draw(image).text((900, 6), "ATHENS", fill="black", font=ImageFont.load_default(size=40))
    image.save(tmp_path / "strip.png")
    started = time.monotonic()
    found = visible_lines(open_picture(tmp_path / "strip.png"), SETTINGS)
    assert [line.text for line in found] == ["ATHENS"]
    assert time.monotonic() - started < in_proportion(30)


def test_lines_the_reader_is_unsure_of_are_left_out(tmp_path: Path) -> None:
    picture = drawn(["LONDON"], tmp_path)
    (line,) = visible_lines(picture, SETTINGS)
    assert visible_lines(picture, replace(SETTINGS, least_confidence=min(line.confidence + 1e-6, 1.1))) == ()
    assert visible_lines(picture, replace(SETTINGS, least_confidence=line.confidence)) == (line,)


def test_signs_without_a_letter_or_digit_are_no_writing(tmp_path: Path) -> None:
    found = visible_lines(drawn(["- - -", "ROMA", "????"], tmp_path), replace(SETTINGS, least_confidence=0.0))
    assert "ROMA" in [line.text for line in found]
    assert all(any(char.isalnum() for char in line.text) for line in found)


def test_of_too_many_lines_the_surest_are_kept_in_their_order(tmp_path: Path) -> None:
    picture = drawn(["ONE", "TWO", "THREE", "FOUR"], tmp_path, blur=1.5)
    every = visible_lines(picture, SETTINGS)
    assert len(every) == 4
    two = visible_lines(picture, replace(SETTINGS, most_lines=2))
    surest = sorted(every, key=lambda line: -line.confidence)[:2]
    assert list(two) == [line for line in every if line in surest]


def test_the_same_picture_gives_the_same_lines(tmp_path: Path) -> None:
    picture = drawn(["PARIS", "Bourbon County"], tmp_path)
    assert visible_lines(picture, SETTINGS) == visible_lines(picture, SETTINGS)


@given(st.text())
def test_no_control_character_comes_through(text: str) -> None:
    clean = _printable(text)
    assert not any(unicodedata.category(char).startswith("C") for char in clean)
    assert clean == " ".join(clean.split())
    assert all(char in text for char in clean if char != " ")
