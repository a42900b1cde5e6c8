"""Read and encode training and validation mentions, once per run.

In: a folder of benchmarks, an indexed KB and a text encoder.  Out: arrays, in `encode/` with the hashes of their
inputs.  With the same inputs, stored arrays are reused.  A mention that is in both train and validation is refused."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.benchmarks import drop_leaked, read_benchmark, refuse_leaks
from localmel.benchmarks.json_lines import find_own
from localmel.encode.space import TextEncoder
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.generate.embedded import stated_triples
from localmel.generate.visible_text import VisibleLine
from localmel.kb.names import NameIndex
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.matchers.kgmel.mention_vectors import mention_arrays, mention_texts
from localmel.records import Mention, Span, Split
from localmel.store import progress
from localmel.store.artifacts import create_arrays, flush_arrays, map_arrays, new_folder, read_manifest

if TYPE_CHECKING:
    from localmel.matchers.kgmel.inputs import MentionVectors


KIND, VERSION = "encoded mentions", 1
BY_NAME = 64
"Number of entities with a mention's name from which negatives are drawn."
_NAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Datasets:
    """Disjoint train and validation mentions of several datasets."""

    names: tuple[str, ...]
    train: Split
    validation: Split
    origin: Mapping[str, int]
    "Mention -> number of its dataset.  Ids begin with the dataset's name, so that two may use the same ones."
    dropped: int
    "Number of mentions removed from validation because they are in train."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSplit:
    """One split as arrays; rows are mentions."""

    vectors: MentionVectors
    dataset: NDArray[Any]  # (m,) int64 number of the dataset
    sentence: NDArray[Any]  # (m,) int64 checksum of the sentence, for folds


def read_datasets(
    folder: Path, names: Sequence[str] = (), *, drop: bool = False, most: tuple[int, int] = (0, 0)
) -> Datasets:
    """Return the named datasets of a benchmark folder, or all of them if none is named.

    most: maximum numbers of train and validation mentions, chosen by the smallest sentence checksums; 0 takes all.

    A mention or sentence that is in both train and validation, even of different datasets, is dropped from validation
    if `drop` is true. Raises BadInput otherwise, and if a dataset lacks one of the two splits."""
    found = [read_benchmark(folder, name) for name in names or _all_names(folder)]
    for benchmark in found:
        if missing := {"train", "val"} - set(benchmark.splits):
            fact = f"{benchmark.name} in {folder} has no split {' and no split '.join(sorted(missing))}"
            raise BadInput(fact, hint=shell_line("localmel data check", folder))
    origin: dict[str, int] = {}
    joined = []
    for part in ("train", "val"):
        mentions, gold = [], {}
        for number, benchmark in enumerate(found):
            split = benchmark.splits[part]
            for mention in split.mentions:
                own = replace(mention, id=f"{benchmark.name}/{mention.id}")
                mentions.append(own)
                gold[own.id] = split.gold[mention.id]
                origin[own.id] = number
        joined.append(Split(name=part, mentions=tuple(mentions), gold=gold))
    train, validation = joined
    dropped = 0
    if drop:
        left = drop_leaked([train, validation])
        (train, validation), dropped = left.splits, left.total
    else:
        refuse_leaks(train, validation)
    names = tuple(benchmark.name for benchmark in found)
    train, validation = (_drawn(split, n) for split, n in zip((train, validation), most, strict=True))
    return Datasets(names=names, train=train, validation=validation, origin=origin, dropped=dropped)


def _drawn(split: Split, most: int) -> Split:
    """Return at most `most` mentions, or all for 0.  Drawn by sentence, so that file order does not matter."""
    if not most:
        return split
    drawn = sorted(split.mentions, key=checksum_of)[:most]
    return Split(name=split.name, mentions=tuple(drawn), gold={mention.id: split.gold[mention.id] for mention in drawn})


def _all_names(folder: Path) -> list[str | None]:
    """Return every dataset of a JSON lines folder.  Other layouts: the only one, or None so that the reader asks
    which."""
    try:
        return [found.name for found in find_own(folder)] or [None]
    except OSError:  # the reader reports the problem
        return [None]


def checksum_of(mention: Mention) -> int:
    """Return the checksum that assigns a sentence to a fold."""
    return zlib.crc32(mention.context.encode("utf-8"))


def encoded_splits(
    datasets: Datasets, kb: KnowledgeBase, packed: PackedKb, encoder: TextEncoder, folder: Path, *, visible_text: float
) -> tuple[EncodedSplit, EncodedSplit, dict[str, Any]]:
    """Return train and validation as arrays, loaded from `folder` if stored there, and the facts they were made from.

    For a share `visible_text` of the train mentions, a piece of the sentence is treated as writing in the picture."""
    facts = {
        "train": _digest(datasets.train),
        "validation": _digest(datasets.validation),
        "datasets": list(datasets.names),
        "kb": packed.fingerprint,
        "space": encoder.space.name,
        "space_sha256": encoder.space.weights_sha256,
        "visible_text": visible_text,
        "by_name": BY_NAME,
    }
    parts = {"train": (datasets.train, visible_text), "validation": (datasets.validation, 0.0)}
    if not _stands(folder, facts):
        with new_folder(folder, kind=KIND, version=VERSION, facts={"made_from": facts}) as temporary:
            for name, (split, share) in parts.items():
                arrays = _encoded(split, datasets, kb, packed, encoder, share)
                _write(temporary / f"{name}.safetensors", arrays)
    train, validation = (_read(folder / f"{name}.safetensors") for name in parts)
    return train, validation, facts


def _stands(folder: Path, facts: Mapping[str, Any]) -> bool:
    try:
        return bool(read_manifest(folder, kind=KIND, version=VERSION, every_byte=True).get("made_from") == facts)
    except (FileNotFoundError, CorruptArtifact):  # it is rebuilt from the inputs alone
        return False


def _encoded(
    split: Split, datasets: Datasets, kb: KnowledgeBase, packed: PackedKb, encoder: TextEncoder, share: float
) -> dict[str, NDArray[Any]]:
    dataset = np.array([datasets.origin[mention.id] for mention in split.mentions], np.int64)
    made = {}
    for number in range(len(datasets.names)):
        own = [mention for mention in split.mentions if datasets.origin[mention.id] == number]
        for mention, lines in with_moved_text(own, share=share, seed=number):
            made[mention.id] = mention, stated_triples(mention, lines)
    seen, stated = zip(*(made[mention.id] for mention in split.mentions), strict=True) if made else ((), ())
    progress.begin(f"encoding {split.name} mentions", len(mention_texts(seen, stated)))
    text, triples = mention_arrays(seen, stated, lambda texts: encoder.encode(texts, progress.advance))
    rows = dict(kb.select("SELECT id, row FROM entities"))
    gold = np.array([rows.get(split.gold[mention.id] or "", -1) for mention in split.mentions], np.int64)
    gold[gold >= 0] = packed.positions(gold[gold >= 0])
    return {
        "text": np.asarray(text, np.float32),
        "gold": gold,
        "candidates": _by_name(split.mentions, kb, packed),
        "dataset": dataset,
        "sentence": np.array([checksum_of(mention) for mention in split.mentions], np.int64),
        **{f"triples.{name}": values for name, values in triples.named()},
    }


def _by_name(mentions: Sequence[Mention], kb: KnowledgeBase, packed: PackedKb) -> NDArray[Any]:
    """Return positions of entities that may have each mention's name, -1 beyond, (m, BY_NAME) int64."""
    names = NameIndex(kb)
    candidates = np.full((len(mentions), BY_NAME), -1, np.int64)
    progress.begin("looking up names", len(mentions))
    for place, mention in enumerate(mentions):
        rows = np.array([match.row for match in names.find(mention.surface, limit=BY_NAME)], np.int64)
        candidates[place, : len(rows)] = packed.positions(rows)
        if (place + 1) % _NAMES_AT_ONCE == 0:
            progress.advance(_NAMES_AT_ONCE)
    return candidates


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    written = create_arrays(path, {name: (values.dtype.str, values.shape) for name, values in arrays.items()})
    for name, values in arrays.items():
        np.copyto(written[name], values)
    flush_arrays(written)


