"""Which systems stand beside each other: names that differ, datasets that all have, what two are not made alike in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.errors import BadInput, UsageError
from localmel.runs.columns import columns_of, differences_of, gains_from_triples, shared_datasets
from localmel.runs.finished_runs import read_run

Runs = Callable[..., Path]


def test_a_run_with_one_system_is_called_by_its_folder(finished: Runs) -> None:
    runs = [read_run(finished("a")), read_run(finished("b", systems=("names",)))]
    assert [one.name for one in columns_of(runs, ())] == ["a", "b"]


def test_systems_of_one_run_are_told_apart(finished: Runs) -> None:
    run = read_run(finished("a", systems=("zero-shot", "names")))
    assert [one.name for one in columns_of([run], ())] == ["a/zero-shot", "a/names"]
    other = read_run(finished("b"))
    assert [one.name for one in columns_of([run, other], ("zero-shot",))] == ["a", "b"]


def test_folders_of_one_name_are_told_apart_by_those_above(finished: Runs) -> None:
    runs = [read_run(finished("x/a")), read_run(finished("y/a"))]
    assert [one.name for one in columns_of(runs, ())] == ["x/a", "y/a"]


def test_a_single_system_is_nothing_to_compare(finished: Runs) -> None:
    run = read_run(finished("a"))
    with pytest.raises(BadInput, match=r"with nothing: it is one run with one system \(zero-shot\)") as refusal:
        columns_of([run], ())
    assert "localmel compare" in refusal.value.hint


def test_a_run_named_twice_and_a_system_nobody_has_are_refused(finished: Runs) -> None:
    folder = finished("a")
    with pytest.raises(UsageError, match="is named twice"):
        columns_of([read_run(folder), read_run(folder / "evaluate")], ())
    with pytest.raises(BadInput, match="has none of the systems linker; it has zero-shot") as refusal:
        columns_of([read_run(folder)], ("linker",))
    assert refusal.value.hint == "--system zero-shot"


def test_datasets_must_be_those_of_every_run(finished: Runs, reseal: Any) -> None:
    one, other = read_run(finished("a")), read_run(finished("b"))
    assert shared_datasets([one, other], ()) == ["tiny"]
    with pytest.raises(BadInput, match="not every run has dataset 'large'; all have: tiny"):
        shared_datasets([one, other], ["large"])

    def renamed(manifest: dict[str, Any]) -> None:
        manifest["inputs"]["questions"]["more"] = "x"

    more = read_run(reseal(finished("c"), lambda _, line: line, manifest=renamed))
    with pytest.raises(BadInput, match="were asked different datasets") as refusal:
        shared_datasets([one, more], ())
    assert refusal.value.hint == "--dataset tiny"
    assert shared_datasets([one, more], ["tiny"]) == ["tiny"]


def test_what_two_are_not_made_alike_in_is_named(finished: Runs) -> None:
    plain, names, without = columns_of(
        [
            read_run(finished("plain", systems=("fused",))),
            read_run(finished("names", systems=("names",))),
            read_run(finished("without", systems=("fused",), without=("triples",))),
        ],
        (),
    )
    assert "withheld nothing / triples" in differences_of(plain, without)
    assert "system fused / names" in differences_of(plain, names)
    assert any(one.startswith("network ") and one.endswith(" / none") for one in differences_of(plain, names))
    assert differences_of(plain, plain) == ()
    assert gains_from_triples(plain, without)
    assert not gains_from_triples(without, plain)
    assert not gains_from_triples(plain, names)
    assert plain.facts["withheld"] == "nothing"
    assert len(plain.facts["network"]) == 12
    assert not plain.calibrated
