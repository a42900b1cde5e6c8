"""Which mentions are asked, what is right, and which slice each belongs to.

In: a benchmark, the name of a split, a KB.  Out: mentions with gold and facts.  Refuses a split that train has seen and
golds that the KB lacks, unless it is said what is to become of them.  Knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from localmel.benchmarks import Benchmark, drop_leaked, refuse_leaks
from localmel.benchmarks.leaks import sentences_of
from localmel.errors import BadInput, UsageError
from localmel.evaluate.protocol import Facts
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold_mention
from localmel.records import EntityId, Mention, MentionId, Split
from localmel.runs.clusters import clusters_of
from localmel.store.artifacts import sha256_of

GoldOutside = Literal["refuse", "miss", "nil"]
_BATCH = 500


def check_gold_outside(wanted: str) -> None:
    """Raise UsageError for a word that does not say what becomes of golds that the KB lacks."""
    if wanted not in get_args(GoldOutside):
        raise UsageError(f"golds outside the KB cannot be {wanted!r}; miss or nil", hint="--gold-outside nil")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One mention, and what is right."""

    mention: Mention
    cluster: str
    "The sentence, or the first of several that share pictures; see `clusters`."
    gold: EntityId | None
    gold_row: int | None
    "In the KB; None for NIL and for a gold that the KB lacks."
    facts: Facts
    "All but `mention_has_triples`, which only a generator knows."


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """One split, ready to be asked."""

    dataset: str
    split: str
    asked: tuple[Question, ...]
    sha256: str
    "Of mentions, golds and pictures, whatever the layout on disk; and of what in train decides leaks and slices."
    notes: tuple[str, ...]
    "What was left out or decided, for the report."


def questions_of(
    benchmark: Benchmark,
    split_name: str,
    kb: KnowledgeBase,
    *,
    drop: bool,
    outside: GoldOutside,
    limit: int = 0,
) -> Questions:
    """The split of the benchmark, checked; `limit`: only its first mentions, 0 takes all.

    Raises BadInput with the next command."""
    split, train, notes = _split(benchmark, split_name, drop=drop)
    if 0 < limit < len(split.mentions):
        notes.append(f"Only the first {limit:,} of {len(split.mentions):,} mentions.")
        split = _first(split, limit)
    rows = _rows(kb, {gold for gold in split.gold.values() if gold is not None})
    gold, more = _golds(split, rows, kb, outside)
    bearers = _bearers(kb, {fold_mention(mention.surface) for mention in split.mentions})
    seen = None if train is None else set(train.gold.values())
    pictures = _pictures(split)
    clusters, joining_none = clusters_of(split.mentions, pictures)
    if joining_none:
        notes.append(f"Pictures beside so many sentences that they are taken for stand-ins: {joining_none:,}.")
    asked = []
    for mention, cluster in zip(split.mentions, clusters, strict=True):
        right = gold[mention.id]
        row, n_triples = rows.get(right or "", (None, 0))
        facts = Facts(
            has_image=_has_image(mention),
            gold_has_triples=None if row is None else n_triples > 0,
            gold_seen=None if seen is None or right is None else right in seen,
            ambiguous=bearers.get(fold_mention(mention.surface), 0) > 1,
        )
        asked.append(Question(mention=mention, cluster=cluster, gold=right, gold_row=row, facts=facts))
    return Questions(
        dataset=benchmark.name,
        split=split_name,
        asked=tuple(asked),
        sha256=_digest(split, train, pictures),
        notes=(*notes, *more),
    )


