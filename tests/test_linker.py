"""The whole pipeline with its real parts on the starter KB: the shape of an answer, and answers to every odd input."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.captions import Caption, LinkedCaption
from localmel.errors import BadInput, BadMention, BadPicture, LocalmelError, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.records import Span
from localmel.settings.shipped import shipped

JERSEY = shipped("examples/jersey.jpg")
DUNK = "Jordan dunks on Barkley in Chicago."


def without_seconds(answer: LinkedCaption) -> dict[str, Any]:
    return {key: value for key, value in answer.to_json().items() if key != "seconds"}


def surfaces(answer: LinkedCaption) -> list[str]:
    return [linked.mention.surface for linked in answer.mentions]


# --- the shape ---------------------------------------------------------------------------------------------------


def test_an_explained_answer_has_triples_and_notes_too(linker: Linker) -> None:
    plain, explained = (linker.link(JERSEY, DUNK).to_json(explain=explain) for explain in (False, True))
    assert explained.pop("notes") == []
    for link in explained["links"]:
        triples = link.pop("triples")
        assert {triple["source"] for triple in triples} <= {"text", "ocr"}
        assert any(triple["relation"] == "visible text" for triple in triples)
    assert explained["links"] == plain["links"]


def test_an_answer_has_the_promised_shape(linker: Linker) -> None:
    answer = json.loads(json.dumps(linker.link(JERSEY, DUNK).to_json()))
    assert list(answer) == ["profile", "kb", "image", "text", "links", "seconds"]
    assert (answer["profile"], answer["kb"], answer["image"], answer["text"]) == (
        "embedded",
        "starter",
        str(JERSEY),
        DUNK,
    )
    assert set(answer["seconds"]) == {"read", "generate", "encode", "retrieve", "rerank"}
    assert all(seconds >= 0 for seconds in answer["seconds"].values())
    assert len(answer["links"]) == 3
    for link in answer["links"]:
        assert list(link) == ["mention", "entity", "probability", "decided_by", "evidence", "candidates"]
        mention = link["mention"]
        assert list(mention) == ["surface", "start", "end"]
        assert DUNK[mention["start"] : mention["end"]] == mention["surface"]
        assert list(link["entity"]) == ["id", "label", "description"]
        assert 0 <= link["probability"] <= 1
        assert link["decided_by"] == "evidence scorer"
        for pair in link["evidence"]:
            assert list(pair) == ["mention_triple", "entity_triple", "similarity", "source"]
            assert len(pair["mention_triple"]) == len(pair["entity_triple"]) == 3
            assert pair["mention_triple"][0] == mention["surface"]
            assert pair["entity_triple"][0] == link["entity"]["label"]
            assert 0 <= pair["similarity"] <= 1
            assert pair["source"] in ("text", "ocr")
        assert len(link["candidates"]) == 16
        assert all(list(candidate) == ["id", "label", "score"] for candidate in link["candidates"])
        scores = [candidate["score"] for candidate in link["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert link["candidates"][0]["id"] == link["entity"]["id"]
        assert link["probability"] == pytest.approx(scores[0], abs=1e-4)


def test_the_picture_decides_and_the_evidence_says_so(linker: Linker) -> None:
    answer = linker.link(JERSEY, "Jordan, photographed last spring.")
    (jordan,) = answer.mentions
    assert jordan.entity is not None
    assert jordan.entity.label == "Michael Jordan"
    assert jordan.link.evidence[0].mention_triple.source == "ocr"
    assert "CHICAGO" in jordan.link.evidence[0].mention_triple.tail


def test_evidence_is_true_in_the_kb(linker: Linker, starter: KnowledgeBase) -> None:
    for linked in linker.link(JERSEY, DUNK).mentions:
        assert linked.entity is not None
        facts = {(fact.relation, fact.tail) for fact in starter.kb_triples(linked.entity.id)}
        for pair in linked.link.evidence:
            assert (pair.entity_triple.relation, pair.entity_triple.tail) in facts


def test_top_k_limits_the_candidates_and_changes_no_answer(starter: KnowledgeBase, linker: Linker) -> None:
    two = Linker(starter, top_k=2).link(None, DUNK)
    assert [len(linked.candidates) for linked in two.mentions] == [2, 2, 2]
    whole = linker.link(None, DUNK)
    assert [linked.link.entity_id for linked in two.mentions] == [linked.link.entity_id for linked in whole.mentions]
    for top_k in (0, -3):
        with pytest.raises(UsageError, match=str(top_k)):
            Linker(starter, top_k=top_k)


# --- the same again ----------------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes(linker: Linker, starter: KnowledgeBase) -> None:
    once, again = (json.dumps(without_seconds(linker.link(JERSEY, DUNK))) for _ in range(2))
    assert once == again
    assert json.dumps(without_seconds(Linker(starter).link(JERSEY, DUNK))) == once


def test_one_and_many_agree(linker: Linker) -> None:
    texts = [DUNK, "no name here at all", "Paris in Texas", "We loved Mercury.", "Jordan, the river.", ""] * 15
    captions = [Caption(text=text) for text in texts]
    captions[3] = Caption(text="Jordan, photographed last spring.", image=JERSEY)
    captions[4] = Caption(text=DUNK, spans=(Span(start=0, end=6),))
    many = list(linker.link_many(captions))
    assert [answer.caption for answer in many] == captions
    for caption, answer in list(zip(captions, many, strict=True))[:8]:
        alone = next(iter(linker.link_many([caption])))
        assert surfaces(alone) == surfaces(answer)
        for one, other in zip(alone.mentions, answer.mentions, strict=True):
            assert one.entity == other.entity
            assert one.link.probability == pytest.approx(other.link.probability, abs=1e-3)
            assert one.description.triples == other.description.triples
    assert surfaces(many[4]) == ["Jordan"]
    assert linker.link(None, DUNK).mentions[0].entity == many[0].mentions[0].entity


def test_no_captions_give_no_answers(linker: Linker) -> None:
    assert list(linker.link_many([])) == []


# --- which names -------------------------------------------------------------------------------------------------


def test_a_name_that_the_kb_does_not_have_is_nil(linker: Linker) -> None:
    (unknown,) = linker.link(None, "Zorblax Quimby waves to the crowd.", ["Zorblax Quimby"]).mentions
    assert unknown.entity is None
    assert unknown.link.entity_id is None
    assert unknown.link.probability > 0.5
    assert unknown.link.evidence == ()
    assert linker.link(None, "Zorblax Quimby waves.", ["Zorblax Quimby"]).to_json()["links"][0]["entity"] is None


def test_marks_name_the_mentions_and_leave_the_text(linker: Linker) -> None:
    answer = linker.link(None, "[[Jordan]] dunks on [[Barkley]] in Chicago.")
    assert answer.caption.text == DUNK
    assert surfaces(answer) == ["Jordan", "Barkley"]


def test_listed_and_marked_mentions_go_before_detection(linker: Linker) -> None:
    answer = linker.link(None, "[[Jordan]] dunks on Barkley in Chicago.", ["Chicago"])
    assert surfaces(answer) == ["Jordan", "Chicago"]


def test_a_name_listed_twice_is_found_twice(linker: Linker) -> None:
    answer = linker.link(None, "Jordan met Jordan.", ["Jordan", "Jordan"])
    assert [(linked.mention.span.start, linked.mention.span.end) for linked in answer.mentions] == [(0, 6), (11, 17)]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        (DUNK, ["Pippen"]),
        (DUNK, ["Jordan", "Jordan"]),
        (DUNK, [""]),
        (DUNK, [" "]),
        ("[[]] dunks", None),
        ("[[  ]] dunks", None),
    ],
)
def test_a_mention_that_is_not_there_is_refused(linker: Linker, text: str, mentions: list[str] | None) -> None:
    with pytest.raises(BadMention) as caught:
        linker.link(None, text, mentions)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_one_text_for_a_list_of_mentions_is_refused(linker: Linker) -> None:
    with pytest.raises(UsageError, match="Jordan"):
        linker.link(None, DUNK, "Jordan")


@pytest.mark.parametrize("span", [Span(start=30, end=100), Span(start=200, end=201)])
def test_a_span_beyond_the_text_is_refused(span: Span) -> None:
    with pytest.raises(BadMention, match=f"{span.start}:{span.end}"):
        Caption(text=DUNK, spans=(span,))


# --- odd texts and pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(linker: Linker, text: str) -> None:
    with pytest.raises(BadInput, match="empty") as caught:
        linker.link(None, text)
    assert caught.value.hint


def test_a_megabyte_of_text_is_refused_at_once(linker: Linker, in_proportion: Callable[[float], float]) -> None:
    started = time.monotonic()
    with pytest.raises(BadInput, match="1,000,000 characters") as caught:
        linker.link(None, "Jordan " * 142_857 + "x")
    assert caught.value.hint
    assert time.monotonic() - started < in_proportion(1)


@pytest.mark.parametrize("word", ["Xyz ", "J", "東京", "[[", "“ ", "Aa-", "Aa.", "the Jordan"])
def test_the_longest_text_there_may_be_ends_in_time(
    linker: Linker, word: str, in_proportion: Callable[[float], float]
) -> None:
    started = time.monotonic()
    linker.link(None, (word * 20_000)[:6_000] + " and a name at its end")
    assert time.monotonic() - started < in_proportion(30)


def test_a_long_text_counts_around_the_mention(linker: Linker) -> None:
    far = "He scored for the Chicago Bulls and won the NBA championship in basketball. "
    filler = "Nothing else is said here about anybody at all, and it goes on and on. " * 20
    near = linker.link(None, f"{far}Jordan dunks. {filler}", ["Jordan"]).mentions[0]
    away = linker.link(None, f"{far}{filler}Jordan flows. {filler}", ["Jordan"]).mentions[0]
    assert near.entity is not None
    assert near.entity.label == "Michael Jordan"
    michael = {candidate.entity_id: candidate.score for candidate in away.link.ranking.candidates}.get("Q41421", 0.0)
    assert michael < near.link.probability


ODD = [
    "Jord\0an \x1b[31m and Jordan\x07 dunk",
    "\u202eJordan\u202c and ירדן and الأردن, Jordan!",
    "👨‍👩‍👧 Jordan 🏀 dunks 🇯🇴",
    "JORDAN\r\njordan\u2028Jordan",
    "<script>Jordan</script> ' OR 1=1; -- \" Jordan * NEAR(",
    "Jordan's, \u201cJordan\u201d and (Jordan)",
    "e\u0301 Jordan \ufeff\u200b",
    "[[Jordan]] [ [ ]] dunks",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_are_linked_and_spans_slice_back(linker: Linker, text: str) -> None:
    answer = linker.link(None, text)
    assert "Jordan" in " ".join(surfaces(answer))
    for linked in answer.mentions:
        span = linked.mention.span
        assert answer.caption.text[span.start : span.end] == linked.mention.surface
    json.dumps(answer.to_json())


@pytest.mark.parametrize("surface", ["👨‍👩‍👧", "!!!", "\x1b[31m", "' OR 1=1", '"NEAR(*"', "a" * 5000, "İ"])
def test_any_surface_may_be_asked_for(linker: Linker, surface: str) -> None:
    (linked,) = linker.link(None, f"see {surface} here", [surface]).mentions
    assert linked.mention.surface == surface
    assert linked.entity is None


def test_half_a_character_is_refused_with_its_place(linker: Linker) -> None:
    with pytest.raises(BadInput, match="character 7"):
        linker.link(None, "Jordan \udcff dunks")
    with pytest.raises(BadInput):
        linker.link(None, "Jor\ud800dan dunks", ["Jor\ud800dan"])


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_linked_or_refused_by_name(linker: Linker, text: str) -> None:
    try:
        answer = linker.link(None, text)
    except LocalmelError:
        return
    end = 0
    for linked in answer.mentions:
        span = linked.mention.span
        assert span.start >= end, "in order, without overlap"
        end = span.end
        assert answer.caption.text[span.start : span.end] == linked.mention.surface


def test_a_picture_that_cannot_be_read_is_no_missing_picture(linker: Linker, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(JERSEY.read_bytes()[:5000])
    for path in (tmp_path / "broken.jpg", tmp_path / "none.jpg", tmp_path, ""):
        with pytest.raises(BadPicture):
            linker.link(path, DUNK)


def test_what_was_done_to_the_picture_is_said(linker: Linker, tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(JERSEY) as image:
        image.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    answer = linker.link(tmp_path / "print.jpg", "Jordan, photographed last spring.")
    assert answer.notes == ("converted from CMYK",)
    assert answer.mentions[0].link.entity_id == "Q41421"


def test_a_linker_answers_from_one_state_while_others_change_the_kb(tmp_path: Path) -> None:
    from localmel.encode.minilm import MiniLM
    from localmel.encode.registry import Encoders
    from localmel.kb.importers import OntologySource, Problems
    from localmel.kb.store import KnowledgeBase
    from localmel.kb.write import add_to_kb, build_kb
    from localmel.matchers.kgmel.folder import load_network
    from localmel.matchers.registry import index_matcher
    from localmel.settings.shipped import shipped

    def source(text: str) -> OntologySource:
        path = tmp_path / "rows.csv"
        path.write_text(text, encoding="utf-8")
        return OntologySource(path, problems=Problems())

    folder = tmp_path / "kb"
    build_kb(folder, source("name,works at\nAda Byron,Engine Lab\n"), Problems())
    kb = KnowledgeBase(folder)
    encoder = MiniLM(method="onnxruntime")
    index_matcher(kb, load_network(shipped("weights/kgmel-minilm")), Encoders(text=encoder, image=None), "auto")
    linker = Linker(kb, encoder=encoder)
    before = linker.link(None, "Byron wrote to the Engine Lab", ["Byron"]).to_json()["links"]

    add_to_kb(folder, source("name,works at\nEllen Byron,Engine Lab\n"), Problems())
    after = linker.link(None, "Byron wrote to the Engine Lab", ["Byron"]).to_json()["links"]
    assert after == before
    with KnowledgeBase(folder) as fresh, pytest.raises(BadInput, match="has no index"):
        Linker(fresh, encoder=encoder)
    kb.close()


def test_one_bad_picture_does_not_end_a_long_run(linker: Linker, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(JERSEY.read_bytes()[:200])
    captions = [Caption(text="Jordan", image=JERSEY), Caption(text="Jordan", image=tmp_path / "cut.jpg")]
    with pytest.raises(BadPicture):
        list(linker.link_many(captions))
    good, bad = linker.link_many(captions, without_bad_pictures=True)
    assert good.mentions[0].link.entity_id == "Q41421"
    assert bad.notes[0].startswith("linked without its picture: ")
    assert [linked.mention.surface for linked in bad.mentions] == ["Jordan"]
