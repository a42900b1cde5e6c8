"""Choose the mentions that are asked about, with the right answer and the slices of each.

In: a benchmark (or one file), the names of splits, a KB.  Out: mentions alone for the stages that must not see gold;
Questions, with gold and facts, for evaluation.  Refuses mentions that also stand in train and golds that the KB lacks,
unless the caller says what to do with them.  Knows no model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from localmel.benchmarks import Benchmark, drop_leaked, read_benchmark, refuse_leaks
from localmel.benchmarks.json_lines import read_split
from localmel.benchmarks.leaks import sentences_of
from localmel.errors import BadInput, UsageError
from localmel.evaluate.protocol import Facts
from localmel.kb.store import KnowledgeBase
from localmel.kb.words import fold_mention
from localmel.records import EntityId, Mention, MentionId, Split
from localmel.store.artifacts import sha256_of

GoldOutside = Literal["refuse", "miss", "nil"]
MOST_SENTENCES = 20
"""A picture next to more sentences than this is a placeholder for missing pictures, as some benchmarks have; it says
nothing about any of them and joins none."""


def mentions_from(
    data: Path, splits: Sequence[str] = (), dataset: str | None = None, *, most: int = 0
) -> tuple[Mention, ...]:
    """Read the mentions of a file, or of these splits of a folder (default: val); at most `most`, 0 for all.

    Raises BadInput if there are none or an id is not unique, UsageError if a split is named for a file."""
    if data.is_file():
        if splits or dataset:
            raise UsageError(f"{data} is one file; --split and --dataset go with a benchmark folder")
        found = [read_split(data)]
    else:
        benchmark = read_benchmark(data, dataset)
        found = [_named_split(benchmark, name) for name in dict.fromkeys(splits or ("val",))]
    mentions = [mention for split in found for mention in split.mentions]
    for key, n in Counter(mention.id for mention in mentions).items():
        if n > 1:
            raise BadInput(f"mention {key!r} is in two splits", hint="give each split a run of its own")
    if not mentions:
        raise BadInput(f"{data} has no mentions", hint="localmel data check FOLDER")
    return tuple(mentions[:most] if most else mentions)


def check_gold_outside(wanted: str) -> None:
    """Raise UsageError unless `wanted` is a known way to treat golds that the KB lacks."""
    if wanted not in get_args(GoldOutside):
        raise UsageError(f"golds outside the KB cannot be {wanted!r}; miss or nil", hint="--gold-outside nil")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One mention with its right answer."""

    mention: Mention
    cluster: str
    "Its sentence, or the first of several sentences that share pictures; see `clusters_of`."
    gold: EntityId | None
    gold_row: int | None
    "The gold's row in the KB; None for NIL and for a gold that the KB lacks."
    facts: Facts
    "Everything but `mention_has_triples`, which only a generator knows."


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """One split, ready to be asked."""

    dataset: str
    split: str
    asked: tuple[Question, ...]
    sha256: str
    "Covers mentions, golds and pictures, whatever the layout on disk, and the part of train that decides leaks."
    notes: tuple[str, ...]
    "What was left out or decided, for the report."


def questions_of(
    benchmark: Benchmark, split_name: str, kb: KnowledgeBase, *, drop: bool, outside: GoldOutside, limit: int = 0
) -> Questions:
    """Return the checked split of a benchmark; with `limit` only its first mentions.

    `drop` leaves out mentions that also stand in train, `outside` decides about golds that the KB lacks.  Raises
    BadInput with the next command."""
    split, train, notes = _without_leaks(benchmark, split_name, drop=drop)
    if 0 < limit < len(split.mentions):
        notes.append(f"Only the first {limit:,} of {len(split.mentions):,} mentions.")
        kept = split.mentions[:limit]
        split = Split(name=split.name, mentions=kept, gold={one.id: split.gold[one.id] for one in kept})
    ids = {gold for gold in split.gold.values() if gold is not None}
    sql = "SELECT id, row, n_triples FROM entities WHERE id IN ({})"
    rows = {entity: (row, n_triples) for entity, row, n_triples in kb.select_in(sql, ids)}
    gold, more = _golds(split, rows, kb, outside)
    sql = "SELECT folded, COUNT(DISTINCT entity) FROM names WHERE folded IN ({}) GROUP BY folded"
    bearers = dict(kb.select_in(sql, {fold_mention(mention.surface) for mention in split.mentions} - {""}))
    seen = None if train is None else set(train.gold.values())
    pictures = pictures_of(split.mentions)
    clusters, n_placeholders = clusters_of(split.mentions, pictures)
    if n_placeholders:
        notes.append(f"Pictures next to so many sentences that they are taken for placeholders: {n_placeholders:,}.")
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


