"""Each picture is read once, and what a model says comes before what sentence and picture state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from localmel.errors import BadPicture
from localmel.generate import statements
from localmel.generate.embedded import VISIBLE
from localmel.generate.statements import Statements
from localmel.records import Description, Mention, Span, Triple, Unparsed
from localmel.settings import GenerateSettings, load_profile
from localmel.settings.shipped import shipped

EMBEDDED = load_profile("embedded").generate
BY_MODEL = replace(EMBEDDED, backend="vlm", read_writing=False)
MENTION = Mention(
    id="m",
    surface="Jordan",
    context="Jordan, the river.",
    span=Span(start=0, end=6),
    image=shipped("examples/jersey.jpg"),
)
ANSWER = Description(
    mention_id="m", summary="a player", triples=(Triple(head="Jordan", relation="is", tail="tall", source="image"),)
)


def sources(settings: GenerateSettings, answer: Description | Unparsed | None) -> list[str]:
    return list(dict.fromkeys(one.source for one in Statements(settings).describe(MENTION, answer).triples))


def test_writing_counts_next_to_a_model_only_where_the_profile_says_so() -> None:
    assert sources(EMBEDDED, None) == ["text", "ocr"]
    assert sources(BY_MODEL, ANSWER) == ["image"]
    assert sources(replace(BY_MODEL, read_writing=True), ANSWER) == ["image", "text", "ocr"]
    assert sources(BY_MODEL, Unparsed(mention_id="m", raw="", problem="no JSON")) == ["text"]


def test_a_picture_is_read_once_and_a_bad_one_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[Path] = []
    real = statements.open_picture
    monkeypatch.setattr(statements, "open_picture", lambda path: opened.append(path) or real(path))
    found = Statements(EMBEDDED)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    bad = replace(MENTION, id="b", image=tmp_path / "bad.jpg")
    described = found.describe_all([MENTION, bad, MENTION, bad], {"b": replace(ANSWER, mention_id="b")})
    assert opened == [MENTION.image, bad.image]
    assert found.n_unreadable == 1
    assert isinstance(found.read(tmp_path / "bad.jpg").problem, BadPicture)
    assert VISIBLE in [one.relation for one in described[0].triples]
    assert described[1].summary == "a player"
    assert described[0] == described[2]
