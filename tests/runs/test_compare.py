"""Real runs compared: numbers, refusals, what is kept, and what is made of data, KB and optional fields."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, CorruptArtifact, MissingExtra, UsageError
from localmel.evaluate.protocol import EvaluationSettings
from localmel.evaluate.significance import compare
from localmel.kb.store import KnowledgeBase
from localmel.runs.compare import ComparePlan, ComparisonMade, compare_runs
from localmel.runs.finished_runs import answers_of_run, read_run

Runs = Callable[..., Path]
Compare = Callable[..., ComparisonMade]


@pytest.fixture
def comparing(words: Any) -> Compare:
    """`comparing(run, other, out=..., data=..., kb=...)`."""

    def run(*runs: Path, out: Path | None = None, **given: Any) -> ComparisonMade:
        return compare_runs(ComparePlan(runs=runs, **given), words, out=out, command="localmel compare ...")

    return run


def test_numbers_are_those_of_the_runs(finished: Runs, comparing: Compare) -> None:
    one, other = finished("one", systems=("fused",)), finished("other", systems=("names",))
    found = comparing(one, other).json["datasets"]["tiny"]
    outcomes = [
        [given.outcome for given in answers_of_run(read_run(run))["tiny"][system]]
        for run, system in ((one, "fused"), (other, "names"))
    ]
    expected = compare(*outcomes, EvaluationSettings(k=16))
    (pair,) = found["pairs"]
    assert pair["hits@1"]["value"] == pytest.approx(expected.hits_at_1.value, abs=1e-6)
    assert (pair["only_first"], pair["only_second"]) == (expected.only_first, expected.only_second)
    for run, name, system in ((one, "one", "fused"), (other, "other", "names")):
        report = json.loads((run / "evaluate" / "report.json").read_text())
        metrics = report["datasets"]["tiny"]["systems"][system]["slices"]["all"]["metrics"]
        for metric, value in found["systems"][name].items():
            assert value == metrics[metric], metric
    assert found["n"] == 7
    assert (found["n_nil"], found["n_sentences"]) == (1, 4)


def test_a_report_is_kept_and_not_made_twice(finished: Runs, comparing: Compare, tmp_path: Path) -> None:
    runs = finished("one", systems=("fused",)), finished("other", systems=("names",))
    out = tmp_path / "report"
    first, again = comparing(*runs, out=out), comparing(*runs, out=out)
    assert (first.made, again.made) == (True, False)
    assert dict(first.json) == dict(again.json)
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.html", "comparison.json", "comparison.md", "manifest.json",
    ]  # fmt: skip
    assert json.loads((out / "manifest.json").read_text())["command"] == "localmel compare ..."
    before = (out / "comparison.html").read_bytes()
    shutil.rmtree(out)
    comparing(*runs, out=out)
    assert (out / "comparison.html").read_bytes() == before
    with pytest.raises(BadInput, match="holds another comparison"):
        comparing(*reversed(runs), out=out)
    (out / "comparison.md").write_text("other")
    with pytest.raises(CorruptArtifact, match="is damaged"):
        comparing(*runs, out=out)


def test_a_folder_of_something_else_is_not_written_over(finished: Runs, comparing: Compare, tmp_path: Path) -> None:
    runs = finished("one"), finished("other", systems=("names",))
    (tmp_path / "mine").mkdir()
    comparing(*runs, out=tmp_path / "mine")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with pytest.raises(BadInput, match="it holds something else"):
            comparing(*runs, out=place)
    with pytest.raises(CorruptArtifact, match="holds 'evaluation', not 'comparison'"):
        comparing(*runs, out=runs[0] / "evaluate")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"


# --- refusals -------------------------------------------------------------------------------------------------------


def test_runs_that_were_not_asked_the_same_are_refused(finished: Runs, reseal: Any, comparing: Compare) -> None:
    one = finished("one")
    with pytest.raises(BadInput, match="follow different protocols: k is 16 and 8") as refusal:
        comparing(one, finished("k", k=8))
    assert "--k" in refusal.value.hint

    def changed(**given: Any) -> Callable[[dict[str, Any]], None]:
        return lambda manifest: manifest["inputs"].update(given)

    other_kb = reseal(finished("kb"), lambda _, line: line, manifest=changed(kb_fingerprint="f" * 64))
    with pytest.raises(
        BadInput, match=r"were asked over different KBs, or different states of one: .* and ffffffffffff"
    ):
        comparing(one, other_kb)
    texts = reseal(finished("texts"), lambda _, line: line, manifest=changed(questions={"tiny": "x"}))
    with pytest.raises(BadInput, match="the 7 ids are the same, but sentences, golds, pictures or the training split"):
        comparing(one, texts)
    fewer = reseal(
        finished("fewer"),
        lambda number, line: line if number else {**line, "id": "other"},
        manifest=changed(questions={"tiny": "y"}),
    )
    with pytest.raises(BadInput, match="7 and 7; 2 are in one of them only, such as '1-0'"):
        comparing(one, fewer)


def test_options_that_do_not_fit_are_refused(finished: Runs, tmp_path: Path) -> None:
    for given, said in (
        ({"runs": ()}, "no run to compare"),
        ({"examples": -1}, "cannot be -1"),
        ({"data": tmp_path}, "--data and --kb go together"),
    ):
        with pytest.raises(UsageError, match=said):
            ComparePlan(**{"runs": (finished("one"),), **given})  # type: ignore[arg-type]


def test_a_missing_package_is_named_before_anything_is_read(
    comparing: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.runs.compare.find_spec", lambda name: None if name == "statsmodels" else name)
    with pytest.raises(MissingExtra, match="comparing runs needs statsmodels") as refusal:
        comparing(Path("nowhere"), Path("nothing"))
    assert refusal.value.hint == "pip install 'localmel[compare]'"


# --- data and KB ----------------------------------------------------------------------------------------------------


def test_without_data_and_kb_it_says_what_is_left_out(finished: Runs, reseal: Any, comparing: Compare) -> None:
    def placeless(manifest: dict[str, Any]) -> None:
        del manifest["places"]

    runs = finished("one"), finished("other", systems=("names",))
    found = comparing(*(reseal(run, lambda _, line: line, manifest=placeless) for run in runs)).json
    assert found["notes"][1].startswith("Only the contents of the runs: add --data DATA --kb KB")
    assert found["notes"][0].startswith("tiny: fewer than 50 sentences.")
    assert [one["name"] for one in found["datasets"]["tiny"]["slices"]] == ["gold in the KB", "NIL"]
    assert [one["n"] for one in found["datasets"]["tiny"]["slices"]] == [6, 1]


def test_data_and_kb_are_found_where_the_run_says_they_stood(
    finished: Runs, comparing: Compare, tmp_path: Path
) -> None:
    runs = finished("one", systems=("fused",)), finished("other", systems=("names",))
    made = comparing(*runs, out=tmp_path / "report")
    assert not any(note.startswith("Only the contents of the runs") for note in made.json["notes"])
    assert "<mark>Jordan</mark> dunks for the Bulls in Chicago" in (tmp_path / "report" / "comparison.html").read_text()


def test_with_them_there_are_slices_sentences_and_names(
    finished: Runs, comparing: Compare, benchmark: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    runs = finished("one", systems=("fused",)), finished("other", systems=("names",))
    made = comparing(*runs, data=benchmark, kb=str(tiny_folder), out=tmp_path / "report")
    slices = {one["name"]: one["n"] for one in made.json["datasets"]["tiny"]["slices"]}
    assert slices["gold seen in training"] == 2
    assert slices["ambiguous surface"] == 2
    assert slices["without image"] == 7
    assert slices["with image"] == 0
    assert "mention with triples" not in slices
    page = (tmp_path / "report" / "comparison.html").read_text()
    assert "<mark>Jordan</mark> dunks for the Bulls in Chicago" in page
    assert "country in the Near East" in page
    assert "member of: Chicago Bulls" in page


def test_places_that_a_run_names_are_used_and_need_not_exist(
    finished: Runs, reseal: Any, comparing: Compare, benchmark: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    places = {"data": str(benchmark), "kb": str(tiny_folder)}

    def placed(manifest: dict[str, Any]) -> None:
        manifest["places"] = places

    one = reseal(finished("one"), lambda _, line: line, manifest=placed)
    other, out = finished("other", systems=("names",)), tmp_path / "report"
    hidden = benchmark.with_name("away")
    benchmark.rename(hidden)
    made = comparing(one, other, out=out)
    assert made.json["notes"][1].startswith("No slices, sentences, pictures or names: ")
    hidden.rename(benchmark)
    again = comparing(one, other, out=out)
    assert again.made
    assert "No slices" not in " ".join(again.json["notes"])
    assert not comparing(one, other, out=out).made


def test_data_or_a_kb_that_were_not_asked_are_refused(
    finished: Runs, comparing: Compare, benchmark: Path, tiny_folder: Path, change_kb: Callable[..., Path]
) -> None:
    runs = finished("one"), finished("other", systems=("names",))
    other_kb = change_kb([{"id": "Q1", "label": "Jordan"}])
    with pytest.raises(BadInput, match=r"is not the one of .*, or has changed since"):
        comparing(*runs, data=benchmark, kb=str(other_kb))
    split = benchmark / "tiny-val.jsonl"
    split.write_text(split.read_text().replace("dunks", "sits"))
    with pytest.raises(BadInput, match=r"is not what .* was asked about tiny, or has changed since"):
        comparing(*runs, data=benchmark, kb=str(tiny_folder))


# --- what a run may carry -------------------------------------------------------------------------------------------


def test_optional_fields_become_costs_triples_and_position_bias(
    finished: Runs, reseal: Any, comparing: Compare, benchmark: Path, tiny_folder: Path
) -> None:
    def told(number: int, line: dict[str, Any]) -> dict[str, Any]:
        triples = [["Jordan", "member of", "Chicago Bulls", "image"], ["Jordan", "wears", "a hat", "text"]]
        return {
            **line,
            "prompt_tokens": 100 + number,
            "attempts": 1 + (number == 0),
            "unparsed": number == 1,
            "offered": [entity for entity, _ in line["candidates"]],
            "triples": triples if line["id"] == "1-0" else [],
        }

    def machine(manifest: dict[str, Any]) -> None:
        manifest["resources"] = {"zero-shot": {"seconds": 3.5, "peak_memory_bytes": 2**31, "device": "card"}}

    one = reseal(finished("one"), told, manifest=machine)
    made = comparing(one, finished("other", systems=("names",)), data=benchmark, kb=str(tiny_folder))
    system = made.json["systems"]["one"]
    assert system["costs"]["mentions_per_second"] == 2.0
    assert system["costs"]["whole_run"] is False
    assert (system["costs"]["prompt_tokens"], system["costs"]["device"]) == (103.0, "card")
    assert system["costs"]["unparsed"] == pytest.approx(1 / 7, abs=1e-6)
    quality = system["triples"]["tiny"]
    assert (quality["n_said"], quality["precision"]["value"]) == (2, 0.5)
    assert quality["by_source"] == {"image": [1, 1.0], "text": [1, 0.0]}
    bias = system["position_bias"]["tiny"]
    assert bias["n"] == 6
    other = made.json["systems"]["other"]
    assert (other["costs"]["prompt_tokens"], other["triples"], other["position_bias"]) == (None, {}, {})
    assert other["costs"]["whole_run"] is True
    assert "## Generated triples" in made.markdown
    assert "## Position bias" in made.markdown


def test_resources_of_another_form_are_said_with_their_run(finished: Runs, reseal: Any, comparing: Compare) -> None:
    def machine(manifest: dict[str, Any]) -> None:
        manifest["resources"] = {"zero-shot": {"seconds": "long"}}

    one = reseal(finished("one"), lambda _, line: line, manifest=machine)
    with pytest.raises(CorruptArtifact, match=r"costs of 'zero-shot' in the manifest of .*one: seconds is 'long'"):
        comparing(one, finished("other", systems=("names",)))


def test_what_triples_are_worth_is_said(finished: Runs, comparing: Compare) -> None:
    one = finished("with", systems=("fused",))
    notes = comparing(one, finished("without", systems=("fused",), without=("triples",))).json["notes"]
    (line,) = [line for line in notes if "triples are worth" in line]
    assert line.startswith("tiny: triples are worth ")
    assert "HITS@1 to with (against without)" in line


def test_a_missing_and_a_damaged_picture_are_said_and_stop_nothing(
    finished: Runs, comparing: Compare, benchmark: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (900, 600), "teal").save(benchmark / "good.png")
    (benchmark / "bad.png").write_bytes(b"no picture")
    split = benchmark / "tiny-val.jsonl"
    images = ["good.png", "good.png", "gone.png", "bad.png", "bad.png", "good.png", "good.png"]
    rows = [json.loads(line) for line in split.read_text().splitlines()]
    split.write_text(
        "".join(json.dumps({**row, "image": image}) + "\n" for row, image in zip(rows, images, strict=True))
    )
    runs = finished("one"), finished("other", systems=("names",))
    made = comparing(*runs, data=benchmark, kb=str(tiny_folder), out=tmp_path / "report")
    slices = {one["name"]: one["n"] for one in made.json["datasets"]["tiny"]["slices"]}
    assert (slices["with image"], slices["without image"]) == (6, 1)
    page = (tmp_path / "report" / "comparison.html").read_text()
    shown = {one["id"] for one in made.json["datasets"]["tiny"]["disagreements"]["examples"]}
    expected = [image for row, image in zip(rows, images, strict=True) if row["id"] in shown]
    assert page.count("data:image/jpeg;base64,") == expected.count("good.png") > 0
    assert ("there is no picture" in page) == ("gone.png" in expected)
    assert ("it is not a picture" in page) == ("bad.png" in expected)
    assert str(benchmark) not in page


def test_the_kb_is_closed_again(finished: Runs, comparing: Compare, benchmark: Path, tiny_folder: Path) -> None:
    runs = finished("one"), finished("other", systems=("names",))
    comparing(*runs, data=benchmark, kb=str(tiny_folder))
    with KnowledgeBase(tiny_folder) as kb:
        assert len(kb) == 6