def _named_split(benchmark: Benchmark, name: str) -> Split:
    if name not in benchmark.splits:
        there, first = ", ".join(benchmark.splits) or "none", next(iter(benchmark.splits), "val")
        raise BadInput(f"{benchmark.name} has no split {name!r}; its splits: {there}", hint=f"--split {first}")
    return benchmark.splits[name]


def _without_leaks(benchmark: Benchmark, name: str, *, drop: bool) -> tuple[Split, Split | None, list[str]]:
    """Return the split without mentions of train, train itself if it is another split, and notes."""
    split, train = _named_split(benchmark, name), benchmark.splits.get("train")
    if not split.mentions:
        raise BadInput(f"split {name!r} of {benchmark.name} has no mentions", hint="localmel data check FOLDER")
    if train is None or name == "train":
        return split, None, [] if name == "train" else ["There is no train split: seen golds are not known."]
    if not drop:
        refuse_leaks(train, split)
        return split, train, []
    kept = drop_leaked([train, split]).splits[1]
    if not kept.mentions:
        raise BadInput(f"all {len(split.mentions):,} mentions of {name!r} are also in train: nothing is left")
    gone = len(split.mentions) - len(kept.mentions)
    return kept, train, [f"Dropped because they are also in train: {gone:,} of {len(split.mentions):,} mentions."]


def _golds(
    split: Split, rows: Mapping[EntityId, tuple[int, int]], kb: KnowledgeBase, outside: GoldOutside
) -> tuple[dict[MentionId, EntityId | None], list[str]]:
    missing = [one for one, gold in split.gold.items() if gold is not None and gold not in rows]
    if not missing:
        return dict(split.gold), []
    what = f"the gold of {len(missing):,} of {len(split.gold):,} mentions is not in kb {kb.name!r}"
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


def _has_image(mention: Mention) -> bool:
    try:
        return mention.image is not None and mention.image.is_file()
    except (OSError, ValueError):  # the file system rejects the name
        return False


def pictures_of(mentions: Sequence[Mention]) -> dict[Path, str]:
    """Hash every picture of these mentions that exists: path -> SHA-256."""
    found: dict[Path, str] = {}
    for mention in mentions:
        if mention.image is not None and mention.image not in found and _has_image(mention):
            found[mention.image] = sha256_of(mention.image)
    return found


def _digest(split: Split, train: Split | None, pictures: Mapping[Path, str]) -> str:
    digest = hashlib.sha256()
    for mention in split.mentions:
        picture = pictures.get(mention.image) if mention.image else None
        parts = (mention.id, mention.context, mention.span.start, mention.span.end, split.gold[mention.id], picture)
        digest.update(repr(parts).encode())
    if train:
        for mention in train.mentions:
            digest.update(repr((mention.id, train.gold[mention.id], sorted(sentences_of(mention)))).encode())
    return digest.hexdigest()


# --- clusters -------------------------------------------------------------------------------------------------------


def clusters_of(mentions: Sequence[Mention], pictures: Mapping[Path, str]) -> tuple[list[str], int]:
    """Group mentions that are not independent, because they share a sentence or a picture; resampling keeps them
    together.

    Returns each mention's cluster, a connected component named by the alphabetically first of its sentences, and the
    number of placeholder pictures that joined nothing.  pictures: path -> hash of the bytes, so that one picture under
    two names counts as one."""
    sentences = [min(sentences_of(mention), key=len) for mention in mentions]
    shown = [pictures.get(mention.image) if mention.image else None for mention in mentions]
    pairs = {(picture, sentence) for picture, sentence in zip(shown, sentences, strict=True) if picture is not None}
    counts = Counter(picture for picture, _ in pairs)
    parent = {sentence: sentence for sentence in sentences}

    def root(sentence: str) -> str:
        while parent[sentence] != sentence:
            parent[sentence] = sentence = parent[parent[sentence]]
        return sentence

    first_of: dict[str, str] = {}
    for picture, sentence in sorted(pairs):
        if counts[picture] <= MOST_SENTENCES:
            one, other = sorted((root(first_of.setdefault(picture, sentence)), root(sentence)))
            parent[other] = one
    return [root(sentence) for sentence in sentences], sum(n > MOST_SENTENCES for n in counts.values())
