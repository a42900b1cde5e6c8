"""The table of needs in docs/models.md is the one that the script prints, and follows from its assumptions."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from localmel.settings import load_profile

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "estimate_models.py"


@pytest.fixture(scope="module")
def estimate() -> Iterator[ModuleType]:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("estimate_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["estimate_models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["estimate_models"]


def test_the_documentation_shows_what_the_script_prints() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=ROOT, capture_output=True, text=True, check=True)
    documentation = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert len(done.stdout.splitlines()) == 6
    assert done.stdout in documentation
    assert f"{done.stderr.split()[4]} captions a minute" in documentation


def test_a_card_twice_as_fast_takes_half_the_time(estimate: ModuleType) -> None:
    engine, card = load_profile("paper").generate.model, estimate.CARDS["paper"]
    twice = estimate.Card(name="x", operations=2 * card.operations, bytes=2 * card.bytes)
    seconds = estimate.seconds_per_caption
    assert seconds("generate", engine, twice) * 2 == pytest.approx(seconds("generate", engine, card))


def test_reading_a_question_costs_two_operations_a_parameter_and_token(estimate: ModuleType) -> None:
    card = estimate.Card(name="x", operations=1e12, bytes=1e30)
    by_hand = 2 * (2 * 8_030_261_248 * 1050) / (0.4 * 1e12)
    spent = estimate.seconds_per_caption("rerank", load_profile("paper").rerank.model, card)
    assert spent == pytest.approx(by_hand)


def test_smaller_pictures_have_fewer_tokens(estimate: ModuleType) -> None:
    small, large = (estimate.image_tokens(load_profile(name).generate.model) for name in ("paper-13b", "paper"))
    assert (small, large) == (1368, 2340)
    assert estimate.image_tokens(load_profile("qwen").generate.model) == 36 * 27
