"""The model's own arithmetic, held against the plain way to do it: one prompt, no padding, no cache."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from localmel.engines.json_schema import fault_of
from localmel.engines.protocol import Request, Response
from localmel.engines.transformers import TransformersModel, collated, is_out_of_memory
from localmel.settings import EngineSettings
from localmel.weights.model_folder import model_folder

for package in ("transformers", "xgrammar"):
    pytest.importorskip(package)

Models = Callable[[str], Path]
Asked = Callable[..., Request]
NAMES = ("tiny-llava-mistral", "tiny-llava-vicuna", "tiny-qwen-vl", "tiny-llama", "tiny-qwen2")
CHOICES = ("A", "B", "NIL", "the first one", "the first two", "10", "1", "Q42")


class Desk:
    """Loads a model into this process and collects its answers."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.responses: dict[int, Response] = {}
        self.dropped: set[int] = set()
        settings = EngineSettings(engine="transformers", device="cpu", **{"at_once": 8, **changes})
        model, collect, is_dropped = model_folder(folder), self.collect, self.dropped.__contains__
        self.model = TransformersModel(model, settings, collect, is_dropped)

    def collect(self, serial: int, response: Response) -> None:
        assert serial not in self.responses, "answered twice"
        self.responses[serial] = response

    def answers(self, *requests: Request) -> list[Response]:
        self.responses.clear()
        for serial, request in enumerate(requests):
            self.model.take(serial, request)
        while not self.model.is_idle:
            self.model.step()
        return [self.responses[serial] for serial in range(len(requests))]


@pytest.fixture(scope="module")
def desk(tiny_models: Models) -> Callable[[str], Desk]:
    torch.set_num_threads(1)
    made: dict[str, Desk] = {}

    def get(name: str) -> Desk:
        if name not in made:
            made[name] = Desk(tiny_models(name))
        return made[name]

    return get


