"""One or more systems on a split of a benchmark, by the strict protocol: what `localmel eval` runs.

In: a plan and a KB.  Out: a report as JSON and as Markdown; with `out`, `<out>/evaluate/` with both and with every
ranking.  The same inputs are not evaluated twice, and give the same bytes.  Chooses nothing and fits nothing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.benchmarks import read_benchmark
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.evaluate.paper import PaperCounts, PaperMention, paper_counts
from localmel.evaluate.protocol import Evaluation, EvaluationSettings, Outcome, evaluate
from localmel.evaluate.significance import compare
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.registry import KGMEL, kind_of, load_matcher
from localmel.matchers.trained import TrainedMatcher
from localmel.report.evaluation import as_json, as_markdown
from localmel.retrieve.profile_models import ProfileModels, matcher_folder
from localmel.runs.ablations import check_scorer, check_switches, profile_without
from localmel.runs.evaluate_folder import (
    KIND,
    STAGE,
    VERSION,
    outcome_for,
    ranking_line,
    stored_evaluation,
    versions,
    write_evaluation,
)
from localmel.runs.evaluate_folder import Report as Report
from localmel.runs.fuzzy_protocol import fuzzy_part
from localmel.runs.questions import GoldOutside, Question, Questions, check_gold_outside, questions_of
from localmel.runs.systems import CALIBRATED, Answer, Bench, answers_of, stated_of
from localmel.settings import Profile, load_profile
from localmel.settings.shipped import weights_folder
from localmel.store.artifacts import new_folder, sha256_of
from localmel.weights.network import network_folder

if TYPE_CHECKING:
    from localmel.encode.kb_vectors import KbVectors
    from localmel.kb.packed import PackedKb


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is evaluated, and how."""

    data: Path
    "A benchmark folder."
    datasets: tuple[str, ...] = ()
    "Which of its datasets, each evaluated by itself; none named: the only one."
    split: str = "val"
    systems: tuple[str, ...] = ("linker",)
    "The first is the one that the others are compared with."
    profile: str = "embedded"
    network: Path | None = None
    "Stands in for the profile's fusion network."
    matcher: Path | None = None
    "Folder of a trained matcher: what the system `matcher` is, and what the linker finds candidates by."
    scorer: Path | None = None
    "Stands in for the profile's evidence scorer."
    without: tuple[str, ...] = ()
    "What is withheld; the keys of `withheld.CHANGES`."
    k: int = 16
    paper: bool = False
    "Also count as published."
    fuzzy: bool = False
    "Also rank a hundred candidates by fuzzy name."
    drop_leaked: bool = False
    gold_outside: GoldOutside = "refuse"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"K is {self.k}; at least one candidate is needed", hint="--k 16")
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
    "The fusion network, where a system finds by it."
    matcher: TrainedMatcher[Any] | None
    "The matcher chosen in its place, where a system finds by that."
    by_system: Mapping[str, TrainedMatcher[Any]]
    scorer: Path | None


def evaluate_systems(
    plan: Plan,
    kb: KnowledgeBase,
    encoders: Encoders,
    *,
    out: Path | None = None,
    command: str = "",
) -> Report:
    """Ask every system every question, and count.  `command` is kept, so that a run can be done again.

    encoders: of the kind that the matcher wants (`encoders_for`).

    Raises UsageError, BadInput, and CorruptArtifact where `out` holds a damaged run."""
    started = time.perf_counter()
    kb.hold()
    models = _models(plan)
    benchmarks = [read_benchmark(plan.data, name) for name in plan.datasets or (None,)]
    asked = [questions_of(one, plan.split, kb, drop=plan.drop_leaked, outside=plan.gold_outside) for one in benchmarks]
    inputs = _inputs(plan, kb, models, asked)
    if out and (stored := stored_evaluation(out / STAGE, inputs)):
        return stored
    bench = _bench(plan, kb, encoders, models)
    parts = [_evaluated(plan, bench, one, _head(inputs, kb, models)) for one in asked]
    both = list(zip(asked, parts, strict=True))
    report = Report(
        json={"format": 1, **inputs["settings"], "datasets": {one.dataset: part.json for one, part in both}},
        markdown="\n".join(part.markdown for part in parts),
        made=True,
    )
    if out:
        seconds = round(time.perf_counter() - started, 2)
        places = {"data": str(plan.data.resolve()), "kb": str(kb.folder.resolve())}
        facts = {
            "inputs": inputs,
            "command": command,
            "places": places,  # where a comparison finds the sentences
            "versions": versions(),
            "seconds": seconds,
        }
        with new_folder(out / STAGE, kind=KIND, version=VERSION, facts=facts) as folder:
            write_evaluation(folder, report, (line for part in parts for line in part.rankings))
    return report


# --- what it is made from -------------------------------------------------------------------------------------------


def _models(plan: Plan) -> _Models:
    profile = profile_without(load_profile(plan.profile), plan.without, scorer_given=plan.scorer is not None)
    network = matcher = scorer = None
    place = plan.matcher
    if place is None and profile.retrieve.matcher != KGMEL:
        place = matcher_folder(profile)
    if place and plan.network and "fused" not in plan.systems:
        raise UsageError(f"{plan.network} and {place} are both to find candidates", hint="--network or --matcher alone")
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
    return _Models(profile=profile, network=network, matcher=matcher, by_system=by_system, scorer=scorer)


def _inputs(plan: Plan, kb: KnowledgeBase, models: _Models, asked: Sequence[Questions]) -> dict[str, Any]:
    """Everything that decides the numbers, without the places where it lies."""
    profile = asdict(models.profile)
    if plan.scorer:
        profile["rerank"]["weights"] = "given"
    if plan.matcher:
        profile["retrieve"]["matcher"] = "given"
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
        "scorer_sha256": _scorer_sha256(models.scorer) if models.scorer else None,
        "localmel": versions()["localmel"],
    }


