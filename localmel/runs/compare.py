"""Compare finished runs: what `localmel compare RUN...` does.

In: run folders, and the data and the KB they were asked over, if available.  Out: a report as JSON, Markdown and one
HTML file, kept in a sealed folder.  Nothing is compared twice from the same inputs.  Runs no model but the text
encoder; knows nothing of grids, which call `compare_runs` on the folders of their cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

from localmel.encode.space import TextEncoder
from localmel.engines.scripted import MADE_UP, made_up_note
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, MissingExtra, UsageError, shell_line
from localmel.evaluate.answer_details import costs_of
from localmel.evaluate.comparison import (
    Compared,
    Disagreement,
    SystemAnswer,
    compare_systems,
    disagreements_of,
    sample_of,
)
from localmel.evaluate.position_bias import Offer, PositionBias, position_bias
from localmel.evaluate.significance import PairedTest
from localmel.evaluate.triple_quality import TripleQuality
from localmel.kb.locate import open_kb
from localmel.kb.store import KnowledgeBase
from localmel.report.comparison import ComparedSystem, ComparisonReport, ShownEntity, ShownMention, as_json
from localmel.report.sentences import failed_open_notes, warnings_of
from localmel.report.tables import as_markdown
from localmel.runs.asked_mentions import (
    AskedMentions,
    asked_mentions,
    generated_triples,
    shown_entities,
    shown_mentions,
)
from localmel.runs.columns import Column, columns_of, differences_of, gains_from_triples, shared_datasets
from localmel.runs.finished_runs import FinishedRun, answers_of_run, read_run, refuse_what_cannot_be_compared
from localmel.runs.folder import VERSION, json_text, write_texts
from localmel.store import progress
from localmel.store.artifacts import new_folder, read_manifest

KIND = "comparison"
JSON, MARKDOWN, HTML = "comparison.json", "comparison.md", "comparison.html"
EXTRA = ("statsmodels", "scipy", "jinja2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePlan:
    """The runs to compare, and what the report shows."""

    runs: tuple[Path, ...]
    systems: tuple[str, ...] = ()
    "Only these systems of each run; default: all."
    datasets: tuple[str, ...] = ()
    "Default: all, which every run must have."
    data: Path | None = None
    "The benchmark folder that was asked; None: the place recorded in the runs."
    kb: str | None = None
    "Name or path of its KB; None: the place recorded in the runs."
    examples: int = 200
    "How many mentions to show on which systems disagree."

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("no run to compare", hint="localmel compare RUN OTHER")
        if self.examples < 0:
            raise UsageError(f"the number of examples cannot be {self.examples}", hint="--examples 200")
        if (self.data is None) != (self.kb is None):
            raise UsageError("--data and --kb go together: slices and sentences need both", hint="--data DATA --kb KB")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparisonMade:
    """The result of a comparison."""

    json: Mapping[str, Any]
    markdown: str
    folder: Path | None
    "Holds comparison.html, .md and .json; None if nothing was to be kept."
    made: bool
    "False: the same inputs had been compared before."


def compare_runs(
    plan: ComparePlan, encoder: TextEncoder, *, out: Path | None = None, over: bool = False, command: str = ""
) -> ComparisonMade:
    """Compare every two systems and describe each.  `encoder` is used only if runs kept their generated triples.

    `over` replaces another comparison in `out`.  Raises MissingExtra before anything is read; UsageError, BadInput and
    CorruptArtifact for runs, data or an `out` that do not fit."""
    check_packages()
    runs = [read_run(folder) for folder in plan.runs]
    columns = columns_of(runs, plan.systems)
    datasets = shared_datasets(runs, plan.datasets)
    refuse_what_cannot_be_compared(runs, datasets)
    inputs = _inputs(plan, columns, datasets, encoder)
    if out and (stored := _stored(out, inputs, over=over)):
        return stored
    with _Source(plan, runs[0], datasets) as source:
        report = _report(plan, columns, datasets, source, encoder)
        found = ComparisonMade(json=as_json(report), markdown=as_markdown(report), folder=out, made=True)
        if out:
            facts = {"inputs": inputs, "command": command, "whole": not source.note}
            with new_folder(out, kind=KIND, version=VERSION, facts=facts) as folder:
                _write(folder, found, report)
        return found


def check_packages() -> None:
    """Raise MissingExtra if a package for the report is missing."""
    for package in EXTRA:
        if find_spec(package) is None:
            raise MissingExtra(f"comparing runs needs {package}", hint="pip install 'localmel[compare]'")


class _Source:
    """The data and the open KB of the first run, or a note why they are not available."""

    def __init__(self, plan: ComparePlan, run: FinishedRun, datasets: Sequence[str]) -> None:
        self.asked: AskedMentions | None = None
        self.note = ""
        self._kb: KnowledgeBase | None = None
        data, kb = _places(plan, run)
        if data is None or kb is None:
            self.note = (
                "Only the contents of the runs: add --data DATA --kb KB for slices, sentences, pictures and names."
            )
            return
        try:
            self._kb = open_kb(kb)
            self._kb.hold()
            self.asked = asked_mentions(data, self._kb, run, datasets)
        except LocalmelError as error:
            self.__exit__()
            if plan.data is not None:
                raise
            self.note = f"No slices, sentences, pictures or names: {error.fact}."

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kb:
            self._kb.close()
            self._kb = None


def _places(plan: ComparePlan, run: FinishedRun) -> tuple[Path | None, str | None]:
    """Return the places of data and KB, from the plan or from the run."""
    if plan.data is not None:
        return plan.data, plan.kb
    places = run.manifest.get("places") or {}
    return (Path(str(places["data"])), str(places["kb"])) if {"data", "kb"} <= places.keys() else (None, None)


def _inputs(
    plan: ComparePlan, columns: Sequence[Column], datasets: Sequence[str], encoder: TextEncoder
) -> dict[str, Any]:
    """Return everything that decides the report; hashes in the runs stand for data and KB."""
    return {
        "columns": [[one.name, one.system, one.run.sha256] for one in columns],
        "datasets": list(datasets),
        "examples": plan.examples,
        "sentences": _places(plan, columns[0].run)[0] is not None,
        "encoder_sha256": encoder.space.weights_sha256,
        "versions": {name: version(name) for name in ("localmel", "numpy", *EXTRA)},
    }


# --- the report -----------------------------------------------------------------------------------------------------


def _report(
    plan: ComparePlan, columns: Sequence[Column], datasets: Sequence[str], source: _Source, encoder: TextEncoder
) -> ComparisonReport:
    answers = {one.run.sha256: answers_of_run(one.run) for one in columns}
    given = {name: {one.name: answers[one.run.sha256][name][one.system] for one in columns} for name in datasets}
    slices = source.asked.slices() if source.asked else {name: _plain_slices(given[name]) for name in datasets}
    progress.begin("comparing systems", len(columns) * len(datasets))
    compared = compare_systems(
        {
            name: {key: [one.outcome for one in ones] for key, ones in systems.items()}
            for name, systems in given.items()
        },
        k=int(columns[0].run.settings["k"]),
        calibrated=[one.name for one in columns if one.calibrated],
        slices=slices,
    )
    disagreements = {name: disagreements_of(name, systems) for name, systems in given.items()}
    examples = _examples(disagreements, plan.examples)
    mentions: dict[tuple[str, str], ShownMention] = {}
    left_out = 0
    entities: dict[str, ShownEntity] = {}
    if source.asked:
        wanted = [(one.dataset, one.mention_id) for one in examples]
        mentions, left_out = shown_mentions(source.asked, wanted, slices)
        entities = _entities(source.asked.kb, examples)
    quality = generated_triples(given, source.asked.kb, encoder) if source.asked else {}
    return ComparisonReport(
        compared=compared,
        systems={one.name: _system(one, answers[one.run.sha256], given, quality.get(one.name, {})) for one in columns},
        differs={(one.name, other.name): differences_of(one, other) for one, other in combinations(columns, 2)},
        inputs=_shared(columns[0].run, datasets),
        notes=(*_notes(columns, compared, source, left_out), *failed_open_notes(given), *_made_up(columns)),
        n_disagreements={name: len(found) for name, found in disagreements.items()},
        examples=examples,
        mentions=mentions,
        entities=entities,
    )


def _plain_slices(systems: Mapping[str, Sequence[SystemAnswer]]) -> dict[str, frozenset[str]]:
    """Return the slices that are known without the data: whether the gold is NIL."""
    outcomes = [one.outcome for one in next(iter(systems.values()))]
    in_kb = frozenset(one.mention_id for one in outcomes if one.gold is not None)
    return {"gold in the KB": in_kb, "NIL": frozenset(one.mention_id for one in outcomes) - in_kb}


def _examples(disagreements: Mapping[str, Sequence[Disagreement]], most: int) -> tuple[Disagreement, ...]:
    """Choose examples, shared between the datasets; what one does not use is left to the next."""
    chosen: list[Disagreement] = []
    for left, found in zip(range(len(disagreements), 0, -1), sorted(disagreements.values(), key=len), strict=True):
        chosen += sample_of(found, (most - len(chosen)) // left)
    order = list(disagreements)
    return tuple(sorted(chosen, key=lambda one: order.index(one.dataset)))


def _entities(kb: KnowledgeBase, examples: Sequence[Disagreement]) -> dict[str, ShownEntity]:
    gold = {one.gold for one in examples if one.gold is not None}
    answers = [given for one in examples for given in one.answers.values()]
    named = {one.entity_id for given in answers for one in given.candidates}
    named |= {given.outcome.predicted for given in answers if given.outcome.predicted is not None}
    return shown_entities(kb, named | gold, gold)


def _system(
    column: Column,
    answers: Mapping[str, Mapping[str, Sequence[SystemAnswer]]],
    given: Mapping[str, Mapping[str, Sequence[SystemAnswer]]],
    quality: Mapping[str, TripleQuality],
) -> ComparedSystem:
    manifest = column.run.manifest
    alone = len(column.run.settings["systems"]) == 1
    every = [one.details for systems in answers.values() for one in systems[column.system]]
    try:
        costs = costs_of(
            every,
            resources=(manifest.get("resources") or {}).get(column.system),
            run_seconds=float(manifest["seconds"]) if alone and "seconds" in manifest else None,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptArtifact(
            f"bad costs of {column.system!r} in the manifest of {column.run.folder}: {error}"
        ) from None
    bias: dict[str, PositionBias] = {}
    for dataset, systems in given.items():
        if found := position_bias([_offer(one) for one in systems[column.name] if one.details.offered]):
            bias[dataset] = found
    return ComparedSystem(
        name=column.name,
        run=column.run.name,
        system=column.system,
        command=column.run.command,
        costs=costs,
        facts=column.facts,
        position_bias=bias,
        triples=quality,
    )


def _offer(one: SystemAnswer) -> Offer:
    outcome = one.outcome
    return Offer(
        cluster=outcome.cluster, offered=one.details.offered or (), chosen=outcome.predicted, gold=outcome.gold
    )


def _shared(run: FinishedRun, datasets: Sequence[str]) -> dict[str, str]:
    settings, inputs = run.settings, run.inputs
    return {
        "split": str(settings["split"]),
        "K": str(settings["k"]),
        "golds outside the KB": str(settings["gold_outside"]),
        "leaked mentions dropped": "yes" if settings["drop_leaked"] else "no",
        "KB state": str(inputs["kb_fingerprint"]),
        **{f"mentions of {name}": str(inputs["questions"][name]) for name in datasets},
    }


def _notes(columns: Sequence[Column], compared: Compared, source: _Source, left_out: int) -> list[str]:
    lines = warnings_of(compared)
    lines += [source.note] if source.note else []
    if left_out:
        lines.append(f"Pictures left out so that the report stays small: {left_out:,}.")
    doubtful = [one.name for one in columns if not one.calibrated]
    if doubtful:
        lines.append(f"{', '.join(doubtful)}: scores are not probabilities, so there is no calibration.")
    if any(_whole_run(one) for one in columns):
        lines.append("Mentions per second include loading where only the time of the whole run is known.")
    for one in compared.datasets:
        for with_triples, without in _gains(columns):
            lines.append(_gain_in_words(one.pair(with_triples, without), with_triples, without))
    return lines


def _made_up(columns: Sequence[Column]) -> list[str]:
    """Name the models that are only made up."""
    models = [model for one in columns for model in (one.run.inputs.get("models") or {}).values() if model]
    names = dict.fromkeys(str(model["name"]) for model in models if model["revision"] == MADE_UP)
    return [f"{made_up_note(name)}." for name in names]


def _whole_run(column: Column) -> bool:
    return len(column.run.settings["systems"]) == 1 and column.system not in (
        column.run.manifest.get("resources") or {}
    )


def _gains(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return pairs of which the second is the ablation of the first without triples."""
    pairs = ((one, other) for one in columns for other in columns if one is not other)
    return [(one.name, other.name) for one, other in pairs if gains_from_triples(one, other)]


