"""What a run recorded about its answers besides the answers themselves, and the costs that follow from it.

In: the lines of a run, and what its manifest says about the machine.  Out: AnswerDetails per line and one Costs per
system.  Every field is optional, so that systems without a language model need none; what is not recorded is None and
becomes a dash in a report.  Nothing is estimated.  Refuses a field of the wrong type, naming it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from localmel.records import EntityId, Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDetails:
    """The optional fields of one line of rankings.jsonl; docs/comparing.md explains them."""

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


def details_of(line: Mapping[str, Any]) -> AnswerDetails:
    """Read the optional fields of a line.  Raises ValueError that names a field of the wrong type."""
    given: dict[str, Any] = {}
    for name, kinds in _KINDS.items():
        value = line.get(name)
        if value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{name} is {value!r}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value!r}, not a number of at least 0")
        given[name] = value
    if "offered" in given:
        if not all(isinstance(one, str) for one in given["offered"]):
            raise ValueError(f"offered is {given['offered']!r:.80}, not a list of entity ids")
        given["offered"] = tuple(given["offered"])
    if "triples" in given:
        given["triples"] = tuple(_triple(one) for one in given["triples"])
    return AnswerDetails(**given)


def _triple(value: Any) -> Triple:
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(part, str) for part in value):
        raise ValueError(f"triples contains {value!r:.80}, not [head, relation, tail, source]")
    head, relation, tail, source = value
    return Triple(head=head, relation=relation, tail=tail, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost of one system of a run, over all its mentions."""

    mentions_per_second: float | None = None
    whole_run: bool = False
    "Whether the seconds are those of the whole run, loading included, rather than of the system alone."
    prompt_tokens: float | None = None
    "Mean per mention, image tokens included."
    image_tokens: float | None = None
    output_tokens: float | None = None
    first_token_seconds: float | None = None
    "Median."
    peak_memory_bytes: int | None = None
    unparsed: float | None = None
    "Share of mentions whose answer could not be parsed after the last attempt."
    failed_open: float | None = None
    "Share of mentions for which the reranking model gave no usable answer, so that the order of retrieval was kept."
    retried: float | None = None
    "Share of mentions that took more than one attempt."
    device: str = ""
    "As named by the run."
    models: Mapping[str, str] | None = None
    "Stage -> model."


def costs_of(
    lines: Sequence[AnswerDetails], *, resources: Mapping[str, Any] | None = None, run_seconds: float | None = None
) -> Costs:
    """Compute the costs of one system.

    resources: what the manifest records about this system.  run_seconds: the seconds of the run, if it had only this
    system.  Seconds are taken from `resources`, else summed over the lines, else from the run; tokens and the median
    time to the first token from `resources` (for the whole run), else from the lines.
    Raises ValueError for a resource of the wrong type."""
    resources = resources or {}
    own = _number(resources, "seconds")
    of_lines = _recorded(lines, attrgetter("seconds"))
    if own is None and lines and len(of_lines) == len(lines):
        own = sum(of_lines)
    seconds = own if own is not None else run_seconds
    memory = _number(resources, "peak_memory_bytes")
    first_token = _number(resources, "first_token_seconds")
    models = resources.get("models")
    if models is not None and not isinstance(models, Mapping):
        raise ValueError(f"models is {models!r:.80}")
    return Costs(
        mentions_per_second=len(lines) / seconds if seconds and lines else None,
        whole_run=own is None and seconds is not None,
        prompt_tokens=_tokens(resources, lines, "prompt_tokens"),
        image_tokens=_tokens(resources, lines, "image_tokens"),
        output_tokens=_tokens(resources, lines, "output_tokens"),
        first_token_seconds=_median(lines, "first_token_seconds") if first_token is None else first_token,
        peak_memory_bytes=int(memory) if memory else None,
        unparsed=_mean(lines, attrgetter("unparsed")),
        failed_open=_mean(lines, attrgetter("failed_open")),
        retried=_mean(lines, lambda line: None if line.attempts is None else line.attempts > 1),
        device=str(resources.get("device", "")),
        models=None if models is None else {str(stage): str(model) for stage, model in models.items()},
    )


def _tokens(resources: Mapping[str, Any], lines: Sequence[AnswerDetails], name: str) -> float | None:
    """Return the tokens per mention; a question about several mentions has one count that no single line can hold."""
    total = _number(resources, name)
    if total is not None and lines:
        return total / len(lines)
    return _mean(lines, attrgetter(name))


def _number(resources: Mapping[str, Any], name: str) -> float | None:
    value = resources.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}")
    return float(value)


def _recorded(lines: Sequence[AnswerDetails], read: Callable[[AnswerDetails], float | None]) -> list[float]:
    return [float(value) for line in lines if (value := read(line)) is not None]


def _mean(lines: Sequence[AnswerDetails], read: Callable[[AnswerDetails], float | None]) -> float | None:
    values = _recorded(lines, read)
    return sum(values) / len(values) if values else None


def _median(lines: Sequence[AnswerDetails], name: str) -> float | None:
    values = _recorded(lines, attrgetter(name))
    return statistics.median(values) if values else None
