"""A hundred candidates by fuzzy name, and systems that put the same candidates in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.encode.kb_vectors import index_kb
from localmel.encode.registry import Encoders
from localmel.evaluate.fuzzy import CANDIDATES
from localmel.kb.store import KnowledgeBase
from localmel.runs.evaluate import Report
from localmel.runs.evaluate_systems import Plan, evaluate_systems
from localmel.runs.fuzzy_protocol import BY_SCORE

SYSTEMS = ("linker", "fused", "zero-shot", "names")


@pytest.fixture
def run(benchmark: Path, tiny: KnowledgeBase, words: Any, network: Callable[..., Path]) -> Callable[..., Report]:
    def evaluate(kb: KnowledgeBase = tiny, data: Path = benchmark, **given: Any) -> Report:
        plan = Plan(**{"data": data, "network": network(), "fuzzy": True, **given})
        return evaluate_systems(plan, kb, Encoders(text=words, image=None))

    return evaluate


def among(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = report.json["datasets"]["tiny"]["fuzzy100"]
    return found


def test_every_system_orders_the_same_candidates(run: Callable[..., Report]) -> None:
    report = run(systems=SYSTEMS)
    found = among(report)
    assert list(found["systems"]) == [BY_SCORE, *SYSTEMS]
    assert found["left_out"] == 1
    for one in found["systems"].values():
        assert one["n"] == 6
        assert one["recall@100"]["value"] == 1.0, "the KB has fewer than a hundred names: all are candidates"
        assert one["top"]["T@20"]["value"] == 1.0
        shares = [one["top"][f"T@{k}"]["value"] for k in (1, 5, 10, 20)]
        assert shares == sorted(shares)
        assert [one["top_given"][f"T@{k}"]["value"] for k in (1, 5, 10, 20)] == shares
    assert "## 100 candidates by fuzzy name" in report.markdown
    section = report.markdown.partition("## 100 candidates by fuzzy name")[2]
    assert section.count("| linker | 6 | 1.000 [1.000, 1.000] |") == 1
    assert json.dumps(report.json, allow_nan=False)


def test_the_strict_numbers_are_those_of_the_strict_protocol(run: Callable[..., Report]) -> None:
    both, strict = run(systems=("zero-shot",)), run(systems=("zero-shot",), fuzzy=False)
    assert both.json["datasets"]["tiny"]["systems"] == strict.json["datasets"]["tiny"]["systems"]
    assert "fuzzy100" not in strict.json["datasets"]["tiny"]
    assert (both.json["protocol"], strict.json["protocol"]) == ("fuzzy100", "strict")


def test_by_cosine_the_order_is_that_of_the_whole_kb_where_all_are_candidates(run: Callable[..., Report]) -> None:
    for system in ("fused", "zero-shot"):
        report = run(systems=(system,))
        whole = report.json["datasets"]["tiny"]["systems"][system]["slices"]["gold in the KB"]["metrics"]
        top = among(report)["systems"][system]["top"]
        assert top["T@1"]["value"] == whole["hits@1"]["value"]
        assert top["T@5"]["value"] == whole["hits@5"]["value"]


def test_the_gold_is_never_put_among_the_candidates(
    run: Callable[..., Report],
    words: Any,
    change_kb: Callable[..., Path],
    write_split: Callable[..., None],
    tmp_path: Path,
) -> None:
    """A hundred bearers of nearly the surface, and a gold of quite another name."""
    near = [{"id": f"Q{n}", "label": f"Jordan {chr(97 + n % 26)}{n}"} for n in range(CANDIDATES + 5)]
    folder = change_kb([*near, {"id": "G", "label": "Wholly Unlike Anything", "aliases": ["Jordan"]}])
    data = tmp_path / "gold"
    data.mkdir()
    write_split(data / "tiny-train.jsonl", [("t", "Something Else", "Something", "Q1")])
    asked = [("1", "Jordan spoke", "Jordan", "G"), ("2", "Jordan a0 spoke", "Jordan a0", "Q0")]
    write_split(data / "tiny-val.jsonl", asked)
    with KnowledgeBase(folder) as kb:
        index_kb(kb, words)
        found = among(run(kb=kb, data=data, systems=("linker", "zero-shot", "names")))["systems"]
    for one in found.values():
        assert one["recall@100"]["value"] == 0.5
        assert one["top"]["T@20"]["value"] <= 0.5
    assert found[BY_SCORE]["top"]["T@1"]["value"] == 0.5


def test_without_a_gold_in_the_kb_there_is_nothing_to_count(
    run: Callable[..., Report], write_split: Callable[..., None], tmp_path: Path
) -> None:
    data = tmp_path / "nil"
    data.mkdir()
    write_split(data / "tiny-val.jsonl", [("1", "Smith met nobody", "Smith", None)])
    found = among(run(data=data, systems=SYSTEMS))
    assert found["left_out"] == 1
    assert {one["n"] for one in found["systems"].values()} == {0}