def plain_logprob(desk: Desk, request: Request, choice: str) -> float:
    """Sum over the tokens of one choice: the whole text in one row, without cache and padding."""
    prompter, model = desk.model._prompter, desk.model._model
    prompt = prompter.prompt(request)
    tokens = prompt.choices.tokens[choice]
    if prompt.pictures:
        inputs = dict(
            prompter.processor(
                text=[prompt.text],
                images=[picture.image for picture in prompt.pictures],
                return_tensors="pt",
                add_special_tokens=not prompter.begins(prompt.text),
            )
        )
    else:
        inputs = {"input_ids": torch.tensor([prompt.token_ids])}
    n_prompt = inputs["input_ids"].shape[1]
    more = torch.tensor([tokens])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(more)], dim=1)
    with torch.inference_mode():
        logprobs = model(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
    return sum(float(logprobs[n_prompt + place - 1, token]) for place, token in enumerate(tokens))


@pytest.mark.parametrize("name", NAMES)
def test_choices_are_as_probable_as_the_plain_way_says(
    name: str, desk: Callable[[str], Desk], asked: Asked, picture: Path
) -> None:
    """Batched, left-padded, prompts read once, choices in one step from shared keys and values: the same numbers."""
    one = desk(name)
    sees = "llava" in name or "vl" in name
    requests = [
        asked(1, "Which?", choices=CHOICES),
        asked(2, "Which one of all of these is it? " * 9, choices=CHOICES),
        asked(3, *([picture] if sees else []), "Which is on it?", choices=CHOICES),
        asked(4, *([picture] if sees else []), "Which is on it, do you think? " * 5, choices=CHOICES),
    ]
    responses = one.answers(*requests)
    for request, response in zip(requests, responses, strict=True):
        plain = {choice: plain_logprob(one, request, choice) for choice in CHOICES}
        total = math.log(math.fsum(math.exp(value) for value in plain.values()))
        expected = {choice: value - total for choice, value in plain.items()}
        assert response.choice_logprobs == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_those_of_the_plain_way(
    name: str, desk: Callable[[str], Desk], asked: Asked, picture: Path
) -> None:
    """Rows of different lengths in one padded batch, against the library's own greedy search, one by one."""
    one = desk(name)
    sees = "llava" in name or "vl" in name
    requests = [asked(number, "Tell me more. " * (1 + 7 * number), max_tokens=10) for number in range(3)]
    if sees:
        requests += [asked(number, picture, "Tell. " * number, max_tokens=10) for number in (3, 5)]
    prompter = one.model._prompter
    for request, response in zip(requests, one.answers(*requests), strict=True):
        prompt = prompter.prompt(request)
        images = {"images": [picture.image for picture in prompt.pictures]} if prompt.pictures else {}
        inputs = prompter.processor(
            text=[prompt.text],
            **images,
            return_tensors="pt",
            add_special_tokens=not prompter.begins(prompt.text),
        )
        with torch.inference_mode():
            tokens = one.model._model.generate(
                **inputs, max_new_tokens=10, do_sample=False, eos_token_id=list(prompter.stop_tokens)
            )
        new = [
            token for token in tokens[0, inputs["input_ids"].shape[1] :].tolist() if token not in prompter.stop_tokens
        ]
        assert response.text == prompter.decoded(new)


def test_rows_end_one_by_one_and_are_answered_then(desk: Callable[[str], Desk], asked: Asked) -> None:
    one = desk("tiny-llama")
    order: list[int] = []
    collect = one.model._answer
    one.model._answer = lambda serial, response: (order.append(serial), collect(serial, response))  # type: ignore[assignment]
    try:
        requests = [asked(number, "Tell me", max_tokens=budget) for number, budget in enumerate((30, 3, 12))]
        responses = one.answers(*requests)
    finally:
        one.model._answer = collect
    assert order == [1, 2, 0]
    assert responses[1].seconds < responses[2].seconds < responses[0].seconds
    assert 0 < (responses[0].first_token_seconds or 0) < responses[1].seconds


def test_a_seed_draws_the_same_whoever_stands_beside_it(desk: Callable[[str], Desk], asked: Asked) -> None:
    one = desk("tiny-qwen2")
    warm = [asked(seed, "Tell me", max_tokens=12, temperature=1.0, seed=seed) for seed in range(6)]
    together = [response.text for response in one.answers(*warm)]
    assert together == [one.answers(request)[0].text for request in warm]
    assert len(set(together)) == 6


@pytest.mark.parametrize("name", NAMES)
def test_every_model_keeps_schemas(
    name: str, desk: Callable[[str], Desk], asked: Asked, schema: dict[str, Any]
) -> None:
    requests = [asked(seed, "Who?", schema=schema, max_tokens=250, temperature=1.0, seed=seed) for seed in range(6)]
    done = [one for one in desk(name).answers(*requests) if one.finish == "stop"]
    assert done
    for response in done:
        assert fault_of(json.loads(response.text), schema) == ""
        assert json.dumps(json.loads(response.text), ensure_ascii=False, separators=(",", ":")) == response.text


def test_what_is_not_wanted_any_more_ends_its_row(desk: Callable[[str], Desk], asked: Asked) -> None:
    one = desk("tiny-llama")
    one.responses.clear()
    one.dropped.add(1)
    try:
        for serial in range(2):
            one.model.take(serial, asked(serial, "Tell me", max_tokens=20))
        one.model.step()
        assert list(one.responses) == [0]
        one.model.take(1, asked(1, "Tell me", max_tokens=20))
        one.model.drop({1})
        assert one.model.is_idle
    finally:
        one.dropped.clear()


def test_where_memory_runs_out_the_batch_is_halved_until_it_fits(
    desk: Callable[[str], Desk], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that holds two rows of less than 200 tokens."""
    one = desk("tiny-llama")
    forward, sizes = type(one.model._model).forward, []

    def small(model: Any, input_ids: Any, **more: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > 2 or input_ids.shape[1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(model, input_ids=input_ids, **more)

    whole = [asked(number, f"Tell me {number}", max_tokens=6) for number in range(7)]
    expected = [response.text for response in one.answers(*whole)]
    monkeypatch.setattr(type(one.model._model), "forward", small)
    try:
        assert [response.text for response in one.answers(*whole)] == expected
        assert sizes[0] == 7
        assert one.model._at_once in (1, 2)
        sizes.clear()
        one.answers(*whole)
        assert max(sizes) <= 2, "it stays halved"
        long, short = one.answers(asked(1, "much " * 300, max_tokens=4), asked(2, "little", max_tokens=4))
        assert "memory ran out over" in long.problem
        assert "main memory" in long.problem
        assert short.finish != "failed"
    finally:
        one.model._at_once = 8


def test_a_request_on_which_the_model_fails_fails_alone(
    desk: Callable[[str], Desk], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk("tiny-llama")
    forward = type(one.model._model).forward
    poison = one.model._prompter.tokenizer("poison", add_special_tokens=False)["input_ids"]

    def touchy(model: Any, input_ids: Any, **more: Any) -> Any:
        if any(poison == row[place : place + len(poison)] for row in input_ids.tolist() for place in range(len(row))):
            raise RuntimeError("shapes do not match")
        return forward(model, input_ids=input_ids, **more)

    monkeypatch.setattr(type(one.model._model), "forward", touchy)
    requests = [asked(number, word, max_tokens=4) for number, word in enumerate(("tell", "poison", "say", "go"))]
    responses = one.answers(*requests)
    assert [response.finish == "failed" for response in responses] == [False, True, False, False]
    assert "the model failed (RuntimeError: shapes do not match)" in responses[1].problem
    assert one.model._at_once == 8


def test_batches_are_of_one_kind_and_of_like_length(desk: Callable[[str], Desk], asked: Asked, picture: Path) -> None:
    one = desk("tiny-qwen-vl")
    one.responses.clear()
    for serial in range(8):
        one.model.take(2 * serial, asked(serial, "word " * (100 * (serial % 2)), max_tokens=2))
        one.model.take(2 * serial + 1, asked(serial, picture, "Which?", choices=("A", "B")))
    one.model._at_once = 4
    try:
        batch = one.model._next_batch()
        assert [row.serial for row in batch] == [0, 4, 8, 12]
        one.model.step()
        assert sorted(one.responses) == [0, 4, 8, 12]
        one.model.step()
        assert sorted(set(one.responses) - {0, 4, 8, 12}) == [1, 3, 5, 7]
        while not one.model.is_idle:
            one.model.step()
    finally:
        one.model._at_once = 8


def test_pictures_of_unequal_tiles_stand_in_one_batch() -> None:
    parts = [
        {"input_ids": torch.ones(1, 3, dtype=torch.long), "pixel_values": torch.ones(1, tiles, 3, 2, 2)}
        for tiles in (3, 5)
    ]
    joined = collated([parts[0], {**parts[1], "input_ids": torch.ones(1, 5, dtype=torch.long)}], pad_token=9)
    assert joined["input_ids"].tolist() == [[9, 9, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert joined["pixel_values"].shape == (2, 5, 3, 2, 2)
    assert joined["pixel_values"][0, 3:].abs().sum() == 0


def test_what_says_that_memory_ran_out_is_known() -> None:
    said = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    assert is_out_of_memory(RuntimeError(said))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_model_answers_under_its_constraints(
    bits: str, tiny_models: Models, asked: Asked, schema: dict[str, Any], picture: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed here")
    one = Desk(tiny_models("tiny-llava-mistral"), quantization=bits)
    kinds = {type(module).__name__ for module in one.model._model.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    tower = [type(part).__name__ for part in one.model._model.model.vision_tower.modules()]
    assert not set(tower) & {"Linear4bit", "Linear8bitLt"}
    choice, written = one.answers(
        asked(1, picture, "Which?", choices=CHOICES), asked(2, picture, "Who?", schema=schema, max_tokens=200)
    )
    assert choice.text in CHOICES
    assert math.fsum(map(math.exp, choice.choice_logprobs.values())) == pytest.approx(1)
    assert written.finish in ("stop", "length")
