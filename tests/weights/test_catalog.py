"""The catalog is data: complete, of one form, and its counts are those of the architectures it names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from localmel.errors import CorruptArtifact, UsageError
from localmel.weights.catalog import MINILM, catalog, entry_from, entry_of
from localmel.weights.folders import is_name

LANGUAGE = [name for name, entry in catalog().items() if entry.purpose in ("vlm", "llm")]


@pytest.mark.parametrize("name", catalog())
def test_an_entry_says_what_it_is_where_from_and_under_which_licence(name: str) -> None:
    entry = catalog()[name]
    assert is_name(name)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repository)
    assert entry.revision == "main" or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    assert entry.summary
    assert entry.licence
    assert entry.disk_bytes > entry.parameters
    assert not {way for way in entry.quantizations} - {"8bit", "4bit", "fp8"}
    assert "." not in entry.summary.split(" ")[-1]
    assert entry.verified == (name == MINILM.name)


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_has_a_shape(name: str) -> None:
    entry = catalog()[name]
    assert 0 < entry.kept < entry.parameters
    assert min(entry.layers, entry.kv_heads, entry.head_width, entry.context) > 0
    assert (entry.image_tokens > 0) == (entry.purpose == "vlm")
    assert entry.image_tokens < entry.context


def test_the_estimate_is_the_formula() -> None:
    """Mistral-7B by hand: 2 x 32 layers x 8 heads x 128 wide x 2 bytes = 128 KiB for each token."""
    entry = entry_of("llava-v1.6-mistral-7b")
    assert (entry.parameters, entry.kept) == (7_566_747_648, 587_159_552)
    whole = entry.memory("16bit", tokens=1000, at_once=3)
    assert (whole.weights, whole.cache, whole.rest) == (15_133_495_296, 131_072 * 3000, 3 * 2**29)
    small = entry.memory("4bit")
    assert small.weights == 2 * 587_159_552 + (7_566_747_648 - 587_159_552) * 9 // 16
    assert small.cache == 131_072 * (2928 + 2048)
    assert small.total == small.weights + small.cache + small.rest


def test_a_quantisation_of_unknown_size_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot estimate memory for 'compressed-tensors'"):
        entry_of("qwen3-1.7b").memory("compressed-tensors")


def test_no_request_is_longer_than_the_context() -> None:
    entry = entry_of("llava-v1.6-vicuna-13b")
    assert entry.memory(tokens=10**6).cache == entry.memory(tokens=4096).cache


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("purpose", "chat"),
        ("parameters", "7B"),
        ("verified", 1),
        ("files", "*.json"),
        ("unknown", 1),
        ("parameters", True),
    ],
)
def test_an_entry_of_another_form_is_refused(key: str, value: Any) -> None:
    table = {
        "summary": "x", "purpose": "llm", "repository": "a/b", "revision": "main", "verified": False,
        "parameters": 1, "disk_bytes": 2,
    }  # fmt: skip
    entry_from("x", table)
    with pytest.raises(CorruptArtifact, match="catalog entry 'x'"):
        entry_from("x", {**table, key: value})
    with pytest.raises(CorruptArtifact, match="summary"):
        entry_from("x", {name: value for name, value in table.items() if name != "summary"})


def test_a_name_that_is_not_there_comes_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="it has llava-v1"):
        entry_of("llava")
