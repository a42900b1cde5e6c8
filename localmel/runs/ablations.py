"""Check and apply ablations: evaluations without names, counts, triples, text, pictures or the gate.

In: the ablations that are asked for, and the parts of a system.  Out: a profile without names or counts; the matchers
apply the others themselves.  An ablation that would change nothing, or that the scorer contradicts, is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from localmel.errors import BadInput, CorruptArtifact, UnknownChoice, UsageError
from localmel.matchers.trained import MatcherCard
from localmel.rerank.features import features_in
from localmel.settings import Profile

SYSTEMS = ("linker", "fused", "matcher", "zero-shot", "names")
CHANGES = {
    "names": ("linker",),
    "counts": ("linker", "names"),
    "triples": ("linker", "fused"),
    "text": ("linker", "fused"),
    "gate": ("linker", "fused"),
    "image": ("linker", "fused"),
}
"What can be left out, and which systems that changes."
_NOTHING_LEFT = {("names", "names"), ("text", "zero-shot")}
"Ablations that would leave nothing of the system."


def check_switches(without: Sequence[str], systems: Sequence[str]) -> None:
    """Raise UsageError for an unknown system or ablation, and for one without effect or that leaves nothing."""
    for kind, option, given, known in (
        ("system", "--system", systems, SYSTEMS),
        ("switch", "--without", without, tuple(CHANGES)),
    ):
        if unknown := [one for one in given if one not in known]:
            raise UnknownChoice(kind, unknown[0], known, option=option)
    for switch in without:
        for system in systems:
            if (switch, system) in _NOTHING_LEFT:
                raise UsageError(f"nothing would be left of system {system!r} without {switch}")
        if not set(CHANGES[switch]) & set(systems):
            raise UsageError(
                f"--without {switch} changes none of the systems {', '.join(systems)}",
                hint=f"--system {CHANGES[switch][0]}",
            )


def check_scorer(without: Collection[str], matcher: MatcherCard, scorer: Path | None) -> None:
    """Raise BadInput if the linker's scorer uses what is left out.  scorer: replaces the profile's."""
    for switch in ("triples", "text", *(["image"] if matcher.image_space else [])):
        if switch in without and scorer is None:
            raise BadInput(
                f"the linker without {switch} needs a scorer that was fitted without, next to {matcher.folder}",
                hint="python scripts/fit_evidence_scorer.py --help   # then give its folder with --scorer",
            )
        names = _features(scorer) if scorer and switch in without else []
        if used := [name for name in names if name in features_in(switch)]:
            raise BadInput(
                f"{scorer} uses {len(used)} features made of {switch}: {', '.join(used)}",
                hint="python scripts/fit_evidence_scorer.py --help   # fit one without them",
            )


def profile_without(profile: Profile, without: Collection[str], *, scorer_given: bool) -> Profile:
    """Return the profile without names or counts."""
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
