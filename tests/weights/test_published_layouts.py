"""The layouts in which models are published, as tiny checkpoints: packed, installed, found, loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.weights.find import find_model
from localmel.weights.install import install_bundle
from localmel.weights.pack import pack
from localmel.weights.verify import verify

TinyModels = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "architecture", "context"),
    [
        ("tiny-llava-mistral", "LlavaNextForConditionalGeneration", 32768),
        ("tiny-llava-vicuna", "LlavaNextForConditionalGeneration", 4096),
        ("tiny-qwen-vl", "Qwen2_5_VLForConditionalGeneration", 4096),
        ("tiny-llama", "LlamaForCausalLM", 8192),
        ("tiny-clip", "open_clip", 77),
    ],
)
def test_a_published_layout_goes_the_whole_way(
    own_home: Path, tiny_models: TinyModels, tmp_path: Path, name: str, architecture: str, context: int
) -> None:
    source = tiny_models(name)
    pack([f"{source}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == {
        path.name: path.read_bytes() for path in installed.folder.iterdir() if path.name != "manifest.json"
    }
    facts = find_model(name).folder
    assert (facts.architecture, facts.context) == (architecture, context)
    again = find_model(str(source)).folder
    assert (again.config, again.n_parameters, again.weight_bytes) == (
        facts.config,
        facts.n_parameters,
        facts.weight_bytes,
    )
    assert verify(name).findings == ()


@pytest.mark.slow  # imports torch and transformers, which is half a minute on a busy machine
@pytest.mark.filterwarnings("ignore")
def test_what_was_installed_loads(own_home: Path, tiny_models: TinyModels, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pack([f"{tiny_models('tiny-llama')}/"], tmp_path / "b.tar")
    install_bundle(tmp_path / "b.tar")
    folder = find_model("tiny-llama").path
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    tokens = AutoTokenizer.from_pretrained(folder)("Messi scored.", return_tensors="pt")
    assert model(**tokens).logits.shape[1] == tokens["input_ids"].shape[1]
    assert sum(tensor.numel() for tensor in model.parameters()) == find_model("tiny-llama").folder.n_parameters
