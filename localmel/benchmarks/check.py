"""What is wrong with a benchmark, counted: before a score is believed, or hours of a GPU are spent.

In: a Benchmark, and a KB where its golds are to be looked up.  Out: a report.  Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from localmel.benchmarks.benchmark import Benchmark, Remarks
from localmel.benchmarks.kgmel import count_published_keys
from localmel.benchmarks.leaks import Leak, leak_between, sentences_of
from localmel.kb.store import KnowledgeBase
from localmel.records import EntityId, Mention, Split

_EXAMPLES = 5
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How often something was found, and the first examples."""

    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """One split, counted."""

    name: str
    mentions: int
    sentences: int
    "Different ones, but for blanks."
    nil: int
    without_image: int
    "Mentions for which the benchmark names no picture (or names the blank one)."
    image_not_there: Found
    "Mentions whose picture is named, but the file is not there."
    gold_outside_kb: Found | None
    "Mentions whose gold is no entity of the KB; None where no KB was given.  NIL is not counted."
    not_in_sentence: Found
    "Mentions that do not stand in their sentence, not even with other capitals."
    other_case: int
    "Mentions that stand there only with other capitals."
    repeated_mentions: Found
    "Mentions with the sentence, the name and the gold of one before."
    repeated_ids: Found
    "Ids of the files that came again."
    empty: Found
    "Mentions without a name, which were left out."
    published_keys: int | None
    "KGMEL: mentions that the published code can tell apart, by sentence id and gold."
    gold_seen_in_train: float | None
    "Share of the mentions with a gold whose gold is one in train, too; None for train itself and without any."


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """All splits, and what they have in common."""

    name: str
    layout: str
    folder: str
    kb: str | None
    splits: tuple[SplitReport, ...]
    leaks: tuple[Leak, ...]
    "One for every two splits, also where they have nothing in common."
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """What somebody should look at, a sentence each; `--strict` fails where there is one."""
        return tuple([*self._leak_findings(), *(line for split in self.splits for line in _split_findings(split))])

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs; of a leak the first mentions only."""
        leaks = [
            {**asdict(leak), "mentions": len(leak.mention_ids), "mention_ids": leak.mention_ids[:_EXAMPLES]}
            for leak in self.leaks
        ]
        return {**asdict(self), "leaks": leaks, "findings": list(self.findings)}

    def _leak_findings(self) -> Iterator[str]:
        for leak in self.leaks:
            if leak.mention_ids:
                yield (
                    f"{len(leak.mention_ids):,} of {leak.of:,} mentions of {leak.later} stand in {leak.earlier} too "
                    f"(sentences: {leak.sentences:,}; by sentence: {leak.by_sentence:,}; by id: {leak.by_id:,}), "
                    f"such as {leak.mention_ids[0]}"
                )


def check_benchmark(benchmark: Benchmark, kb: KnowledgeBase | None = None) -> BenchmarkReport:
    """Count everything that can spoil a score.  Looks at the disk for every picture that is named."""
    splits = list(benchmark.splits.values())
    golds = {answer for split in splits for answer in split.gold.values() if answer is not None}
    known = None if kb is None else _known(kb, golds)
    train = benchmark.splits.get("train")
    seen = None if train is None else {answer for answer in train.gold.values() if answer is not None}
    is_there: dict[Path, bool] = {}
    reports = [
        _report(
            split,
            benchmark.remarks.get(split.name, Remarks()),
            known=known,
            seen=None if split is train else seen,
            is_there=is_there,
            published=benchmark.layout == "KGMEL",
        )
        for split in splits
    ]
    return BenchmarkReport(
        name=benchmark.name,
        layout=benchmark.layout,
        folder=str(benchmark.folder),
        kb=None if kb is None else kb.name,
        splits=tuple(reports),
        leaks=tuple(leak_between(earlier, later) for earlier, later in combinations(splits, 2)),
        notes=benchmark.notes,
    )


def _report(
    split: Split,
    remarks: Remarks,
    *,
    known: set[EntityId] | None,
    seen: set[EntityId] | None,
    is_there: dict[Path, bool],
    published: bool,
) -> SplitReport:
    answers = [answer for answer in split.gold.values() if answer is not None]
    named = [mention for mention in split.mentions if mention.image is not None]
    outside = () if known is None else (one for one in split.mentions if _is_outside(split.gold[one.id], known))
    return SplitReport(
        name=split.name,
        mentions=len(split.mentions),
        sentences=len({min(sentences_of(mention), key=len) for mention in split.mentions}),
        nil=len(split.gold) - len(answers),
        without_image=len(split.mentions) - len(named),
        image_not_there=_found(f"{one.id}: {one.image}" for one in named if not _is_file(one.image, is_there)),
        gold_outside_kb=None if known is None else _found(f"{one.id}: {split.gold[one.id]}" for one in outside),
        not_in_sentence=_found(remarks.not_in_sentence),
        other_case=len(remarks.other_case),
        repeated_mentions=_found(_repeated(split.mentions, split.gold)),
        repeated_ids=_found(remarks.repeated_ids),
        empty=_found(remarks.empty),
        published_keys=count_published_keys(split.gold) if published else None,
        gold_seen_in_train=None if seen is None or not answers else sum(one in seen for one in answers) / len(answers),
    )


def _is_outside(answer: EntityId | None, known: set[EntityId]) -> bool:
    return answer is not None and answer not in known


def _is_file(path: Path | None, is_there: dict[Path, bool]) -> bool:
    if path is None:
        return False
    if path not in is_there:
        is_there[path] = _looked_up(path)
    return is_there[path]


def _looked_up(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that cannot be entered
        return False


def _repeated(mentions: Iterable[Mention], gold: Mapping[str, EntityId | None]) -> Iterator[str]:
    before: set[tuple[str, str, EntityId | None]] = set()
    for mention in mentions:
        key = (mention.context, mention.surface, gold[mention.id])
        if key in before:
            yield mention.id
        before.add(key)


def _known(kb: KnowledgeBase, ids: set[EntityId]) -> set[EntityId]:
    """Those of these ids that the KB has."""
    ordered = sorted(ids)
    known: set[EntityId] = set()
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        known.update(
            one for (one,) in kb.select(f"SELECT id FROM entities WHERE id IN ({','.join('?' * len(batch))})", batch)
        )
    return known


def _found(examples: Iterable[str]) -> Found:
    every = list(examples)
    return Found(count=len(every), examples=tuple(every[:_EXAMPLES]))


def _split_findings(split: SplitReport) -> Iterator[str]:
    for found, what in (
        (split.image_not_there, "name a picture that is not there"),
        (split.gold_outside_kb, "have a gold that the KB does not know"),
        (split.not_in_sentence, "do not stand in their sentence"),
        (split.repeated_mentions, "repeat the sentence, the name and the gold of another"),
    ):
        if found is not None and found.count:
            yield f"{split.name}: {found.count:,} of {split.mentions:,} mentions {what}, such as {found.examples[0]}"
    if split.empty.count:
        empty = split.empty
        yield f"{split.name}: mentions without text, left out: {empty.count:,}, such as {empty.examples[0]}"
    if split.repeated_ids.count:
        again = split.repeated_ids
        yield f"{split.name}: ids that come again: {again.count:,}, such as {again.examples[0]}"
