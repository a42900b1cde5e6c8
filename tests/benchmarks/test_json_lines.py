"""A file of benchmark mentions becomes a Split, or an error that names its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.benchmarks.json_lines import read_split
from localmel.errors import BadInput, ImportProblem

ROW = {"id": "m1", "sentence": "Then Jordan met Jordan.", "mention": "Jordan", "answer": "Q41421"}


def written(folder: Path, *lines: dict[str, Any] | str | bytes) -> Path:
    path = folder / "wikimel-val.jsonl"
    texts = [line if isinstance(line, bytes | str) else json.dumps(line) for line in lines]
    path.write_bytes(b"".join((text if isinstance(text, bytes) else text.encode()) + b"\n" for text in texts))
    return path


def test_mentions_come_in_order_with_their_gold_and_nil(tmp_path: Path) -> None:
    split = read_split(written(tmp_path, ROW, {**ROW, "id": "m2", "answer": None, "answer_outside_kb": "Q9"}))
    assert split.name == "wikimel-val"
    assert [(mention.id, mention.surface, mention.span.start) for mention in split.mentions] == [
        ("m1", "Jordan", 5),
        ("m2", "Jordan", 5),
    ]
    assert split.gold == {"m1": "Q41421", "m2": None}


def test_blank_lines_and_the_mark_that_windows_puts_in_front_are_no_mentions(tmp_path: Path) -> None:
    first = b"\xef\xbb\xbf" + json.dumps(ROW).encode()
    split = read_split(written(tmp_path, first, "", "   ", {**ROW, "id": "m2"}, ""))
    assert [mention.id for mention in split.mentions] == ["m1", "m2"]


def test_a_mention_that_does_not_stand_in_its_sentence_is_put_in_front_of_it(tmp_path: Path) -> None:
    row = {**ROW, "mention": "Hermann Beckerath", "sentence": "Hermann von Beckerath spoke."}
    (mention,) = read_split(written(tmp_path, row)).mentions
    assert (mention.surface, mention.context) == (
        "Hermann Beckerath",
        "Hermann Beckerath: Hermann von Beckerath spoke.",
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a mention"),
        ("[]", "list, not an object"),
        ({**ROW, "id": "m9", "sentence": "half \ud800 a character"}, "character 5 of 'half"),
        ("null", "not a mention"),
        ("[" * 100_000, "not a mention"),
        (b"\xff\xfe", "not a mention"),
        ({key: ROW[key] for key in ("id", "sentence", "mention")}, "'answer'"),
        ({**ROW, "mention": ""}, "not a mention"),
        ({**ROW, "mention": 7}, "not a mention"),
        ({**ROW, "sentence": None}, "not a mention"),
        ({**ROW, "id": 7}, "id 7 or answer 'Q41421' is not a text"),
        ({**ROW, "id": "m9", "answer": ["Q1"]}, r"answer \['Q1'\] is not a text"),
        (ROW, "id 'm1' repeats"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, line: dict[str, Any] | str | bytes, said: str) -> None:
    with pytest.raises(ImportProblem, match=said) as caught:
        read_split(written(tmp_path, ROW, line, ROW))
    assert caught.value.line == 2
    assert caught.value.fact.startswith(f"{tmp_path / 'wikimel-val.jsonl'}:2: ")


def test_an_image_is_a_path_beside_the_file_or_none(tmp_path: Path) -> None:
    images = ["pictures/a.b.jpg", None, "", "./c.png"]
    rows = [{**ROW, "id": str(number), "image": image} for number, image in enumerate(images)]
    found = [mention.image for mention in read_split(written(tmp_path, *rows, {**ROW, "id": "4"})).mentions]
    assert found == [tmp_path / "pictures" / "a.b.jpg", None, None, tmp_path / "c.png", None]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("../secret.jpg", "leads out of the folder"),
        ("a/../../b.jpg", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("a\0.jpg", "leads out of the folder"),
        (7, "image 7 is not a text"),
        (["a.jpg"], "is not a text"),
        (False, "image False is not a text"),
    ],
)
def test_an_image_that_is_no_path_below_the_file_is_refused(tmp_path: Path, image: object, said: str) -> None:
    with pytest.raises(ImportProblem, match=said) as caught:
        read_split(written(tmp_path, ROW, {**ROW, "id": "m2", "image": image}))
    assert caught.value.line == 2


def test_a_blank_mention_is_kept_and_an_empty_one_is_not(tmp_path: Path) -> None:
    (mention,) = read_split(written(tmp_path, {**ROW, "mention": "\n\n"})).mentions
    assert mention.surface == "\n\n"
    with pytest.raises(ImportProblem, match="the mention is empty"):
        read_split(written(tmp_path, {**ROW, "mention": ""}))


def test_a_file_that_is_absent_is_bad_input(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(BadInput, match="no split"):
            read_split(path)


@given(sentence=st.text(), mention=st.text())
def test_any_mention_and_sentence_give_a_span_or_a_named_line(
    tmp_path_factory: pytest.TempPathFactory, sentence: str, mention: str
) -> None:
    path = written(tmp_path_factory.mktemp("split"), {**ROW, "sentence": sentence, "mention": mention})
    try:
        (found,) = read_split(path).mentions
    except ImportProblem:
        assert not mention.strip()
        return
    assert found.surface.lower() == mention.lower()
    assert found.context.endswith(sentence)


def test_the_real_splits_read_whole(shared_data: Path) -> None:
    for name, least in (("richpediamel-val", 500), ("wikimel-val", 500), ("wikidiverse-val", 500)):
        path = shared_data / "mel" / f"{name}.jsonl"
        split = read_split(path)
        assert len(split.mentions) == len(path.read_text().splitlines()) > least
    assert None in split.gold.values()
