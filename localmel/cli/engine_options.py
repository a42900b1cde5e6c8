"""The options of a command that stand in for what a profile says of a stage and its model.

In: the settings of a stage, and what was given.  Out: the settings with it, checked as a profile is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from localmel.errors import UsageError
from localmel.settings import EngineSettings, GenerateSettings, RerankSettings
from localmel.settings.checks import check_table

_OF_A_SERVER = {"url": "--engine-url", "allow_remote": "--allow-remote"}
_Stage = TypeVar("_Stage", GenerateSettings, RerankSettings)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the others are None."""
    return {key: value for key, value in options.items() if value is not None}


def with_options(settings: _Stage, own: dict[str, Any], model: dict[str, Any], *, where: str) -> _Stage:
    """`own` are options of the stage, `model` of its engine, both as `given` leaves them; `where` names the former."""
    check_table(own, type(settings), where)
    check_table(model, EngineSettings, "--engine")
    return replace(settings, **own, model=replace(settings.model, **model))


def check_url(settings: GenerateSettings | RerankSettings, model: dict[str, Any]) -> None:
    """Refuse what is said of a server where no server is asked."""
    options = [option for key, option in _OF_A_SERVER.items() if key in model]
    if options and settings.model.engine != "server":
        fact = f"{' and '.join(options)}: said of a server; the engine is {settings.model.engine!r}"
        raise UsageError(fact, hint="--engine server")
