"""Entities as JSON lines and triples as a table with tabs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput, ImportProblem, LocalmelError
from localmel.kb.importers import EntityRow, Problems, TablesSource, TripleRow
from localmel.records import Entity
from localmel.store.progress import Listener, listening

SHARED = Path(os.environ.get("LOCALMEL_SHARED", Path(__file__).resolve().parents[4] / "shared"))
HEADER = "head\tpredicate\trelation\ttail_id\ttail\n"


def read_entities(
    folder: Path, data: bytes | str, name: str = "e.jsonl"
) -> tuple[list[EntityRow], list[ImportProblem]]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    problems: list[ImportProblem] = []
    source = TablesSource(entities=path, problems=Problems(on_problem=problems.append))
    return list(source.entities()), problems


def read_triples(folder: Path, data: bytes | str, name: str = "t.tsv") -> tuple[list[TripleRow], list[ImportProblem]]:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    problems: list[ImportProblem] = []
    source = TablesSource(triples=path, problems=Problems(on_problem=problems.append))
    return list(source.triples()), problems


def test_an_entity_has_all_its_fields_and_its_line(tmp_path: Path) -> None:
    line = (
        '{"id": "Q1", "label": "Earth", "description": "planet", "aliases": ["Terra", " "], '
        '"image": "a.jpg", "popularity": 2}'
    )
    rows, problems = read_entities(tmp_path, f"\n{line}\n  \n" + '{"id": "Q2", "label": "life", "aliases": null}\n')
    entity = Entity(id="Q1", label="Earth", description="planet", aliases=("Terra",), image="a.jpg", popularity=2.0)
    assert problems == []
    assert rows == [
        EntityRow(entity=entity, source=str(tmp_path / "e.jsonl"), line=2),
        EntityRow(entity=Entity(id="Q2", label="life"), source=str(tmp_path / "e.jsonl"), line=4),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "Q1", "label": "x", "colour": "red"}', "unknown key 'colour'"),
        ('{"label": "x"}', "no id"),
        ('{"id": "Q1"}', "no label"),
        ('{"id": "Q1", "label": null}', "no label"),
        ('{"id": "Q1", "label": " "}', "has no label"),
        ('{"id": 1, "label": "x"}', "id is not a text: 1"),
        ('{"id": " Q1", "label": "x"}', "blanks around"),
        ('{"id": "Q\\n1", "label": "x"}', "control characters"),
        ('{"id": "Q1", "label": ["x"]}', "label is not a text"),
        ('{"id": "Q1", "label": "x", "aliases": "y"}', "aliases is not a list of texts"),
        ('{"id": "Q1", "label": "x", "aliases": [1]}', "aliases is not a list of texts"),
        ('{"id": "Q1", "label": "x", "popularity": "1"}', "popularity is not a number: '1'"),
        ('{"id": "Q1", "label": "x", "popularity": true}', "popularity is not a number"),
        ('{"id": "Q1", "label": "x", "popularity": NaN}', "not a number"),
        ('{"id": "Q1", "label": "x", "popularity": 1' + "0" * 400 + "}", "too large"),
        ('{"id": "Q1", "label": "x", "popularity": 1' + "0" * 5000 + "}", "not JSON that can be read"),
        ('{"id": "Q1", "label": "x"', "not JSON (Expecting ',' delimiter at column"),
        ('["Q1", "x"]', "not a JSON object in braces"),
        ("[" * 100_000, "not JSON that can be read"),
    ],
)
def test_a_wrong_line_is_reported_with_its_number_and_the_next_is_read(tmp_path: Path, line: str, says: str) -> None:
    rows, problems = read_entities(tmp_path, f'{line}\n{{"id": "Q2", "label": "good"}}\n')
    assert [(problem.line, problem.source) for problem in problems] == [(1, str(tmp_path / "e.jsonl"))]
    assert says in problems[0].fact
    assert len(problems[0].fact) < 300 + len(str(tmp_path))
    assert [row.entity.id for row in rows] == ["Q2"]


def test_without_a_collector_wrong_lines_are_listed_together(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"id": "Q1"}\n{"id": "Q2", "label": "good"}\nnonsense\n')
    problems = Problems()
    rows = list(TablesSource(entities=path, problems=problems).entities())
    with pytest.raises(BadInput, match=r"(?s)2 lines cannot be used.*e\.jsonl:1:.*e\.jsonl:3:"):
        problems.finish()
    assert [row.entity.id for row in rows] == ["Q2"]


@pytest.mark.parametrize("label", ["NA", "null", "None", "nan", "true", '"quoted', "'", "0"])
def test_words_that_other_readers_swallow_are_labels(tmp_path: Path, label: str) -> None:
    rows, problems = read_entities(tmp_path, json.dumps({"id": "Q1", "label": label}))
    facts, others = read_triples(tmp_path, f"{HEADER}Q1\tP1\t{label}\t\t{label}\n")
    assert [row.entity.label for row in rows] == [label]
    assert [(fact.relation, fact.tail) for fact in facts] == [(label, label)]
    assert problems == others == []


def test_controls_in_labels_become_blanks_escaped_or_raw(tmp_path: Path) -> None:
    escaped = r'{"id": "Q1", "label": "A\nB\u0000C", "aliases": ["D\tE", "\ud800F"], "description": "G\u2028H"}'
    raw = '{"id": "Q2", "label": "A\tB\x01C"}'
    rows, problems = read_entities(tmp_path, f"{escaped}\n{raw}\n")
    assert problems == []
    assert rows[0].entity == Entity(id="Q1", label="A B C", aliases=("D E", "F"), description="G H")
    assert rows[1].entity.label == "A B C"


def test_a_triple_is_what_stands_between_the_tabs(tmp_path: Path) -> None:
    text = f'{HEADER}Q1\tP31\tinstance of\tQ2\tplanet\r\n\nQ1\tP2\tsays\t\t"an open quote\n'
    rows, problems = read_triples(tmp_path, text)
    source = str(tmp_path / "t.tsv")
    assert problems == []
    assert rows == [
        TripleRow("Q1", "P31", "instance of", "Q2", "planet", source, 2),
        TripleRow("Q1", "P2", "says", "", '"an open quote', source, 4),
    ]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    rows, _ = read_triples(
        tmp_path, "\ufefftail\tTail_ID\thead\trelation\tpredicate\nplanet\tQ2\tQ1\tinstance of\tP31\n"
    )
    assert rows[0][:5] == ("Q1", "P31", "instance of", "Q2", "planet")


@pytest.mark.parametrize(
    "text", ["", "\n", "Q1\tP31\tinstance of\tQ2\tplanet\n", "head\trelation\ttail\n", f"x\t{HEADER}"]
)
def test_a_header_that_is_missing_or_another_is_an_error_that_says_which_one_is_wanted(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(BadInput, match=r"t\.tsv:1: the first line must name the columns head, predicate") as caught:
        read_triples(tmp_path, text)
    assert "head<tab>predicate" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Q1\tP1\trelation\ttail", "4 fields between tabs, not 5"),
        ("Q1\tP1\trelation\t\ttail\t", "6 fields between tabs, not 5"),
        ("\tP1\trelation\t\ttail", "head, relation or tail is empty"),
        ("Q1\tP1\t \t\ttail", "head, relation or tail is empty"),
        ("Q1\tP1\trelation\tQ2\t ", "head, relation or tail is empty"),
        (b"Q1\tP1\trelation\t\tZ\xfcrich", "not UTF-8"),
    ],
)
def test_a_wrong_row_is_reported_with_its_number(tmp_path: Path, line: bytes | str, says: str) -> None:
    data = line.encode() if isinstance(line, str) else line
    rows, problems = read_triples(tmp_path, HEADER.encode() + data + b"\nQ1\tP1\tr\t\tt\n")
    assert [problem.line for problem in problems] == [2]
    assert says in problems[0].fact
    assert [row.line for row in rows] == [3]


def test_blank_rows_are_skipped(tmp_path: Path) -> None:
    assert read_triples(tmp_path, f"{HEADER}\n   \n\t\t\t\t\n \t\n") == ([], [])


def test_a_truncated_gzip_names_the_last_good_line(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"id": f"Q{n}", "label": os.urandom(8).hex()}) + "\n" for n in range(50_000))
    data = gzip.compress(lines.encode())
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    rows: deque[EntityRow] = deque(maxlen=1)
    with pytest.raises(BadInput, match="is cut off: its last whole line is") as caught:
        rows.extend(TablesSource(entities=path, problems=Problems()).entities())
    assert caught.value.fact.endswith(f"line is {rows[0].line}")
    assert 10_000 < rows[0].line < 50_000


def test_absent_files_give_nothing_and_progress_covers_both(tmp_path: Path) -> None:
    assert list(TablesSource(problems=Problems()).entities()) == []
    assert list(TablesSource(problems=Problems()).triples()) == []
    entities, triples = tmp_path / "e.jsonl", tmp_path / "t.tsv"
    entities.write_text('{"id": "Q1", "label": "x"}\n')
    triples.write_text(HEADER)
    told: list[int] = []
    source = TablesSource(entities=entities, triples=triples, problems=Problems())
    with listening(Listener(on_done=told.append)):
        assert len(list(source.entities())) == 1
        assert list(source.triples()) == []
    assert sum(told) == source.total_bytes == entities.stat().st_size + triples.stat().st_size


names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)
entities_of_any_kind = st.builds(
    Entity,
    id=names,
    label=names,
    description=names | st.just(""),
    aliases=st.lists(names, max_size=3).map(tuple),
    image=st.none() | names,
    popularity=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(entities=st.lists(entities_of_any_kind, max_size=5), ascii_only=st.booleans())
def test_written_entities_come_back_equal(
    tmp_path_factory: pytest.TempPathFactory, entities: list[Entity], ascii_only: bool
) -> None:
    keys = ("id", "label", "description", "aliases", "image", "popularity")
    lines = [json.dumps({key: getattr(each, key) for key in keys}, ensure_ascii=ascii_only) for each in entities]
    rows, problems = read_entities(tmp_path_factory.getbasetemp(), "\n".join(lines))
    assert problems == []
    assert [row.entity for row in rows] == entities


@given(
    rows=st.lists(st.tuples(names, names | st.just(""), names, names | st.just(""), names), max_size=6), data=st.data()
)
def test_written_triples_come_back_equal_whatever_the_order_of_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(5)))
    columns = HEADER.strip().split("\t")
    table = [columns, *rows]
    text = "".join("\t".join(row[at] for at in order) + "\n" for row in table)
    read, problems = read_triples(tmp_path_factory.getbasetemp(), text)
    assert problems == []
    assert [row[:5] for row in read] == rows
    assert [row.line for row in read] == list(range(2, len(rows) + 2))


VALID_ENTITIES = (
    b'{"id": "Q1", "label": "Earth", "aliases": ["Terra"], "popularity": 0.5}\n{"id": "Q2", "label": "\\u00e9"}\n'
)
VALID_TRIPLES = f"{HEADER}Q1\tP31\tinstance of\tQ2\tplanet\nQ2\tP571\tinception\t\t1972\n".encode()


@given(at=st.integers(0, 110), length=st.integers(0, 20), junk=st.binary(max_size=20), kind=st.booleans())
def test_any_bytes_give_rows_or_a_localmel_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, length: int, junk: bytes, kind: bool
) -> None:
    valid = VALID_ENTITIES if kind else VALID_TRIPLES
    data = valid[:at] + junk + valid[at + length :]
    try:
        rows: list[Any]
        rows, problems = (read_entities if kind else read_triples)(tmp_path_factory.getbasetemp(), data)
    except LocalmelError as error:
        assert error.hint, error  # noqa: PT017
    else:
        assert len(rows) + len(problems) <= data.count(b"\n") + 1
        assert not any("\t" in field for row in rows if isinstance(row, TripleRow) for field in row[:5])
        "".join(str(row) for row in rows).encode()


def test_the_benchmark_kb_reads_as_a_naive_reading_does() -> None:
    folder = SHARED / "data" / "mel" / "kb"
    if not folder.is_dir():
        pytest.skip(f"no benchmark KB at {folder}; set LOCALMEL_SHARED")
    problems = Problems()
    source = TablesSource(entities=folder / "entities.jsonl.gz", triples=folder / "triples.tsv.gz", problems=problems)
    with gzip.open(folder / "entities.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
        expected = {
            row["id"]: (row["label"].strip(), [alias.strip() for alias in row.get("aliases", [])])
            for row in map(json.loads, file)
        }
    read = {row.entity.id: (row.entity.label, list(row.entity.aliases)) for row in source.entities()}
    with gzip.open(folder / "triples.tsv.gz", "rt", encoding="utf-8", newline="\n") as text:
        naive = csv.reader(io.StringIO(text.read()), delimiter="\t", quoting=csv.QUOTE_NONE)
        next(naive)
        same = sum(list(row[:5]) == fields for row, fields in zip(source.triples(), naive, strict=True))
    problems.finish()
    assert len(read) == 146_175
    assert read == expected
    assert same == 1_119_089
