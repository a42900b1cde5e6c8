"""What each part of the default profile is worth on val: whole KB, text and triples, no picture, no language model.

Rows marked (1/3) compare like with like: network and scorer of each were made anew without the part, all scorers
fitted on the same third of train.  They need `scripts/train_ablations.sh`; without it only the other rows are printed.
"Without triples" is a KB without triples: nothing of them is in its texts, vectors or features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.mel_kb import benchmark_kb
from bench.run import ROOT, Figure
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.evaluate.protocol import EvaluationSettings, Outcome, evaluate
from localmel.evaluate.significance import compare
from localmel.kb.store import KnowledgeBase
from localmel.runs.evaluate_systems import Plan, evaluate_systems

RUNS = ROOT / "runs"
TRAINED = RUNS / "ablations"
ASKED = {"richpediamel": (0.87, 0.96), "wikimel": (0.86, 0.97), "wikidiverse": (0.88, 0.95)}
"HITS@1 and recall@16 in-KB that the whole is to reach."


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One system of the table."""

    name: str
    system: str = "linker"
    without: tuple[str, ...] = ()
    network: str = ""
    "Folder under TRAINED; empty for the shipped one."
    scorer: str = ""
    triples: bool = True
    "Whether the KB has any."
    against: str = "whole"
    "The row that it is compared with, mention by mention."


THIRD = "whole (1/3)"
ROWS = (
    Row(name="whole"),
    Row(name="by name, by popularity", system="names"),
    Row(name="by name, shuffled", system="names", without=("counts",)),
    Row(name="untrained vectors", system="zero-shot"),
    Row(name="network alone", system="fused"),
    Row(name="network alone, triples withheld", system="fused", without=("triples",), against="network alone"),
    Row(name="network alone, made without triples", system="fused", network="no-triples/full/seed-0/network",
        triples=False, against="network alone"),
    Row(name="network alone, made without gate", system="fused", without=("gate",),
        network="no-gate/full/seed-0/network", against="network alone"),
    Row(name="without counts", without=("counts",)),
    Row(name=THIRD, scorer="third/scorer"),
    Row(name="without names (1/3)", without=("names",), scorer="no-names/scorer", against=THIRD),
    Row(name="without counts (1/3)", without=("counts",), scorer="no-counts/scorer", against=THIRD),
    Row(name="without gate (1/3)", without=("gate",), network="no-gate/full/seed-0/network",
        scorer="no-gate/scorer", against=THIRD),
    Row(name="without triples (1/3)", network="no-triples/full/seed-0/network", scorer="no-triples/scorer",
        triples=False, against=THIRD),
)  # fmt: skip


def measure(shared: Path) -> list[Figure]:
    """HITS@1 and recall@16 in-KB of every row, and its difference from the row it is compared with."""
    kbs = {True: benchmark_kb(shared)}
    known: dict[str, dict[str, list[Outcome]]] = {}
    figures: list[Figure] = []
    for row in ROWS:
        if missing := [part for part in (row.network, row.scorer) if part and not (TRAINED / part).is_dir()]:
            figures.append(Figure(section="ablations", name=row.name, value=f"not made: {missing[0]} is missing"))
            continue
        if row.triples not in kbs:
            kbs[row.triples] = benchmark_kb(shared, triples=row.triples)
        known[row.name] = outcomes_of(row, kbs[row.triples], shared)
        figures += list(figures_of(row, known))
    return figures


def outcomes_of(row: Row, kb: KnowledgeBase, shared: Path) -> dict[str, list[Outcome]]:
    """The outcomes of each dataset, from the folder of the run where it stands there."""
    plan = Plan(
        data=shared / "data" / "mel",
        datasets=tuple(ASKED),
        systems=(row.system,),
        without=row.without,
        network=TRAINED / row.network if row.network else None,
        scorer=TRAINED / row.scorer if row.scorer else None,
        drop_leaked=True,
    )
    out = RUNS / "eval" / "".join(char if char.isalnum() else "-" for char in row.name)
    evaluate_systems(
        plan, kb, Encoders(text=MiniLM(method="torch"), image=None), out=out, command=f"localmel eval ...  # {row.name}"
    )
    found: dict[str, list[Outcome]] = {name: [] for name in ASKED}
    with (out / "evaluate" / "rankings.jsonl").open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            ids = [entity_id for entity_id, _ in line["candidates"]]
            found[line["dataset"]].append(
                Outcome(
                    mention_id=line["id"],
                    cluster=line["sentence"],
                    gold=line["gold"],
                    rank=line["rank"] or float("inf"),
                    among_candidates=line["gold"] is not None and line["gold"] in ids,
                    predicted=line["predicted"],
                    probability=line["probability"],
                    nil_probability=line["nil_probability"],
                )
            )
    return found


def figures_of(row: Row, known: dict[str, dict[str, list[Outcome]]]) -> Iterator[Figure]:
    """The lines of one row."""
    settings = EvaluationSettings()
    for dataset, (hits, recall) in ASKED.items():
        outcomes = known[row.name][dataset]
        metrics = evaluate(outcomes, settings).overall.metrics
        for metric, asked in (("hits@1", hits), ("recall@16", recall)):
            found = metrics[metric]
            is_asked = row.name == "whole"
            yield Figure(
                section=dataset,
                name=f"{row.name}: {metric} in-KB, n = {found.n:,}",
                value=f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]",
                asked=f"at least {asked:.2f}" if is_asked else "",
                reached=found.value >= asked if is_asked else None,
            )
        if row.name != row.against and row.against in known:
            difference = compare(outcomes, known[row.against][dataset], settings, names=(row.name, row.against))
            hits_difference = difference.hits_at_1
            yield Figure(
                section=dataset,
                name=f"{row.name}: less than {row.against}",
                value=f"{hits_difference.value:+.3f} [{hits_difference.low:+.3f}, {hits_difference.high:+.3f}], "
                f"McNemar p {difference.p:.2g}",
            )
