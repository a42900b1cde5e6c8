"""Count what is wrong with a benchmark, before anybody believes a score or spends hours of a GPU.

In: a Benchmark, and optionally a KB to look its golds up in.  Out: a report.  Changes nothing."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A count with its first examples."""

    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitReport:
    """The counts of one split."""

    name: str
    mentions: int
    sentences: int
    "Different ones, ignoring blanks."
    nil: int
    without_image: int
    "Mentions for which the benchmark names no picture (or the blank one)."
    image_not_there: Found
    "Mentions whose picture is named but missing on disk."
    gold_outside_kb: Found | None
    "Mentions whose gold is not in the KB; None if no KB was given.  NIL is not counted."
    not_in_sentence: Found
    "Mentions that are not in their sentence, not even with other capitals."
    other_case: int
    "Mentions that are there only with other capitals."
    repeated_mentions: Found
    "Mentions with the sentence, the name and the gold of an earlier one."
    repeated_ids: Found
    "Ids that repeat in the file."
    empty: Found
    "Mentions without a name, which were left out."
    published_keys: int | None
    "KGMEL: mentions that the published code can tell apart, by sentence id and gold."
    gold_seen_in_train: float | None
    "Share of mentions whose gold is also a gold in train; NIL is not counted.  None for train and without golds."


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """The counts of all splits, and what they have in common."""

    name: str
    layout: str
    folder: str
    kb: str | None
    splits: tuple[SplitReport, ...]
    leaks: tuple[Leak, ...]
    "One for every two splits, even if they have nothing in common."
    notes: tuple[str, ...]

    @property
    def findings(self) -> tuple[str, ...]:
        """Return one sentence for each thing to look at; `--strict` fails if there is any."""
        return tuple([*self._leak_findings(), *(line for split in self.splits for line in _split_findings(split))])

    def to_json(self) -> dict[str, Any]:
        """Return everything for programs, but only the first mentions of a leak."""
        leaks = [
            {**asdict(leak), "mentions": len(leak.mention_ids), "mention_ids": leak.mention_ids[:_EXAMPLES]}
            for leak in self.leaks
        ]
        return {**asdict(self), "leaks": leaks, "findings": list(self.findings)}

    def _leak_findings(self) -> Iterator[str]:
        for leak in self.leaks:
            if leak.mention_ids:
                yield (
                    f"{len(leak.mention_ids):,} of {leak.of:,} mentions of {leak.later} are also in {leak.earlier} "
                    f"(sentences: {leak.sentences:,}; by sentence: {leak.by_sentence:,}; by id: {leak.by_id:,}), "
                    f"such as {leak.mention_ids[0]}"
                )


def check_benchmark(benchmark: Benchmark, kb: KnowledgeBase | None = None) -> BenchmarkReport:
    """Count everything that can spoil a score.  Looks for every named picture on disk."""
    splits = list(benchmark.splits.values())
    golds = {answer for split in splits for answer in split.gold.values() if answer is not None}
    sql = "SELECT id FROM entities WHERE id IN ({})"
    known = None if kb is None else {one for (one,) in kb.select_in(sql, sorted(golds))}
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


def _found(examples: Iterable[str]) -> Found:
    every = list(examples)
    return Found(count=len(every), examples=tuple(every[:_EXAMPLES]))


def _split_findings(split: SplitReport) -> Iterator[str]:
    for found, what in (
        (split.image_not_there, "name a picture that is missing"),
        (split.gold_outside_kb, "have a gold that the KB does not have"),
        (split.not_in_sentence, "are not in their sentence"),
        (split.repeated_mentions, "repeat the sentence, the name and the gold of another"),
    ):
        if found is not None and found.count:
            yield f"{split.name}: {found.count:,} of {split.mentions:,} mentions {what}, such as {found.examples[0]}"
    if split.empty.count:
        empty = split.empty
        yield f"{split.name}: mentions without text, left out: {empty.count:,}, such as {empty.examples[0]}"
    if split.repeated_ids.count:
        again = split.repeated_ids
        yield f"{split.name}: ids that repeat: {again.count:,}, such as {again.examples[0]}"
