"""What is asked: one question for a sentence, the same words first, and a bounded number of names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.benchmarks.json_lines import place_mention
from localmel.generate.answer import vocabulary
from localmel.generate.question import (
    MOST_NAMES,
    Asked,
    Question,
    asked_of,
    cut_around,
    instructions,
    questions_of,
    shortened,
)
from localmel.records import Mention, Span
from localmel.settings import GenerateSettings

PLAIN = GenerateSettings(backend="vlm")


def mentions(sentence: str, *surfaces: str, image: Path | None = None) -> list[Mention]:
    """Each surface at the next place where it stands."""
    found, begin = [], {}
    for number, surface in enumerate(surfaces):
        start = sentence.index(surface, begin.get(surface, 0))
        begin[surface] = start + len(surface)
        span = Span(start=start, end=start + len(surface))
        found.append(Mention(id=f"m{number}", surface=surface, context=sentence, span=span, image=image))
    return found


def only(found: list[Mention], settings: GenerateSettings = PLAIN) -> Question:
    (asked,) = asked_of(found)
    (question,) = questions_of(asked, settings)
    return question


def words_of(question: Question) -> str:
    part = question.request("1", PLAIN).messages[-1].parts[-1]
    assert isinstance(part, str)
    return part


def test_all_names_of_a_sentence_and_a_picture_are_one_question(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"x")
    found = mentions("Students outside the UK parliament in Wales.", "UK", "parliament", "Wales", image=picture)
    request = only(found).request("q", PLAIN)
    system, user = request.messages
    assert (system.role, system.parts) == ("system", (instructions(PLAIN),))
    assert user.parts == (
        picture,
        'Sentence: Students outside the UK parliament in Wales.\nNames: "UK", "parliament", "Wales"',
    )
    assert request.schema
    assert list(request.schema["properties"]) == ["UK", "parliament", "Wales"]


def test_other_sentences_and_other_pictures_are_other_questions(tmp_path: Path) -> None:
    one, two = tmp_path / "1.jpg", tmp_path / "2.jpg"
    found = [
        *mentions("Jordan dunks on Barkley.", "Jordan", image=one),
        *mentions("Jordan is a country.", "Jordan", image=one),
        *mentions("Jordan dunks on Barkley.", "Barkley", image=one),
        *mentions("Jordan dunks on Barkley.", "Barkley", image=two),
    ]
    assert [[mention.surface for mention in asked.mentions] for asked in asked_of(found)] == [
        ["Jordan", "Barkley"],
        ["Jordan"],
        ["Barkley"],
    ]


def test_two_questions_differ_only_behind_picture_and_sentence(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"x")
    sentence = " and ".join(f"Name{number:02}" for number in range(20))
    (asked,) = asked_of(mentions(sentence, *sentence.split(" and "), image=picture))
    one, two = (question.request("q", PLAIN) for question in questions_of(asked, PLAIN))
    assert one.messages[0] == two.messages[0]
    assert one.messages[1].parts[0] == two.messages[1].parts[0] == picture
    first, second = one.messages[1].parts[1], two.messages[1].parts[1]
    assert isinstance(first, str)
    assert isinstance(second, str)
    assert first.partition("\nNames")[0] == second.partition("\nNames")[0]


@pytest.mark.parametrize("form", ["json", "line"])
def test_the_instructions_offer_the_whole_vocabulary_and_no_example(form: str) -> None:
    text = instructions(GenerateSettings(format=form))
    assert all(word in text for word in (*vocabulary().relations, *vocabulary().entity_types))
    assert ("### Step 3" in text) == (form == "line")
    assert "At most 8 triples" in text


def test_lines_are_asked_without_a_schema() -> None:
    (question,) = questions_of(Asked(sentence="UK", image=None, mentions=tuple(mentions("UK", "UK"))), PLAIN)
    assert question.request("q", replace(PLAIN, format="line")).schema is None


# --- names -------------------------------------------------------------------------------------------------------


def test_the_same_name_twice_is_told_apart_by_number_and_place() -> None:
    question = only(mentions("Jordan flew home to the sands of Jordan.", "Jordan", "Jordan"))
    assert question.labels == ("Jordan", "Jordan (2)")
    assert [name.mentions[0].span.start for name in question.names] == [0, 33]
    assert 'Names: "Jordan" (in "Jordan flew home to the sands"), "Jordan (2)" (in "' in words_of(question)


def test_the_same_place_listed_twice_is_asked_once() -> None:
    one, two = mentions("UK", "UK"), mentions("UK", "UK")
    question = only([*one, replace(two[0], id="again")])
    assert question.labels == ("UK",)
    assert [mention.id for mention in question.names[0].mentions] == ["m0", "again"]


def test_a_name_that_looks_like_a_number_given_here_is_another_one() -> None:
    question = only(mentions("Ann, Ann (2) and Ann", "Ann", "Ann (2)", "Ann"))
    assert len(set(question.labels)) == 3


@settings(max_examples=100, deadline=None)
@given(surfaces=st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=10))
def test_labels_are_unique_and_need_no_escape(surfaces: list[str]) -> None:
    sentence, found = "", []
    for number, surface in enumerate(surfaces):
        span = Span(start=len(sentence), end=len(sentence) + len(surface))
        sentence += surface
        found.append((f"m{number}", surface, span))
    made = [Mention(id=id_, surface=surface, context=sentence, span=span) for id_, surface, span in found]
    labels = [label for question in questions_of(asked_of(made)[0], PLAIN) for label in question.labels]
    assert len(set(labels)) == len(labels) == len(made)
    for label in labels:
        assert label
        assert len(label) < 100
        assert not set(label) & set('"\\|{}\n')
        label.encode("utf-8")


def test_two_hundred_mentions_are_several_questions_and_none_is_lost() -> None:
    sentence = ", ".join(f"Person {number}" for number in range(200))
    (asked,) = asked_of(mentions(sentence, *sentence.split(", ")))
    questions = list(questions_of(asked, PLAIN))
    assert [len(question.names) for question in questions] == [MOST_NAMES] * 16 + [8]
    assert [label for question in questions for label in question.labels] == sentence.split(", ")


def test_a_short_answer_has_room_for_fewer_names() -> None:
    (asked,) = asked_of(mentions("A, B, C, D and E", *"ABCDE"))
    assert [len(one.names) for one in questions_of(asked, replace(PLAIN, max_tokens=200))] == [2, 2, 1]
    assert [len(one.names) for one in questions_of(asked, replace(PLAIN, max_tokens=1))] == [1] * 5


def test_a_picture_that_is_not_there_is_left_out_with_a_note(tmp_path: Path) -> None:
    for picture in (tmp_path / "none.jpg", tmp_path / ("x" * 5000), Path("nul\0.jpg")):
        question = only(mentions("UK", "UK", image=picture))
        assert question.image is None
        assert question.attempts == 1
        assert question.notes[0].startswith("asked without its picture: there is no file")
    assert words_of(question).startswith("There is no picture.\n")


# --- sampling ----------------------------------------------------------------------------------------------------


def test_a_question_that_could_not_be_read_is_asked_with_chance_and_another_seed() -> None:
    question = only(mentions("UK", "UK"))
    seeded = replace(PLAIN, seed=5)
    requests = [question.request("q", seeded)]
    for _ in range(2):
        question = question.again(question.names)
        requests.append(question.request("q", seeded))
    assert [(request.temperature, request.seed) for request in requests] == [(0.0, 5), (0.7, 6), (0.7, 7)]
    assert question.attempts == 3


# --- too long ----------------------------------------------------------------------------------------------------

LONG = (
    "The " + "quick brown fox jumps over the lazy dog and " * 200 + "Messi scored in Madrid " + "while it rained " * 300
)


def test_the_answer_gives_room_first() -> None:
    question = only(mentions(LONG, "Messi"))
    (shorter,) = shortened(question, 100, PLAIN)
    assert (shorter.max_tokens, shorter.sentence, shorter.attempts) == (924, LONG, 2)


def test_then_the_sentence_is_cut_around_its_names_with_a_notice() -> None:
    question = only(mentions(LONG, "Messi", "Madrid"))
    (shorter,) = shortened(question, 1200, PLAIN)
    assert len(shorter.sentence) <= len(LONG) - 5 * 1200 + 10
    assert "Messi scored in Madrid" in shorter.sentence
    assert shorter.sentence.startswith("… ")
    assert shorter.sentence.endswith(" …")
    assert shorter.notes == (
        f"sentence cut from {len(LONG):,} to {len(shorter.sentence):,} characters around its names: more does not fit",
    )
    (again,) = shortened(shorter, 2000, PLAIN)
    assert len(again.sentence) < len(shorter.sentence)
    assert len(again.notes) == 1


def test_then_the_names_are_asked_apart_and_at_last_without_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"x")
    question = only(mentions("Ann, Bob and Cy", "Ann", "Bob", "Cy", image=picture))
    one, two = shortened(question, 5000, PLAIN)
    assert (one.labels, two.labels) == (("Ann",), ("Bob", "Cy"))
    (bare,) = shortened(one, 5000, PLAIN)
    assert bare.image is None
    assert bare.notes == ("asked without its picture: it is 5,000 tokens too long with it",)
    assert shortened(bare, 5000, PLAIN) == []


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.text(alphabet="abü", min_size=1, max_size=9), min_size=1, max_size=300),
    n_names=st.integers(1, 14),
    too_long_by=st.integers(1, 5000),
    data=st.data(),
)
def test_shortening_ends_and_never_loses_a_name(
    words: list[str], n_names: int, too_long_by: int, data: st.DataObject
) -> None:
    sentence = " ".join(words)
    places = data.draw(st.lists(st.integers(0, len(sentence) - 1), min_size=n_names, max_size=n_names))
    found = [
        Mention(id=f"m{n}", surface=sentence[place], context=sentence, span=Span(start=place, end=place + 1))
        for n, place in enumerate(places)
    ]
    open_ = list(questions_of(asked_of(found)[0], PLAIN))
    given_up: list[str] = []
    for _ in range(3000):
        if not open_:
            break
        question = open_.pop()
        for name in question.names:
            assert name.mentions[0].surface in question.sentence
        shorter = shortened(question, too_long_by, PLAIN)
        assert {m for one in shorter for m in one.labels} == (set(question.labels) if shorter else set())
        if not shorter:
            given_up += [mention.id for name in question.names for mention in name.mentions]
        open_ += shorter
    assert sorted(given_up) == sorted(mention.id for mention in found)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="ab ü\n", min_size=1, max_size=400), most=st.integers(0, 300), data=st.data())
def test_a_cut_keeps_every_span_whole(text: str, most: int, data: st.DataObject) -> None:
    spans = []
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(text) - 1))
        spans.append(Span(start=start, end=data.draw(st.integers(start + 1, len(text)))))
    cut = cut_around(text, spans, most)
    assert all(text[span.start : span.end] in cut for span in spans)
    assert len(cut) <= sum(span.end - span.start for span in spans) + max(most, 80 * len(spans)) + 3 * len(spans) + 4


def test_a_mention_put_in_front_of_its_sentence_is_asked_as_well() -> None:
    mention = place_mention("1", "Hermann Beckerath", "Hermann von Beckerath, 1900")
    assert only([mention]).labels == ("Hermann Beckerath",)