def _gain_in_words(test: PairedTest, with_triples: str, without: str) -> str:
    gain = test.hits_at_1 if test.first == with_triples else test.hits_at_1.negated()
    verdict = "a significant gain" if test.significant else "not significant"
    return f"{test.dataset}: triples are worth {gain} HITS@1 to {with_triples} (against {without}), {verdict}."


# --- the folder -----------------------------------------------------------------------------------------------------


def _stored(folder: Path, inputs: Mapping[str, Any], *, over: bool) -> ComparisonMade | None:
    """Return the comparison in the folder if it was made from the same inputs; refuse a folder with anything else."""
    if not folder.exists() and not folder.is_symlink():
        return None
    if folder.is_dir() and not any(folder.iterdir()):
        return None
    if not (folder / "manifest.json").is_file():
        raise BadInput(f"cannot write to {folder}: it holds something else", hint="--out reports/NAME")
    manifest = read_manifest(folder, kind=KIND, version=VERSION, every_byte=True)
    before = manifest.get("inputs")
    if before != json.loads(json.dumps(inputs)):
        if over:
            return None
        raise BadInput(
            f"{folder} holds another comparison", hint=f"choose another --out, or {shell_line('rm -r', folder)}"
        )
    if inputs["sentences"] and not manifest.get("whole"):
        return None  # data or KB were not available then; perhaps they are now
    return ComparisonMade(
        json=json.loads((folder / JSON).read_text(encoding="utf-8")),
        markdown=(folder / MARKDOWN).read_text(encoding="utf-8"),
        folder=folder,
        made=False,
    )


def _write(folder: Path, found: ComparisonMade, report: ComparisonReport) -> None:
    from localmel.report.html.pages import comparison_page

    write_texts(folder, {JSON: json_text(found.json), MARKDOWN: found.markdown, HTML: comparison_page(report)})
