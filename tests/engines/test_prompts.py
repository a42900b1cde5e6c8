"""Each model is spoken to in its own form, and what is counted is what it meets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from localmel.engines.prompts import Prompt, Prompter
from localmel.engines.protocol import Message, Request, Response
from localmel.errors import BadInput, MissingWeights
from localmel.weights.model_folder import model_folder

pytest.importorskip("transformers")

Models = Callable[[str], Path]
Asked = Callable[..., Request]
SEEING = ("tiny-llava-mistral", "tiny-llava-vicuna", "tiny-qwen-vl")
ALL = (*SEEING, "tiny-llama", "tiny-qwen2")


@pytest.fixture(scope="session")
def prompter(tiny_models: Models) -> Callable[[str], Prompter]:
    made: dict[str, Prompter] = {}

    def get(name: str) -> Prompter:
        if name not in made:
            made[name] = Prompter(model_folder(tiny_models(name)), longest_side=1344, context=0)
        return made[name]

    return get


def prompt_of(prompter: Prompter, request: Request) -> Prompt:
    prompt = prompter.prompt(request)
    assert isinstance(prompt, Prompt)
    return prompt


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("tiny-llava-mistral", "<<SYS>>\nBe terse.\n<</SYS>>\n\n[INST] <image>\nWho? [/INST]"),
        ("tiny-llava-vicuna", "Be terse. USER: <image>\nWho? ASSISTANT:"),
        (
            "tiny-qwen-vl",
            "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Who?"
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_pictures_and_words_stand_in_the_published_form(
    name: str, form: str, prompter: Callable[[str], Prompter], asked: Asked, picture: Path
) -> None:
    assert prompt_of(prompter(name), asked(1, picture, "Who?", system="Be terse.")).text == form


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (
            "tiny-qwen2",
            "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "tiny-llama",
            "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header",
        ),
    ],
)
def test_words_stand_in_the_published_form(
    name: str, form: str, prompter: Callable[[str], Prompter], asked: Asked
) -> None:
    assert form in prompt_of(prompter(name), asked(1, "Who?", system="Be terse.")).text


@pytest.mark.parametrize("name", ALL)
def test_a_text_begins_once(name: str, prompter: Callable[[str], Prompter], asked: Asked) -> None:
    one = prompter(name)
    tokens = prompt_of(one, asked(1, "Who?")).token_ids
    begin = one.tokenizer.bos_token_id
    if begin is not None and "qwen" not in name:
        assert tokens[0] == begin
        assert tokens.count(begin) == 1


SIZES = [(640, 480), (480, 640), (1000, 330), (330, 1344), (33, 900), (30, 30), (1344, 1344), (700, 17)]


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_image_tokens_are_counted_without_looking_at_pixels(
    name: str, size: tuple[int, int], prompter: Callable[[str], Prompter], asked: Asked, tmp_path: Path
) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "picture.png")
    one = prompter(name)
    prompt = prompt_of(one, asked(1, tmp_path / "picture.png", "Who is it?"))
    inputs = one.processor(
        text=[prompt.text],
        images=[prompt.pictures[0].image],
        return_tensors="pt",
        add_special_tokens=not one.begins(prompt.text),
    )
    assert inputs["input_ids"].shape[1] == prompt.n_tokens
    token = one.processor.image_token_id
    assert int((inputs["input_ids"] == token).sum()) == prompt.n_image_tokens
    if name.startswith("tiny-llava"):
        assert 576 < prompt.n_image_tokens <= 576 + 48 * 49  # the whole picture small, and tiles with their line ends


def test_a_template_without_a_system_turn_gets_it_before_the_first_question(
    tiny_models: Models, tmp_path: Path, asked: Asked
) -> None:
    """As of Mistral, which raises, and of Gemma, which leaves it out."""
    for refuse in ("{{ raise_exception('no system') }}", ""):
        folder = Path(shutil.copytree(tiny_models("tiny-qwen2"), tmp_path / f"model{len(refuse)}"))
        template = (
            "{% for m in messages %}{% if m.role == 'system' %}" + refuse + "{% else %}[{{ m.role }}]{{ m.content }}"
            "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
        )
        with_template(folder, template)
        one = Prompter(model_folder(folder), longest_side=100, context=0)
        assert prompt_of(one, asked(1, "Who?", system="Be terse.")).text == "[user]Be terse.\n\nWho?[assistant]"


def test_a_model_that_may_think_aloud_is_told_not_to(tiny_models: Models, tmp_path: Path, asked: Asked) -> None:
    """The end of Qwen3's template."""
    folder = Path(shutil.copytree(tiny_models("tiny-qwen2"), tmp_path / "model"))
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    )
    with_template(folder, template)
    one = Prompter(model_folder(folder), longest_side=100, context=0)
    assert prompt_of(one, asked(1, "Who?")).text == "Who?<a><think>\n\n</think>\n\n"


