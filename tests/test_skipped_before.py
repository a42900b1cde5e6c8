"""What one run skips, another one can run alone."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
from tests import skipped_before

def pytest_addoption(parser):
    skipped_before.add_option(parser)

def pytest_configure(config):
    skipped_before.register(config)
"""
TESTS = """
import os
import pytest

def test_runs_everywhere(): pass

def test_lacks_something():
    if "HAS_ALL" not in os.environ:
        pytest.skip("something is missing")

@pytest.mark.skipif("HAS_ALL" not in os.environ, reason="something is missing")
@pytest.mark.parametrize("n", [1, 2])
def test_of_several(n): pass
"""
WHOLE_MODULE = """
import os
import pytest

if "HAS_ALL" not in os.environ:
    pytest.skip("all is missing", allow_module_level=True)

def test_lacks_all(): pass
"""
WANTED = {"test_some.py::test_lacks_something", "test_some.py::test_of_several[1]", "test_some.py::test_of_several[2]"}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("HAS_ALL", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_some=TESTS, test_whole=WHOLE_MODULE)
    return pytester


def passed(result: pytest.RunResult) -> set[str]:
    return {line.split()[0] for line in result.outlines if " PASSED" in line}


@pytest.mark.parametrize("processes", ["0", "2"])
def test_what_was_skipped_is_run_elsewhere_as_often_as_one_likes(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    first = project.runpytest_inprocess("--numprocesses", processes)
    first.assert_outcomes(passed=1, skipped=4)
    monkeypatch.setenv("HAS_ALL", "1")
    for _ in range(2):
        again = project.runpytest_inprocess("--skipped-before", "-v")
        assert passed(again) == {*WANTED, "test_whole.py::test_lacks_all"}


def test_what_was_run_since_is_not_run_again(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.runpytest_inprocess()
    monkeypatch.setenv("HAS_ALL", "1")
    project.runpytest_inprocess("-k", "lacks")
    assert passed(project.runpytest_inprocess("--skipped-before", "-v")) == {*WANTED} - {
        "test_some.py::test_lacks_something"
    }


def test_where_nothing_was_noted_it_does_not_pass_by_doing_nothing(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--skipped-before")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no test was noted as skipped*"])
