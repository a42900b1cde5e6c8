"""The options by which `localmel train --matcher dwe` says what is to be seen: declared once, checked together.

In: what was typed.  Out: annotations for Typer, and a choice.  An option that would change nothing is an error."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.matchers.dwe.choice import DweChoice
    from localmel.settings import EngineSettings

Detector = Annotated[
    str | None,
    typer.Option("--detector", help="dwe: what cuts objects out: tiles, faces, weights or a path, with +; or none."),
]
Faces = Annotated[
    str | None, typer.Option("--faces", help="dwe: faces as a part of their own, found by: faces (OpenCV), or weights.")
]
Attributes = Annotated[
    str | None, typer.Option("--attributes", help="dwe: what pictures show, as clip or the profile's vlm says it.")
]
Ask = Annotated[
    list[str] | None, typer.Option("--ask", help="dwe: ask for this attribute (repeatable); else all but those off.")
]
Identity = Annotated[
    bool, typer.Option("--identity", help="dwe: look for the nearest portraits among the KB's own pictures.")
]
Threshold = Annotated[
    float | None, typer.Option("--identity-threshold", help="dwe: cosine a portrait must exceed; 0.5 unless given.")
]
Written = Annotated[
    list[str] | None, typer.Option("--written", help="dwe: beside an entity's text: written, abstract (repeatable).")
]
WrittenBy = Annotated[
    str | None, typer.Option("--written-by", help="dwe: whose written texts, where several models wrote.")
]


def dwe_choice(
    matcher: str,
    profile: str,
    *,
    detector: str | None,
    faces: str | None,
    attributes: str | None,
    ask: list[str] | None,
    identity: bool,
    threshold: float | None,
    written: list[str] | None,
    written_by: str | None,
) -> DweChoice:
    """What was chosen.  Raises UsageError for an option that does not go with the others, or with this matcher."""
    from localmel.matchers.dwe.choice import VLM, DweChoice
    from localmel.matchers.registry import DWE

    typed = {
        "--detector": detector,
        "--faces": faces,
        "--attributes": attributes,
        "--ask": ask,
        "--identity": identity or None,
        "--identity-threshold": threshold,
        "--written": written,
        "--written-by": written_by,
    }
    given = {option: value for option, value in typed.items() if value is not None}
    if given and matcher != DWE:
        named = ", ".join(_as_typed(*one) for one in given.items())
        raise UsageError(f"{named} say what dwe is to see; {matcher} is to be trained", hint=f"--matcher {DWE}")
    if empty := [option for option, value in given.items() if value in ("", [])]:
        raise UsageError(f"{', '.join(empty)} names nothing", hint="leave it out")
    if threshold is not None and not identity:
        raise UsageError(
            f"no portraits are looked for above {threshold}", hint=f"--identity-threshold {threshold} --identity"
        )
    return DweChoice(
        detector=detector or "",
        faces=faces or "",
        attributes=attributes or "",
        asked=tuple(dict.fromkeys(ask or ())),
        model=_model(profile) if attributes == VLM else None,
        identity=identity,
        threshold=0.5 if threshold is None else threshold,
        written=tuple(dict.fromkeys(written or ())),  # type: ignore[arg-type]  # the choice says what else there is
        written_by=written_by or "",
    )


def _model(profile: str) -> EngineSettings:
    from localmel.settings import load_profile

    settings = load_profile(profile).generate.model
    if not settings.engine:
        raise UsageError(
            f"profile {profile!r} has no vision-language model to ask", hint="--attributes clip, or --profile paper"
        )
    return settings


def _as_typed(option: str, value: Any) -> str:
    if value is True:
        return option
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{option} {shlex.quote(str(one))}" for one in values)
