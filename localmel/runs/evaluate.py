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
from localmel.encode.registry import Encoders, open_encoder
from localmel.encode.space import PatchEncoder, WordEncoder
from localmel.errors import BadInput, CorruptArtifact, UsageError, shell_line
from localmel.evaluate.paper import PaperCounts, PaperMention, paper_counts
from localmel.evaluate.protocol import Evaluation, EvaluationSettings, Outcome, evaluate
from localmel.evaluate.significance import compare
from localmel.kb.store import KnowledgeBase
from localmel.matchers.folder import MatcherFolder
from localmel.matchers.kb_search import ensure_for_matcher, texts_read
from localmel.matchers.kgmel.fused import Network, fuse_kb, load_network
from localmel.matchers.registry import KGMEL, load_matcher
from localmel.report.evaluation import as_json, as_markdown
from localmel.retrieve.profile_models import matcher_folder
from localmel.runs.ablations import check_matcher, check_switches, check_trained, parts_without, profile_without
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
    network: Network | None
    matcher: MatcherFolder[Any] | None
    scorer: Path | None


def evaluate_systems(
    plan: Plan,
    kb: KnowledgeBase,
    encoder: WordEncoder,
    *,
    images: PatchEncoder | None = None,
    tokens: Encoders | None = None,
    out: Path | None = None,
    command: str = "",
) -> Report:
    """Ask every system every question, and count.  `command` is kept, so that a run can be done again.

    images: what makes vectors of pictures, for a network that sees them.  tokens: what a matcher encodes with.

    Raises UsageError, BadInput, and CorruptArtifact where `out` holds a damaged run."""
    started = time.perf_counter()
    kb.hold()
    models = _models(plan)
    benchmarks = [read_benchmark(plan.data, name) for name in plan.datasets or (None,)]
    asked = [questions_of(one, plan.split, kb, drop=plan.drop_leaked, outside=plan.gold_outside) for one in benchmarks]
    inputs = _inputs(plan, kb, models, asked)
    if out and (stored := stored_evaluation(out / STAGE, inputs)):
        return stored
    bench = _bench(plan, kb, Encoders(text=encoder, image=images), tokens, models)
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
        place = matcher_folder(profile.retrieve.matcher)
    if place and plan.network and "fused" not in plan.systems:
        raise UsageError(f"{plan.network} and {place} are both to find candidates", hint="--network or --matcher alone")
    if place and {"linker", "matcher"} & set(plan.systems):
        matcher = load_matcher(place)
        check_matcher(plan.without, plan.systems, matcher.folder)
    if "matcher" in plan.systems and matcher is None:
        raise UsageError("no matcher to evaluate", hint="--matcher runs/NAME/seed-0/network")
    by_network = [one for one in plan.systems if one == "fused" or (one == "linker" and matcher is None)]
    if by_network:
        network = load_network(plan.network or network_folder(profile))
        check_trained(plan.without, by_network, network, plan.scorer)
    if "linker" in plan.systems:
        scorer = plan.scorer or weights_folder(profile.rerank.weights)
    return _Models(profile=profile, network=network, matcher=matcher, scorer=scorer)


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
        **texts_read(kb, models.matcher),
        "scorer_sha256": _scorer_sha256(models.scorer) if models.scorer else None,
        "localmel": versions()["localmel"],
    }


def _scorer_sha256(folder: Path) -> str:
    try:
        parts = [sha256_of(folder / name) for name in ("scorer.json", "weights.safetensors")]
    except OSError as error:
        raise CorruptArtifact(f"{folder} holds no evidence scorer ({error})", hint=shell_line("ls", folder)) from None
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _bench(
    plan: Plan,
    kb: KnowledgeBase,
    encoders: Encoders,
    tokens: Encoders | None,
    models: _Models,
) -> Bench:
    from localmel.encode.kb_vectors import load_vectors

    packed: PackedKb | None = None
    vectors: KbVectors | None = None
    network, given, encoder = models.network, None, encoders.text
    if set(plan.systems) != {"names"}:
        packed, vectors = load_vectors(kb, encoder.space)
        if not len(packed.rows):
            raise BadInput(f"kb {kb.name!r} has no entities", hint="localmel kb build NAME --help")
        if network:
            network.check_space(encoder.space, encoders.image.image_space if encoders.image else None)
            widths = (network.settings.text_width, network.settings.triple_width)
            if set(widths) != {encoder.space.width}:
                raise BadInput(
                    f"{network.folder} fuses text of width {widths[0]} and triples of width {widths[1]}; vectors of "
                    f"{encoder.space.name} have {encoder.space.width}",
                    hint="localmel train DATA --kb KB --out runs/NAME",
                )
            network, given = parts_without(network, vectors, plan.without)
            fuse_kb(kb, packed, given, network)
        if models.matcher:
            tokens = tokens or open_encoder(models.profile.encode)
            index = models.profile.retrieve.index
            ensure_for_matcher(kb, models.matcher, tokens, index)
    return Bench(
        kb=kb,
        profile=models.profile,
        encoders=encoders,
        k=plan.k,
        pictures="image" not in plan.without and (network is not None or models.matcher is not None),
        packed=packed,
        vectors=vectors,
        given=given,
        network=network,
        matcher=models.matcher,
        tokens=tokens,
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