def _split(benchmark: Benchmark, name: str, *, drop: bool) -> tuple[Split, Split | None, list[str]]:
    """The split without what train has seen, and train where it is another one."""
    if name not in benchmark.splits:
        there = ", ".join(benchmark.splits) or "none"
        raise BadInput(
            f"{benchmark.name} has no split {name!r}; there are: {there}",
            hint=f"--split {next(iter(benchmark.splits), 'val')}",
        )
    split, train = benchmark.splits[name], benchmark.splits.get("train")
    if not split.mentions:
        raise BadInput(f"split {name!r} of {benchmark.name} has no mentions", hint="localmel data check FOLDER")
    if train is None or name == "train":
        return split, None, [] if name == "train" else ["There is no train split: seen golds are not known."]
    if not drop:
        refuse_leaks(train, split)
        return split, train, []
    kept = drop_leaked([train, split]).splits[1]
    if not kept.mentions:
        raise BadInput(f"all {len(split.mentions):,} mentions of {name!r} stand in train too: nothing is left")
    gone = len(split.mentions) - len(kept.mentions)
    return kept, train, [f"Dropped because they stand in train too: {gone:,} of {len(split.mentions):,} mentions."]


def _golds(
    split: Split, rows: Mapping[EntityId, tuple[int, int]], kb: KnowledgeBase, outside: GoldOutside
) -> tuple[dict[MentionId, EntityId | None], list[str]]:
    missing = [one for one, gold in split.gold.items() if gold is not None and gold not in rows]
    if not missing:
        return dict(split.gold), []
    what = f"the gold of {len(missing):,} of {len(split.gold):,} mentions is no entity of kb {kb.name!r}"
    if outside == "refuse":
        raise BadInput(
            f"{what}, for example {split.gold[missing[0]]!r} of {missing[0]!r}",
            hint="add --gold-outside miss (each is a miss) or --gold-outside nil (NIL is right for each)",
        )
    if outside == "miss":
        return dict(split.gold), [f"{what.capitalize()}: each counts as a miss."]
    gone = set(missing)
    gold = {one: None if one in gone else gold for one, gold in split.gold.items()}
    return gold, [f"{what.capitalize()}: NIL counts as right for each."]


def _rows(kb: KnowledgeBase, ids: set[EntityId]) -> dict[EntityId, tuple[int, int]]:
    """Id -> row and number of triples, for those that the KB has."""
    sql = "SELECT id, row, n_triples FROM entities WHERE id IN ({})"
    return {entity: (row, n_triples) for entity, row, n_triples in _select(kb, sql, ids)}


def _bearers(kb: KnowledgeBase, folded: set[str]) -> dict[str, int]:
    """Folded surface -> how many entities bear exactly this name."""
    sql = "SELECT folded, COUNT(DISTINCT entity) FROM names WHERE folded IN ({}) GROUP BY folded"
    return dict(_select(kb, sql, folded - {""}))


def _select(kb: KnowledgeBase, sql: str, values: set[str]) -> Iterator[tuple[Any, ...]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        yield from kb.select(sql.format(",".join("?" * len(batch))), batch)


def _has_image(mention: Mention) -> bool:
    try:
        return mention.image is not None and mention.image.is_file()
    except (OSError, ValueError):  # a name that no disk takes
        return False


def _first(split: Split, limit: int) -> Split:
    kept = split.mentions[:limit]
    return Split(name=split.name, mentions=kept, gold={one.id: split.gold[one.id] for one in kept})


def _pictures(split: Split) -> dict[Path, str]:
    """Path -> hash of the bytes, for the pictures that are there."""
    found: dict[Path, str] = {}
    for mention in split.mentions:
        if mention.image is not None and mention.image not in found and _has_image(mention):
            found[mention.image] = sha256_of(mention.image)
    return found


def _digest(split: Split, train: Split | None, pictures: Mapping[Path, str]) -> str:
    digest = hashlib.sha256()
    for mention in split.mentions:
        picture = pictures.get(mention.image) if mention.image else None
        parts = (mention.id, mention.context, mention.span.start, mention.span.end, split.gold[mention.id], picture)
        digest.update(repr(parts).encode())
    for mention in train.mentions if train else ():
        digest.update(repr((mention.id, train.gold[mention.id], sorted(sentences_of(mention)))).encode())  # type: ignore[union-attr]
    return digest.hexdigest()
