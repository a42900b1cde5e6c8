"""One question for a sentence spends half the image tokens of one for each mention, counted by a real processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localmel.engines.prompts import Prompt, Prompter
from localmel.engines.protocol import Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.generate.question import asked_of, questions_of
from localmel.generate.vlm import describe
from localmel.records import Description, Mention, Span
from localmel.settings import EngineSettings, GenerateSettings
from localmel.settings.shipped import shipped
from localmel.weights.model_folder import model_folder

SETTINGS = GenerateSettings(backend="vlm")
SENTENCES = {1: 14, 2: 16, 3: 7, 4: 2, 5: 1}
"""How many of 40 sentences have so many mentions.  WikiDiverse, train and val: 2,231 of 6,347 have one, 2,557 two,
1,041 three, 350 four, 168 more (at most 11), 2.02 on average; in its published files 14,851 mentions over 7,405."""


def mentions() -> list[Mention]:
    pictures = sorted(shipped("examples").glob("*.jpg"))
    found = []
    lengths = [n for n, often in SENTENCES.items() for _ in range(often)]
    for number, n_names in enumerate(lengths):
        names = [f"Name{number}x{one}" for one in range(n_names)]
        sentence = f"{' and '.join(names)} in the old town last week."
        for name in names:
            start = sentence.index(name)
            span = Span(start=start, end=start + len(name))
            found.append(Mention(id=name, surface=name, context=sentence, span=span, image=pictures[number % 16]))
    return found


def image_tokens(groups: Iterator[list[Mention]], prompter: Prompter) -> int:
    total = 0
    for group in groups:
        for asked in asked_of(group):
            for question in questions_of(asked, SETTINGS):
                prompt = prompter.prompt(question.request("q", SETTINGS))
                assert isinstance(prompt, Prompt)
                total += prompt.n_image_tokens
    return total


def test_a_question_for_a_sentence_saves_nine_tenths_of_the_second_picture(
    tiny_models: Callable[[str], Path],
) -> None:
    """LLaVA-1.6's own geometry: 640 x 480 in tiles of 336 pixels, patches of 14."""
    prompter = Prompter(model_folder(tiny_models("tiny-llava-mistral")), longest_side=1008, context=32768)
    every = mentions()
    together = image_tokens(iter([every]), prompter)
    apart = image_tokens(iter([[mention] for mention in every]), prompter)
    assert together == 40 * 2340
    assert apart / together == len(every) / 40 == pytest.approx(2.0)
    assert apart >= 1.9 * together


def test_the_constant_part_comes_before_the_picture_and_the_names_come_last(
    tiny_models: Callable[[str], Path],
) -> None:
    """In the words of the model: what two questions share is their beginning, so that it is computed once."""
    for name in ("tiny-llava-mistral", "tiny-llava-vicuna", "tiny-qwen-vl"):
        prompter = Prompter(model_folder(tiny_models(name)), longest_side=336, context=0)
        first, second = mentions()[14:16]
        assert first.context == second.context
        (asked,) = asked_of([first])
        (other,) = asked_of([second])
        (one,) = questions_of(asked, SETTINGS)
        (two,) = questions_of(other, SETTINGS)
        prompts = [prompter.prompt(question.request("q", SETTINGS)) for question in (one, two)]
        texts = [prompt.text for prompt in prompts if isinstance(prompt, Prompt)]
        assert len(texts) == 2
        shared = next(place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
        head = texts[0][:shared]
        assert head.index("Relations:") < head.index("Sentence:") < head.index("Names:")
        assert head.count("Types:") == 1
        marker = "<|image_pad|>" if "qwen" in name else "<image>"
        assert head.index("Relations:") < head.index(marker) < head.index("Sentence:")


class Counted(ScriptedEngine):
    """Draws valid answers, but refuses what is too long by the model's own count."""

    def __init__(self, prompter: Prompter) -> None:
        super().__init__(EngineSettings(engine="scripted"), self._refused)
        self.prompts: list[Prompt] = []
        self._prompter = prompter

    def _refused(self, request: Request) -> Response | None:
        prompt = self._prompter.prompt(request)
        if isinstance(prompt, Response):
            return prompt
        self.prompts.append(prompt)
        return None


def test_a_sentence_longer_than_the_context_of_vicuna_is_cut_and_the_picture_stays(
    tiny_models: Callable[[str], Path],
) -> None:
    """4,096 tokens: of a picture 2,340, of an answer up to 1,024, of the instructions some hundreds."""
    prompter = Prompter(model_folder(tiny_models("tiny-llava-vicuna")), longest_side=1008, context=4096)
    sentence = "It rained in the old town. " * 400 + "Messi scored in Madrid. " + "Nobody knew why. " * 400
    found = []
    for name in ("Messi", "Madrid"):
        start = sentence.index(name)
        span = Span(start=start, end=start + len(name))
        picture = shipped("examples/jersey.jpg")
        found.append(Mention(id=name, surface=name, context=sentence, span=span, image=picture))
    engine = Counted(prompter)
    generated = list(describe(asked_of(found), engine, SETTINGS))
    assert [type(one.result) for one in generated] == [Description, Description]
    (prompt,) = engine.prompts
    assert prompt.n_image_tokens == 2340
    assert "Messi scored in Madrid." in prompt.text
    assert prompt.n_tokens + prompt.request.max_tokens <= 4096
    (note,) = generated[0].notes
    assert note.startswith(f"sentence cut from {len(sentence):,} to ")