def _read(path: Path) -> EncodedSplit:
    from localmel.matchers.kgmel.inputs import MentionVectors

    found = map_arrays(path)
    try:
        triples = {name.removeprefix("triples."): found[name] for name in found if name.startswith("triples.")}
        vectors = MentionVectors(
            text=found["text"], triples=TripleArrays(**triples), gold=found["gold"], candidates=found["candidates"]
        )
        return EncodedSplit(vectors=vectors, dataset=found["dataset"], sentence=found["sentence"])
    except (KeyError, TypeError) as error:
        hint = shell_line("rm -r", path.parent, note="then run the same command again")
        raise CorruptArtifact(f"{path} lacks arrays ({error})", hint=hint) from None


def _digest(split: Split) -> str:
    """Return a digest of everything in a split that affects the vectors."""
    digest = hashlib.sha256()
    for mention in split.mentions:
        facts = (mention.id, mention.context, mention.span.start, mention.span.end, split.gold[mention.id])
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


NEUTRAL = ("{}, photographed last year.", "This is {}.", "A picture of {}.", "{} seen here.", "Here we saw {} again.")


def with_moved_text(
    mentions: Sequence[Mention], *, share: float, seed: int
) -> Iterator[tuple[Mention, tuple[VisibleLine, ...]]]:
    """Yield each mention; a `share` of them have a piece of their sentence moved to visible text.  Depends on the seed
    only."""
    chance = random.Random(seed)
    for mention in mentions:
        words = (mention.context[: mention.span.start] + " " + mention.context[mention.span.end :]).split()
        if chance.random() >= share or len(words) < 4:
            yield mention, ()
            continue
        length = chance.randint(2, min(7, len(words)))
        start = chance.randint(0, len(words) - length)
        cut = chance.randint(1, length)
        piece = words[start : start + length]
        frame = chance.choice(NEUTRAL)
        begin = frame.index("{}")
        moved = Mention(
            id=mention.id,
            surface=mention.surface,
            context=frame.format(mention.surface),
            span=Span(start=begin, end=begin + len(mention.surface)),
            image=mention.image,
        )
        lines = [" ".join(part).upper() for part in (piece[:cut], piece[cut:]) if part]
        yield moved, tuple(VisibleLine(text=line, confidence=1.0) for line in lines)
