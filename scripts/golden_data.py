"""Cut the data of `scripts/golden` out of the shared data: two KBs with their mentions, always the same.

In: the folder that holds data/mel.  Out: a folder with `mel/` (300 validation mentions of each set, 2,500 entities)
and `small/` (mentions of WikiMEL whose answers are among 200 entities, for training), and inputs of a few lines.
Draws with a fixed seed; nothing is read but published files of JSON lines and of tab-separated triples."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

SETS = ("richpediamel", "wikimel", "wikidiverse")
MENTIONS, TRAIN, VALIDATION = 300, 64, 40
ENTITIES, SMALL_ENTITIES = 2500, 200
NAMESAKES = 4
"Of each surface, the most popular ones."
TRIPLES = 6
"Of each entity, the first ones."

Row = dict[str, Any]


def write_data(shared: Path, folder: Path) -> None:
    """Write `mel/` and `small/` into the folder."""
    mel, chance = shared / "data" / "mel", Random(0)
    with gzip.open(mel / "kb" / "entities.jsonl.gz", "rt", encoding="utf-8") as lines:
        entities = {row["id"]: row for row in map(json.loads, lines)}
    asked = {name: _drawn(mel / f"{name}-val.jsonl", chance, MENTIONS) for name in SETS}
    large = _kept(entities, [row for rows in asked.values() for row in rows], chance, ENTITIES)
    train = _drawn(mel / "wikimel-train.jsonl", chance, TRAIN, entities)
    validation = _drawn(mel / "wikimel-val.jsonl", chance, VALIDATION, entities)
    small = _kept(entities, [*train, *validation], chance, SMALL_ENTITIES)
    triples = _triples(mel / "kb" / "triples.tsv.gz", large | small)
    for name, ids, splits in (
        ("mel", large, {f"{name}-val": rows for name, rows in asked.items()}),
        ("small", small, {"small-train": train, "small-val": validation}),
    ):
        (folder / name / "kb").mkdir(parents=True)
        _write(folder / name / "kb" / "entities.jsonl", (row for key, row in entities.items() if key in ids))
        rows = [row for row in triples[1:] if row.split("\t", 1)[0] in ids]
        (folder / name / "kb" / "triples.tsv").write_text("".join([triples[0], *rows]), encoding="utf-8")
        for split, mentions in splits.items():
            _write(folder / name / f"{split}.jsonl", mentions)


def write_scripts(folder: Path) -> None:
    """Write the scripts that play models for `--engine scripted`, a tiny model, and changes to a KB."""
    folder.mkdir(parents=True)
    _write(folder / "sees.jsonl", [{"contains": "no sentence", "answer": ""}])
    _write(folder / "blind.jsonl", [{"answer": "I cannot say."}])
    _write(folder / "first.jsonl", [{"answer": "A", "probability": 0.6}])
    more: list[Row] = [
        {"id": "own-1", "label": "Ada Golden", "aliases": ["A. Golden"]},
        {"id": "own-2", "label": "Ost GmbH"},
    ]
    _write(folder / "more.jsonl", more)
    fact = ("own-1", "P108", "employer", "own-2", "Ost GmbH")
    head = ("head", "predicate", "relation", "tail_id", "tail")
    (folder / "more.tsv").write_text("".join("\t".join(row) + "\n" for row in (head, fact)), encoding="utf-8")
    model = folder / "tiny-model"
    model.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8}
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    (model / "LICENSE").write_text("Permission is granted to test with these numbers.\n")
    (model / "model.safetensors").write_bytes(_tensors({f"model.layers.{n}.weight": (8, 4) for n in range(4)}))


def _tensors(shapes: Mapping[str, tuple[int, int]]) -> bytes:
    """Return a safetensors file of F16 tensors whose bytes follow from their names."""
    header: dict[str, Any] = {}
    data = b""
    for name, (rows, columns) in shapes.items():
        size = 2 * rows * columns
        header[name] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": [len(data), len(data) + size]}
        data += hashlib.shake_256(name.encode()).digest(size)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _drawn(path: Path, chance: Random, most: int, known: Mapping[str, Row] | None = None) -> list[Row]:
    """Draw mentions of a split, in its order; with `known` only those whose answer is among them."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if known is not None:
        rows = [row for row in rows if row["answer"] in known]
    return [rows[place] for place in sorted(chance.sample(range(len(rows)), most))]


def _kept(entities: Mapping[str, Row], mentions: Iterable[Row], chance: Random, most: int) -> set[str]:
    """Return the ids of the answers, of namesakes of the mentions, and of others by chance, so many in all."""
    mentions = list(mentions)
    kept = {row["answer"] for row in mentions if row["answer"]}
    surfaces = {row["mention"].casefold() for row in mentions}
    bearers: dict[str, set[tuple[float, str]]] = defaultdict(set)
    for key, row in entities.items():
        names = [name.casefold() for name in (row["label"], *row.get("aliases", ()))]
        for part in {*names, *(part for name in names for part in name.split())} & surfaces:
            bearers[part].add((-(row.get("popularity") or 0.0), key))
    namesakes = [key for part in sorted(bearers) for _, key in sorted(bearers[part])[:NAMESAKES]]
    for key in namesakes:
        if len(kept) < most:
            kept.add(key)
    others = sorted(set(entities) - kept)
    return kept | set(chance.sample(others, max(0, most - len(kept))))


def _triples(path: Path, heads: set[str]) -> list[str]:
    """Return the lines of the file, its header first, with a few triples of each head."""
    count: dict[str, int] = defaultdict(int)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        found = [next(lines)]
        for line in lines:
            head = line.split("\t", 1)[0]
            if head in heads and count[head] < TRIPLES:
                count[head] += 1
                found.append(line)
    return found


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
