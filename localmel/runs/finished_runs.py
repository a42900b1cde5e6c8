"""Finished runs of `localmel eval`, read back: what they were asked, what they answered, and how they were made.

In: folders.  Out: FinishedRun and its answers, or a refusal that names the folder and the next command.  Every byte is
checked against the manifest.  Reads no data, no KB and no model."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, shell_line
from localmel.evaluate.answer_details import details_of
from localmel.evaluate.comparison import SystemAnswer
from localmel.evaluate.protocol import Outcome
from localmel.records import Candidate
from localmel.runs.evaluate_stage import KIND
from localmel.runs.folder import VERSION
from localmel.store.artifacts import MANIFEST, read_manifest

STAGE, RANKINGS = "evaluate", "rankings.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FinishedRun:
    """One run folder."""

    folder: Path
    "As it was named."
    manifest: Mapping[str, Any]
    sha256: str
    "Of the manifest, which holds the hashes of everything else."
    written: float
    "When the manifest was written, in seconds since 1970.  Decides an order, never a number."

    @property
    def datasets(self) -> tuple[str, ...]:
        """In the order in which they were asked."""
        return tuple(self.inputs["questions"])

    @property
    def stage(self) -> Path:
        """The folder that holds its manifest."""
        return _stage(self.folder)

    @property
    def name(self) -> str:
        """Of its folder."""
        return _run_folder(self.folder.resolve()).name

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Everything that decided its numbers."""
        return dict(self.manifest["inputs"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Split, systems, K, what was withheld."""
        return dict(self.manifest["inputs"]["settings"])

    @property
    def command(self) -> str:
        """Makes it again."""
        return str(self.manifest.get("command") or "")


def read_run(folder: Path) -> FinishedRun:
    """The run in `folder` (or whose `evaluate` folder it is).

    Raises BadInput where there is no finished run, CorruptArtifact where it is damaged."""
    stage = _stage(folder)
    try:
        manifest = read_manifest(stage, kind=KIND, version=VERSION, every_byte=True)
        sha256 = hashlib.sha256((stage / MANIFEST).read_bytes()).hexdigest()
        _check_manifest(manifest)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=error.hint or _again(stage)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"{stage} is no evaluation that can be read ({error})", hint=_again(stage)) from None
    written = (stage / MANIFEST).stat().st_mtime
    return FinishedRun(folder=folder, manifest=manifest, sha256=sha256, written=written)


def answers_of_run(run: FinishedRun) -> dict[str, dict[str, tuple[SystemAnswer, ...]]]:
    """Dataset -> system -> one answer per mention.  Raises CorruptArtifact for a line that is no answer."""
    try:
        found = _given(run.stage / RANKINGS)
        return {dataset: {name: found[dataset][name] for name in run.settings["systems"]} for dataset in run.datasets}
    except (OSError, ValueError, KeyError) as error:
        what = f"{RANKINGS} has no answers of {error}" if isinstance(error, KeyError) else str(error)
        raise CorruptArtifact(f"{run.stage} cannot be read: {what}", hint=_again(run.stage)) from None


def _again(stage: Path) -> str:
    return shell_line("rm -r", stage, note="then run the same localmel eval again")


def find_runs(folder: Path) -> tuple[list[FinishedRun], list[LocalmelError]]:
    """Every run at or below `folder`, newest first; and what stands in the way of reading the others.

    Raises BadInput where there is no such folder."""
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder}", hint=shell_line("ls -d", folder.parent / "*"))
    found, damaged = [], []
    for stage in sorted(_stages(folder)):
        try:
            found.append(read_run(stage))
        except LocalmelError as error:
            damaged.append(error)
    return sorted(found, key=lambda run: (-run.written, str(run.folder))), damaged


def _stages(folder: Path) -> Iterator[Path]:
    """Folders called evaluate; what is hidden or a link is not entered."""
    if folder.name == STAGE:
        yield folder
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _stages(child)


def _stage(folder: Path) -> Path:
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise BadInput(f"run {folder} {kind}", hint=shell_line("localmel eval DATA --kb KB --out", folder))
    stage = folder if folder.name == STAGE and not (folder / STAGE).is_dir() else folder / STAGE
    if not (stage / MANIFEST).exists():
        there = ", ".join(sorted(child.name for child in folder.iterdir())[:5]) or "nothing"
        raise BadInput(
            f"run {folder} is not finished: {stage / MANIFEST}, which is written last, is missing; there is: {there}",
            hint=shell_line("localmel eval DATA --kb KB --out", folder),
        )
    return stage


def _run_folder(folder: Path) -> Path:
    return folder.parent if folder.name == STAGE else folder


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    inputs = manifest["inputs"]
    for name, kind in (("settings", dict), ("questions", dict), ("kb_fingerprint", str)):
        if not isinstance(inputs[name], kind):
            raise ValueError(f"{name} of its manifest is {inputs[name]!r:.80}")
    for name in ("split", "systems", "without", "k", "drop_leaked", "gold_outside"):
        inputs["settings"][name]
    for name in ("resources", "places"):
        if not isinstance(manifest.get(name, {}), dict):
            raise ValueError(f"{name} of its manifest is {manifest[name]!r:.80}")


def _given(path: Path) -> dict[str, dict[str, tuple[SystemAnswer, ...]]]:
    lists: dict[str, dict[str, list[SystemAnswer]]] = {}
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                one = given_of(line)
                lists.setdefault(line["dataset"], {}).setdefault(line["system"], []).append(one)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{RANKINGS}:{number}: {what}") from None
    return {dataset: {name: tuple(one) for name, one in systems.items()} for dataset, systems in lists.items()}


def given_of(line: Mapping[str, Any]) -> SystemAnswer:
    """One line of rankings.jsonl.  Raises ValueError, KeyError or TypeError for what is no such line."""
    candidates = tuple(Candidate(entity_id=entity, score=float(score)) for entity, score in line["candidates"])
    gold = line["gold"]
    outcome = Outcome(
        mention_id=line["id"],
        cluster=line["sentence"],
        gold=gold,
        rank=math.inf if line["rank"] is None else float(line["rank"]),
        among_candidates=gold is not None and any(one.entity_id == gold for one in candidates),
        predicted=line["predicted"],
        probability=line["probability"],
        nil_probability=line["nil_probability"],
    )
    return SystemAnswer(outcome=outcome, candidates=candidates, details=details_of(line))


def refuse_what_cannot_be_compared(runs: Sequence[FinishedRun], datasets: Sequence[str]) -> None:
    """Raises BadInput where runs differ in the protocol, the KB, or the mentions of one of the datasets."""
    first, *others = runs
    for other in others:
        both = f"{first.folder} and {other.folder}"
        for name in ("split", "k", "drop_leaked", "gold_outside"):
            one, another = first.settings[name], other.settings[name]
            if one != another:
                option = f"--{name.replace('_', '-')}"
                raise BadInput(
                    f"{both} follow different protocols: {name} is {one} and {another}",
                    hint=f"localmel eval DATA --kb KB {option} ... --out NEW   # the same {option} for both",
                )
        one, another = first.inputs["kb_fingerprint"], other.inputs["kb_fingerprint"]
        if one != another:
            raise BadInput(
                f"{both} were asked over different KBs, or different states of one: {one[:12]} and {another[:12]}",
                hint=shell_line("localmel eval DATA --kb KB --out", "NEW", note="one KB for both"),
            )
        for dataset in datasets:
            _refuse_other_mentions(dataset, first, other)


def _refuse_other_mentions(dataset: str, first: FinishedRun, other: FinishedRun) -> None:
    one, another = first.inputs["questions"][dataset], other.inputs["questions"][dataset]
    if one == another:
        return
    ids, their_ids = ({given.outcome.mention_id for given in _any_system(run, dataset)} for run in (first, other))
    if ids == their_ids:
        what = f"the {len(ids):,} ids are the same, but sentences, golds, pictures or the training split are not"
    else:
        only = sorted(ids ^ their_ids)
        what = f"{len(ids):,} and {len(their_ids):,}, of which only one has {len(only):,}, such as {only[0]!r}"
    raise BadInput(
        f"{first.folder} and {other.folder} were not asked the same mentions of {dataset}: {what}",
        hint=f"localmel eval DATA --kb KB --dataset {dataset} --out NEW   # the same DATA for both",
    )


def _any_system(run: FinishedRun, dataset: str) -> tuple[SystemAnswer, ...]:
    return next(iter(answers_of_run(run)[dataset].values()))
