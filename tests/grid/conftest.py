"""The world of scripted models, shared with the tests of runs."""

from tests.runs.conftest import network, words, world

__all__ = ["network", "words", "world"]
