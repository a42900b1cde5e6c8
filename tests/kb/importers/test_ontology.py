"""Your own ontology: CSV or JSON lines, a row per entity, every other column a relation."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput, ImportProblem, LocalmelError
from localmel.kb.importers import EntityRow, OntologySource, Problems, TripleRow
from localmel.records import Entity
from localmel.store.progress import Listener, listening

Read = tuple[list[EntityRow], list[TripleRow], list[ImportProblem]]


def read(folder: Path, data: bytes | str, name: str = "o.csv") -> Read:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    problems: list[ImportProblem] = []
    source = OntologySource(path, problems=Problems(on_problem=problems.append))
    return list(source.entities()), list(source.triples()), problems


def facts(rows: list[TripleRow]) -> list[tuple[str, str, str, str]]:
    assert all(row.predicate == row.relation for row in rows)
    return [(row.head, row.relation, row.tail_id, row.tail) for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheet_becomes_entities_and_edges(tmp_path: Path, delimiter: str) -> None:
    text = """Name,description,Aliases,image,popularity,located in,made of
Eiffel Tower,a tower,La dame de fer|Tour Eiffel,e.jpg,3.5,Paris,iron|rivets
Paris,,,,,France |,
"""
    entities, triples, problems = read(tmp_path, text.replace(",", delimiter))
    assert problems == []
    assert [(row.entity, row.line) for row in entities] == [
        (
            Entity(
                id="local:eiffel-tower",
                label="Eiffel Tower",
                description="a tower",
                aliases=("La dame de fer", "Tour Eiffel"),
                image="e.jpg",
                popularity=3.5,
            ),
            2,
        ),
        (Entity(id="local:paris", label="Paris"), 3),
    ]
    assert facts(triples) == [
        ("local:eiffel-tower", "located in", "local:paris", "Paris"),
        ("local:eiffel-tower", "made of", "", "iron"),
        ("local:eiffel-tower", "made of", "", "rivets"),
        ("local:paris", "located in", "", "France"),
    ]
    assert [row.line for row in triples] == [2, 2, 2, 3]


def test_json_lines_say_the_same_with_lists(tmp_path: Path) -> None:
    lines = [
        {"label": "Eiffel Tower", "aliases": ["Tour Eiffel"], "located in": "Paris", "height": 330, "open": True},
        {"name": "Paris", "id": "Q90", "part of": ["France", None, 7.5, ""]},
    ]
    entities, triples, problems = read(tmp_path, "\n".join(map(json.dumps, lines)), "o.jsonl")
    assert problems == []
    assert [row.entity for row in entities] == [
        Entity(id="local:eiffel-tower", label="Eiffel Tower", aliases=("Tour Eiffel",)),
        Entity(id="Q90", label="Paris"),
    ]
    assert facts(triples) == [
        ("local:eiffel-tower", "located in", "Q90", "Paris"),
        ("local:eiffel-tower", "height", "", "330"),
        ("local:eiffel-tower", "open", "", "true"),
        ("Q90", "part of", "", "France"),
        ("Q90", "part of", "", "7.5"),
    ]


def test_ids_are_made_from_names_and_numbered_in_file_order(tmp_path: Path) -> None:
    text = "name,id\nAcme Corp.,\nACME  corp,\nAcme Corp 2,\nacme-corp!,\n東京 タワー,\n!!!,\nÉcole,local:x\n"
    entities, _, problems = read(tmp_path, text)
    assert problems == []
    assert [row.entity.id for row in entities] == [
        "local:acme-corp",
        "local:acme-corp-2",
        "local:acme-corp-2-2",
        "local:acme-corp-3",
        "local:東京-タワー",
        "local:entity",
        "local:x",
    ]


def test_a_tail_is_an_edge_by_id_or_by_a_name_that_only_one_other_has(tmp_path: Path) -> None:
    text = "id,name,knows\na,Ann,b|Bob|Cas|a|Ann|Dan\nb,Bob,\nc,Cas,\nd,Cas,\n"
    _, triples, _ = read(tmp_path, text)
    assert [(row.tail, row.tail_id) for row in triples] == [
        ("b", "b"),
        ("Bob", "b"),
        ("Cas", ""),  # two have this name
        ("a", ""),  # itself
        ("Ann", ""),
        ("Dan", ""),  # unknown
    ]


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    text = 'name,"lives in, or near"\r\n"Poe, Edgar ""E""","Boston\r\nMass."\r\nTwain,Hartford\r\n'
    entities, triples, problems = read(tmp_path, text)
    assert problems == []
    assert [(row.entity.label, row.line) for row in entities] == [('Poe, Edgar "E"', 2), ("Twain", 4)]
    assert [(row.relation, row.tail, row.line) for row in triples] == [
        ("lives in, or near", "Boston Mass.", 2),
        ("lives in, or near", "Hartford", 4),
    ]


def test_the_delimiter_is_read_off_the_header_outside_quotes(tmp_path: Path) -> None:
    entities, triples, _ = read(tmp_path, '\n"name";"a,b,c,d"\nX,Y;1,5\n')
    assert [row.entity.label for row in entities] == ["X,Y"]
    assert [(row.relation, row.tail) for row in triples] == [("a,b,c,d", "1,5")]