def _scorer_sha256(folder: Path) -> str:
    try:
        parts = [sha256_of(folder / name) for name in ("scorer.json", "weights.safetensors")]
    except OSError as error:
        raise CorruptArtifact(f"{folder} holds no evidence scorer ({error})", hint=shell_line("ls", folder)) from None
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _bench(plan: Plan, kb: KnowledgeBase, encoders: Encoders, models: _Models) -> Bench:
    from localmel.encode.kb_vectors import load_vectors

    packed: PackedKb | None = None
    vectors: KbVectors | None = None
    ready: dict[str, TrainedMatcher[Any]] = {}
    if set(plan.systems) != {"names"}:
        packed, vectors = load_vectors(kb, encoders.text.space)
        if not len(packed.rows):
            raise BadInput(f"kb {kb.name!r} has no entities", hint="localmel kb build NAME --help")
        index = models.profile.retrieve.index
        for found in models.by_system.values():
            if found.sha256 not in ready:
                ready[found.sha256] = kind_of(found).index_ablated(kb, found, encoders, index, plan.without)
    return Bench(
        kb=kb,
        profile=models.profile,
        encoders=encoders,
        k=plan.k,
        pictures="image" not in plan.without and bool(models.by_system),
        packed=packed,
        vectors=vectors,
        models={
            system: ProfileModels(encoders=encoders, matcher=ready[found.sha256])
            for system, found in models.by_system.items()
        },
        scorer=models.scorer,
    )


# --- one dataset ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    json: dict[str, Any]
    markdown: str
    rankings: list[dict[str, Any]]


def _evaluated(plan: Plan, bench: Bench, questions: Questions, head: Sequence[str]) -> _Part:
    settings = EvaluationSettings(k=plan.k)
    asked = questions.asked
    stated, unreadable = stated_of(bench, asked)
    outcomes, paper, rankings = {}, {}, []
    evaluations: dict[str, Evaluation] = {}
    for system in plan.systems:
        answers = answers_of(system, bench, asked, stated)
        pairs = list(zip(asked, answers, stated, strict=True))
        outcomes[system] = [
            outcome_for(question, answer, has_triples=bool(triples)) for question, answer, triples in pairs
        ]
        evaluations[system] = _evaluation(system, outcomes[system], settings)
        rankings += [ranking_line(questions.dataset, system, one, answer) for one, answer, _ in pairs]
        if plan.paper and (counted := _paper(asked, answers)):
            paper[system] = counted
    first, *others = plan.systems
    in_kb = any(one.gold is not None for one in asked)
    comparisons = [
        compare(outcomes[first], outcomes[other], settings, names=(first, other)) for other in others if in_kb
    ]
    notes = [*head, *questions.notes, *_notes(plan, unreadable)]
    published = paper if plan.paper else None
    among, section = fuzzy_part(plan.systems, bench, asked, stated) if plan.fuzzy else (None, "")
    return _Part(
        json={
            **as_json(evaluations, comparisons=comparisons, paper=published, notes=notes),
            **({"fuzzy100": among} if among else {}),
        },
        markdown=as_markdown(
            evaluations,
            comparisons=comparisons,
            paper=published,
            notes=notes,
            title=f"{questions.dataset}, {questions.split}",
        )
        + section,
        rankings=rankings,
    )


def _evaluation(system: str, outcomes: Sequence[Outcome], settings: EvaluationSettings) -> Evaluation:
    """A cosine is no probability: where none is meant, there is no calibration error."""
    found = evaluate(outcomes, settings)
    if system in CALIBRATED:
        return found
    slices = (
        replace(one, metrics={name: value for name, value in one.metrics.items() if name != "ece"})
        for one in found.slices
    )
    return replace(found, slices=tuple(slices))


def _paper(asked: Sequence[Question], answers: Sequence[Answer]) -> PaperCounts | None:
    """Retrieval only: none of the systems answers in free text."""
    mentions = [
        PaperMention(mention_id=answer.mention_id, gold=one.gold, rank=answer.place)
        for one, answer in zip(asked, answers, strict=True)
        if one.gold is not None
    ]
    return paper_counts(mentions) if mentions else None


def _head(inputs: Mapping[str, Any], kb: KnowledgeBase, models: _Models) -> list[str]:
    without = inputs["settings"]["without"]
    lines = [f"KB {kb.name}, {len(kb):,} entities (state {kb.fingerprint[:12]}); profile {models.profile.name}."]
    if models.network:
        lines.append(f"Fusion network {models.network.folder.name} ({models.network.sha256[:12]}).")
    if models.matcher:
        lines.append(f"Matcher {models.matcher.folder}, {models.matcher.kind} ({models.matcher.sha256[:12]}).")
    if models.scorer:
        lines.append(f"Evidence scorer {models.scorer.name} ({inputs['scorer_sha256'][:12]}).")
    lines.append(f"Withheld: {', '.join(without)}." if without else "Nothing was withheld.")
    return lines


def _notes(plan: Plan, unreadable: int) -> list[str]:
    lines = []
    if unreadable:
        lines.append(f"Pictures that could not be read, whose mentions were asked without: {unreadable:,}.")
    if doubtful := [one for one in plan.systems if one not in CALIBRATED]:
        lines.append(
            f"{', '.join(doubtful)}: no probabilities, so no ECE; NIL AUROC is that of the score of the first "
            "candidate. NIL is answered by names only where no name fits, by vectors never."
        )
    return lines
