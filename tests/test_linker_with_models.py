"""The pipeline where a profile asks models: what they say goes in, what they choose comes out, nobody is lost.

The models are scripted, or tiny ones with random weights; what they say means nothing, so only the path is tested."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from localmel.captions import Caption
from localmel.encode.minilm import MiniLM
from localmel.engines.protocol import Engine, Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.settings import EngineSettings, Profile, load_profile
from localmel.settings.shipped import shipped

JERSEY = shipped("examples/jersey.jpg")
SCRIPTED = EngineSettings(engine="scripted", weights="made-up")


def profile(*, generate: bool = True, rerank: bool = True, **settings: object) -> Profile:
    base = load_profile("embedded")
    made = replace(base, name="scripted")
    if generate:
        made = replace(made, generate=replace(base.generate, backend="vlm", model=SCRIPTED))
    if rerank:
        made = replace(made, rerank=replace(base.rerank, backend="llm", model=SCRIPTED, **settings))  # type: ignore[arg-type]
    return made


class Says(ScriptedEngine):
    """Says one thing of every name, and always chooses one letter; remembers what it was asked."""

    asked: list[Request]

    def __init__(self, *, triples: object = (), letter: str = "") -> None:
        super().__init__(SCRIPTED)
        self.asked, self._triples, self._letter = [], triples, letter

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        for request in requests:
            self.asked.append(request)
            if request.schema is not None:
                names = request.schema["required"]
                said = {"type": "person", "description": "somebody", "triples": self._triples}
                yield Response(request_id=request.id, text=json.dumps(dict.fromkeys(names, said)), finish="stop")
            elif self._letter not in request.choices:
                yield Response(request_id=request.id, text="", finish="failed", problem="the model is asleep")
            else:
                yield Response(
                    request_id=request.id,
                    text=self._letter,
                    finish="stop",
                    choice_logprobs={one: 0.0 if one == self._letter else -50.0 for one in request.choices},
                )


def pictures_in(request: Request) -> list[Path]:
    return [part for message in request.messages for part in message.parts if isinstance(part, Path)]


def linker(starter: KnowledgeBase, encoder: MiniLM, chosen: Profile, *engines: Engine) -> Linker:
    from localmel.matchers.kgmel.folder import load_network

    remaining = iter(engines)
    network = load_network(shipped("weights/kgmel-minilm"))
    return Linker(starter, chosen, encoder=encoder, matcher=network, open_engine=lambda _: next(remaining))


def test_what_the_model_says_of_a_name_helps_to_link_it(starter: KnowledgeBase, encoder: MiniLM) -> None:
    team = [{"relation": "member of", "tail": "Chicago Bulls", "evidence": "image"}]
    chosen = profile(rerank=False)
    silent = linker(starter, encoder, chosen, Says()).link(None, "[[Jordan]] again.").mentions[0]
    told = linker(starter, encoder, chosen, Says(triples=team)).link(None, "[[Jordan]] again.").mentions[0]
    assert (silent.link.entity_id, told.link.entity_id) == ("Q810", "Q41421")
    assert told.description.entity_type == "person"
    assert ("member of", "Chicago Bulls", "image") in {(t.relation, t.tail, t.source) for t in told.description.triples}


def test_one_request_asks_about_all_names_of_a_caption_and_shows_its_picture(
    starter: KnowledgeBase, encoder: MiniLM
) -> None:
    engine = Says()
    answer = linker(starter, encoder, profile(rerank=False), engine).link(JERSEY, "[[Jordan]] dunks on [[Barkley]].")
    assert len(answer.mentions) == 2
    assert len(engine.asked) == 1
    assert [part for message in engine.asked[0].messages for part in message.parts if isinstance(part, Path)] == [
        JERSEY
    ]


def test_the_choice_of_the_model_is_the_link_and_the_rest_keep_their_order(
    starter: KnowledgeBase, encoder: MiniLM
) -> None:
    plain = linker(starter, encoder, profile(generate=False, rerank=False)).link(None, "[[Jordan]] again.")
    engine = Says(letter="C")
    linked = linker(starter, encoder, profile(generate=False), engine).link(None, "[[Jordan]] again.").mentions[0]
    before = [one.entity_id for one in plain.mentions[0].link.ranking.candidates]
    after = [one.entity_id for one in linked.link.ranking.candidates]
    assert linked.link.decided_by == "language model"
    assert linked.link.entity_id == after[0] == (linked.entity.id if linked.entity else None)
    assert [one for one in after if one != after[0]] == [one for one in before if one != after[0]]
    assert linked.link.probability > 0.9
    assert len(engine.asked[0].choices) == 17, "sixteen candidates and none of them"


def test_where_the_model_does_not_answer_the_scorer_decides_and_says_so(
    starter: KnowledgeBase, encoder: MiniLM
) -> None:
    plain = linker(starter, encoder, profile(generate=False, rerank=False)).link(None, "[[Jordan]] again.").mentions[0]
    linked = linker(starter, encoder, profile(generate=False), Says()).link(None, "[[Jordan]] again.").mentions[0]
    assert linked.link.entity_id == plain.link.entity_id
    assert linked.link.ranking == plain.link.ranking
    assert "because the model gave no answer" in linked.link.decided_by


def test_mentions_that_the_scorer_is_sure_of_are_not_asked_about(starter: KnowledgeBase, encoder: MiniLM) -> None:
    engine = Says(letter="A")
    chosen = profile(generate=False, route_from=0.01)
    linked = linker(starter, encoder, chosen, engine).link(None, "[[Jordan]] again.").mentions[0]
    assert engine.asked == []
    assert "sure enough" in linked.link.decided_by


def test_many_captions_go_through_each_model_once(starter: KnowledgeBase, encoder: MiniLM) -> None:
    captions = [Caption(text=f"Jordan in picture {number}.") for number in range(70)]
    model = linker(starter, encoder, profile(), ScriptedEngine(SCRIPTED), ScriptedEngine(SCRIPTED))
    answers = list(model.link_many(captions))  # a third engine is not there to be opened
    assert [answer.caption for answer in answers] == captions
    again = linker(starter, encoder, profile(), ScriptedEngine(SCRIPTED), ScriptedEngine(SCRIPTED))
    assert [one.to_json()["links"] for one in again.link_many(captions)] == [one.to_json()["links"] for one in answers]


def test_a_picture_that_is_none_is_not_shown_to_the_model(
    starter: KnowledgeBase, encoder: MiniLM, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    engine = Says()
    caption = Caption(text="Jordan again.", image=tmp_path / "broken.jpg")
    model = linker(starter, encoder, profile(rerank=False), engine)
    (answer,) = model.link_many([caption], without_bad_pictures=True)
    assert any("linked without its picture" in note for note in answer.notes)
    assert pictures_in(engine.asked[0]) == []