def test_an_id_that_stands_twice_keeps_the_facts_of_the_first_row(tmp_path: Path) -> None:
    entities, triples, _ = read(tmp_path, "id,name,colour\na,Ann,red\na,Bob,blue\n")
    assert [(row.entity.id, row.line) for row in entities] == [("a", 2), ("a", 3)]  # the store reports the second
    assert facts(triples) == [("a", "colour", "", "red")]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "no column name"),
        ("title,country\nx,y\n", "no column name"),
        ("name,label\nx,y\n", "both a column name and a column label"),
        ("name,Name\nx,y\n", "a column repeats"),
        ('name,"open\nx,y\n', "cannot read the first line as CSV"),
    ],
)
def test_a_header_that_cannot_be_used_is_an_error_with_an_example(tmp_path: Path, header: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        read(tmp_path, header)
    assert "name,description" in caught.value.hint


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("x,y", "2 cells, but the first line names 4 columns"),
        ("x,y,1,2,3", "5 cells, but"),
        (",y,,", "no name"),
        ("x,y,many,", "popularity is not a number: 'many'"),
        ("x,y,1_000,", "popularity is not a number"),
        ("x,y,nan,", "popularity is not a number"),
        ("x,y,1e999,", "not a number"),
        ("x,y,1,stray", "a value in a column without a title"),
        ('"x"z,y,,', "not CSV"),
        ('"x,y,,', "not CSV"),
        (b"Z\xfcrich,y,,", "not UTF-8"),
    ],
)
def test_a_wrong_row_is_reported_with_its_line(tmp_path: Path, row: bytes | str, says: str) -> None:
    data = row if isinstance(row, bytes) else row.encode()
    entities, triples, problems = read(tmp_path, b"name,country,popularity,\ngood,land,1,,,\n" + data)
    assert [problem.line for problem in problems] == [3]
    assert says in problems[0].fact
    assert [row.entity.label for row in entities] == ["good"]
    assert [row.tail for row in triples] == ["land"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"name": "x", "label": "x"}', "both a name and a label"),
        ('{"id": "x"}', "no name"),
        ('{"name": "x", "aliases": "y"}', "aliases is not a list of texts"),
        ('{"name": "x", "made of": {"a": 1}}', "made of is not a text, a number or a list of these"),
        ('{"name": "x", "": "y"}', "a value under an empty key"),
        ('{"name": "x", "id": 7}', "id is not a text"),
        ("x", "not JSON"),
    ],
)
def test_a_wrong_json_line_is_reported_with_its_line(tmp_path: Path, row: str, says: str) -> None:
    entities, _, problems = read(tmp_path, f'{{"name": "good"}}\n{row}\n', "o.jsonl")
    assert [problem.line for problem in problems] == [2]
    assert says in problems[0].fact
    assert len(entities) == 1


def test_triples_may_be_asked_for_alone_and_progress_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("name,in\nA,B\nB,\n")
    told: list[int] = []
    source = OntologySource(path, problems=Problems())
    with listening(Listener(on_done=told.append)):
        assert facts(list(source.triples())) == [("local:a", "in", "local:b", "B")]
    assert sum(told) == source.total_bytes == 2 * path.stat().st_size


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="|"), min_size=1)
cells = words.map(str.strip).filter(bool)


@given(rows=st.lists(st.tuples(cells, st.lists(cells, max_size=2), st.lists(cells, max_size=2)), max_size=5))
def test_csv_and_json_lines_of_the_same_ontology_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[str], list[str]]]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "aliases", "near"])
    writer.writerows([name, "|".join(aliases), "|".join(near)] for name, aliases, near in rows)
    lines = [json.dumps({"name": name, "aliases": aliases, "near": near}) for name, aliases, near in rows]
    folder = tmp_path_factory.getbasetemp()
    from_csv, from_json = read(folder, text.getvalue()), read(folder, "\n".join(lines), "o.jsonl")
    assert from_csv[2] == from_json[2] == []
    assert [row.entity for row in from_csv[0]] == [row.entity for row in from_json[0]]
    assert [(row.entity.label, list(row.entity.aliases)) for row in from_csv[0]] == [row[:2] for row in rows]
    assert facts(from_csv[1]) == facts(from_json[1])
    assert [row.tail for row in from_csv[1]] == [tail for _, _, near in rows for tail in near]
    assert len({row.entity.id for row in from_csv[0]}) == len(rows)


VALID = {
    "o.csv": b'name,id,aliases,near,popularity\nAnn,a,A|B,Bob|"x",1\n"Bob, B",,,,2.5\n',
    "o.jsonl": b'{"name": "Ann", "near": ["Bob", 1]}\n{"name": "Bob", "aliases": ["\\u00e9"], "x": {"y": 1}}\n',
}


@given(
    at=st.integers(0, 90),
    length=st.integers(0, 15),
    junk=st.binary(max_size=12) | st.text('",;\t\n\\x', max_size=6).map(str.encode),
    name=st.sampled_from(list(VALID)),
)
def test_any_bytes_give_rows_or_a_localmel_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, length: int, junk: bytes, name: str
) -> None:
    data = VALID[name][:at] + junk + VALID[name][at + length :]
    try:
        entities, triples, _ = read(tmp_path_factory.getbasetemp(), data, name)
    except LocalmelError as error:
        assert error.hint, error  # noqa: PT017
    else:
        ids = {row.entity.id for row in entities}
        assert {row.head for row in triples} <= ids
        assert {row.tail_id for row in triples} <= ids | {""}
        values: list[Any] = [*entities, *triples]
        assert all(row.relation.strip() and row.tail.strip() for row in triples)
        "".join(map(str, values)).encode()
