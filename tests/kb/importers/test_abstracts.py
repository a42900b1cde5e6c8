"""Abstracts are read as published, and their markup becomes plain prose of whole sentences."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput
from localmel.kb.importers.abstracts import OTHER_LANGUAGE, OTHER_STATEMENT, AbstractSource, page_title, plain_abstract
from localmel.kb.importers.reading import Problems, clean

ABSTRACT, PAGE = "http://dbpedia.org/ontology/abstract", "http://dbpedia.org/resource/A"


def read(path: Path, **given: str) -> tuple[list[tuple[str, str, str]], AbstractSource]:
    source = AbstractSource(path, problems=Problems(), **given)
    return [(row.entity_id, row.title, row.text) for row in source.rows()], source


def statement(subject: str, text: str, language: str = "@en", predicate: str = ABSTRACT) -> str:
    """All that is not plain ASCII written as N-Triples escapes it."""
    pairs = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    written = "".join(pairs.get(char) or (char if " " <= char <= "~" else f"\\U{ord(char):08X}") for char in text)
    return f'<{subject}> <{predicate}> "{written}"{language} .'


def plainly(text: str) -> str:
    """Only what has to be escaped is."""
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(char, escaped)
    return f'"{text}"'


def test_statements_name_pages_or_entities(tmp_path: Path) -> None:
    path = tmp_path / "long-abstracts_lang=en.ttl.bz2"
    lines = [
        "# started 2022-12-01T00:00:00Z",
        statement("http://dbpedia.org/resource/New_York_City", 'The "Big Apple".\nIt is \u00e9 large.'),
        statement("http://de.dbpedia.org/resource/Z%C3%BCrich", "Stadt", "@de"),
        statement("http://www.wikidata.org/entity/Q64", "Berlin", "@EN"),
        statement("http://wikidata.dbpedia.org/resource/Q90", "Paris", ""),
        statement("https://en.wikipedia.org/wiki/AC/DC", "a band", predicate="http://schema.org/description"),
        statement("http://dbpedia.org/resource/A", "x", predicate="http://dbpedia.org/ontology/motto"),
        "<http://dbpedia.org/resource/A> <http://www.w3.org/1999/02/22-rdf-syntax-ns#type> <http://x.org/B> .",
        "",
        "# completed",
    ]
    path.write_bytes(bz2.compress("\n".join(lines).encode()))
    rows, source = read(path)
    assert rows == [
        ("", "New York City", 'The "Big Apple". It is é large.'),
        ("Q64", "", "Berlin"),
        ("Q90", "", "Paris"),
        ("", "AC/DC", "a band"),
    ]
    assert source.passed_over == {OTHER_LANGUAGE: 1, OTHER_STATEMENT: 2}
    assert source.total_bytes == path.stat().st_size
    german, _ = read(path, language="de")
    assert ("", "Zürich", "Stadt") in german


def test_json_lines_name_an_id_or_a_title(tmp_path: Path) -> None:
    path = tmp_path / "abstracts.jsonl.gz"
    rows = [{"id": "Q1", "abstract": "one"}, {"title": "new_York", "abstract": "two\nlines"}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert read(path)[0] == [("Q1", "", "one"), ("", "New York", "two lines")]


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("a.jsonl", '{"id": "Q1"}', "a line needs an abstract and either an id or a title"),
        ("a.jsonl", '{"abstract": "x"}', "a line needs an abstract and either an id or a title"),
        ("a.jsonl", '{"id": "Q1", "title": "T", "abstract": "x"}', "either an id or a title"),
        ("a.jsonl", '{"id": 1, "abstract": "x"}', "id is 1, not a text"),
        ("a.jsonl", '{"id": "Q1", "abstract": null}', "abstract is None, not a text"),
        ("a.jsonl", '{"id": "Q1", "abstract": "x", "more": 1}', "unknown key 'more'"),
        ("a.jsonl", "[" * 3000, "not JSON"),
        ("a.ttl", "@prefix dbr: <http://dbpedia.org/resource/> .", "cannot read Turtle with prefixes"),
        ("a.nt", '<http://a> <http://b> "never ends', "not a statement of N-Triples"),
        ("a.nt", statement("http://example.org/x", "text"), "neither a page of Wikipedia nor an entity"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, name: str, line: str, said: str) -> None:
    (tmp_path / name).write_text(f"{line}\n")
    problems = Problems()
    assert list(AbstractSource(tmp_path / name, problems=problems).rows()) == []
    with pytest.raises(BadInput, match=rf"{name}:1: .*{said}"):
        problems.finish()


def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.jsonl, .*\.nt"):
        AbstractSource(tmp_path / "abstracts.csv.gz", problems=Problems())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_out_of_a_statement_as_it_went_in(text: str) -> None:
    source = AbstractSource(Path("a.nt"), problems=Problems())
    for line in (statement("http://dbpedia.org/resource/A", text), f"<{PAGE}> <{ABSTRACT}> {plainly(text)}@en ."):
        assert source._from_statement(line) == ("", "A", re.sub("[\t\n\r]", " ", text))


@given(st.text())
def test_any_line_is_read_or_refused_and_nothing_else(line: str) -> None:
    source = AbstractSource(Path("a.nt"), problems=Problems())
    for reader in (source._from_statement, source._from_json):
        with contextlib.suppress(ValueError):
            reader(line)


def test_titles_are_compared_as_pages_bear_them() -> None:
    assert page_title("new_York_City%2C__x") == "New York City, x"
    assert page_title("e\u0301cole") == "\u00c9cole"
    assert page_title("") == ""


MARKS = """{{ }} [[ ]] ( ) <ref> </ref> <ref/> <!-- --> <b > | ; ''' == a Berlin. &amp; &lt;ref&gt; ˈ 。 [1] http://x"""
PIECES = [*MARKS.split(), " ", "\n", "\x00", "\u2028", "\ud800"]
RAW = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=200)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("'''Berlin''' is the [[capital city|capital]] of [[Germany]].", "Berlin is the capital of Germany."),
        ("Berlin (/bɜːrˈlɪn/ bur-LIN; German: [bɛʁˈliːn] (listen)) is a city.", "Berlin is a city."),
        ("Jordan (/ˈdʒɔːrdən/; born 1963) played.", "Jordan (born 1963) played."),
        ("Paris (French pronunciation: [paʁi]) is a city.", "Paris is a city."),
        ("The Who ( ; ; ) are a band.", "The Who are a band."),
        ("A {{cite|{{nested}} web}}b<ref name=x>no</ref>c<ref name='y'/>d.", "A b c d."),
        ("It has 3 streets.[1][citation needed] It [note 2] ends.", "It has 3 streets. It ends."),
        ("<p>Tom &amp; Jerry</p><!-- not\nthis -->", "Tom & Jerry"),
        ("[[File:A.jpg|thumb|a picture]]See [http://example.org the site].", "See the site."),
        ("A\x00B\x1b[31m\u2028C", "A B [31m C"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("f(x) of (Smith, John)", "f(x) of (Smith, John)"),
        ("{{only markup}} () ; .", ""),
        ("", ""),
    ],
)
def test_what_is_no_prose_goes(raw: str, plain: str) -> None:
    assert plain_abstract(raw).text == plain


@pytest.mark.parametrize(
    ("raw", "most", "kept"),
    [
        ("One two three four. Five six seven.", 25, "One two three four."),
        ("He met Dr. Smith and J. R. Tolkien. Then he left.", 40, "He met Dr. Smith and J. R. Tolkien."),
        ("It is in the U.S. and has 1.5 million people today", 30, "It is in the U.S. and has 1.5…"),
        ("これは文です。これは次の文です。", 10, "これは文です。"),
        ("wordwordwordwordwordword", 10, "wordwordw…"),
        ("Short.", 6, "Short."),
        ("Was it? Yes! It was so.", 13, "Was it? Yes!"),
    ],
)
def test_a_long_one_is_cut_behind_a_sentence_or_else_a_word(raw: str, most: int, kept: str) -> None:
    found = plain_abstract(raw, most=most)
    assert found.text == kept
    assert found.was_cut == (len(raw) > most)


@given(RAW, st.integers(20, 80))
def test_whatever_comes_is_one_line_within_the_limit(raw: str, most: int) -> None:
    text = plain_abstract(raw, most=most).text
    assert len(text) <= most
    assert text == clean(text) == " ".join(text.split())
    assert not text or any(char.isalnum() for char in text)


@pytest.mark.parametrize("piece", ["<ref>", "{{", "[[", "(", "<a", "<!--", "[http://a ", "== ", "/a", ";", "[ˈ"])
def test_markup_that_never_ends_costs_no_more_than_its_length(piece: str) -> None:
    started = time.perf_counter()
    plain_abstract(piece * 20_000)
    assert time.perf_counter() - started < 5
