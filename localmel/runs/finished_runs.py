"""Read finished evaluations: what was asked and answered, and how it was made.

In: folders of runs.  Out: FinishedRun and its answers, or an error that names the folder and the next command.  Every
byte is checked against the manifest.  Reads no data, no KB and no model."""

from __future__ import annotations

import hashlib
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
from localmel.runs.evaluate import KIND, RANKINGS, STAGE
from localmel.runs.folder import VERSION, read_lines
from localmel.store.artifacts import MANIFEST, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FinishedRun:
    """A run with a finished evaluation."""

    folder: Path
    "As the caller named it."
    manifest: Mapping[str, Any]
    sha256: str
    "Hash of the manifest, which holds the hashes of everything else."
    written: float
    "When the manifest was written, in seconds since 1970; used only for sorting."

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, in the order in which they were asked."""
        return tuple(self.inputs["questions"])

    @property
    def stage(self) -> Path:
        """The folder that holds its manifest."""
        return _stage(self.folder)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return _run_folder(self.folder.resolve()).name

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Everything that decided its numbers."""
        return dict(self.manifest["inputs"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """Split, systems, K and ablations."""
        return dict(self.manifest["inputs"]["settings"])

    @property
    def command(self) -> str:
        """The command that makes it again."""
        return str(self.manifest.get("command") or "")


def read_run(folder: Path) -> FinishedRun:
    """Read the run in `folder`, which may also be its `evaluate` folder.

    Raises BadInput if there is no finished run, CorruptArtifact if it is damaged."""
    stage = _stage(folder)
    try:
        manifest = read_manifest(stage, kind=KIND, version=VERSION, every_byte=True)
        sha256 = hashlib.sha256((stage / MANIFEST).read_bytes()).hexdigest()
        _check_manifest(manifest)
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=error.hint or _again(stage)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"cannot read the evaluation {stage}: {error}", hint=_again(stage)) from None
    written = (stage / MANIFEST).stat().st_mtime
    return FinishedRun(folder=folder, manifest=manifest, sha256=sha256, written=written)


def answers_of_run(run: FinishedRun) -> dict[str, dict[str, tuple[SystemAnswer, ...]]]:
    """Read all answers: dataset -> system -> one answer per mention.  Raises CorruptArtifact for a malformed line."""
    path, again = run.stage / RANKINGS, _again(run.stage)
    found: dict[tuple[str, str], list[SystemAnswer]] = {}
    for dataset, system, answer in read_lines(
        path, lambda line: (line["dataset"], line["system"], answer_in(line)), again=again
    ):
        found.setdefault((dataset, system), []).append(answer)
    wanted = [(dataset, system) for dataset in run.datasets for system in run.settings["systems"]]
    if missing := [system for dataset, system in wanted if (dataset, system) not in found]:
        raise CorruptArtifact(f"{path} has no answers of {missing[0]!r}", hint=again)
    return {name: {key: tuple(found[name, key]) for key in run.settings["systems"]} for name in run.datasets}


def _again(stage: Path) -> str:
    return shell_line("rm -r", stage, note="then run the same localmel eval again")


def find_runs(folder: Path) -> tuple[list[FinishedRun], list[LocalmelError]]:
    """Find every run at or below `folder`, newest first, and the errors of those that cannot be read.

    Raises BadInput if there is no such folder."""
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
    """Yield folders named evaluate; hidden folders and links are not entered."""
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
            f"run {folder} is not finished: {stage / MANIFEST}, which is written last, is missing; it has: {there}",
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


def answer_in(line: Mapping[str, Any]) -> SystemAnswer:
    """Parse one line of rankings.jsonl.  Raises ValueError, KeyError or TypeError if it is malformed."""
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
    """Raise BadInput if runs differ in the protocol, the KB, or the mentions of one of the datasets."""
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
                hint=shell_line("localmel eval DATA --kb KB --out", "NEW", note="the same KB for both"),
            )
        for dataset in datasets:
            _refuse_other_mentions(dataset, first, other)


def _refuse_other_mentions(dataset: str, first: FinishedRun, other: FinishedRun) -> None:
    one, another = first.inputs["questions"][dataset], other.inputs["questions"][dataset]
    if one == another:
        return
    any_system, theirs = (next(iter(answers_of_run(run)[dataset].values())) for run in (first, other))
    ids, their_ids = ({one.outcome.mention_id for one in answers} for answers in (any_system, theirs))
    if ids == their_ids:
        what = f"the {len(ids):,} ids are the same, but sentences, golds, pictures or the training split are not"
    else:
        only = sorted(ids ^ their_ids)
        what = f"{len(ids):,} and {len(their_ids):,}; {len(only):,} are in one of them only, such as {only[0]!r}"
    raise BadInput(
        f"{first.folder} and {other.folder} were not asked the same mentions of {dataset}: {what}",
        hint=f"localmel eval DATA --kb KB --dataset {dataset} --out NEW   # the same DATA for both",
    )
