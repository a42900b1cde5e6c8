"""Runs in which something is withheld: names, counts, triples, text, pictures, the gate.

In: what is withheld, and the parts of a system.  Out: the same parts, without it.  A switch changes what a part is
given; no part has two forms.  A switch that would change nothing, or that a trained part contradicts, is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from localmel.errors import BadInput, CorruptArtifact, UnknownChoice, UsageError
from localmel.matchers.trained import MatcherCard
from localmel.rerank.features import features_in
from localmel.settings import Profile

if TYPE_CHECKING:
    pass

SYSTEMS = ("linker", "fused", "matcher", "zero-shot", "names")
CHANGES = {
    "names": ("linker",),
    "counts": ("linker", "names"),
    "triples": ("linker", "fused"),
    "text": ("linker", "fused"),
    "gate": ("linker", "fused"),
    "image": ("linker", "fused"),
}
"What can be withheld, and which systems then answer otherwise."
_REFUSED = {("names", "names"), ("text", "zero-shot")}
"Nothing would be left of the system."


def check_switches(without: Sequence[str], systems: Sequence[str]) -> None:
    """Raise UsageError for what is unknown, has no effect on any of the systems, or leaves nothing of one."""
    for kind, option, given, known in (
        ("system", "--system", systems, SYSTEMS),
        ("switch", "--without", without, tuple(CHANGES)),
    ):
        if unknown := [one for one in given if one not in known]:
            raise UnknownChoice(kind, unknown[0], known, option=option)
    for switch in without:
        for system in systems:
            if (switch, system) in _REFUSED:
                raise UsageError(f"nothing is left of system {system!r} without {switch}")
        if not set(CHANGES[switch]) & set(systems):
            raise UsageError(
                f"--without {switch} changes none of the systems {', '.join(systems)}",
                hint=f"--system {CHANGES[switch][0]}",
            )


def check_scorer(without: Collection[str], matcher: MatcherCard, scorer: Path | None) -> None:
    """Raise where the linker's scorer was fitted with what is left out.  scorer: given in the profile's place."""
    for switch in ("triples", "text", *(["image"] if matcher.image_space else [])):
        if switch in without and scorer is None:
            raise BadInput(
                f"the linker without {switch} needs a scorer that was fitted without, beside {matcher.folder}",
                hint="python scripts/fit_evidence_scorer.py --help   # then give its folder with --scorer",
            )
        used = (
            [name for name in _features(scorer) if name in features_in(switch)] if switch in without and scorer else []
        )
        if used:
            raise BadInput(
                f"{scorer} weighs {len(used)} features made of {switch}: {', '.join(used)}",
                hint="python scripts/fit_evidence_scorer.py --help   # fit one without them",
            )


def profile_without(profile: Profile, without: Collection[str], *, scorer_given: bool) -> Profile:
    """The profile with names or counts withheld."""
    retrieve, rerank = profile.retrieve, profile.rerank
    if "names" in without:
        retrieve = replace(retrieve, by_name=0, by_vector=64)
    if "counts" in without:
        retrieve = replace(retrieve, use_counts=False)
        if not scorer_given:
            rerank = replace(rerank, weights="evidence-scorer-no-counts")
    return replace(profile, retrieve=retrieve, rerank=rerank)


def _features(scorer: Path) -> list[str]:
    try:
        return list(json.loads((scorer / "scorer.json").read_text(encoding="utf-8"))["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"cannot load an evidence scorer from {scorer}: {error}") from None
