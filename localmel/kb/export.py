"""Write a KB as the text files that `localmel kb build` reads.

In: a KB.  Out: entities.jsonl and triples.tsv in a folder, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from localmel.errors import BadInput
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import Changed
from localmel.records import Entity
from localmel.store import progress
from localmel.store.artifacts import failed_writes_are_reported

HEADER = "head\tpredicate\trelation\ttail_id\ttail\n"


def export_kb(kb: KnowledgeBase, folder: Path) -> Changed:
    """Export everything; the same KB always gives the same bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot make {folder}: {error.strerror}", hint="name a folder that you can write") from None
    counts = {"entities": 0, "triples": 0}

    def counted(what: str, lines: Iterable[str]) -> Iterable[str]:
        for line in lines:
            counts[what] += 1
            progress.advance(1)
            yield line

    with kb.reading():
        progress.begin("exporting", len(kb) + int(kb.select("SELECT count(*) FROM triples")[0][0]))
        _write(folder / "entities.jsonl", counted("entities", map(_entity_line, kb.all_entities())))
        _write(folder / "triples.tsv", counted("triples", _triple_lines(kb)), header=HEADER)
    return Changed(entities=counts["entities"], triples=counts["triples"])


def _write(path: Path, lines: Iterable[str], header: str = "") -> None:
    temporary = path.with_name(f".{path.name}.new")
    with failed_writes_are_reported(path):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(header)
                file.writelines(lines)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _entity_line(entity: Entity) -> str:
    row = {"id": entity.id, "label": entity.label}
    optional = {
        "description": entity.description,
        "aliases": list(entity.aliases),
        "image": entity.image,
        "popularity": entity.popularity,
    }
    given = {key: value for key, value in optional.items() if value not in ("", [], None)}
    return json.dumps({**row, **given}, ensure_ascii=False) + "\n"


def _triple_lines(kb: KnowledgeBase) -> Iterable[str]:
    sql = (
        "SELECT e.id, r.predicate, r.label, t.tail_id, t.tail FROM triples t JOIN entities e ON e.row = t.head "
        "JOIN relations r USING (relation) ORDER BY t.triple"
    )
    for values in kb.stream(sql):
        yield "\t".join(values) + "\n"
