"""Read profiles from their files: the shipped ones, the user's own, and those that one extends.

In: the name of a profile, or a path.  Out: settings, and for each value the file that sets it.  Your own profile can
never replace a shipped one, because answers name their profile."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from localmel.errors import UsageError, shell_line
from localmel.settings.checks import NAME, Table, check_table, profile_from
from localmel.settings.fields import Profile
from localmel.settings.home import config_folder

_SHIPPED = Path(__file__).parents[1] / "profiles"
_MOST_BYTES = 1_000_000
"A profile has a few hundred; anything larger is another kind of file."

Origin = Literal["shipped", "own", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFile:
    """One file of a profile, shipped or the user's own."""

    path: Path
    origin: Origin
    table: Table
    "The file as written, with its name and without `extends`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value in force and its origin."""

    key: str
    "With dots: `rerank.model.weights`."
    value: str | int | float | bool
    origin: Origin
    file: Path | None
    "None for a default, which is in the code."


def load_profile(name: str) -> Profile:
    """Load a profile by name, shipped or the user's own, or by the path of a TOML file.  Raises UsageError."""
    return _merged(profile_files(name))


def settings_in_force(name: str) -> tuple[Setting, ...]:
    """Return every value of a profile with its origin, in the order of the stages.  Raises UsageError."""
    files = profile_files(name)
    return tuple(_setting(key, value, files) for key, value in _leaves(_merged(files)))


def profile_names() -> tuple[str, ...]:
    """Return the names of the shipped profiles, `embedded` first, then of the user's own."""
    try:
        own = sorted(path.stem for path in (config_folder() / "profiles").glob("*.toml"))
    except (OSError, RuntimeError):  # a folder that this user cannot read holds no profile for them
        own = []
    shipped = _shipped_names()
    return (*shipped, *(name for name in own if name not in shipped and NAME.fullmatch(name)))


def _shipped_names() -> tuple[str, ...]:
    return tuple(sorted((path.stem for path in _SHIPPED.glob("*.toml")), key=lambda name: (name != "embedded", name)))


def profile_files(name: str) -> tuple[ProfileFile, ...]:
    """Return the files of a profile: what it extends first, itself last.  Raises UsageError."""
    files: list[ProfileFile] = []
    wanted: str | None = name
    while wanted is not None:
        path, origin = _place(wanted, extended_by=files[0].path if files else None)
        if os.path.realpath(path) in (os.path.realpath(file.path) for file in files):
            circle = " -> ".join([*(file.path.name for file in reversed(files)), path.name])
            raise UsageError(f"{files[-1].path} extends itself: {circle}")
        table = _read(path, extended_by=files[0].path if files else None)
        wanted = table.pop("extends", None)
        if wanted is not None and not isinstance(wanted, str):
            raise UsageError(f"{path}: extends must be the name of a profile, not {wanted!r}")
        if origin == "own" and table.setdefault("name", path.stem) in _shipped_names():
            raise _name_is_taken(path, table["name"])
        files.insert(0, ProfileFile(path=path, origin=origin, table=table))
    return tuple(files)


def _place(name: str, *, extended_by: Path | None) -> tuple[Path, Origin]:
    """Find the file of a profile.  A path in `extends` is relative to the folder of the file that has it."""
    asked = f"{extended_by}: extends = {name!r}: " if extended_by else ""
    if "\0" not in name and ("/" in name or name.endswith(".toml")):
        try:
            os.fsencode(name)
            path = (extended_by.parent if extended_by else Path()) / Path(name).expanduser()
        except (RuntimeError, UnicodeEncodeError) as error:
            raise UsageError(f"{asked}{name!r} is not a path ({error})", hint="give the path from / on") from None
        return path, "shipped" if os.path.realpath(path.parent) == os.path.realpath(_SHIPPED) else "own"
    own = config_folder() / "profiles" / f"{name}.toml"
    there = bool(NAME.fullmatch(name)) and os.path.lexists(own)
    if name in _shipped_names():
        if there:
            raise _name_is_taken(own, name)
        return _SHIPPED / f"{name}.toml", "shipped"
    if there:
        return own, "own"
    known = ", ".join(profile_names())
    raise UsageError(f"{asked}there is no profile {name!r}; there are {known}", hint="localmel config --list")


def _name_is_taken(path: Path, name: str) -> UsageError:
    fact = f"{path} takes the name of the shipped profile {name!r}: their answers could not be told apart"
    return UsageError(
        fact, hint=shell_line("mv", path, path.with_name(f"my-{path.name}"), note="and change its `name`")
    )


def _read(path: Path, *, extended_by: Path | None) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
        return tomllib.loads(content.decode("utf-8"))
    except FileNotFoundError:
        asked = f"{extended_by} extends it, and " if extended_by else ""
        raise UsageError(f"{asked}there is no profile at {path}", hint="localmel config --list") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path} as a profile ({error})") from None


def _merged(files: tuple[ProfileFile, ...]) -> Profile:
    together: dict[str, Any] = {}
    for file in files:
        check_table(file.table, Profile, str(file.path))
        together = _over(together, {**file.table, "summary": file.table.get("summary", "")})
    return profile_from(together, where=str(files[-1].path))


def _over(below: Table, above: Table) -> dict[str, Any]:
    """Join two tables; values of `above` win."""
    joined = {
        key: _over(below[key], value) if isinstance(value, dict) and key in below else value
        for key, value in above.items()
    }
    return {**below, **joined}


def _leaves(settings: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{at}{field.name}.")
        else:
            yield f"{at}{field.name}", value


def _setting(key: str, value: Any, files: tuple[ProfileFile, ...]) -> Setting:
    for file in reversed(files):
        found: Any = file.table
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return Setting(key=key, value=value, origin=file.origin, file=file.path)
    return Setting(key=key, value=value, origin="default", file=None)
