"""What a run may tell about a mention beside its answer: tokens, seconds, attempts, what was offered and generated.

In: one line of a run.  Out: Carried; a field that the line does not have is None.  Every field is optional, so that
runs of systems without a language model stay as they are.  Refuses a field of another form, with its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localmel.records import EntityId, Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The optional fields of one line of rankings.jsonl; docs/comparing.md says what each means."""

    seconds: float | None = None
    prompt_tokens: int | None = None
    image_tokens: int | None = None
    output_tokens: int | None = None
    first_token_seconds: float | None = None
    attempts: int | None = None
    unparsed: bool | None = None
    failed_open: bool | None = None
    offered: tuple[EntityId, ...] | None = None
    triples: tuple[Triple, ...] | None = None


_KINDS: dict[str, tuple[type, ...]] = {
    "seconds": (int, float),
    "prompt_tokens": (int,),
    "image_tokens": (int,),
    "output_tokens": (int,),
    "first_token_seconds": (int, float),
    "attempts": (int,),
    "unparsed": (bool,),
    "failed_open": (bool,),
    "offered": (list,),
    "triples": (list,),
}


def carried_of(line: Mapping[str, Any]) -> Carried:
    """The optional fields of a line.  Raises ValueError with the field that is not what it should be."""
    given: dict[str, Any] = {}
    for name, kinds in _KINDS.items():
        value = line.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value!r}, below 0 or no number")
        given[name] = value
    if "offered" in given:
        if not all(isinstance(one, str) for one in given["offered"]):
            raise ValueError(f"offered holds {given['offered']!r:.80}, not entity ids")
        given["offered"] = tuple(given["offered"])
    if "triples" in given:
        given["triples"] = tuple(_triple(one) for one in given["triples"])
    return Carried(**given)


def _triple(value: Any) -> Triple:
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(part, str) for part in value):
        raise ValueError(f"triples holds {value!r:.80}, not [head, relation, tail, source]")
    head, relation, tail, source = value
    return Triple(head=head, relation=relation, tail=tail, source=source)
