"""vLLM and transformers, over the same checkpoint, say the same: what is measured with one holds for the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.open import open_engine
from localmel.engines.protocol import Request, Response
from localmel.settings import EngineSettings

pytestmark = pytest.mark.slow(reason="starts vLLM and loads the model twice")
Models = Callable[[str], Path]
Asked = Callable[..., Request]
NAMES = ("tiny-llava-mistral", "tiny-llava-vicuna", "tiny-qwen-vl", "tiny-llama", "tiny-qwen2")
TOLERANCE = 1e-3
"Natural logarithms, float32 on a CPU; two orders of adding up the same numbers."
FEW, MANY = ("A", "B", "NIL"), (*"ABCDEFGHIJKLMNOP", "NIL")
BEGIN_ONE_ANOTHER = ("1", "10", "the first", "the first one")


def answered(engine: str, folder: Path, requests: list[Request]) -> dict[str, Response]:
    settings = EngineSettings(engine=engine, weights=folder.name, dtype="float32", context=4096, at_once=4)
    with open_engine(settings, folder) as opened:
        responses = {response.request_id: response for response in opened.generate(requests)}
    assert {response.finish for response in responses.values()} <= {"stop", "length"}, responses
    return responses


@pytest.mark.parametrize("name", NAMES)
def test_two_engines_over_one_checkpoint_agree(
    name: str, tiny_models: Models, asked: Asked, schema: dict[str, Any], picture: Path
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    sees = "llava" in name or "vl" in name
    shown = [picture] if sees else []
    requests = [
        asked("few", "Which?", system="Be terse.", choices=FEW),
        asked("many", *shown, "Which of all these?", choices=MANY),
        asked("ends", *shown, "How many? " * 20, choices=BEGIN_ONE_ANOTHER),
        asked("schema", *shown, "Who is it?", system="Answer in JSON.", schema=schema, max_tokens=60),
        asked("words", "Tell me about the flags of the world.", max_tokens=24),
        asked("seen", *shown, "Tell me what is there.", max_tokens=24),
    ]
    ours = answered("transformers", tiny_models(name), requests)
    theirs = answered("vllm", tiny_models(name), requests)
    for request in requests:
        one, other = ours[request.id], theirs[request.id]
        assert one.prompt_tokens == other.prompt_tokens
        assert one.image_tokens == other.image_tokens
        assert one.text == other.text
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=TOLERANCE)
        if request.choices:
            assert math.fsum(map(math.exp, other.choice_logprobs.values())) == pytest.approx(1)
        else:
            assert (one.finish, one.output_tokens) == (other.finish, other.output_tokens)
