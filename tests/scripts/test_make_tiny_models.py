"""The tiny models load and answer as large ones do, and their prompts, names and limits are the published ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from localmel.weights.model_folder import model_folder

ROOT = Path(__file__).resolve().parents[2]
TinyModels = Callable[[str], Path]
LLAVAS = ("tiny-llava-mistral", "tiny-llava-vicuna")
SEEING = (*LLAVAS, "tiny-qwen-vl")
READING = ("tiny-llama", "tiny-qwen2")
WORDS = "Washington — née Zoë 日本."


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/make_tiny_models.py", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model in float32, and what its loader says was missing or too much."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader = AutoModelForImageTextToText if folder.name in SEEING else AutoModelForCausalLM
    model, notes = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    return model, notes


def prompt(folder: Path) -> str:
    """A system message, and a turn that has its picture between two texts."""
    from transformers import AutoProcessor, AutoTokenizer

    if folder.name in READING:
        turns: list[dict[str, Any]] = [{"role": "system", "content": "Choose."}, {"role": "user", "content": WORDS}]
        return str(
            AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )
    parts = [{"type": "text", "text": "First."}, {"type": "image"}, {"type": "text", "text": "Last."}]
    turns = [{"role": "system", "content": [{"type": "text", "text": "Name."}]}, {"role": "user", "content": parts}]
    return str(AutoProcessor.from_pretrained(folder).apply_chat_template(turns, add_generation_prompt=True))


def scene(name: str) -> Image.Image:
    with Image.open(ROOT / "examples" / f"{name}.jpg") as picture:
        return picture.convert("RGB")


def inputs(folder: Path, picture: Image.Image | None = None) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    if folder.name in READING:
        return AutoTokenizer.from_pretrained(folder)(prompt(folder), return_tensors="pt", add_special_tokens=False)
    processor = AutoProcessor.from_pretrained(folder)
    return processor(text=prompt(folder), images=picture or scene("bus"), return_tensors="pt")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    for name, seed in {"first": "0", "again": "0", "other": "1"}.items():
        done = make(tmp_path / name, "--only", "tiny-qwen2", "--seed", seed)
        assert done.returncode == 0, done.stderr
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"tiny-qwen2/model.safetensors"}


def test_an_unknown_model_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    done = make(tmp_path, "--only", "tiny-gpt")
    assert done.returncode == 2
    assert "tiny-llava-mistral" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*SEEING, *READING, "tiny-clip"])
def test_a_folder_is_whole_and_small(tiny_models: TinyModels, name: str) -> None:
    model = model_folder(tiny_models(name))
    assert model.n_parameters > 100_000
    assert sum(path.stat().st_size for path in model.path.iterdir()) < 5_000_000


@pytest.mark.parametrize("name", [*SEEING, *READING])
def test_transformers_takes_every_tensor_and_answers_in_finite_numbers(tiny_models: TinyModels, name: str) -> None:
    import torch

    folder = tiny_models(name)
    model, notes = load(folder)
    assert not any(notes.values()), notes
    given = inputs(folder)
    with torch.no_grad():
        scores = model(**given).logits[0, -1]
    assert torch.isfinite(scores).all()
    answers = [model.generate(**given, max_new_tokens=8, do_sample=False) for _ in range(2)]
    assert torch.equal(*answers)
    assert answers[0].shape[1] > given["input_ids"].shape[1]


@pytest.mark.parametrize("name", SEEING)
def test_the_answer_depends_on_the_picture_and_on_the_words_before_it(tiny_models: TinyModels, name: str) -> None:
    import torch

    folder = tiny_models(name)
    model, _ = load(folder)
    bus, statue = (inputs(folder, scene(name)) for name in ("bus", "statue"))
    reworded = {**bus, "input_ids": bus["input_ids"].clone()}
    reworded["input_ids"][0, 4] += 1
    with torch.no_grad():
        scores = [model(**given).logits[0, -1] for given in (bus, statue, reworded)]
    assert (scores[0] - scores[1]).abs().max() > 0.1
    assert (scores[0] - scores[2]).abs().max() > 0.1


def test_the_prompts_are_those_of_the_published_templates(tiny_models: TinyModels) -> None:
    assert {name: prompt(tiny_models(name)) for name in (*SEEING, *READING)} == {
        "tiny-llava-mistral": "<<SYS>>\nName.\n<</SYS>>\n\n[INST] <image>\nFirst.Last. [/INST]",
        "tiny-llava-vicuna": "Name. USER: <image>\nFirst. Last. ASSISTANT:",
        "tiny-qwen-vl": (
            "<|im_start|>system\nName.<|im_end|>\n<|im_start|>user\nFirst."
            "<|vision_start|><|image_pad|><|vision_end|>Last.<|im_end|>\n<|im_start|>assistant\n"
        ),
        "tiny-llama": (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nChoose.<|eot_id|>"
            f"<|start_header_id|>user<|end_header_id|>\n\n{WORDS}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        "tiny-qwen2": (
            f"<|im_start|>system\nChoose.<|im_end|>\n<|im_start|>user\n{WORDS}<|im_end|>\n<|im_start|>assistant\n"
        ),
    }


@pytest.mark.parametrize("name", [*SEEING, *READING])
def test_any_text_comes_back_from_its_tokens(tiny_models: TinyModels, name: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_models(name))
    text = 'Zoë "née" 日本\t{"tail": "Ω≈ç 😀"}\n 1234  end'
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


# Height, width -> tokens, by hand: 24 x 24 patches for the whole picture, then rows x columns of the tiles without
# their padding, then one for each row.  Of the layouts 1x2, 2x1, 2x2, 1x3 and 3x1 the one that keeps most is taken.
PICTURES = {
    (672, 672): 576 + 48 * 48 + 48,  # 2,928: the most there can be
    (480, 640): 576 + 36 * 48 + 36,
    (768, 1024): 576 + 36 * 48 + 36,
    (336, 336): 576 + 24 * 24 + 24,
    (300, 900): 576 + 24 * 72 + 24,
    (900, 300): 576 + 72 * 24 + 72,
}


@pytest.mark.parametrize("name", LLAVAS)
def test_a_picture_has_the_tokens_that_it_has_in_llava(tiny_models: TinyModels, name: str) -> None:
    folder = tiny_models(name)
    image = json.loads((folder / "config.json").read_text())["image_token_index"]
    counted = {
        (height, width): int((inputs(folder, Image.new("RGB", (width, height)))["input_ids"] == image).sum())
        for height, width in PICTURES
    }
    assert counted == PICTURES


def test_the_limits_are_the_published_ones(tiny_models: TinyModels) -> None:
    texts = [json.loads((tiny_models(name) / "config.json").read_text())["text_config"] for name in LLAVAS]
    assert [text["max_position_embeddings"] for text in texts] == [32768, 4096]


def test_llavas_tensors_have_the_published_names_and_shards(tiny_models: TinyModels) -> None:
    folder = tiny_models("tiny-llava-mistral")
    places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert {
        "image_newline",
        "language_model.lm_head.weight",
        "language_model.model.layers.1.self_attn.q_proj.weight",
        "multi_modal_projector.linear_2.bias",
        "vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight",
        "vision_tower.vision_model.pre_layrnorm.weight",
    } <= set(places)
    assert set(places.values()) == {f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}


def test_open_clip_takes_the_folder_with_its_own_preprocessing(tiny_models: TinyModels) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed here: LOCALMEL_EXTRAS=clip")
    import torch

    folder = f"local-dir:{tiny_models('tiny-clip')}"
    model, _, prepare = open_clip.create_model_and_transforms(folder)
    model.eval()
    with torch.no_grad():
        words = model.encode_text(open_clip.get_tokenizer(folder)(["a red bus", "a statue"]), normalize=True)
        pictures = torch.stack([prepare(scene(name)) for name in ("bus", "statue")])
        seen = model.encode_image(pictures, normalize=True)
    assert words.shape == seen.shape == (2, 512)
    assert (words @ words.T)[0, 1] < 0.99
    assert (seen @ seen.T)[0, 1] < 0.99


GREEDY = """
import json, sys
from vllm import LLM, SamplingParams
answers = {}
for folder, job in json.load(sys.stdin).items():
    llm = LLM(folder, dtype="float32", enforce_eager=True, seed=0, max_num_seqs=2, load_format="safetensors",
              generation_config="vllm")
    given = {"prompt": job["prompt"]}
    if job["picture"]:
        from PIL import Image
        given["multi_modal_data"] = {"image": Image.open(job["picture"])}
    settings = SamplingParams(max_tokens=6, temperature=0)
    output = llm.generate([given], settings, use_tqdm=False, tokenization_kwargs={"add_special_tokens": job["marked"]})
    answers[folder] = list(output[0].outputs[0].token_ids)
    del llm
print("ANSWERS", json.dumps(answers))
"""


@pytest.mark.vllm
@pytest.mark.slow  # five starts of vLLM in one process: about a minute on two idle cores
@pytest.mark.timeout(900)
def test_vllm_answers_as_transformers_does(tiny_models: TinyModels) -> None:
    picture, jobs, expected = ROOT / "examples" / "bus.jpg", {}, {}
    for name in (*SEEING, *READING):
        folder = tiny_models(name)
        given = inputs(folder)
        answer = load(folder)[0].generate(**given, max_new_tokens=6, do_sample=False, repetition_penalty=1.0)
        expected[str(folder)] = answer[0, given["input_ids"].shape[1] :].tolist()
        seen = str(picture) if name in SEEING else ""
        jobs[str(folder)] = {"prompt": prompt(folder), "picture": seen, "marked": name in LLAVAS}
    done = subprocess.run(
        [sys.executable, "-c", GREEDY], input=json.dumps(jobs), capture_output=True, text=True, timeout=840,
        check=False, env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.partition("ANSWERS ")[2]) == expected
