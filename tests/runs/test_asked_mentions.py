"""The triples of several runs are held against the KB with each phrase encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from localmel.evaluate.answer_details import AnswerDetails
from localmel.evaluate.comparison import SystemAnswer
from localmel.evaluate.protocol import Outcome
from localmel.kb.store import KnowledgeBase
from localmel.records import Triple
from localmel.runs.asked_mentions import generated_triples


def given(*triples: tuple[str, str]) -> SystemAnswer:
    said = tuple(Triple(head="Jordan", relation=relation, tail=tail, source="text") for relation, tail in triples)
    outcome = Outcome(
        mention_id="1-0", cluster="s", gold="Q1", rank=1.0, among_candidates=True, predicted="Q1", probability=0.9
    )
    return SystemAnswer(outcome=outcome, candidates=(), details=AnswerDetails(triples=said))


def test_every_phrase_is_encoded_once_and_no_run_depends_on_another(tiny: KnowledgeBase, words: Any) -> None:
    told: list[str] = []

    class Counting(type(words)):  # type: ignore[misc]
        def encode(self, texts: Sequence[str], on_texts: Callable[[int], None] = lambda _: None) -> Any:
            told.extend(texts)
            return super().encode(texts, on_texts)

    right, wrong = ("member of", "Chicago Bulls"), ("occupation", "river")
    runs = {"a": [given(right)], "b": [given(right, wrong)]}
    found = generated_triples({"d": runs}, tiny, Counting())
    assert sorted(told) == ["member of: Chicago Bulls", "occupation: river"]
    for name, ones in runs.items():
        alone = generated_triples({"d": {name: ones}}, tiny, words)
        assert found[name] == alone[name]
    assert found["a"]["d"] != found["b"]["d"]
