"""Mentions as the network takes them: each text encoded once, each triple with its own relation and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from localmel.encode.mention_inputs import context_around, mention_text
from localmel.matchers.kgmel.mention_vectors import mention_arrays, mention_pictures, mention_texts
from localmel.records import Mention, Span, Triple
from tests.encode.colours import Colours


def a_mention(number: int, surface: str, text: str) -> Mention:
    start = text.index(surface)
    return Mention(id=str(number), surface=surface, context=text, span=Span(start=start, end=start + len(surface)))


class Remembering:
    """Gives every text the vector (number of the text, its length)."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        return np.array([[self.asked.index(text), len(text)] for text in texts], np.float32).reshape(len(texts), 2)


def test_vectors_and_triples_stand_in_the_rows_of_their_mentions() -> None:
    text = "Jordan, a river, meets Jordan Lake"
    mentions = [a_mention(0, "Jordan", text), a_mention(1, "Jordan Lake", text), a_mention(2, "Jordan", text)]
    stated = [
        [Triple(head="Jordan", relation="is", tail="a river", source="text")],
        [],
        [
            Triple(head="Jordan", relation="visible text", tail="a river", source="ocr"),
            Triple(head="Jordan", relation="is", tail="a river", source="text"),
            Triple(head="Jordan", relation="visible text", tail="CHICAGO", source="ocr"),
        ],
    ]
    encode = Remembering()
    vectors, triples = mention_arrays(mentions, stated, encode)
    assert len(encode.asked) == len(set(encode.asked)) == 2 + 2 + 2
    assert [encode.asked[int(row[0])] for row in vectors] == [mention_text(mention) for mention in mentions]
    found = [
        [
            (
                encode.asked[int(triples.relations[triples.pair_relation[pair]][0])],
                encode.asked[int(triples.tails[triples.pair_tail[pair]][0])],
            )
            for pair in triples.triples[start:end]
        ]
        for start, end in zip(triples.starts, triples.starts[1:], strict=False)
    ]
    assert found == [[(triple.relation, triple.tail) for triple in own] for own in stated]
    assert set(mention_texts(mentions, stated)) == set(encode.asked)


def test_mentions_without_triples_are_legal() -> None:
    vectors, triples = mention_arrays([a_mention(0, "Jordan", "Jordan")], [[]], Remembering())
    assert vectors.shape == (1, 2)
    assert triples.starts.tolist() == [0, 0]
    assert len(triples.triples) == len(triples.pair_tail) == 0


def test_mentions_of_one_picture_share_its_vector_and_without_an_image_encoder_there_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "teal").save(tmp_path / "teal.png")
    paths = [tmp_path / "teal.png", None, tmp_path / "missing.png", tmp_path / "teal.png"]
    mentions = [replace(a_mention(n, "Jordan", "Jordan"), image=path) for n, path in enumerate(paths)]
    encoder = Colours()
    found = mention_pictures(mentions, encoder)
    assert set(found) == {"image", "has_image"}
    assert found["has_image"].tolist() == [True, False, False, True]
    assert len(encoder.asked) == 1
    assert np.array_equal(found["image"][0], found["image"][3])
    assert found["image"][0].any()
    assert mention_pictures(mentions, None) == {}


def test_of_a_long_text_the_words_around_the_mention_are_kept() -> None:
    text = "before " * 200 + "Jordan" + " after" * 200
    around = context_around(a_mention(0, "Jordan", text))
    assert "before Jordan after" in around
    assert len(around) < 600
    assert set(around.split()) == {"before", "Jordan", "after"}  # no word is cut
    assert mention_text(a_mention(0, "Jordan", "Jordan runs")) == "Jordan: Jordan runs"
