"""Lines go to the name they begin with, and to no other; whatever the text, reading it never raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.generate.answer import Said, SaidTriple, Unread, read_lines

ANSWER = """\
Sure! Here is the knowledge graph.

### Step 1: Entity Type
- "UK": country
- "UK parliament": Institution

### Step 2: Entity Description
- "UK": A country in Europe: an island.
- "UK parliament": It makes laws.

### Step 3: Triples
- "UK" | Continent | Europe | text
- "UK parliament" | located in | London | image
- "UK parliament" | country | United Kingdom
- "UK parliament" | country | United Kingdom
"""
NAMES = ("UK", "UK parliament")


def read(text: str, *labels: str, cut_off: bool = False, most: int = 8) -> Any:
    return read_lines(text, labels or NAMES, most_triples=most, cut_off=cut_off)


def steps(*triples: str, types: tuple[str, ...] = ()) -> str:
    return "\n".join(["### Step 1", *types, "### Step 2", "### Step 3", *triples])


def triples_of(text: str, *labels: str) -> dict[str, list[tuple[str, str]]]:
    reading = read(text, *labels)
    return {
        name: [(one.relation, one.tail) for one in said.triples] if isinstance(said, Said) else []
        for name, said in reading.items()
    }


def test_the_three_steps_are_read() -> None:
    assert read(ANSWER) == {
        "UK": Said(
            entity_type="country",
            summary="A country in Europe: an island.",
            triples=(SaidTriple(relation="continent", tail="Europe", source="text"),),
        ),
        "UK parliament": Said(
            entity_type="institution",
            summary="It makes laws.",
            triples=(
                SaidTriple(relation="located in", tail="London", source="image"),
                SaidTriple(relation="country", tail="United Kingdom", source="text"),
            ),
        ),
    }


@pytest.mark.parametrize("heading", ["### Step {}", "**Step {}: Triples**", "Step {}:", "## STEP {} - x", "# step{}"])
@pytest.mark.parametrize("line", ['- "{}"{}', '* **"{}"** {}', "1. {}{}", "{} {}", "| {} {} |", "“{}” {}", "• `{}`{}"])
def test_headings_quotes_and_list_marks_may_vary(heading: str, line: str) -> None:
    text = "\n".join(
        [
            heading.format(1),
            line.format("UK", ": country"),
            heading.format(2),
            heading.format(3),
            line.format("UK parliament", "| located in | London"),
            line.format("UK", "| continent | Europe"),
        ]
    )
    reading = read(text)
    assert reading["UK"].entity_type.rstrip(" |") == "country"
    assert triples_of(text) == {"UK": [("continent", "Europe")], "UK parliament": [("located in", "London")]}


# --- the published parser's defects, one by one --------------------------------------------------------------------


def test_a_name_inside_of_another_does_not_get_its_triples() -> None:
    text = steps('- "UK parliament" | located in | London', "- UK parliament | instance of | legislature")
    assert triples_of(text) == {"UK": [], "UK parliament": [("located in", "London"), ("instance of", "legislature")]}
    assert isinstance(read(text)["UK"], Unread)


def test_a_name_that_is_merely_mentioned_in_a_triple_does_not_get_it() -> None:
    text = steps(
        '- "UK" | part of | Europe', '- "London" | capital | UK', '- "the UK" | country | x', "- UKs | country | x"
    )
    assert triples_of(text, "UK", "Europe") == {"UK": [("part of", "Europe")], "Europe": []}


def test_none_inside_of_words_does_not_drop_a_triple() -> None:
    text = steps(
        '"UK" | genre | canzone nonet', '"UK" | genre | none', '"UK" | genre | Unknown', '"UK" | genre | nonesuch'
    )
    assert triples_of(text, "UK")["UK"] == [("genre", "canzone nonet"), ("genre", "nonesuch")]


def test_an_error_of_a_server_is_no_triple() -> None:
    text = "Error: 429 Client Error: Too Many Requests for url: http://x | Error | y"
    assert all(isinstance(one, Unread) for one in read(text).values())
    assert all(isinstance(one, Unread) for one in read(text, "Error").values())


def test_without_the_third_heading_nothing_is_guessed() -> None:
    text = ANSWER.replace("### Step 3: Triples\n", "")
    assert read(text)["UK"] == Unread(problem="the answer has no heading for step 3")


def test_a_heading_in_bold_is_no_description() -> None:
    text = ANSWER.replace("### Step 3: Triples", "**Step 3: Triples**").replace("### Step 2", "**Step 2**")
    assert read(text) == read(ANSWER)


def test_a_digit_in_a_line_is_no_heading() -> None:
    text = steps('- "UK" | participant | Step 1 of 3', '- "UK" | part of | G20 1')
    assert triples_of(text, "UK")["UK"] == [("participant", "Step 1 of 3"), ("part of", "G20 1")]


def test_a_colon_or_a_comma_does_not_split_a_triple() -> None:
    text = steps('- "UK" | named after | Kingdom: Great, Britain', '- "UK", capital, London', '- "UK": capital: London')
    assert triples_of(text, "UK")["UK"] == [("named after", "Kingdom: Great, Britain")]


def test_the_first_line_counts_whatever_the_order_of_a_set() -> None:
    text = steps('"UK" | country | x', types=('"UK": country', '"UK": city', '"UK": country'))
    assert read(text, "UK")["UK"].entity_type == "country"


def test_no_type_is_made_a_triple_by_reading() -> None:
    assert triples_of(steps(types=('"UK": country',)), "UK")["UK"] == []


# --- further edges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["1. FC Köln", "it's", "UK: the movie", "* star", "Step 1", "(ISS)", "x (2)", "Ω 日本", "?"]
)
def test_odd_names_are_found(label: str) -> None:
    text = steps(f'- "{label}" | located in | here', types=(f'- "{label}": city',))
    said = read(text, label, "UK")[label]
    assert (said.entity_type, said.triples[0].tail) == ("city", "here")


def test_a_relation_that_is_a_sentence_is_none() -> None:
    text = steps(
        '"UK" | it is well known that it has | y', '"UK" | | y', '"UK" | x', '"UK" |', '"UK" | friend of | Ann'
    )
    assert triples_of(text, "UK")["UK"] == [("friend of", "Ann")]


def test_a_type_that_is_a_sentence_is_none() -> None:
    types = ('"UK": This is a country in the north of Europe', '"UK parliament": body of state')
    reading = read(steps(types=types))
    assert (reading["UK"].entity_type, reading["UK parliament"].entity_type) == ("", "body of state")


def test_of_an_answer_that_was_cut_off_the_last_line_does_not_count() -> None:
    text = ANSWER[: ANSWER.index("London") + 3]
    reading = read(text, cut_off=True)
    assert reading["UK"].triples
    assert not reading["UK"].whole  # the last one that was spoken of: more might have come
    assert reading["UK parliament"] == Said(entity_type="institution", summary="It makes laws.", whole=False)


def test_the_same_token_for_ever_is_unread() -> None:
    for text in ("the " * 5000, "###" * 5000, "|" * 5000, "\n" * 5000, '- "' * 5000, "*" * 20000, "### Step 3\n" * 500):
        assert all(isinstance(one, Unread) for one in read(text, cut_off=True).values())


LABEL = st.text(alphabet=st.sampled_from("UKab ü'.-1:"), min_size=1, max_size=8).map(
    lambda text: " ".join(text.split())
)
WORD = st.text(alphabet="xyz", min_size=1, max_size=6)


@settings(max_examples=120, deadline=None)
@given(labels=st.lists(LABEL.filter(bool), min_size=1, max_size=5, unique=True), data=st.data())
def test_a_triple_goes_to_the_name_it_was_written_for_and_to_no_other(labels: list[str], data: st.DataObject) -> None:
    written = data.draw(
        st.lists(st.tuples(st.sampled_from([*labels, "Other"]), WORD), max_size=12, unique_by=lambda row: row[1])
    )
    noise = data.draw(st.lists(st.text(alphabet='UKab|": -', max_size=12).map(lambda text: f"zz{text}"), max_size=4))
    lines = [f'- "{label}" | named after | {tail}' for label, tail in written]
    for line in noise:
        lines.insert(data.draw(st.integers(0, len(lines))), line)
    found = triples_of(steps(*lines), *labels)
    for label in labels:
        assert [tail for _, tail in found[label]] == [tail for name, tail in written if name == label][:8]


@settings(max_examples=120, deadline=None)
@given(
    text=st.one_of(
        st.text(),
        st.text(alphabet='UK parliament|":#*-\n123Step'),
        st.lists(st.sampled_from(ANSWER.splitlines())).map("\n".join),
    ),
    labels=st.lists(st.text(max_size=6), max_size=4),
    cut_off=st.booleans(),
)
def test_reading_never_raises(text: str, labels: list[str], cut_off: bool) -> None:
    reading = read_lines(text, labels, most_triples=3, cut_off=cut_off)
    assert set(reading) == set(labels)
    assert all(isinstance(one, Unread) or len(one.triples) <= 3 for one in reading.values())


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_part_of_an_answer_says_nothing_that_the_whole_does_not(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(ANSWER)))
    whole = read(ANSWER)
    for name, said in read(ANSWER[:size], cut_off=True).items():
        if isinstance(said, Said):
            assert said.triples == whole[name].triples[: len(said.triples)]
            assert said.entity_type in ("", whole[name].entity_type)
