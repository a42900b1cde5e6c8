"""Folders as MIMIC and M3EL share them: mentions one by one, entities with pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.benchmarks import benchmark_kb, read_benchmark
from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers import Problems
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.records import Entity
from tests.benchmarks.conftest import mimic_entity, mimic_row

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("WIKIMEL", "WikiMEL"),
        ("RichpediaMEL", "RichpediaMEL"),
        ("WikiDiverse", "WikiDiverse"),
        ("wiki_diverse", "WikiDiverse"),
        ("our_own", "our_own"),
    ],
)
def test_both_spellings_of_the_files_are_recognised(mimic: Make, stem: str, name: str) -> None:
    folder = mimic({"train": [mimic_row("1-0")], "dev": [mimic_row("2-0")], "test": [mimic_row("3-0")]}, stem=stem)
    benchmark = read_benchmark(folder)
    assert (benchmark.name, benchmark.layout) == (name, "MIMIC")
    assert list(benchmark.splits) == ["train", "val", "test"]
    assert [split.name for split in benchmark.splits.values()] == ["train", "val", "test"]
    assert [split.mentions[0].id for split in benchmark.splits.values()] == ["1-0", "2-0", "3-0"]


def test_nil_is_no_entity_in_any_capitals(mimic: Make) -> None:
    rows = [mimic_row("a", answer="nil"), mimic_row("b", answer="NIL"), mimic_row("c", answer=" Q1 ")]
    assert read_benchmark(mimic({"test": rows})).splits["test"].gold == {"a": None, "b": None, "c": "Q1"}


def test_a_mention_is_unquoted_once_and_its_sentence_not_at_all(mimic: Make) -> None:
    rows = [
        mimic_row("a", mentions="Ren%C3%A9%20X", sentence="At 100%25 René X won."),
        mimic_row("b", mentions="100%2525", sentence="It is 100%25 sure."),
        mimic_row("c", mentions="50%", sentence="A 50% share."),
        mimic_row("d", mentions="A+B", sentence="A+B is a band."),
    ]
    split = read_benchmark(mimic({"test": rows})).splits["test"]
    assert [mention.surface for mention in split.mentions] == ["René X", "100%25", "50%", "A+B"]
    assert [mention.context for mention in split.mentions] == [row["sentence"] for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(surface=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), around=st.text(max_size=8))
def test_any_mention_comes_back_from_its_quoted_form(mimic: Make, surface: str, around: str) -> None:
    row = mimic_row("a", mentions=quote(surface), sentence=f"{around}{surface}{around}")
    (mention,) = read_benchmark(mimic({"test": [row]})).splits["test"].mentions
    assert mention.surface.lower() == surface.lower()


@pytest.mark.parametrize("pictures", ["mention_image", "mention_images"])
def test_the_picture_is_the_base_name_up_to_its_first_dot(mimic: Make, pictures: str) -> None:
    rows = [
        mimic_row("a", imgPath="12.a.b.png"),
        mimic_row("b", imgPath="some/where/13.JPG"),
        mimic_row("c", imgPath=""),
        mimic_row("d", imgPath=None),
        mimic_row("e", imgPath="../../etc/passwd"),
        mimic_row("f", imgPath="/etc/shadow.txt"),
        mimic_row("g", imgPath=".."),
    ]
    folder = mimic({"test": rows}, files=[f"{pictures}/12.jpg"])
    found = [mention.image for mention in read_benchmark(folder).splits["test"].mentions]
    there = folder / pictures
    expected = [
        there / "12.jpg",
        there / "13.jpg",
        None,
        None,
        there / "passwd.jpg",
        there / "shadow.jpg",
        there / ".jpg",
    ]
    assert found == expected


def test_a_folder_without_pictures_is_noted(mimic: Make) -> None:
    benchmark = read_benchmark(mimic({"test": [mimic_row("a", imgPath="1.jpg")]}))
    assert "no folder mention_image" in benchmark.notes[0]


def test_ids_may_be_numbers_or_absent_and_a_second_one_gets_a_number(mimic: Make) -> None:
    rows = [mimic_row(7), mimic_row("7"), mimic_row("7#2"), mimic_row(7), mimic_row(None)]
    benchmark = read_benchmark(mimic({"test": rows}))
    assert list(benchmark.splits["test"].gold) == ["7", "7#2", "7#2#2", "7#3", "test/5"]
    assert benchmark.remarks["test"].repeated_ids == ("7", "7#2", "7")


def test_ids_that_count_rows_are_not_taken_for_the_same_mention(mimic: Make) -> None:
    train = [mimic_row(0, sentence="Ada Byron sat."), mimic_row(1, sentence="Ada Byron, again", mentions="Bob")]
    test = [mimic_row(0, sentence="Ada Byron stood.")]
    benchmark = read_benchmark(mimic({"train": train, "test": test}))
    assert [mention.id for split in benchmark.splits.values() for mention in split.mentions] == [
        "train/0",
        "train/1",
        "test/0",
    ]
    assert benchmark.remarks["train"].not_in_sentence == ("train/1",)
    assert "ids that name different sentences in two splits: 1;" in benchmark.notes[1]


def test_ids_with_one_sentence_in_two_splits_stay_as_they_are(mimic: Make) -> None:
    train = [mimic_row("7", sentence="Ada Byron met Bob.", mentions="Carl")]
    test = [mimic_row("7", sentence="Ada Byron met Bob.", mentions="Bob")]
    benchmark = read_benchmark(mimic({"train": train, "test": test}))
    assert set(benchmark.splits["train"].gold) == set(benchmark.splits["test"].gold) == {"7"}


def test_a_mention_without_a_name_is_left_out_and_remarked(mimic: Make) -> None:
    benchmark = read_benchmark(mimic({"test": [mimic_row("a", mentions=""), mimic_row("b", mentions="%20")]}))
    assert list(benchmark.splits["test"].gold) == ["b"]
    assert benchmark.remarks["test"].empty == ("a",)


def test_half_a_character_becomes_a_whole_one(mimic: Make, tmp_path: Path) -> None:
    raw = '[{"id": "a", "sentence": "A \\ud800 B", "mentions": "B", "answer": "Q1", "imgPath": "\\udfff.jpg"}]'
    (mention,) = read_benchmark(mimic({"test": raw})).splits["test"].mentions
    assert mention.context == "A \ufffd B"
    assert mention.image is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sentence": None}, "no sentence"),
        ({"sentence": 7}, "sentence is not a text"),
        ({"mentions": ["Ada"]}, "mentions is not a text"),
        ({"answer": None}, "no answer"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": 7}, "answer is not a text"),
        ({"imgPath": 7}, "imgPath is not a text"),
        ({"id": [1]}, "id is neither"),
        ({"id": True}, "id is neither"),
        ({"id": " "}, "id is neither"),
    ],
)
def test_a_mention_of_the_wrong_shape_is_named_with_its_place(mimic: Make, change: dict[str, Any], said: str) -> None:
    folder = mimic({"train": [mimic_row("a"), {**mimic_row("b"), **change}]})
    with pytest.raises(ImportProblem, match=said) as caught:
        read_benchmark(folder)
    assert f"{folder / 'WIKIMEL_train.json'}:1: element 2 is not a mention" in caught.value.fact


@pytest.mark.parametrize("data", ["[1]", "[[]]", "[null]", "{}", "[", b"[\xff", "", '[{"id": "a", "sente'])
def test_a_broken_file_is_bad_input(mimic: Make, data: bytes | str) -> None:
    with pytest.raises(BadInput, match=r"WIKIMEL_dev\.json"):
        read_benchmark(mimic({"dev": data}))


def test_dev_and_val_at_once_are_refused(mimic: Make) -> None:
    with pytest.raises(BadInput, match="two files for the split val"):
        read_benchmark(mimic({"dev": [mimic_row("a")], "val": [mimic_row("b")]}))


# --- the KB ------------------------------------------------------------------------------------------------------


def test_entities_come_with_description_and_their_first_picture(mimic: Make) -> None:
    entities = [
        mimic_entity(0, "Q1", "Ada%20Byron", attr="sex: female. born: 1815", image_list=["Q1_0.jpg", "Q1_1.jpg"]),
        mimic_entity(1, "Q2", "NA", attr="props", desc="a word", instance="word"),
        mimic_entity(2, "Q3", '"quoted', image_list=None),
        mimic_entity(3, "Q4", "Dot", image_list=["../secret.jpg"]),
        mimic_entity(4, "Q5", "Gone", image_list=["Q5_0.jpg"]),
    ]
    folder = mimic(
        {"train": [mimic_row("a")]}, entities=entities, files=["kb_image/Q1_0.jpg", "kb_image/Q1_1.jpg", "secret.jpg"]
    )
    source: Any = benchmark_kb(folder, problems=Problems())
    assert [row.entity for row in source.entities()] == [
        Entity(
            id="Q1",
            label="Ada Byron",
            description="sex: female. born: 1815",
            image=str((folder / "kb_image" / "Q1_0.jpg").absolute()),
        ),
        Entity(id="Q2", label="NA", description="a word"),
        Entity(id="Q3", label='"quoted'),
        Entity(id="Q4", label="Dot"),
        Entity(id="Q5", label="Gone"),
    ]
    assert list(source.triples()) == []
    assert source.left_out == {"picture of an entity whose file is not in kb_image": 2}
    assert source.total_bytes == (folder / "kb_entity.json").stat().st_size


def test_entities_that_do_not_fit_are_problems_and_the_others_are_imported(mimic: Make, tmp_path: Path) -> None:
    entities = [
        mimic_entity(0, "Q1", "One"),
        7,
        mimic_entity(1, "", "Nobody"),
        mimic_entity(2, "Q2", ""),
        mimic_entity(3, "Q3", "Three", image_list="Q3.jpg"),
        mimic_entity(4, "Q4", "Four", attr=["x"]),
        mimic_entity(5, "Q1", "Again"),
    ]
    folder = mimic({"train": [mimic_row("a")]}, entities=entities)
    told: list[ImportProblem] = []
    problems = Problems(on_problem=told.append)
    changed = build_kb(tmp_path / "kb", benchmark_kb(folder, problems=problems), problems)
    assert (changed.entities, changed.triples, changed.problems) == (1, 0, 6)
    assert [f"element {number}" in str(problem) for number, problem in zip(range(2, 7), told, strict=False)] == [
        True
    ] * 5
    assert "repeats" in told[-1].fact
    with KnowledgeBase(tmp_path / "kb") as kb:
        assert kb.entity("Q1").label == "One"
    strict = Problems()
    with pytest.raises(BadInput, match="6 lines cannot be used"):
        build_kb(tmp_path / "strict", benchmark_kb(folder, problems=strict), strict)


def test_without_entities_there_is_no_kb(mimic: Make) -> None:
    folder = mimic({"train": [mimic_row("a")]})
    with pytest.raises(BadInput, match=r"no kb_entity\.json"):
        benchmark_kb(folder, problems=Problems())
