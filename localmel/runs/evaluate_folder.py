"""The `evaluate` folder of a run: one line for each answer, a report, and a manifest that says what decided them.

In: what was asked and answered.  Out: `rankings.jsonl`, `report.json`, `report.md` and, last, `manifest.json`; or the
same read back.  Whoever answers, the linker or a run of models, leaves this folder, so all can be compared.  The same
inputs are not evaluated twice; what was made from others is refused, never replaced."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.evaluate.protocol import Outcome
from localmel.runs.questions import Question
from localmel.runs.systems import Answer
from localmel.store.artifacts import failed_writes_are_reported, read_manifest

KIND, VERSION = "evaluation", 1
STAGE = "evaluate"
REPORT, MARKDOWN, RANKINGS = "report.json", "report.md", "rankings.jsonl"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """What came out."""

    json: Mapping[str, Any]
    markdown: str
    made: bool
    "False: the same inputs had been evaluated before."


def outcome_for(question: Question, answer: Answer, *, has_triples: bool) -> Outcome:
    """An answer beside what is right."""
    return Outcome(
        mention_id=answer.mention_id,
        cluster=question.cluster,
        gold=question.gold,
        rank=answer.rank,
        among_candidates=question.gold is not None and any(one.entity_id == question.gold for one in answer.candidates),
        predicted=answer.predicted,
        probability=answer.probability,
        nil_probability=answer.nil_probability,
        facts=replace(question.facts, mention_has_triples=has_triples),
    )


def ranking_line(dataset: str, system: str, question: Question, answer: Answer) -> Json:
    """One line of rankings.jsonl: enough to count again, and to compare with another run."""
    return {
        "dataset": dataset,
        "system": system,
        "id": answer.mention_id,
        "sentence": hashlib.sha256(question.cluster.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "gold": question.gold,
        "rank": answer.rank if math.isfinite(answer.rank) else None,
        "predicted": answer.predicted,
        "probability": round(answer.probability, 6),
        "nil_probability": round(answer.nil_probability, 6),
        "candidates": [[one.entity_id, round(one.score, 6)] for one in answer.candidates],
    }


def versions() -> dict[str, str]:
    """Of what an evaluation is computed with."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in ("localmel", "numpy", "torch")}}


def stored_evaluation(folder: Path, inputs: Mapping[str, Any], *, movable: bool = True) -> Report | None:
    """The report in the folder, where it was made from the same inputs.  Raises BadInput or CorruptArtifact.

    movable: whether another folder could be chosen."""
    if not folder.exists() and not folder.is_symlink():
        return None
    again = shell_line("rm -r", folder, note="then run the same command again")
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION, every_byte=True)
        before = manifest["inputs"]
        if before == json.loads(json.dumps(inputs)):
            found = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            return Report(json=found, markdown=(folder / MARKDOWN).read_text(encoding="utf-8"), made=False)
        differ = [name for name in {**inputs, **before} if inputs.get(name) != before.get(name)]
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=error.hint or again) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"{folder} is no finished evaluation ({error})", hint=again) from None
    raise BadInput(
        f"{folder} holds another evaluation: it differs in {', '.join(sorted(differ))}",
        hint=f"choose another --out, or {shell_line('rm -r', folder)}" if movable else again,
    )


def write_evaluation(folder: Path, report: Report, rankings: Iterable[Mapping[str, Any]]) -> None:
    """The files but for the manifest.  The systems stay in the order in which they were named."""
    with failed_writes_are_reported(folder):
        text = json.dumps(report.json, ensure_ascii=False, indent=1, allow_nan=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")
        (folder / MARKDOWN).write_text(report.markdown, encoding="utf-8")
        with (folder / RANKINGS).open("w", encoding="utf-8") as file:
            for line in rankings:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
