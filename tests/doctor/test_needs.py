"""Versions compare as pip compares them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from localmel.doctor.needs import fits, installed, requirements, requires_python

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(version=st.text("0123456789.+abc?-", max_size=9), wanted=st.text("0123456789.=<>,!~*", max_size=9))
@UNHURRIED
def test_nothing_that_stands_in_notes_breaks_the_comparison(version: str, wanted: str) -> None:
    assert fits(version, wanted) in (True, False)


@pytest.mark.parametrize(
    ("version", "wanted", "so"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("0.33.0rc1", ">=0.33", False),
        ("0.33.0rc1", ">=0.32", True),
        ("5.19.0", "<5.20.0,>=5.16.1", True),
        ("?", ">=1", False),
        ("", ">=1", False),
        ("anything", "", True),
    ],
)
def test_the_cases_that_matter_here(version: str, wanted: str, so: bool) -> None:
    assert fits(version, wanted) is so


def test_the_notes_of_installed_packages_are_read() -> None:
    assert installed("no-such-package") == ""
    assert installed("no-such-package", "pytest") == pytest.__version__
    assert requirements("no-such-package") == {}
    base = requirements("localmel")
    assert {"numpy", "torch", "typer"} <= set(base)
    assert not {"vllm", "ruff"} & set(base)
    assert "vllm" in requirements("localmel", "vllm")
    assert fits("3.12.1", requires_python("localmel"))
    for wanted in base.values():
        SpecifierSet(wanted)  # raises InvalidSpecifier for a line that was cut wrongly


def test_notes_that_are_half_there_are_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe\x00nonsense")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("broken", "other"):
        assert not fits(installed(name), ">=0")
        assert requirements(name) == {}
        assert requires_python(name) == ""
