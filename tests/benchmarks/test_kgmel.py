"""KGMEL's own layout: sentences with parallel lists, splits by sentence, tables without headers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.benchmarks import benchmark_kb, published_key, read_benchmark
from localmel.benchmarks.benchmark import spans_in
from localmel.errors import BadInput, ImportProblem
from localmel.kb.importers import Problems
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from tests.benchmarks.conftest import kgmel_sentence

Make = Callable[..., Any]
SPLIT = {"train": [1], "val": ["2"], "test": [3]}


@pytest.fixture
def three() -> list[dict[str, Any]]:
    return [
        kgmel_sentence(1, ["Ada", "Bob"], ["Q1", "Q2"]),
        kgmel_sentence("2", ["Carl"], ["Q3"]),
        kgmel_sentence(3, ["Dora"], ["nil"]),
    ]


def test_mentions_are_called_after_sentence_and_place(kgmel: Make, three: list[Any]) -> None:
    folder = kgmel(three, SPLIT, mappings={"ids_blank_image.json": ["2"]})
    benchmark = read_benchmark(folder)
    assert (benchmark.name, benchmark.layout, benchmark.notes) == ("WikiMEL", "KGMEL", ())
    assert {name: dict(split.gold) for name, split in benchmark.splits.items()} == {
        "train": {"1-0": "Q1", "1-1": "Q2"},
        "val": {"2-0": "Q3"},
        "test": {"3-0": None},
    }
    pictures = folder / "data" / "dataset" / "image" / "WikiMEL"
    assert [mention.image for split in benchmark.splits.values() for mention in split.mentions] == [
        pictures / "mention_1.jpg",
        pictures / "mention_1.jpg",
        None,
        pictures / "mention_3.jpg",
    ]


@pytest.mark.parametrize("blank", [[1], ["1"], [" 1"]])
def test_the_blank_picture_is_none_whether_ids_are_numbers_or_texts(kgmel: Make, blank: list[Any]) -> None:
    for item in (1, "1"):
        folder = kgmel([kgmel_sentence(item, ["Ada"], ["Q1"])], {"test": [1]}, mappings={"ids_blank_image.json": blank})
        assert read_benchmark(folder).splits["test"].mentions[0].image is None


def test_a_sentence_without_a_picture_and_one_with_dots_in_its_name(kgmel: Make) -> None:
    rows = [kgmel_sentence(1, ["Ada"], ["Q1"], imgPath="a/m.x.png"), kgmel_sentence(2, ["Ada"], ["Q1"])]
    del rows[1]["imgPath"]
    mentions = read_benchmark(kgmel(rows, {"test": [1, 2]})).splits["test"].mentions
    assert [mention.image and mention.image.name for mention in mentions] == ["m.jpg", None]


@pytest.mark.parametrize(
    "place", ["data/dataset/mapping", "data/mapping", "data", "data/dataset", "data/KB", "other/x"]
)
def test_mapping_files_are_found_where_they_stand(kgmel: Make, three: list[Any], place: str) -> None:
    assert list(read_benchmark(kgmel(three, SPLIT, place=place)).splits) == ["train", "val", "test"]


def test_a_mapping_file_that_stands_twice_in_unusual_places_is_refused(
    kgmel: Make, three: list[Any], write: Make, tmp_path: Path
) -> None:
    kgmel(three, SPLIT, place="a")
    write(tmp_path / "b" / "ids_split_mappings.json", {"WikiMEL": {}})
    with pytest.raises(BadInput, match="there are several files"):
        read_benchmark(tmp_path)


def test_the_folder_data_itself_is_accepted(kgmel: Make, three: list[Any]) -> None:
    assert read_benchmark(kgmel(three, SPLIT) / "data").name == "WikiMEL"


def test_a_sentence_in_two_splits_is_in_both(kgmel: Make, three: list[Any]) -> None:
    splits = read_benchmark(kgmel(three, {"train": [1, 2], "dev": [2], "test": [1]})).splits
    assert {name: list(split.gold) for name, split in splits.items()} == {
        "train": ["1-0", "1-1", "2-0"],
        "val": ["2-0"],
        "test": ["1-0", "1-1"],
    }


def test_two_mentions_with_one_gold_stay_two_and_have_one_published_key(kgmel: Make) -> None:
    rows = [kgmel_sentence(7, ["Jordan", "Jordan", "MJ"], ["Q41421"] * 3, sentence="Jordan, then Jordan.")]
    split = read_benchmark(kgmel(rows, {"test": [7]})).splits["test"]
    assert [(one.id, one.span.start) for one in split.mentions] == [("7-0", 0), ("7-1", 13), ("7-2", 0)]
    assert {published_key(one.id, split.gold[one.id]) for one in split.mentions} == {"7-Q41421"}


def test_a_published_key_keeps_dashes_of_the_sentence_id() -> None:
    assert published_key("a-b-3", "Q1") == "a-b-Q1"
    assert published_key("7#2-0", None) == "7-nil"


def test_a_sentence_id_that_comes_again_gets_a_number_and_is_remarked(kgmel: Make) -> None:
    rows = [kgmel_sentence(1, ["Ada"], ["Q1"]), kgmel_sentence("1", ["Bob"], ["Q2"])]
    benchmark = read_benchmark(kgmel(rows, {"test": [1, "1"]}))
    assert dict(benchmark.splits["test"].gold) == {"1-0": "Q1", "1#2-0": "Q2"}
    assert benchmark.remarks["test"].repeated_ids == ("1",)


def test_what_belongs_nowhere_is_noted(kgmel: Make, three: list[Any]) -> None:
    folder = kgmel(three, {"train": [1, 99]}, mappings={"qids_answer.json": ["Q1"]})
    notes = " | ".join(read_benchmark(folder).notes)
    for said in (
        "in no split, left out: 2",
        "without a sentence: 1",
        "ids_blank_image.json has no list",
        "not in qids_answer.json: 2",
    ):
        assert said in notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mention": ["Ada"]}, "different lengths: 1 mention, 2 entity, 2 answer"),
        ({"answer": ["Q1", "Q2", "Q3"]}, "different lengths"),
        ({"entity": []}, "different lengths"),
        ({"mention": "Ada"}, "mention is not a list of texts"),
        ({"answer": [1, 2]}, "answer is not a list of texts"),
        ({"answer": ["Q1", ""]}, "answer is empty"),
        ({"answer": None}, "answer is not a list of texts"),
        ({"sentence": ["x"]}, "sentence is not a text"),
        ({"imgPath": 3}, "imgPath is not a text"),
        ({"id": None}, "neither a whole number nor a text"),
        ({"id": 1.5}, "neither a whole number nor a text"),
        ({"id": True}, "neither a whole number nor a text"),
    ],
)
def test_a_sentence_of_the_wrong_shape_is_named(
    kgmel: Make, three: list[Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ImportProblem, match=said) as caught:
        read_benchmark(kgmel([three[1], {**three[0], **change}], SPLIT))
    assert "element 2" in caught.value.fact


@pytest.mark.parametrize(
    "split",
    [None, [], {"train": 1}, {"train": [None]}, {"train": [True]}, {"train": [[1]]}, {"training": [1]}, "x"],
)
def test_a_split_map_of_the_wrong_shape_is_bad_input(kgmel: Make, three: list[Any], split: object) -> None:
    with pytest.raises(BadInput, match="ids_split_mappings"):
        read_benchmark(kgmel(three, split))


def test_a_split_map_without_the_dataset_says_what_it_has(kgmel: Make, three: list[Any], write: Make) -> None:
    folder = kgmel(three, SPLIT)
    write(folder / "data" / "dataset" / "mapping" / "ids_split_mappings.json", {"Other": SPLIT})
    with pytest.raises(BadInput, match="nothing for 'WikiMEL'; it has 'Other'"):
        read_benchmark(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(surfaces=st.lists(st.text("aAb ", min_size=0, max_size=4), max_size=5), sentence=st.text("aAb .", max_size=20))
def test_any_sentence_gives_a_mention_per_name(kgmel: Make, surfaces: list[str], sentence: str) -> None:
    rows = [kgmel_sentence(1, surfaces, ["Q1"] * len(surfaces), sentence=sentence)]
    benchmark = read_benchmark(kgmel(rows, {"test": [1]}))
    split, remarks = benchmark.splits["test"], benchmark.remarks["test"]
    assert len(split.mentions) + len(remarks.empty) == len(surfaces)
    for mention in split.mentions:
        assert mention.surface.lower() == surfaces[int(mention.id.rpartition("-")[2])].lower()
        assert (mention.context == sentence) == (mention.id not in remarks.not_in_sentence)


def test_names_that_overlap_each_keep_their_place() -> None:
    spans = spans_in("The UK parliament of the UK", ["UK", "UK parliament", "UK", "UK"])
    assert [(span.start, span.end) for span in spans if span] == [(4, 6), (4, 17), (25, 27), (25, 27)]


# --- the KB ------------------------------------------------------------------------------------------------------

LABELS = (
    'Q1\tAda\tmathematician\nQ2\t"Weird\tan album\nQ3\tNA\tsymbol\nQ4\tnull\t\nQ5\tfive\nQ6\t\tno label\n'
    "Q7\tOutside\tno candidate\nQ1\tAda again\tx\n"
)
RELATIONS = "P1\tknows\tto know\nP2\tNA\t\n"
TRIPLES = "Q1\tP1\tQ2\nQ1\tP2\tQ3\nQ2\tP1\tQ7\nQ7\tP1\tQ1\nQ1\tP9\tQ2\nQ1\tP1\t1815-12-10\nQ1\tP1\tQ6\nQ6\tP1\tQ1\n"
TABLES = {"QID2Label.tsv": LABELS, "PID2Label.tsv": RELATIONS, "Triples-WikiMEL.tsv": TRIPLES}
CANDIDATES = {"qids_candidate.json": ["Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q8"]}


def test_labels_are_labels_whatever_they_look_like(kgmel: Make, three: list[Any]) -> None:
    source: Any = benchmark_kb(kgmel(three, SPLIT, mappings=CANDIDATES, tables=TABLES), problems=Problems())
    entities = [row.entity for row in source.entities()]
    assert [(one.id, one.label, one.description) for one in entities] == [
        ("Q1", "Ada", "mathematician"),
        ("Q2", '"Weird', "an album"),
        ("Q3", "NA", "symbol"),
        ("Q4", "null", ""),
        ("Q5", "five", ""),
    ]
    assert [tuple(row[:5]) for row in source.triples()] == [
        ("Q1", "P1", "knows", "Q2", '"Weird'),
        ("Q1", "P2", "NA", "Q3", "NA"),
        ("Q2", "P1", "knows", "Q7", "Outside"),
    ]
    assert source.left_out == {
        "empty label in QID2Label.tsv": 1,
        "label of an id that has one already": 1,
        "entity of the dataset without a label": 2,
        "triple whose head is no entity of the dataset with a label": 2,
        "triple whose relation has no label": 1,
        "triple whose tail has no label (a literal, for example)": 2,
    }


def test_an_entity_has_a_picture_when_it_is_listed_and_there(kgmel: Make, three: list[Any]) -> None:
    for listed, expected, missing in ((["Q1_0", "Q3_0", "Q2_1"], {"Q1"}, 1), (None, {"Q1", "Q2"}, 0)):
        mappings: dict[str, object] = dict(CANDIDATES)
        if listed is not None:
            mappings["ids_image.json"] = listed
        folder = kgmel(
            three, SPLIT, mappings=mappings, tables=TABLES, files=["data/KB/image/Q1_0.jpg", "data/KB/image/Q2_0.jpg"]
        )
        source: Any = benchmark_kb(folder, problems=Problems())
        images = {row.entity.id: row.entity.image for row in source.entities() if row.entity.image}
        assert set(images) == expected
        assert images["Q1"] == str((folder / "data" / "KB" / "image" / "Q1_0.jpg").absolute())
        assert source.left_out["picture of an entity whose file is not there"] == missing
        (folder / "data/dataset/mapping/ids_image.json").unlink(missing_ok=True)


def test_the_kb_can_be_built_and_a_broken_row_is_named(kgmel: Make, three: list[Any], tmp_path: Path) -> None:
    tables = {**TABLES, "Triples-WikiMEL.tsv": TRIPLES + "Q1\tP1\n\n", "PID2Label.tsv": RELATIONS + "P5\n"}
    folder = kgmel(three, SPLIT, mappings=CANDIDATES, tables=tables)
    told: list[ImportProblem] = []
    problems = Problems(on_problem=told.append)
    changed = build_kb(tmp_path / "kb", benchmark_kb(folder, problems=problems), problems)
    assert (changed.entities, changed.triples, changed.problems) == (5, 3, 2)
    assert ["PID2Label.tsv:3: 1 fields" in told[0].fact, "Triples-WikiMEL.tsv:9: 2 fields" in told[1].fact] == [
        True,
        True,
    ]
    with KnowledgeBase(tmp_path / "kb") as kb:
        assert [(fact.relation, fact.tail) for fact in kb.kb_triples("Q1")] == [("knows", '"Weird'), ("NA", "NA")]


def test_a_line_that_is_not_utf_8_is_a_problem_of_its_own(kgmel: Make, three: list[Any]) -> None:
    tables = {**TABLES, "QID2Label.tsv": b"Q1\t\xff\xfe\tx\nQ2\tTwo\ty\n"}
    told: list[ImportProblem] = []
    source = benchmark_kb(
        kgmel(three, SPLIT, mappings=CANDIDATES, tables=tables), problems=Problems(on_problem=told.append)
    )
    assert [row.entity.id for row in source.entities()] == ["Q2"]
    assert "not UTF-8" in told[0].fact


@pytest.mark.parametrize("absent", [*TABLES, "qids_candidate.json"])
def test_without_one_of_its_files_there_is_no_kb(kgmel: Make, three: list[Any], absent: str) -> None:
    folder = kgmel(three, SPLIT, mappings=CANDIDATES, tables=TABLES)
    next(folder.rglob(absent)).unlink()
    with pytest.raises(BadInput, match=absent):
        benchmark_kb(folder, problems=Problems())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
@given(rows=st.lists(st.lists(st.text(max_size=6), min_size=0, max_size=4), max_size=6))
def test_any_table_gives_rows_or_problems(kgmel: Make, three: list[Any], tmp_path: Path, rows: list[list[str]]) -> None:
    text = "\n".join("\t".join(row) for row in rows).encode("utf-8", "replace")
    tables = {"QID2Label.tsv": b"Q1\tAda\t\n" + text, "PID2Label.tsv": b"P1\tlikes\n" + text}
    tables["Triples-WikiMEL.tsv"] = b"Q1\tP1\tQ1\n" + text  # a first line that is text: NUL at the start means UTF-16
    candidates = sorted({row[0].strip() for row in rows if row} | {"Q1"})
    folder = kgmel(three, SPLIT, mappings={"qids_candidate.json": candidates}, tables=tables)
    problems = Problems(on_problem=lambda problem: None)
    build_kb(tmp_path / "kb", benchmark_kb(folder, problems=problems), problems, replace=True)
    with KnowledgeBase(tmp_path / "kb") as kb:
        assert kb.entity("Q1").label == "Ada"
