"""The shipped examples prove the point: each comes out right with its picture, and half come out wrong without it."""

from __future__ import annotations

import pytest

from localmel.examples import ExampleResult, link_examples, read_examples
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker


@pytest.fixture(scope="module")
def results(linker: Linker) -> list[ExampleResult]:
    return link_examples(linker)


def test_there_are_at_least_12_each_with_a_picture_of_its_own() -> None:
    examples = list(read_examples())
    assert len(examples) >= 12
    assert len({example.id for example in examples}) == len(examples)
    assert len({example.picture.read_bytes() for example in examples}) == len(examples)


def test_every_name_is_ambiguous_and_every_answer_is_in_the_starter_kb(starter: KnowledgeBase) -> None:
    from localmel.kb.names import NameIndex

    index = NameIndex(starter)
    for example in read_examples():
        assert example.mention in example.text
        found = {entity.id for entity in starter.entities_at([match.row for match in index.find(example.mention)])}
        assert example.answer in found, example.id
        assert len(found) >= 2, example.id


def test_no_sentence_gives_its_answer_away(starter: KnowledgeBase) -> None:
    for example in read_examples():
        label = starter.entity(example.answer).label
        assert label == example.mention or label not in example.text, example.id


def test_every_example_comes_out_right_with_its_picture(results: list[ExampleResult]) -> None:
    wrong = {result.example.id: result.with_picture.link.entity_id for result in results if not result.is_right}
    assert wrong == {}


def test_the_picture_is_why(results: list[ExampleResult]) -> None:
    """The strongest evidence of each comes from the picture, not from the sentence."""
    for result in results:
        assert result.with_picture.link.evidence, result.example.id
        assert result.with_picture.link.evidence[0].mention_triple.source == "ocr", result.example.id


def test_at_least_half_come_out_wrong_when_the_picture_is_withheld(results: list[ExampleResult]) -> None:
    wrong = [result.example.id for result in results if not result.is_right_without]
    assert 2 * len(wrong) >= len(results), f"only {wrong} of {len(results)}"
