"""Small benchmark folders of each layout, written into a folder of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kb.conftest import shared_data as shared_data

Row = dict[str, Any]


def put(path: Path, value: object) -> Path:
    """JSON, text or bytes into a file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", newline="")
    return path


def mimic_row(file_id: object, **other: Any) -> Row:
    row = {
        "id": file_id,
        "sentence": f"Ada Byron wrote number {file_id}.",
        "mentions": "Ada Byron",
        "entities": "Ada%20Byron",
        "answer": "Q7259",
        "imgPath": "",
    }
    return {**row, **other}


def mimic_entity(row: int, qid: str, name: str, **other: Any) -> Row:
    return {"id": row, "qid": qid, "type": "entity", "entity_name": name, "attr": "", "image_list": [], **other}


def kgmel_sentence(item: object, mentions: Sequence[str], answers: Sequence[str], **other: Any) -> Row:
    row = {
        "id": item,
        "sentence": f"{' met '.join(mentions)} in {item}",
        "imgPath": f"mention_{item}.jpg",
        "mention": list(mentions),
        "entity": [f"label of {answer}" for answer in answers],
        "answer": list(answers),
    }
    return {**row, **other}


@pytest.fixture(scope="session")
def write() -> Callable[[Path, object], Path]:
    return put


@pytest.fixture
def mimic(tmp_path: Path) -> Callable[..., Path]:
    """`mimic({"train": [row], "dev": [...]}, stem="WIKIMEL", entities=[...], files=["kb_image/Q1_0.jpg"])`."""

    def make(
        splits: Mapping[str, object], *, stem: str = "WIKIMEL", entities: object = None, files: Sequence[str] = ()
    ) -> Path:
        for split, rows in splits.items():
            put(tmp_path / f"{stem}_{split}.json", rows)
        if entities is not None:
            put(tmp_path / "kb_entity.json", entities)
        for name in files:
            put(tmp_path / name, b"jpg")
        return tmp_path

    return make


@pytest.fixture
def kgmel(tmp_path: Path) -> Callable[..., Path]:
    """`kgmel([sentence, ...], split={"train": [1]}, name="WikiMEL", mappings={...}, tables={...}, files=[...])`."""

    def make(
        sentences: object,
        split: object,
        *,
        name: str = "WikiMEL",
        place: str = "data/dataset/mapping",
        mappings: Mapping[str, object] | None = None,
        tables: Mapping[str, object] | None = None,
        files: Sequence[str] = (),
    ) -> Path:
        put(tmp_path / "data" / "dataset" / f"{name}.json", sentences)
        if split is not None:
            put(tmp_path / place / "ids_split_mappings.json", {name: split})
        for file, value in (mappings or {}).items():
            put(tmp_path / place / file, {name: value})
        for file, value in (tables or {}).items():
            put(tmp_path / "data" / "KB" / file, value)
        for file in files:
            put(tmp_path / file, b"jpg")
        return tmp_path

    return make
