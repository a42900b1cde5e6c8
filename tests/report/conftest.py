"""Outcomes that are drawn, shared with the tests of evaluation."""

from tests.evaluate.conftest import draw, outcome

__all__ = ["draw", "outcome"]
