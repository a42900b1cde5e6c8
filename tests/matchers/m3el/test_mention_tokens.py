"""Mentions as a matcher sees them: encoded once, kept, and made again where a text or a picture has changed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from localmel.encode.mention_inputs import mention_text
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.engines.pictures import Picture
from localmel.matchers.m3el import mention_tokens
from localmel.matchers.m3el.mention_tokens import mention_features
from localmel.matchers.protocol import Features, FeatureTable
from localmel.records import Mention, Span
from localmel.store.progress import Listener, listening
from tests.matchers.hashed_tokens import HashedTokens, token_encoders


class Corners:
    """A picture is its mean colour, its patches are its two halves."""

    image_space = Space(name="corners", width=3, weights_sha256="3" * 64)
    patch_width = 3

    def encode_images(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> NDArray[Any]:
        rows = [np.asarray(picture.image.convert("RGB"), np.float32).mean(axis=(0, 1)) / 255 for picture in pictures]
        return np.array(rows, np.float32).reshape(-1, 3)

    def patches(
        self, pictures: Iterable[Picture], on_pictures: Callable[[int], None] = lambda _: None
    ) -> list[NDArray[Any]]:
        halves = [np.array_split(np.asarray(one.image.convert("RGB"), np.float32) / 255, 2) for one in pictures]
        return [np.array([half.mean(axis=(0, 1)) for half in both], np.float16) for both in halves]


def mention(number: int, image: Path | None = None) -> Mention:
    context = f"Byron wrote program number {number}"
    return Mention(id=str(number), surface="Byron", context=context, span=Span(start=0, end=5), image=image)


def seen(table: FeatureTable) -> Features:
    return table.of(np.arange(len(table)))


def coloured(path: Path, colour: tuple[int, int, int]) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, format="PNG")
    path.write_bytes(file.getvalue())
    return path


def test_a_row_holds_the_text_of_its_mention_and_its_words() -> None:
    encoder = HashedTokens()
    mentions = [mention(1), mention(2), mention(1)]
    found = seen(mention_features(mentions, token_encoders(encoder)))
    np.testing.assert_allclose(found.text, encoder.encode([mention_text(one) for one in mentions]), atol=1e-6)
    np.testing.assert_array_equal(found.words[0], found.words[2])
    assert found.is_word.sum(dim=1).tolist() == [6, 6, 6]
    assert len(encoder.texts) == 2  # each different text once


def test_what_is_kept_is_the_same_and_is_not_made_again(tmp_path: Path) -> None:
    mentions = [mention(number) for number in range(5)]
    first = seen(mention_features(mentions, token_encoders(), folder=tmp_path / "train"))
    never = HashedTokens(stop_after=0)
    again = seen(mention_features(mentions, token_encoders(never), folder=tmp_path / "train"))
    assert never.texts == []
    np.testing.assert_array_equal(first.words, again.words)
    np.testing.assert_array_equal(first.text, seen(mention_features(mentions, token_encoders())).text)
    changed = [*mentions[:4], mention(9)]
    made = seen(mention_features(changed, token_encoders(), folder=tmp_path / "train"))
    assert not np.array_equal(made.words, first.words)


def test_a_run_that_was_stopped_goes_on_behind_its_last_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mention_tokens, "_AT_ONCE", 2)
    mentions = [mention(number) for number in range(5)]
    with pytest.raises(KeyboardInterrupt):
        mention_features(mentions, token_encoders(HashedTokens(stop_after=3)), folder=tmp_path / "train")
    encoder, heard = HashedTokens(), list[int]()
    with listening(Listener(on_done=heard.append)):
        found = mention_features(mentions, token_encoders(encoder), folder=tmp_path / "train")
    assert len(encoder.texts) == 3
    assert sum(heard) == 5
    np.testing.assert_array_equal(seen(found).words, seen(mention_features(mentions, token_encoders())).words)


def test_no_mentions_are_a_table_without_rows(tmp_path: Path) -> None:
    assert len(mention_features([], token_encoders())) == 0
    assert len(mention_features([], token_encoders(), folder=tmp_path / "none")) == 0


def test_a_mention_without_a_readable_picture_has_none_and_a_changed_one_is_looked_at_again(tmp_path: Path) -> None:
    encoders = Encoders(text=HashedTokens(), image=Corners())
    red, broken = coloured(tmp_path / "red.png", (255, 0, 0)), tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    mentions = [mention(1, red), mention(2), mention(3, broken), mention(4, tmp_path / "gone.png"), mention(5, red)]
    found = seen(mention_features(mentions, encoders, folder=tmp_path / "train"))
    assert found.is_patch is not None
    assert found.image is not None
    assert found.is_patch.any(dim=1).tolist() == [True, False, False, False, True]
    assert found.image[0].tolist() == [1.0, 0.0, 0.0]
    assert found.image[1:4].abs().sum() == 0
    coloured(red, (0, 0, 255))
    again = seen(mention_features(mentions, encoders, folder=tmp_path / "train"))
    assert again.image is not None
    assert again.image[0].tolist() == [0.0, 0.0, 1.0]
    blind = seen(mention_features(mentions, replace(encoders, image=None), folder=tmp_path / "train"))
    assert blind.image is None
