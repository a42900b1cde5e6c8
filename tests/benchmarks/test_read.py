"""A benchmark is recognised by its files; what is not recognised is answered with what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.benchmarks import benchmark_kb, find_benchmark, read_benchmark
from localmel.errors import BadInput
from localmel.kb.importers import Problems
from tests.benchmarks.conftest import mimic_row

Make = Callable[..., Any]
LINE = '{"id": "m1", "sentence": "Ada sat.", "mention": "ada", "answer": "Q1", "image": "p/a.jpg"}\n'


def own(folder: Path, name: str = "our-data", splits: tuple[str, ...] = ("train", "val", "test")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / f"{name}-{split}.jsonl").write_text(LINE.replace("m1", split))
    return folder


def test_json_lines_are_read_under_the_names_of_their_splits(tmp_path: Path) -> None:
    benchmark = read_benchmark(own(tmp_path))
    assert (benchmark.name, benchmark.layout, benchmark.folder) == ("our-data", "JSON lines", tmp_path)
    assert [(name, split.name, dict(split.gold)) for name, split in benchmark.splits.items()] == [
        ("train", "train", {"train": "Q1"}),
        ("val", "val", {"val": "Q1"}),
        ("test", "test", {"test": "Q1"}),
    ]
    (mention,) = benchmark.splits["val"].mentions
    assert mention.image == tmp_path / "p" / "a.jpg"
    assert benchmark.remarks["val"].other_case == ("val",)


def test_splits_that_are_absent_are_absent(tmp_path: Path) -> None:
    assert list(read_benchmark(own(tmp_path, splits=("test",))).splits) == ["test"]


@pytest.mark.parametrize("place", [".", "kb"])
def test_the_kb_of_json_lines_stands_beside_them_or_in_kb(tmp_path: Path, tables: Make, place: str) -> None:
    own(tmp_path)
    with pytest.raises(BadInput, match=r"there is no entities\.jsonl in"):
        benchmark_kb(tmp_path, problems=Problems())
    tables(tmp_path / place, [{"id": "Q1", "label": "Ada"}], [("Q1", "knows", "", "Bob")])
    source = benchmark_kb(tmp_path, problems=Problems())
    assert [row.entity.label for row in source.entities()] == ["Ada"]
    assert [row.tail for row in source.triples()] == ["Bob"]


def test_several_datasets_in_one_folder_are_listed_and_one_can_be_named(tmp_path: Path, write: Make) -> None:
    for folder, stem in (("WikiMEL", "WIKIMEL"), ("RichpediaMEL", "RichpediaMEL"), ("WikiDiverse", "wiki_diverse")):
        write(tmp_path / folder / f"{stem}_train.json", [mimic_row("a")])
    with pytest.raises(BadInput, match="holds 3 datasets") as caught:
        read_benchmark(tmp_path)
    for name in ("WikiMEL (MIMIC)", "RichpediaMEL (MIMIC)", "WikiDiverse (MIMIC)"):
        assert name in caught.value.fact
    assert "--dataset RichpediaMEL" in caught.value.hint
    for name in ("WikiDiverse", "wikidiverse", "wiki_diverse"):
        assert find_benchmark(tmp_path, name).name == "WikiDiverse"
    with pytest.raises(BadInput, match="no dataset 'FB15k'; there are: RichpediaMEL"):
        read_benchmark(tmp_path, "FB15k")


def test_two_spellings_of_one_dataset_are_told_apart_only_as_they_are_written(tmp_path: Path, write: Make) -> None:
    write(tmp_path / "WikiDiverse_test.json", [mimic_row("a")])
    write(tmp_path / "wiki_diverse_test.json", [mimic_row("b")])
    for name in (None, "wikidiverse"):
        with pytest.raises(BadInput, match="holds 2 datasets"):
            find_benchmark(tmp_path, name)
    assert list(read_benchmark(tmp_path, "wiki_diverse").splits["test"].gold) == ["b"]


def test_different_layouts_in_one_folder_are_several_datasets(tmp_path: Path, write: Make) -> None:
    own(tmp_path)
    write(tmp_path / "WIKIMEL_dev.json", [mimic_row("a")])
    write(tmp_path / "data" / "dataset" / "WikiDiverse.json", [])
    with pytest.raises(BadInput, match="holds 3 datasets"):
        find_benchmark(tmp_path)


def test_an_unknown_folder_is_answered_with_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"file{number:02}.txt").touch()
    (tmp_path / "Sub").mkdir()
    with pytest.raises(BadInput) as caught:
        read_benchmark(tmp_path)
    for said in ("NAME_train.json", "dataset/NAME.json", "NAME-train.jsonl", "Sub/", "file00.txt", "and 9 more"):
        assert said in caught.value.fact
    with pytest.raises(BadInput, match="There is: nothing"):
        read_benchmark(tmp_path / "Sub")


def test_what_is_no_folder_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file", Path("a\0b"), Path("x" * 5000)):
        with pytest.raises(BadInput, match="cannot look into"):
            read_benchmark(path)


def test_a_pipe_and_a_folder_with_the_name_of_a_split_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "WIKIMEL_train.json")
    (tmp_path / "ours-train.jsonl").mkdir()
    with pytest.raises(BadInput, match="is not a benchmark"):
        read_benchmark(tmp_path)
