"""Run elsewhere what was skipped here: a second environment need not repeat what the first one has tested.

Every run notes in pytest's cache which tests it skipped, and strikes out those that it ran.  `--skipped-before` runs
the noted ones and notes nothing.  Knows no packages: what is missing is found out by whoever skips."""

from __future__ import annotations

import pytest

NOTED = "localmel/skipped"


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skipped-before",
        action="store_true",
        help="run only tests that were skipped when they ran last, as in another environment",
    )


def register(config: pytest.Config) -> None:
    """Select where it is asked for; otherwise note, in the process that hears of all tests."""
    if config.getoption("--skipped-before"):
        config.pluginmanager.register(_Selected(_noted(config)))
    elif not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Noting(config))


def _cache(config: pytest.Config) -> pytest.Cache | None:
    return getattr(config, "cache", None)  # not there with `-p no:cacheprovider`


def _noted(config: pytest.Config) -> set[str]:
    cache = _cache(config)
    return set(cache.get(NOTED, [])) if cache else set()


class _Selected:
    def __init__(self, noted: set[str]) -> None:
        if not noted:
            raise pytest.UsageError("no test was noted as skipped: run scripts/test, then scripts/test -m slow, before")
        self._noted = noted

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [one for one in items if not self._noted.isdisjoint((one.nodeid, one.nodeid.partition("::")[0]))]
        config.hook.pytest_deselected(items=[one for one in items if one not in set(chosen)])
        items[:] = chosen


class _Noting:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._skipped: set[str] = set()
        self._ran: set[str] = set()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.add(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self._skipped.add(report.nodeid)
        elif report.when == "call":
            self._ran.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if cache := _cache(self._config):
            ran = self._ran | {nodeid.partition("::")[0] for nodeid in self._ran}
            cache.set(NOTED, sorted(_noted(self._config) - ran | self._skipped))
