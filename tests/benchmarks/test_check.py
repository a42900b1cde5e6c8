"""The checker counts what can spoil a score, on folders made for it and on the real data of the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.benchmarks import BenchmarkReport, check_benchmark, read_benchmark
from localmel.kb.store import KnowledgeBase
from tests.benchmarks.conftest import kgmel_sentence, mimic_row

Make = Callable[..., Any]


@pytest.fixture
def report(mimic: Make, change_kb: Make) -> BenchmarkReport:
    """A MIMIC folder with one of everything that can be wrong."""
    train = [
        mimic_row("1-0", sentence="Ada met Bob.", mentions="Ada", answer="Q1", imgPath="1.jpg"),
        mimic_row("1-1", sentence="Ada met Bob.", mentions="bob", answer="Q2", imgPath="1.jpg"),
        mimic_row("1-2", sentence="Ada met Bob.", mentions="Ada", answer="Q1", imgPath="1.jpg"),
        mimic_row("2-0", sentence="Carl sat.", mentions="Karl", answer="nil"),
        mimic_row("2-0", sentence="Carl sat.", mentions="Carl", answer="Q9"),
        mimic_row("3-0", mentions=""),
    ]
    test = [
        mimic_row("1-0", sentence="Ada met Bob.", mentions="Ada", answer="Q1", imgPath="gone.png"),
        mimic_row("4-0", sentence="Ada  met Bob.", mentions="met", answer="Q3", imgPath="gone.png"),
        mimic_row("5-0", sentence="Dora ran.", mentions="Dora", answer="Q4"),
        mimic_row("6-0", sentence="Eve ran.", mentions="Eve", answer="nil"),
    ]
    folder = mimic({"train": train, "test": test}, files=["mention_image/1.jpg"])
    kb_folder = change_kb([{"id": one, "label": one} for one in ("Q1", "Q2", "Q3")], name="known")
    with KnowledgeBase(kb_folder) as kb:
        return check_benchmark(read_benchmark(folder), kb)


def test_everything_that_is_wrong_is_counted(report: BenchmarkReport) -> None:
    train, test = report.splits
    assert (report.name, report.layout, report.kb) == ("WikiMEL", "MIMIC", "known")
    assert (train.mentions, train.sentences, train.nil, train.without_image) == (5, 2, 1, 2)
    assert (test.mentions, test.sentences, test.nil, test.without_image) == (4, 3, 1, 2)
    assert train.image_not_there.count == 0
    assert test.image_not_there.count == 2
    assert test.image_not_there.examples[0].startswith("1-0: ")
    assert test.image_not_there.examples[0].endswith("mention_image/gone.jpg")
    assert train.gold_outside_kb is not None
    assert test.gold_outside_kb is not None
    assert train.gold_outside_kb.examples == ("2-0#2: Q9",)
    assert test.gold_outside_kb.examples == ("5-0: Q4",)
    assert train.not_in_sentence.examples == ("2-0",)
    assert train.other_case == 1
    assert train.repeated_mentions.examples == ("1-2",)
    assert train.repeated_ids.examples == ("2-0",)
    assert train.empty.examples == ("3-0",)
    assert train.gold_seen_in_train is None
    assert test.gold_seen_in_train == pytest.approx(1 / 3)
    assert train.published_keys is None
    (leak,) = report.leaks
    assert (leak.earlier, leak.later, leak.mention_ids, leak.by_id, leak.by_sentence) == (
        "train",
        "test",
        ("1-0", "4-0"),
        1,
        2,
    )


def test_each_finding_is_a_sentence_with_its_numbers(report: BenchmarkReport) -> None:
    findings = "\n".join(report.findings)
    assert len(report.findings) == 8
    for said in (
        "2 of 4 mentions of test are also in train (sentences: 1; by sentence: 2; by id: 1), such as 1-0",
        "test: 2 of 4 mentions name a picture that is missing, such as 1-0: ",
        "train: 1 of 5 mentions have a gold that the KB does not have, such as 2-0#2: Q9",
        "train: 1 of 5 mentions are not in their sentence, such as 2-0",
        "train: 1 of 5 mentions repeat the sentence, the name and the gold of another, such as 1-2",
        "train: mentions without text, left out: 1, such as 3-0",
        "train: ids that repeat: 1, such as 2-0",
    ):
        assert said in findings


def test_the_report_is_json(report: BenchmarkReport) -> None:
    value = json.loads(json.dumps(report.to_json()))
    assert value["leaks"][0]["mentions"] == 2
    assert value["splits"][1]["image_not_there"]["count"] == 2
    assert value["findings"] == list(report.findings)


def test_nothing_is_found_where_nothing_is_wrong(mimic: Make) -> None:
    folder = mimic({"train": [mimic_row(1)], "dev": [mimic_row(2)], "test": []})
    report = check_benchmark(read_benchmark(folder))
    assert report.findings == ()
    assert report.kb is None
    assert [split.gold_outside_kb for split in report.splits] == [None] * 3
    assert [split.gold_seen_in_train for split in report.splits] == [None, 1.0, None]
    assert [(leak.earlier, leak.later) for leak in report.leaks] == [
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    ]


def test_sentences_in_two_splits_are_found_in_the_layout_of_kgmel(kgmel: Make) -> None:
    rows = [
        kgmel_sentence(1, ["Ada", "Bob", "Bobby"], ["Q1", "Q2", "Q2"]),
        kgmel_sentence(2, ["Carl"], ["Q3"]),
        kgmel_sentence(3, ["Dora"], ["Q4"]),
    ]
    report = check_benchmark(read_benchmark(kgmel(rows, {"train": [1, 2], "val": [2], "test": [1, "3"]})))
    found = [(leak.earlier, leak.later, len(leak.mention_ids), leak.of, leak.sentences) for leak in report.leaks]
    assert found == [("train", "val", 1, 1, 1), ("train", "test", 3, 4, 1), ("val", "test", 0, 4, 0)]
    assert [split.published_keys for split in report.splits] == [3, 1, 3]


def test_a_picture_with_a_name_that_no_disk_takes_is_not_there(mimic: Make) -> None:
    rows = [mimic_row(1, imgPath="x" * 5000), mimic_row(2, imgPath="a\0b"), mimic_row(3, imgPath="\ud800")]
    (test,) = check_benchmark(read_benchmark(mimic({"test": json.dumps(rows)}))).splits
    assert test.image_not_there.count == 3


REAL = {
    "wikimel": ((18_092, 27, 524, 43), (2_083, 1, 62, 2), 0),
    "richpediamel": ((12_460, 0, 473, 0), (1_761, 0, 60, 0), 0),
    "wikidiverse": ((11_151, 5_381, 0, 149), (1_656, 733, 0, 46), 1),
}
"Mentions, NIL, not in their sentence, repeated, for train and val; and mentions of val that stand in train."


@pytest.mark.parametrize("name", list(REAL))
def test_the_real_captions_have_the_known_weaknesses(shared_data: Path, name: str) -> None:
    report = check_benchmark(read_benchmark(shared_data / "mel", name))
    train, val, leaked = REAL[name]
    counts = [
        (split.mentions, split.nil, split.not_in_sentence.count, split.repeated_mentions.count)
        for split in report.splits
    ]
    assert counts == [train, val]
    assert [len(leak.mention_ids) for leak in report.leaks] == [leaked]
    assert [split.without_image for split in report.splits] == [train[0], val[0]]
