"""Every mention comes back, described or with what is wrong, however the model behaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.protocol import Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.errors import EngineStopped
from localmel.generate.question import asked_of
from localmel.generate.vlm import Generated, describe
from localmel.records import Description, Mention, Span, Unparsed
from localmel.settings import EngineSettings, GenerateSettings
from localmel.store.journal import Journal
from localmel.store.progress import Listener, listening

SETTINGS = GenerateSettings(backend="vlm", model=EngineSettings(engine="scripted"))
SENTENCE = "Students protesting outside the UK parliament in November."


class Model(ScriptedEngine):
    """A scripted engine that keeps the requests it was sent; `context` in words, 0 is endless."""

    def __init__(self, answer: Callable[[Request], Any] | None = None, context: int = 0) -> None:
        super().__init__(EngineSettings(engine="scripted", context=context), answer or (lambda _: None))
        self.requests: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        def noted() -> Iterator[Request]:
            for request in requests:
                self.requests.append(request)
                yield request

        return super().generate(noted())


def mentions(sentence: str = SENTENCE, *surfaces: str, image: Path | None = None) -> list[Mention]:
    found = []
    for number, surface in enumerate(surfaces or ("UK", "parliament")):
        start = sentence.index(surface)
        span = Span(start=start, end=start + len(surface))
        found.append(Mention(id=f"m{number}", surface=surface, context=sentence, span=span, image=image))
    return found


def labels_of(request: Request) -> list[str]:
    assert request.schema
    return list(request.schema["properties"])


def said(*labels: str, tail: str = "Europe") -> str:
    triple = {"relation": "part of", "tail": tail, "evidence": "text"}
    entry = {"type": "country", "description": "A place.", "triples": [triple]}
    return json.dumps(dict.fromkeys(labels, entry))


def results(
    found: list[Mention], model: Model, settings: GenerateSettings = SETTINGS, **given: Any
) -> dict[str, Generated]:
    generated = list(describe(asked_of(found), model, settings, **given))
    assert sorted(one.mention.id for one in generated) == sorted(mention.id for mention in found)
    return {one.mention.id: one for one in generated}


def description(generated: Generated) -> Description:
    assert isinstance(generated.result, Description), generated
    return generated.result


def unparsed(generated: Generated) -> Unparsed:
    assert isinstance(generated.result, Unparsed), generated
    return generated.result


def test_one_request_describes_all_mentions_of_a_sentence() -> None:
    model = Model(lambda request: said(*labels_of(request)))
    found = results(mentions(), model)
    assert len(model.requests) == 1
    uk = description(found["m0"])
    assert (uk.mention_id, uk.entity_type, uk.summary) == ("m0", "country", "A place.")
    assert [(one.head, one.relation, one.tail, one.source) for one in uk.triples] == [
        ("UK", "part of", "Europe", "text"),
        ("UK", "instance of", "country", "text"),
    ]
    assert json.loads(uk.raw).keys() == {"UK", "parliament"}
    assert found["m0"].attempts == 1


def test_a_type_that_a_triple_states_already_is_not_stated_again() -> None:
    found = results(mentions(), Model(lambda request: said(*labels_of(request), tail="Country")))
    assert [one.tail for one in description(found["m0"]).triples] == ["Country"]


def test_two_places_of_one_name_get_their_own_triples() -> None:
    sentence = "Jordan flew to Jordan."
    two = [
        Mention(id="man", surface="Jordan", context=sentence, span=Span(start=0, end=6)),
        Mention(id="land", surface="Jordan", context=sentence, span=Span(start=15, end=21)),
    ]
    answer = json.loads(said("Jordan", tail="Bulls")) | json.loads(said("Jordan (2)", tail="Asia"))
    found = results(two, Model(lambda _: json.dumps(answer)))
    assert description(found["man"]).triples[0].tail == "Bulls"
    assert description(found["land"]).triples[0].tail == "Asia"
    assert description(found["land"]).triples[0].head == "Jordan"


def test_any_answer_under_the_schema_describes_every_mention(tmp_path: Path) -> None:
    """The scripted engine draws valid answers at random, as a model without sense would."""
    sentence = " and ".join(f"Name{number}" for number in range(40))
    found = results(mentions(sentence, *sentence.split(" and ")), Model())
    assert all(isinstance(one.result, Description) for one in found.values())


# --- what cannot be read -----------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_asked_again_with_another_seed_and_then_reported() -> None:
    model = Model(lambda request: Response(request_id=request.id, text="No.", finish="stop"))
    found = results(mentions(), model, replace(SETTINGS, seed=3))
    assert [(one.temperature, one.seed) for one in model.requests] == [(0.0, 3), (0.7, 4), (0.7, 5)]
    assert unparsed(found["m0"]).raw == "No."
    assert unparsed(found["m0"]).problem.startswith("the answer is not JSON")
    assert found["m0"].attempts == 3


def test_only_the_names_that_could_not_be_read_are_asked_again() -> None:
    def answer(request: Request) -> Response:
        labels = labels_of(request)
        return Response(request_id=request.id, text=said(labels[0]), finish="stop")

    model = Model(answer)
    found = results(mentions(SENTENCE, "UK", "parliament", "November"), model)
    assert [labels_of(request) for request in model.requests] == [
        ["UK", "parliament", "November"],
        ["parliament", "November"],
        ["November"],
    ]
    assert [found[f"m{n}"].attempts for n in range(3)] == [1, 2, 3]


def test_no_retries_are_made_where_none_are_wanted() -> None:
    model = Model(lambda request: Response(request_id=request.id, text="", finish="stop"))
    unparsed(results(mentions(), model, replace(SETTINGS, retries=0))["m0"])
    assert len(model.requests) == 1


def test_a_request_that_fails_is_asked_again_and_then_reported_with_its_problem() -> None:
    model = Model(lambda request: Response(request_id=request.id, text="", finish="failed", problem="429"))
    found = results(mentions(), model)
    assert unparsed(found["m1"]).problem == "429"
    assert len(model.requests) == 3


def test_one_failure_does_not_touch_the_others() -> None:
    sentences = [f"Here is Name{number}." for number in range(20)]
    many = [
        replace(mention, id=f"s{number}")
        for number, sentence in enumerate(sentences)
        for mention in mentions(sentence, f"Name{number}")
    ]
    bad = Model(
        lambda request: (
            Response(request_id=request.id, text="?", finish="stop") if labels_of(request) == ["Name7"] else None
        )
    )
    found = results(many, bad)
    assert [name for name, one in found.items() if isinstance(one.result, Unparsed)] == ["s7"]
    assert len(bad.requests) == 22


def test_an_engine_that_stops_says_so() -> None:
    def stop(_: Request) -> None:
        raise EngineStopped("out of memory")

    with pytest.raises(EngineStopped):
        results(mentions(), Model(stop))


# --- cut off -----------------------------------------------------------------------------------------------------


def test_an_answer_that_was_cut_off_is_asked_in_smaller_questions() -> None:
    """Room for two names; what was whole is kept, the others are asked apart."""

    def answer(request: Request) -> Response:
        labels = labels_of(request)
        text, whole = said(*labels), said(*labels[:2])
        if len(labels) <= 2:
            return Response(request_id=request.id, text=text, finish="stop")
        return Response(request_id=request.id, text=text[: len(whole) + 60], finish="length")

    model = Model(answer)
    found = results(mentions("A, B, C, D and E", *"ABCDE"), model)
    assert [labels_of(request) for request in model.requests] == [list("ABCDE"), list("CDE"), ["E"]]
    assert all(description(one).entity_type == "country" for one in found.values())
    assert all(request.temperature == 0 for request in model.requests)


def test_a_lone_name_whose_answer_is_cut_off_keeps_its_whole_triples() -> None:
    triple = '{"relation": "country", "tail": "a", "evidence": "text"}'
    text = f'{{"UK": {{"type": "country", "description": "x", "triples": [{triple}, {{"rel'
    model = Model(lambda request: Response(request_id=request.id, text=text, finish="length", output_tokens=64))
    found = results(mentions(SENTENCE, "UK"), model)
    assert [one.tail for one in description(found["m0"]).triples] == ["a", "country"]
    assert found["m0"].notes == ("answer cut off after 64 tokens",)
    assert len(model.requests) == 1


@pytest.mark.parametrize("form", ["json", "line"])
def test_a_model_that_says_one_token_for_ever_is_reported(form: str) -> None:
    model = Model(lambda request: Response(request_id=request.id, text="the " * 1024, finish="length"))
    found = results(mentions("A, B, C and D", *"ABCD"), model, replace(SETTINGS, format=form))
    assert all(isinstance(one.result, Unparsed) for one in found.values())
    assert len(model.requests) == 1 + 2 + 4 * 3  # all, halves, then each with its retries


# --- lines -------------------------------------------------------------------------------------------------------


def test_lines_are_read_where_no_schema_can_be_kept() -> None:
    def answer(request: Request) -> str:
        assert request.schema is None
        rows = ('"UK" | part of | Europe | image', '"parliament" | located in | London')
        return "\n".join(["### Step 1", '"UK": country', "### Step 2", "### Step 3", *rows])

    found = results(mentions(), Model(answer), replace(SETTINGS, format="line"))
    assert [(one.tail, one.source) for one in description(found["m0"]).triples] == [
        ("Europe", "image"),
        ("country", "text"),
    ]
    assert [one.tail for one in description(found["m1"]).triples] == ["London"]


# --- pictures and length -----------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_opened_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    model = Model()
    found = results(mentions(image=tmp_path / "broken.jpg"), model)
    assert description(found["m0"])
    assert found["m0"].notes[0].startswith("asked without its picture: ")
    assert "broken.jpg" in found["m0"].notes[0]
    assert [len(request.messages[1].parts) for request in model.requests] == [2, 1]


def test_a_picture_that_does_not_suit_the_model_is_left_out_with_what_the_engine_says(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2000, 2)).save(tmp_path / "thread.png")
    problem = f"{tmp_path / 'thread.png'} does not suit the model (no grid for it)"

    def answer(request: Request) -> Response | None:
        with_picture = len(request.messages[1].parts) == 2
        return Response(request_id=request.id, text="", finish="failed", problem=problem) if with_picture else None

    found = results(mentions(image=tmp_path / "thread.png"), Model(answer))
    assert description(found["m0"])
    assert found["m0"].notes == (f"asked without its picture: {problem}",)


def test_a_sentence_longer_than_the_context_is_cut_and_its_mentions_are_kept() -> None:
    sentence = "word " * 3000 + "Messi scored in Madrid" + " again" * 3000
    model = Model(context=1600)
    found = results(mentions(sentence, "Messi", "Madrid"), model)
    assert all(isinstance(one.result, Description) for one in found.values())
    assert found["m0"].notes[0].startswith("sentence cut from 33,0")
    last = model.requests[-1].messages[1].parts[-1]
    assert "Messi scored in Madrid" in str(last)
    assert len(model.requests) < 20


def test_what_never_fits_is_reported_and_not_asked_for_ever() -> None:
    model = Model(context=20)
    found = results(mentions("A, B, C and D", *"ABCD"), model)
    assert all("the context holds 20" in unparsed(one).problem for one in found.values())
    assert len(model.requests) == 1 + 2 + 4


def test_two_hundred_mentions_in_one_sentence_all_come_back() -> None:
    sentence = ", ".join(f"Person {number}." for number in range(200))
    model = Model()
    assert len(results(mentions(sentence, *sentence.split(", ")), model)) == 200
    assert len(model.requests) == 17


# --- the journal -------------------------------------------------------------------------------------------------


def test_what_the_journal_answers_is_not_asked_again(tmp_path: Path) -> None:
    def answer(request: Request) -> Response | None:  # the second name needs another seed
        if request.seed == 0 and "parliament" in labels_of(request):
            return Response(request_id=request.id, text=said("UK"), finish="stop")
        return None

    first, second = Model(answer), Model(answer)
    with Journal(tmp_path / "j") as journal:
        found = results(mentions(), first, journal=journal)
    with Journal(tmp_path / "j") as journal:
        again = results(mentions(), second, journal=journal)
    assert (len(first.requests), len(second.requests)) == (2, 0)
    assert again == found


def test_progress_and_costs_are_told(tmp_path: Path) -> None:
    done: list[int] = []
    heard: list[Response] = []
    with Journal(tmp_path / "j") as journal:
        for _ in range(2):
            with listening(Listener(on_done=done.append)):
                results(mentions(), Model(), journal=journal, on_response=heard.append)
    assert sum(done) == 4
    assert len(heard) == 2
    assert heard[0].prompt_tokens == heard[1].prompt_tokens > 100
