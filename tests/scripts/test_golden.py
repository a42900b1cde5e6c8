"""The comparison of `scripts/golden`: what it reports, and what it leaves out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from scripts.golden_compare import DROPPED, differences

ANSWER: dict[str, Any] = {
    "profile": "embedded",
    "links": [
        {
            "entity": {"id": "Q41421", "label": "Michael Jordan"},
            "probability": 0.5213,
            "candidates": [{"id": "Q41421", "score": 0.5}, {"id": "Q810", "score": 0.25}],
        }
    ],
    "notes": ["turned by 90 degrees"],
    "seconds": {"read": 2.5, "rerank": 0.25},
    "command": "localmel link a.jpg Jordan",
    "inputs": {"localmel": "0.1.0", "k": 16, "versions": {"numpy": "2.0"}},
    "files": {
        "report.md": {"bytes": 10, "sha256": "ab"},
        "network.safetensors": {"bytes": 10, "sha256": "cd"},
    },
}
Change = Callable[[Any], object]


def reported(change: Change) -> list[str]:
    """Return the lines that are printed where the working tree's answer is changed so."""
    working = copy.deepcopy(ANSWER)
    change(working)
    return list(differences(ANSWER, working))


def first(answer: Any) -> Any:
    return answer["links"][0]


def reorder_keys(answer: Any) -> None:
    answer["profile"] = answer.pop("profile")


def test_equal_answers_have_no_differences() -> None:
    assert reported(lambda _: None) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda one: first(one)["entity"].update(id="Q42"), "/links/[0]/entity/id"),
        (lambda one: first(one)["candidates"].reverse(), "/links/[0]/candidates/[0]/id"),
        (lambda one: first(one)["candidates"].pop(), "/links/[0]/candidates: 2 values became 1"),
        (lambda one: first(one).pop("probability"), "/links/[0]/probability: missing"),
        (lambda one: first(one).update(new=1), "/links/[0]/new: new"),
        (lambda one: first(one).update(probability=0.52131), "/links/[0]/probability"),
        (lambda one: first(one).update(probability=float("nan")), "/links/[0]/probability"),
        (lambda one: first(one).update(probability=None), "/links/[0]/probability: float 0.5213 became null"),
        (lambda one: one["inputs"].update(k=16.0), "/inputs/k: integer 16 became float"),
        (lambda one: one["files"]["network.safetensors"].update(sha256="ef"), "/files/network.safetensors/sha256"),
        (lambda one: one.pop("notes"), "/notes: missing"),
        (lambda one: one.update(notes="turned"), "/notes: list became text"),
        (reorder_keys, "/: keys in another order"),
    ],
)
def test_what_a_program_would_notice_is_reported(change: Change, path: str) -> None:
    assert reported(change)[0].startswith(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(notes=["rotated", "and cropped"]),
        lambda one: one["seconds"].update(read=9.0),
        lambda one: one.update(command="localmel link b.jpg Jordan"),
        lambda one: one["inputs"].update(localmel="0.2.0", versions={"numpy": "2.1"}),
        lambda one: one["files"]["report.md"].update(bytes=11, sha256="ef"),
        lambda one: first(one).update(probability=0.5213004),
    ],
    ids=["prose", "seconds", "command", "versions", "hash of prose", "rounding"],
)
def test_wording_timings_and_rounding_are_not_reported(change: Change) -> None:
    assert reported(change) == []


def test_a_name_that_only_contains_a_dropped_key_is_compared() -> None:
    assert list(differences({"note_count": 1, "hints": ["a"]}, {"note_count": 2, "hints": ["b"]})) == [
        "/note_count: 1 became 2",
        "/hints/[0]: 'a' became 'b'",
    ]


def test_each_kind_of_dropped_value_gives_its_reason_once() -> None:
    assert len({one.why for one in DROPPED}) == len(DROPPED)