def test_a_prompt_is_the_same_every_day(tiny_models: Models, tmp_path: Path, asked: Asked) -> None:
    """Llama-3.2 writes the day into its prompts unless it is told one."""
    folder = Path(shutil.copytree(tiny_models("tiny-llama"), tmp_path / "model"))
    with_template(
        folder,
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}{% for m in messages %}{{ m.content }}{% endfor %}",
    )
    one = Prompter(model_folder(folder), longest_side=100, context=0)
    assert prompt_of(one, asked(1, "Who?")).text == "26 Jul 2024Who?"


def with_template(folder: Path, template: str) -> None:
    """Put a chat template in the place of the model's own."""
    for path in (*folder.glob("chat_template.*"),):
        path.unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}), encoding="utf-8")


def test_a_template_that_drops_what_is_asked_fails_that_request(
    tiny_models: Models, tmp_path: Path, asked: Asked
) -> None:
    folder = Path(shutil.copytree(tiny_models("tiny-qwen2"), tmp_path / "model"))
    with_template(folder, "{{ messages[-1].content[:3] }}")
    one = Prompter(model_folder(folder), longest_side=100, context=0)
    with pytest.raises(BadInput, match=r"cannot express the request: it leaves out 'Who is it\?'"):
        one.prompt(asked(1, "Who is it?"))


def test_a_folder_without_a_template_is_refused(tiny_models: Models, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models("tiny-llama"), tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    values.pop("chat_template", None)
    path.write_text(json.dumps(values), encoding="utf-8")
    for template in folder.glob("chat_template.*"):
        template.unlink()
    with pytest.raises(MissingWeights, match="has no chat template"):
        Prompter(model_folder(folder), longest_side=100, context=0)


MARKERS = st.sampled_from(
    ["<image>", "</s>", "<s>", "<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|eot_id|>", "<unk>", "<|end_of_text|>"]
)


@pytest.mark.parametrize("name", ALL)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(texts=st.lists(MARKERS | st.text("a <|_>s/i", max_size=8), max_size=6))
def test_no_text_becomes_a_marker(name: str, texts: list[str], prompter: Callable[[str], Prompter]) -> None:
    """The prompt has as many of each marker as the prompt of a harmless text."""
    one = prompter(name)

    def markers(text: str) -> dict[int, int]:
        request = Request(id="1", messages=(Message(role="user", parts=(text,)),))
        tokens = prompt_of(one, request).token_ids
        return {token: tokens.count(token) for token in one.tokenizer.all_special_ids}

    assert markers(f"x {''.join(texts)} x") == markers("x x")


def test_what_is_too_long_says_by_how_much(tiny_models: Models, asked: Asked, picture: Path) -> None:
    one = Prompter(model_folder(tiny_models("tiny-llava-vicuna")), longest_side=1344, context=1700)
    fits = one.prompt(asked(1, picture, "Who?", max_tokens=100))
    assert isinstance(fits, Prompt)
    exactly = 1700 - fits.n_tokens
    assert isinstance(one.prompt(asked(1, picture, "Who?", max_tokens=exactly)), Prompt)
    refused = one.prompt(asked(1, picture, "Who?", max_tokens=exactly + 3))
    assert isinstance(refused, Response)
    assert (refused.finish, refused.too_long_by) == ("failed", 3)
    assert f"the prompt has {fits.n_tokens:,} tokens ({fits.n_image_tokens:,} of pictures)" in refused.problem
    assert "the context holds 1,700" in refused.problem
    # a closed choice needs room for its choice, whatever its budget
    assert isinstance(one.prompt(asked(1, picture, "Who?", choices=("A", "B"), max_tokens=9999)), Prompt)


def test_every_token_that_ends_an_answer_is_known(prompter: Callable[[str], Prompter], tiny_models: Models) -> None:
    for name in ALL:
        config: dict[str, Any] = json.loads((tiny_models(name) / "generation_config.json").read_text())
        ids = config["eos_token_id"]
        assert set(ids if isinstance(ids, list) else [ids]) <= set(prompter(name).stop_tokens)
        assert prompter(name).stop_tokens[0] == prompter(name).tokenizer.eos_token_id


def test_a_model_of_words_takes_no_picture(prompter: Callable[[str], Prompter], asked: Asked, picture: Path) -> None:
    with pytest.raises(BadInput, match="tiny-llama reads text only"):
        prompter("tiny-llama").prompt(asked(1, picture, "Who?"))
