"""Counts, minutes and memory of a grid before it is run, against figures worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.engines.protocol import Message, Request
from localmel.engines.scripted import ScriptedEngine
from localmel.grid.costs import (
    CARDS,
    READING,
    SAMPLE,
    WRITING,
    Tokens,
    evenly,
    guessed_tokens,
    memory_of,
    minutes_of,
    tokens_of,
)
from localmel.settings import EngineSettings
from localmel.weights.catalog import catalog

LLM = EngineSettings(engine="vllm", weights="qwen2.5-7b-instruct", context=8192, at_once=32)
SCRIPTED = EngineSettings(engine="scripted", weights="made-up")
TOKENS = Tokens(requests=100, prompt=100_000, image=0, output=6_400, counted=True, sampled=48)


def request(number: int, n_words: int, *, choices: tuple[str, ...] = ("A", "B")) -> Request:
    text = " ".join(["word"] * n_words)
    return Request(id=str(number), messages=(Message(role="user", parts=(text,)),), choices=choices)


def test_what_is_counted_for_a_script_is_what_it_will_count() -> None:
    requests = [request(number, 5 + number % 7) for number in range(40)]
    found = tokens_of(requests, SCRIPTED)
    assert found.prompt == sum(one.prompt_tokens for one in ScriptedEngine(SCRIPTED).generate(requests))
    assert (found.requests, found.output, found.image, found.counted) == (40, 40, 0, True)


def test_of_many_requests_some_are_counted_and_scaled_up() -> None:
    found = tokens_of([request(number, 10) for number in range(10 * SAMPLE)], SCRIPTED)
    assert (found.requests, found.prompt, found.sampled) == (10 * SAMPLE, 10 * SAMPLE * 12, SAMPLE)
    assert tokens_of([request(0, 10)], SCRIPTED, in_all=30).prompt == 30 * 12
    assert tokens_of([], SCRIPTED).prompt == 0


@given(st.integers(0, 500), st.integers(1, 60))
def test_a_sample_is_spread_over_all_and_names_none_twice(n: int, most: int) -> None:
    found = evenly(range(n), most)
    assert len(found) == min(n, most) == len(set(found))
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_model_that_is_not_here_is_estimated_by_characters_and_the_catalog() -> None:
    picture = Path("picture.png")
    message = Message(role="user", parts=(picture, "x" * 400))
    found = tokens_of([Request(id="1", messages=(message,), max_tokens=300)], replace(LLM, weights="qwen2.5-vl-7b"))
    per_picture = catalog()["qwen2.5-vl-7b"].image_tokens
    assert (found.prompt, found.image, found.output, found.counted) == (100 + per_picture, per_picture, 80, False)
    assert guessed_tokens(10, 4000) == Tokens(requests=10, prompt=10_000, image=0, output=10, counted=False, sampled=0)


def test_minutes_are_those_of_the_data_sheet() -> None:
    entry = catalog()["qwen2.5-7b-instruct"]
    operations, n_bytes = CARDS["L4"]
    reading = 2 * entry.parameters * 100_000 / (READING * operations)
    writing = 6_400 / 32 * 2 * entry.parameters / (WRITING * n_bytes)
    assert minutes_of(LLM, TOKENS, "NVIDIA L4") == pytest.approx((reading + writing) / 60)
    packed = minutes_of(replace(LLM, quantization="4bit"), TOKENS, "NVIDIA L4")
    assert packed is not None
    assert packed < (reading + writing) / 60


@pytest.mark.parametrize(
    ("card", "known"), [("NVIDIA L40S", "L40S"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-80GB", "A100")]
)
def test_a_card_is_known_by_its_whole_name(card: str, known: str) -> None:
    assert minutes_of(LLM, TOKENS, card) == minutes_of(LLM, TOKENS, known)
    assert minutes_of(LLM, TOKENS, "NVIDIA L4") != minutes_of(LLM, TOKENS, "NVIDIA L40S")


def test_what_is_not_known_is_not_made_up() -> None:
    assert minutes_of(LLM, TOKENS, "") is None
    assert minutes_of(LLM, TOKENS, "Somebody's Card 9000") is None
    assert minutes_of(replace(LLM, weights="nobody-made-this"), TOKENS, "NVIDIA L4") is None
    assert minutes_of(SCRIPTED, TOKENS, "") == 0.0
    assert memory_of(replace(LLM, weights="nobody-made-this")) is None
    assert memory_of(SCRIPTED) is None


def test_memory_is_that_of_the_files_or_of_the_catalog(tiny_models: Callable[[str], Path]) -> None:
    told = memory_of(LLM)
    assert told is not None
    assert (told.source, 15e9 < told.bytes < 20e9) == ("the catalog", True)
    here = memory_of(replace(LLM, weights=str(tiny_models("tiny-llama")), device="cpu"))
    assert here is not None
    assert (here.source, here.bytes < 2e9) == ("its files", True)
