"""What all stages of a run cost together, and what a stage cost that was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localmel.runs.evaluate_run import busy_seconds, costs_of_stages
from localmel.runs.folder import Stage


def stage(seconds: float, *, model: str | None = None, **figures: Any) -> Stage:
    inputs = {"model": {"name": model, "revision": "r", "versions": {}}} if model else {}
    manifest = {"seconds": seconds, "figures": figures, "made_from": {"inputs": inputs}}
    return Stage(folder=Path("stage"), manifest=manifest, made=False)


def asked(seconds: float, *, now: int = 10, kept: int = 10, load: float = 0.0, **figures: Any) -> Stage:
    return stage(seconds, model="m", answers_now=now, answers_kept=kept, load_seconds=load, **figures)


def test_stages_are_added_up_and_loading_left_out() -> None:
    stages = {
        "generate": asked(
            12.0, load=2.0, prompt_tokens=100, image_tokens=60, output_tokens=40,
            peak_memory_bytes=5, first_token_seconds=0.25, device="H200",
        ),
        "retrieve": stage(3.0, mentions=4),
        "rerank": asked(5.0, load=1.0, prompt_tokens=50, output_tokens=4, peak_memory_bytes=9, device="CPU"),
    }  # fmt: skip
    assert costs_of_stages(stages) == {
        "models": {"generate": "m", "rerank": "m"},
        "prompt_tokens": 150,
        "image_tokens": 60,
        "output_tokens": 44,
        "first_token_seconds": 0.25,
        "peak_memory_bytes": 9,
        "device": "H200, CPU",
        "seconds": 17.0,
    }


def test_without_models_there_are_only_seconds() -> None:
    assert costs_of_stages({"retrieve": stage(3.0, mentions=4)}) == {"models": {}, "seconds": 3.0}


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (asked(10.0), 10.0),
        (asked(10.0, load=4.0), 6.0),
        (asked(10.0, now=5, kept=20), 40.0),
        (asked(10.0, load=5.0, now=5, kept=20), 20.0),
        (asked(10.0, now=0, kept=20), None),
        (asked(10.0, now=0, kept=0), 10.0),
        (stage(10.0), 10.0),
        (asked(1.0, load=2.0), 0.0),
    ],
)
def test_the_speed_of_the_last_process_is_taken_for_the_whole(one: Stage, seconds: float | None) -> None:
    assert busy_seconds(one) == seconds


def test_where_one_stage_cannot_tell_its_seconds_the_run_tells_none() -> None:
    assert "seconds" not in costs_of_stages({"generate": asked(10.0, now=0, kept=20), "retrieve": stage(3.0)})
