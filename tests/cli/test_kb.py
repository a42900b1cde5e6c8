"""`localmel kb ...` from end to end: build, look, change, write out, build again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

ONTOLOGY = """name;aliases;description;works for;city
Ada Jordan;AJ|A. Jordan;engineer;Ost GmbH;Łódź
Bo Jordan;;clerk;Ost GmbH|West Ltd;
Ost GmbH;Ost;builds bridges;;Łódź
"""


@pytest.fixture
def answer(localmel: Run, home: Path) -> Callable[..., Any]:
    """Run a command with --json and return what it says."""

    def run(*arguments: str | Path) -> Any:
        done = localmel(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_an_ontology_without_ids_becomes_a_kb_that_links(answer: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text(ONTOLOGY, encoding="utf-8")
    kb = tmp_path / "people"
    built = answer("kb", "build", kb, "--ontology", tmp_path / "people.csv")
    assert (built["entities"], built["triples"], built["problems"]) == (3, 5, 0)
    assert built["encoded"] > 0
    (ada,) = answer("kb", "search", "AJ", "--kb", kb)
    assert (ada["label"], ada["match"], ada["name"]) == ("Ada Jordan", "exact", "AJ")
    shown = answer("kb", "show", ada["id"], "--kb", kb)
    assert [(fact["relation"], fact["tail"]) for fact in shown["triples"]] == [
        ("works for", "Ost GmbH"),
        ("city", "Łódź"),
    ]
    assert shown["triples"][0]["tail_id"] == answer("kb", "search", "Ost", "--kb", kb)[0]["id"]
    linked = answer("link", "-", "Jordan, the engineer from Łódź, is here.", "--kb", kb)
    assert linked["kb"] == "people"
    assert [link["candidates"][0]["label"] for link in linked["links"]] == ["Ada Jordan"]


def test_build_add_remove_and_export_come_round(answer: Callable[..., Any], tables: Run, tmp_path: Path) -> None:
    kb = tmp_path / "towns"
    first = [
        {"id": "a", "label": "Aa", "aliases": ["A1", "A2"], "popularity": 0.5},
        {"id": "b", "label": "Bb", "description": "d"},
    ]
    assert answer("kb", "build", kb, *tables(tmp_path / "1", first, [("a", "near", "b", "Bb")]))["encoded"] == 4
    added = answer("kb", "add", kb, *tables(tmp_path / "2", [{"id": "c", "label": "Cc"}], [("c", "near", "a", "Aa")]))
    assert (added["entities"], added["triples"], added["encoded"]) == (1, 1, 2)
    assert answer("kb", "info", kb)["entities"] == 3
    removed = answer("kb", "remove", kb, "b")
    assert (removed["entities"], removed["triples"], removed["encoded"]) == (1, 0, 0)
    assert answer("kb", "search", "Bb", "--kb", kb) == []
    written = answer("kb", "export", kb, tmp_path / "out")
    assert (written["entities"], written["triples"]) == (2, 2)
    again = tmp_path / "again"
    files = ["--entities", tmp_path / "out" / "entities.jsonl", "--triples", tmp_path / "out" / "triples.tsv"]
    answer("kb", "build", again, *files)
    answer("kb", "export", again, tmp_path / "out2")
    for name in ("entities.jsonl", "triples.tsv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()
    for entity_id in ("a", "c"):
        assert answer("kb", "show", entity_id, "--kb", again) == answer("kb", "show", entity_id, "--kb", kb)


def test_a_kb_that_is_there_is_replaced_only_on_request(
    answer: Callable[..., Any], localmel: Run, tables: Run, tmp_path: Path
) -> None:
    kb = tmp_path / "kb"
    answer("kb", "build", kb, *tables(tmp_path / "1", [{"id": "a", "label": "Aa"}]), "--no-vectors")
    options = tables(tmp_path / "2", [{"id": "b", "label": "Bb"}])
    refused = localmel("kb", "build", kb, *options, "--no-vectors")
    assert refused.returncode == 3
    assert "--replace" in refused.stderr
    assert answer("kb", "show", "a", "--kb", kb)["label"] == "Aa"
    answer("kb", "build", kb, *options, "--no-vectors", "--replace")
    assert answer("kb", "search", "Aa", "--kb", kb) == []


def test_bad_lines_are_told_with_their_numbers_and_skipped_on_request(
    localmel: Run, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "e.jsonl").write_text(
        '{"id": "a", "label": "Aa"}\n{broken\n{"id": "a", "label": "Again"}\n{"id": "b"}\n'
    )
    (tmp_path / "t.tsv").write_text(
        "head\tpredicate\trelation\ttail_id\ttail\nzz\tP\tnear\t\tBb\na\tP\tnear\t\tBb\nshort\n"
    )
    command = [
        "kb",
        "build",
        tmp_path / "kb",
        "--entities",
        tmp_path / "e.jsonl",
        "--triples",
        tmp_path / "t.tsv",
        "--no-vectors",
    ]
    refused = localmel(*command)
    assert refused.returncode == 3
    assert refused.stdout == ""
    for place in ("e.jsonl:2", "e.jsonl:3", "e.jsonl:4", "t.tsv:2", "t.tsv:4"):
        assert place in refused.stderr
    assert "--skip-bad" in refused.stderr
    assert not (tmp_path / "kb").exists()
    done = localmel(*command, "--skip-bad", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"entities": 1, "triples": 1, "problems": 5, "encoded": None}
    assert done.stderr.count("left out:") == 5


def test_a_name_stands_for_a_folder_of_the_home_and_info_lists_it(
    answer: Callable[..., Any], own_kb: str, home: Path
) -> None:
    every = answer("kb", "info")
    assert every[0]["name"] == "starter"
    (own,) = [fact for fact in every if fact["name"] == own_kb]
    assert own["path"] == str(home / "kb" / own_kb)
    assert (own["entities"], own["triples"]) == (3, 2)
