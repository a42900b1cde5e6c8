"""Turn dataclasses into JSON and back, with every type checked.

In: a dataclass (or a list, tuple or mapping of them), or JSON that was read.  Out: plain dicts, lists, strings and
numbers; or the dataclass.  Refuses JSON that lacks a key, has one too many, or holds a value of another type.  A field
with a default may be missing, so files written before the field existed stay readable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from localmel.errors import CorruptArtifact, LocalmelError

T = TypeVar("T")


def to_json(value: object) -> Any:
    """Return `value` as JSON can write it: a dataclass as a dict by its fields, a path as a string."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def from_json(
    kind: type[T],
    data: object,
    *,
    where: object,
    again: str = "",
    more: bool = False,
    error: type[LocalmelError] = CorruptArtifact,
) -> T:
    """Return the `kind` that `data` describes, checked to its last key.

    where: what was read, as the message names it (a path, perhaps with a line); again: the command to run next;
    more: accept keys that `kind` does not have; error: what to raise.

        from_json(Triple, {"head": "Messi", "relation": "club", "tail": "Inter"}, where=path, again="localmel ...")
    """
    try:
        value = msgspec.convert(data, kind, dec_hook=_special)
    except LocalmelError as refused:  # a check of the dataclass itself
        raise error(f"cannot read {where}: {refused.fact}", hint=again) from None
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as refused:
        raise error(f"cannot read {where}: {refused}", hint=again) from None
    if not more and (key := _key_too_many(data, value, "$")):
        raise error(f"cannot read {where}: Object contains unknown field {key}", hint=again)
    return value


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a number of NumPy or torch
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _special(kind: type, given: object) -> object:
    if kind is Path and isinstance(given, str):
        return Path(given)
    raise TypeError(f"{given!r:.60} is no {kind.__name__}")


def _key_too_many(data: object, value: object, at: str) -> str:
    """Return the first key of `data` for which no dataclass in `value` has a field; empty where there is none."""
    if isinstance(data, Mapping):
        if dataclasses.is_dataclass(value):
            names = {field.name for field in dataclasses.fields(value)}
            if extra := [key for key in data if key not in names]:  # a list: a key may be empty
                return f"`{extra[0]}` - at `{at}`"
            pairs = [(key, data[key], getattr(value, key)) for key in data]
        elif isinstance(value, Mapping):
            pairs = [(key, data[key], value[key]) for key in data if key in value]
        else:
            return ""
        inner = (_key_too_many(given, made, f"{at}.{key}") for key, given, made in pairs)
        return next(filter(None, inner), "")
    if isinstance(data, Sequence) and isinstance(value, list | tuple):
        both = enumerate(zip(data, value, strict=True))
        return next(filter(None, (_key_too_many(given, made, f"{at}[{n}]") for n, (given, made) in both)), "")
    return ""
