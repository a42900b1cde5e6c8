"""Evaluate systems on a split of a benchmark: what `localmel eval` runs.

In: a plan and a KB.  Out: a report; with `out` also the folder `<out>/evaluate/`.  The same inputs give the same bytes.
Chooses nothing and fits nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localmel.benchmarks import read_benchmark
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, UsageError, shell_line
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.registry import KGMEL, kind_of, load_matcher
from localmel.matchers.trained import TrainedMatcher
from localmel.rerank.scorer import scorer_sha256
from localmel.retrieve.profile_models import ProfileModels, matcher_folder
from localmel.runs.ablations import check_scorer, check_switches, profile_without
from localmel.runs.evaluate import CALIBRATED, STAGE, Answered, Report, evaluate_stage
from localmel.runs.folder import versions
from localmel.runs.fuzzy_protocol import fuzzy_part
from localmel.runs.questions import GoldOutside, Questions, check_gold_outside, questions_of
from localmel.runs.systems import Bench, answers_of, stated_of
from localmel.settings import Profile, load_profile
from localmel.settings.shipped import weights_folder
from localmel.weights.needed import network_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan of an evaluation: what to evaluate, and how."""

    data: Path
    "A benchmark folder."
    datasets: tuple[str, ...] = ()
    "Which of its datasets, each evaluated by itself; default: the only one."
    split: str = "val"
    systems: tuple[str, ...] = ("linker",)
    "The others are compared with the first."
    profile: str = "embedded"
    network: Path | None = None
    "Replaces the profile's fusion network."
    matcher: Path | None = None
    "Folder of a trained matcher: the system `matcher`, and the finder of the linker's candidates."
    scorer: Path | None = None
    "Replaces the profile's evidence scorer."
    without: tuple[str, ...] = ()
    "Ablations; the keys of `ablations.CHANGES`."
    k: int = 16
    paper: bool = False
    "Whether to count as published, too."
    fuzzy: bool = False
    "Whether to rank a hundred candidates by fuzzy name, too."
    drop_leaked: bool = False
    gold_outside: GoldOutside = "refuse"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"K must be at least 1, not {self.k}", hint="--k 16")
        check_gold_outside(self.gold_outside)
        for name in ("systems", "without", "datasets"):
            if len(set(given := getattr(self, name))) < len(given):
                raise UsageError(f"{name} are named twice: {', '.join(given)}")
        if not self.systems:
            raise UsageError("no system to evaluate", hint="--system linker")
        if self.matcher and not {"linker", "matcher"} & set(self.systems):
            raise UsageError(
                f"a matcher changes none of the systems {', '.join(self.systems)}", hint="--system matcher"
            )
        check_switches(self.without, self.systems)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    profile: Profile
    network: TrainedMatcher[Any] | None
    "The fusion network, if a system uses it."
    matcher: TrainedMatcher[Any] | None
    "The matcher chosen in its place, if a system uses it."
    by_system: Mapping[str, TrainedMatcher[Any]]
    scorer: Path | None


def evaluate_systems(
    plan: Plan, kb: KnowledgeBase, encoders: Encoders, *, out: Path | None = None, command: str = ""
) -> Report:
    """Ask every system every question and evaluate the answers, or return the report in `out`.

    encoders: what the matcher needs (`encoders_for`); command: kept, so that the run can be repeated.
    Raises UsageError, BadInput, and CorruptArtifact if `out` holds a damaged run."""
    kb.hold()
    models = _models(plan)
    benchmarks = [read_benchmark(plan.data, name) for name in plan.datasets or (None,)]
    asked = [questions_of(one, plan.split, kb, drop=plan.drop_leaked, outside=plan.gold_outside) for one in benchmarks]
    inputs = _inputs(plan, kb, models, asked)

    def answered() -> Iterator[Answered]:
        bench = _bench(plan, kb, encoders, models)
        for questions in asked:
            yield _answered(plan, bench, questions, _head(inputs, kb, models))

    return evaluate_stage(
        out,
        answered,
        inputs=inputs,
        instead=f"choose another --out, or {shell_line('rm -r', (out or Path()) / STAGE)}",
        places={"data": str(plan.data.resolve()), "kb": str(kb.folder.resolve())},
        command=command,
    )


# --- what it is made from -------------------------------------------------------------------------------------------


def _models(plan: Plan) -> _Models:
    profile = profile_without(load_profile(plan.profile), plan.without, scorer_given=plan.scorer is not None)
    network = matcher = scorer = None
    place = plan.matcher
    if place is None and profile.retrieve.matcher != KGMEL:
        place = matcher_folder(profile)
    if place and plan.network and "fused" not in plan.systems:
        raise UsageError(
            f"cannot find candidates by both {plan.network} and {place}", hint="--network or --matcher alone"
        )
    if place and {"linker", "matcher"} & set(plan.systems):
        matcher = load_matcher(place)
    if "matcher" in plan.systems and matcher is None:
        raise UsageError("no matcher to evaluate", hint="--matcher runs/NAME/seed-0/network")
    if "fused" in plan.systems or ("linker" in plan.systems and matcher is None):
        network = load_network(plan.network or network_folder(profile))
    finding = {"linker": matcher or network, "matcher": matcher, "fused": network}
    by_system = {system: found for system in plan.systems if (found := finding.get(system))}
    for system, found in by_system.items():
        kind_of(found).check_ablation(found, plan.without, linking=system == "linker")
        if system == "linker":
            check_scorer(plan.without, found, plan.scorer)
    if "linker" in plan.systems:
        scorer = plan.scorer or weights_folder(profile.rerank.weights)
        shown = profile.rerank.most_candidates
        if profile.rerank.backend == "llm" and plan.k != shown:
            fact = f"K cannot be {plan.k}: the model of profile {plan.profile} chooses among {shown} candidates"
            raise UsageError(fact, hint=f"--k {shown}")
    return _Models(profile=profile, network=network, matcher=matcher, by_system=by_system, scorer=scorer)


