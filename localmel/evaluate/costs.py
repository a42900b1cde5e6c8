"""What an answer costs: mentions per second, tokens, time to the first token, memory, answers that could not be read.

In: what the lines of a run carry, and what its manifest says of the machine.  Out: one Costs.  What a run does not tell
is None and stands in a report as a dash; nothing is estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from localmel.evaluate.answer_details import Carried


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """One system of one run, over all mentions that the run holds."""

    mentions_per_second: float | None = None
    whole_run: bool = False
    "The seconds are those of the whole run, loading and reading included, not those of the system alone."
    prompt_tokens: float | None = None
    "Mean per mention; image tokens are part of them."
    image_tokens: float | None = None
    output_tokens: float | None = None
    first_token_seconds: float | None = None
    "Median."
    peak_memory_bytes: int | None = None
    unparsed: float | None = None
    "Share of mentions whose answer could not be read after the last attempt."
    failed_open: float | None = None
    "Share of mentions for which the model that chooses gave no usable answer, so that retrieval's order stands."
    retried: float | None = None
    "Share of mentions that were asked more than once."
    device: str = ""
    "As the run names it."
    models: Mapping[str, str] | None = None
    "Stage -> model."


def costs_of(
    lines: Sequence[Carried], *, resources: Mapping[str, Any] | None = None, run_seconds: float | None = None
) -> Costs:
    """`resources`: what the manifest says of this system; `run_seconds`: of the whole run, where it held only this one.

    Seconds are looked for in `resources`, then in the lines (added up), then in the run; tokens, and the median time
    to the first one, in `resources` (of the whole run), then in the lines.
    Raises ValueError for a resource of another form."""
    resources = resources or {}
    own = _number(resources, "seconds")
    if own is None and lines and all(line.seconds is not None for line in lines):
        own = sum(line.seconds or 0.0 for line in lines)
    seconds = own if own is not None else run_seconds
    memory = _number(resources, "peak_memory_bytes")
    models = resources.get("models")
    if models is not None and not isinstance(models, Mapping):
        raise ValueError(f"models is {models!r:.80}")
    return Costs(
        mentions_per_second=len(lines) / seconds if seconds and lines else None,
        whole_run=own is None and seconds is not None,
        prompt_tokens=_tokens(resources, lines, "prompt_tokens"),
        image_tokens=_tokens(resources, lines, "image_tokens"),
        output_tokens=_tokens(resources, lines, "output_tokens"),
        first_token_seconds=_first_token(resources, lines),
        peak_memory_bytes=int(memory) if memory else None,
        unparsed=_mean(lines, lambda line: line.unparsed),
        failed_open=_mean(lines, lambda line: line.failed_open),
        retried=_mean(lines, lambda line: None if line.attempts is None else line.attempts > 1),
        device=str(resources.get("device", "")),
        models=None if models is None else {str(stage): str(model) for stage, model in models.items()},
    )


def _tokens(resources: Mapping[str, Any], lines: Sequence[Carried], name: str) -> float | None:
    """Per mention: a question about several mentions has one count, which no line can hold."""
    total = _number(resources, name)
    if total is not None and lines:
        return total / len(lines)
    return _mean(lines, attrgetter(name))


def _first_token(resources: Mapping[str, Any], lines: Sequence[Carried]) -> float | None:
    told = _number(resources, "first_token_seconds")
    return told if told is not None else _median(lines, lambda line: line.first_token_seconds)


def _number(resources: Mapping[str, Any], name: str) -> float | None:
    value = resources.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}")
    return float(value)


def _known(lines: Sequence[Carried], read: Callable[[Carried], float | None]) -> list[float]:
    return [float(value) for line in lines if (value := read(line)) is not None]


def _mean(lines: Sequence[Carried], read: Callable[[Carried], float | None]) -> float | None:
    known = _known(lines, read)
    return sum(known) / len(known) if known else None


def _median(lines: Sequence[Carried], read: Callable[[Carried], float | None]) -> float | None:
    import statistics

    known = _known(lines, read)
    return statistics.median(known) if known else None
