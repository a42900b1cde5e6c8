"""The content of a comparison report, before it becomes a table, a page or JSON.

In: what was compared, what each system cost, examples.  Out: ComparisonReport, and its JSON for programs, in which an
unknown number is null.  Nothing is written; texts are unescaped, and whoever prints them escapes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from localmel.evaluate.answer_details import Costs
from localmel.evaluate.comparison import Compared, ComparedDataset, ComparedSlice, Disagreement
from localmel.evaluate.position_bias import PositionBias
from localmel.evaluate.significance import PairedTest
from localmel.evaluate.triple_quality import TripleQuality
from localmel.records import EntityId, MentionId
from localmel.report.sentences import method_in_words, summary_of

FORMAT = 1
"Version of the JSON; raised when a key changes its meaning."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownEntity:
    """An entity as a reader sees it."""

    id: EntityId
    label: str
    description: str = ""
    triples: tuple[str, ...] = ()
    "Some of the KB's triples, as phrases."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMention:
    """A mention as a reader sees it."""

    before: str
    surface: str
    after: str
    "The context is `before + surface + after`."
    picture: str = ""
    "A data URI; empty without a picture."
    picture_note: str = ""
    "Why there is no picture."
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSystem:
    """One column of the report."""

    name: str
    run: str
    "Name of the run's folder."
    system: str
    "Its name within the run."
    command: str
    "The command that repeats the run."
    costs: Costs
    facts: Mapping[str, str]
    "What it is made from: profile, network, scorer, ablations; with hashes."
    position_bias: Mapping[str, PositionBias]
    "By dataset; only where the run recorded the order of its candidates."
    triples: Mapping[str, TripleQuality]
    "By dataset; only where the run recorded triples and the KB was available."


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """One comparison, complete."""

    compared: Compared
    systems: Mapping[str, ComparedSystem]
    differs: Mapping[tuple[str, str], tuple[str, ...]]
    "For each pair of systems, how their setups differ."
    inputs: Mapping[str, str]
    "What all systems share: split, K, KB, mentions; with hashes."
    notes: tuple[str, ...]
    "What the reader must know, such as what was left out and why."
    n_disagreements: Mapping[str, int]
    "Dataset -> number of mentions that are answered differently."
    examples: tuple[Disagreement, ...]
    "A sample of the disagreements."
    mentions: Mapping[tuple[str, MentionId], ShownMention]
    "The mentions of the examples by dataset and id; empty where the data were not available."
    entities: Mapping[EntityId, ShownEntity]
    "The entities of the examples; empty where the KB was not available."


def as_json(report: ComparisonReport) -> dict[str, Any]:
    """Return everything except the texts of examples, ready for `json.dumps(..., allow_nan=False)`; six decimals."""
    settings = report.compared.settings
    return {
        "format": FORMAT,
        "summary": summary_of(report.compared),
        "inputs": dict(report.inputs),
        "notes": list(report.notes),
        "method": {
            "k": settings.k,
            "ties": settings.ties,
            "samples": settings.samples,
            "seed": settings.seed,
            "tests": report.compared.tests,
            "words": method_in_words(report.compared),
        },
        "systems": {name: _system(one) for name, one in report.systems.items()},
        "datasets": {one.dataset: _dataset(one, report) for one in report.compared.datasets},
    }


def _system(one: ComparedSystem) -> dict[str, Any]:
    return {
        "run": one.run,
        "system": one.system,
        "command": one.command,
        "facts": dict(one.facts),
        "costs": _rounded(asdict(one.costs)),
        "position_bias": {dataset: _rounded(asdict(found)) for dataset, found in one.position_bias.items()},
        "triples": {dataset: _rounded(asdict(found)) for dataset, found in one.triples.items()},
    }


def _dataset(one: ComparedDataset, report: ComparisonReport) -> dict[str, Any]:
    return {
        "n": one.n,
        "n_in_kb": one.n_in_kb,
        "n_nil": one.n_nil,
        "n_sentences": one.n_sentences,
        "leader": one.leader,
        "systems": {
            name: {metric: found.as_json() for metric, found in metrics.items()}
            for name, metrics in one.metrics.items()
        },
        "pairs": [_pair(test, report) for test in one.pairs],
        "slices": [_slice(found) for found in one.slices],
        "reliability": {name: [_rounded(asdict(found)) for found in bins] for name, bins in one.reliability.items()},
        "disagreements": {
            "n": report.n_disagreements.get(one.dataset, 0),
            "examples": [
                {
                    "id": found.mention_id,
                    "gold": found.gold,
                    "predicted": {name: answer.outcome.predicted for name, answer in found.answers.items()},
                }
                for found in report.examples
                if found.dataset == one.dataset
            ],
        },
    }


def _pair(test: PairedTest, report: ComparisonReport) -> dict[str, Any]:
    return {
        "first": test.first,
        "second": test.second,
        "hits@1": test.hits_at_1.as_json(),
        "mrr": test.mrr.as_json(),
        "accuracy": test.accuracy.as_json(),
        "only_first": test.only_first,
        "only_second": test.only_second,
        "mcnemar_p": _p(test.mcnemar),
        "bootstrap_p": _p(test.bootstrap),
        "mcnemar_p_holm": _p(test.mcnemar_corrected),
        "bootstrap_p_holm": _p(test.bootstrap_corrected),
        "smallest_difference": _rounded(test.smallest),
        "beyond_chance": test.significant,
        "better": test.better,
        "differs_in": list(report.differs.get((test.first, test.second), ())),
    }


def _slice(one: ComparedSlice) -> dict[str, Any]:
    return {
        "name": one.name,
        "n": one.n,
        "n_in_kb": one.n_in_kb,
        "n_sentences": one.n_sentences,
        "metric": one.metric,
        "systems": {name: found.as_json() for name, found in one.values.items()},
        "differences": {name: found.as_json() for name, found in one.differences.items()},
    }


def _p(value: float) -> float:
    return float(f"{value:.6g}")


def _rounded(value: Any) -> Any:
    """Round every float in a structure to six decimals."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