def _inputs(plan: Plan, kb: KnowledgeBase, models: _Models, asked: Sequence[Questions]) -> dict[str, Any]:
    """Return everything that decides the numbers, without paths."""
    profile = asdict(models.profile)
    if plan.scorer:
        profile["rerank"]["weights"] = "given"
    if plan.matcher:
        profile["retrieve"]["matcher"] = "given"
    scorer = models.scorer and hashlib.sha256("".join(scorer_sha256(models.scorer)).encode()).hexdigest()
    return {
        "settings": {
            "split": plan.split,
            "systems": list(plan.systems),
            "without": sorted(plan.without),
            "profile": plan.profile,
            "k": plan.k,
            "protocol": "fuzzy100" if plan.fuzzy else "paper" if plan.paper else "strict",
            "drop_leaked": plan.drop_leaked,
            "gold_outside": plan.gold_outside,
        },
        "profile": profile,
        "kb_fingerprint": kb.fingerprint,
        "questions": {one.dataset: one.sha256 for one in asked},
        "network_sha256": models.network.sha256 if models.network else None,
        **({"matcher_sha256": models.matcher.sha256} if models.matcher else {}),
        **(kind_of(models.matcher).texts_state(kb) if models.matcher else {}),
        "scorer_sha256": scorer,
        "localmel": versions()["localmel"],
    }


def _bench(plan: Plan, kb: KnowledgeBase, encoders: Encoders, models: _Models) -> Bench:
    bench = Bench(
        kb=kb,
        profile=models.profile,
        encoders=encoders,
        k=plan.k,
        pictures="image" not in plan.without and bool(models.by_system),
        models={},
        scorer=models.scorer,
    )
    if set(plan.systems) == {"names"}:
        return bench
    packed, _ = bench.indexed
    if not len(packed.rows):
        raise BadInput(f"kb {kb.name!r} has no entities", hint="localmel kb build NAME --help")
    ready: dict[str, ProfileModels] = {}
    for found in models.by_system.values():
        if found.sha256 not in ready:
            index = models.profile.retrieve.index
            matcher = kind_of(found).index_ablated(kb, found, encoders, index, plan.without)
            ready[found.sha256] = ProfileModels(encoders=encoders, matcher=matcher)
    return replace(bench, models={system: ready[found.sha256] for system, found in models.by_system.items()})


def _head(inputs: Mapping[str, Any], kb: KnowledgeBase, models: _Models) -> list[str]:
    without = inputs["settings"]["without"]
    lines = [f"KB {kb.name}, {len(kb):,} entities (state {kb.fingerprint[:12]}); profile {models.profile.name}."]
    if models.network:
        lines.append(f"Fusion network {models.network.folder.name} ({models.network.sha256[:12]}).")
    if models.matcher:
        lines.append(f"Matcher {models.matcher.folder}, {models.matcher.kind} ({models.matcher.sha256[:12]}).")
    if models.scorer:
        lines.append(f"Evidence scorer {models.scorer.name} ({inputs['scorer_sha256'][:12]}).")
    lines.append(f"Ablation: without {', '.join(without)}." if without else "No ablation.")
    return lines


# --- one dataset ----------------------------------------------------------------------------------------------------


def _answered(plan: Plan, bench: Bench, questions: Questions, head: Sequence[str]) -> Answered:
    stated, n_unreadable = stated_of(bench, questions.asked)
    systems = {system: answers_of(system, bench, questions.asked, stated) for system in plan.systems}
    section, page = fuzzy_part(plan.systems, bench, questions.asked, stated) if plan.fuzzy else ({}, "")
    return Answered(
        questions=questions,
        systems=systems,
        notes=[*head, *questions.notes, *_notes(plan, n_unreadable)],
        paper=plan.paper,
        more={"fuzzy100": section} if section else {},
        more_markdown=page,
    )


def _notes(plan: Plan, n_unreadable: int) -> list[str]:
    lines = []
    if n_unreadable:
        lines.append(f"Pictures that could not be read, so that their mentions were linked without: {n_unreadable:,}.")
    if doubtful := [one for one in plan.systems if one not in CALIBRATED]:
        lines.append(
            f"{', '.join(doubtful)}: scores are not probabilities, so there is no ECE, and NIL AUROC is that of the "
            "first candidate's score. Names answer NIL only if no name fits, vectors never."
        )
    return lines
