"""The flags of `localmel train` that one kind of matcher has: made from the fields of its options.

In: the options of every kind.  Out: a command with their flags, and the options for what was typed.  A flag of another
kind than the one that is trained is an error."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from localmel.errors import UsageError
from localmel.matchers.options import Flag, MatcherOptions
from localmel.matchers.registry import MATCHERS, options_of

if TYPE_CHECKING:
    from localmel.settings import Profile


def with_matcher_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of every kind.  It receives what was typed as `typed`: values by flag."""
    own = inspect.signature(command, eval_str=True)
    parameters = [one for one in own.parameters.values() if one.name != "typed"]
    flags = {_parameter_of(flag): (kind, flag) for name in MATCHERS for _, kind, flag in options_of(name).flags()}
    for name, (kind, flag) in flags.items():
        hint: Any = Annotated[_typed_as(kind), typer.Option(flag.name, help=flag.help)]
        default = False if kind is bool else None
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    def wrapped(**given: Any) -> None:
        values = {flag.name: given.pop(name) for name, (_, flag) in flags.items()}
        command(**given, typed={name: one for name, one in values.items() if one is not None and one is not False})

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(wrapped)["__signature__"] = inspect.Signature(parameters)
    return wrapped


def options_from(typed: Mapping[str, Any], matcher: str, profile: str) -> MatcherOptions:
    """Return the options of a kind.  Raises UsageError for a flag of another kind, or for what does not fit."""
    options = options_of(matcher)
    fields = {flag.name: (field, kind) for field, kind, flag in options.flags()}
    if foreign := {name: value for name, value in typed.items() if name not in fields}:
        kind = next(
            one for one in MATCHERS if next(iter(foreign)) in {flag.name for _, _, flag in options_of(one).flags()}
        )
        named = ", ".join(_as_typed(name, value) for name, value in foreign.items())
        raise UsageError(
            f"cannot train {matcher} with {named}: only {kind} has these options", hint=f"--matcher {kind}"
        )

    @cache
    def opened() -> Profile:
        from localmel.settings import load_profile

        return load_profile(profile)

    given = {}
    for name, value in typed.items():
        field, kind = fields[name]
        given[field] = tuple(dict.fromkeys(value)) if get_origin(kind) is tuple else value
    return options.typed(given, opened)


def _typed_as(kind: Any) -> Any:
    if kind is bool:
        return bool
    return (list[get_args(kind)[0]] if get_origin(kind) is tuple else kind) | None  # type: ignore[misc]


def _parameter_of(flag: Flag) -> str:
    return flag.name.removeprefix("--").replace("-", "_")


def _as_typed(name: str, value: Any) -> str:
    if value is True:
        return name
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{name} {shlex.quote(str(one))}" for one in values)
