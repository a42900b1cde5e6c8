"""What a model needs is estimated from its configuration, and what would fit is the mildest change that does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from localmel.engines.memory import (
    GIB,
    Memory,
    check_room,
    free_memory,
    gib,
    needed_bytes,
    settings_that_fit,
    weight_bytes,
)
from localmel.settings import EngineSettings
from localmel.weights.model_folder import ModelFolder

GB = 10**9
LLAMA = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
ON_GPU = EngineSettings(engine="transformers", at_once=32, context=8192)


def card(free: float, total: float = 24) -> Memory:
    return Memory(device="a card", free=int(free * GB), total=int(total * GB))


@pytest.fixture
def llama(tmp_path: Path) -> ModelFolder:
    """Llama-3.1-8B as far as its size goes: 16 GB that are not on the disk."""
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(16 * GB)
    return ModelFolder(tmp_path, LLAMA, (path,))


def test_weights_take_what_their_bits_take(llama: ModelFolder) -> None:
    def taken(device: str = "cuda", **changes: str) -> float:
        return weight_bytes(llama, replace(ON_GPU, **changes), device) / GB  # type: ignore[arg-type]

    assert taken() == taken(dtype="bfloat16") == 16
    assert taken(dtype="float32") == taken(device="cpu") == 32
    assert 4 < taken(quantization="4bit") < 6
    assert 8 < taken(quantization="8bit") < 10


def test_quantised_weights_take_what_they_take_on_the_disk(llama: ModelFolder) -> None:
    quantised = ModelFolder(llama.path, {**LLAMA, "quantization_config": {"quant_method": "awq"}}, llama.weight_files)
    assert weight_bytes(quantised, replace(ON_GPU, dtype="float32"), "cuda") == 16 * GB


def test_keys_and_values_are_counted(llama: ModelFolder) -> None:
    """131,072 bytes per token in Llama-3.1-8B: 32 layers, 8 heads of 128, two of them, two bytes each."""
    assert llama.cache_bytes_per_token == 131_072
    few, many = (needed_bytes(llama, replace(ON_GPU, at_once=n), "cuda") for n in (1, 3))
    assert many - few == 2 * 4096 * 131_072


def test_two_cards_take_half_each(llama: ModelFolder) -> None:
    one = needed_bytes(llama, replace(ON_GPU, engine="vllm"), "cuda")
    two = needed_bytes(llama, replace(ON_GPU, engine="vllm", tensor_parallel=2), "cuda")
    assert 0.5 * one < two < 0.6 * one


@pytest.mark.parametrize(
    ("free", "fits"),
    [
        (30, "at_once = 16 "),
        (20, "at_once = 4 "),
        (25, "at_once = 8 "),
        (13, 'at_once = 1, quantization = "8bit" '),
        (8, 'at_once = 1, quantization = "4bit" '),
        (4, "none: even the smallest needs about "),
    ],
)
def test_the_mildest_change_that_fits_is_named(free: float, fits: str, llama: ModelFolder) -> None:
    settings = replace(ON_GPU, context=4096)
    said = settings_that_fit(llama, settings, card(free, total=48), "cuda")
    assert said.startswith(fits), said


def test_what_is_named_does_fit(llama: ModelFolder) -> None:
    for free in range(7, 60):
        said = settings_that_fit(llama, ON_GPU, card(free, total=80), "cuda")
        number = float(said.partition("about ")[2].partition(" GiB")[0])
        assert number * GIB <= (free + 0.1) * GB, said


def test_on_a_card_that_others_use_vllm_takes_a_smaller_share(llama: ModelFolder) -> None:
    settings = EngineSettings(engine="vllm", memory_share=0.9, context=8192)
    said = settings_that_fit(llama, settings, card(60, total=80), "cuda")
    assert said.startswith("memory_share = 0.73 (others use 18.6 GiB")


def test_on_a_cpu_half_as_many_bits_come_before_fewer_still(llama: ModelFolder) -> None:
    settings = EngineSettings(engine="transformers", at_once=1, device="cpu", context=2048)
    assert settings_that_fit(llama, settings, card(20), "cpu").startswith('dtype = "bfloat16" ')


def test_free_memory_is_a_part_of_all_memory() -> None:
    memory = free_memory("cpu")
    assert 10_000_000 < memory.free < memory.total
    assert "main memory" in str(memory)


def test_room_for_a_small_model_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"0" * 1000)
    check_room(ModelFolder(tmp_path, LLAMA, (path,)), EngineSettings(engine="transformers", device="cpu"))


def test_bytes_are_told_in_figures_a_person_compares() -> None:
    assert [gib(value * GIB) for value in (0.09, 1.26, 23.7)] == ["92.2 MiB", "1.3 GiB", "23.7 GiB"]
