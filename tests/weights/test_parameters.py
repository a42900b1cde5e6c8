"""The counts of the catalog, held against the architectures themselves: built by transformers without any weights."""

from __future__ import annotations

from typing import Any

import pytest

from localmel.weights.catalog import entry_of

KEPT = ("embed_tokens", "lm_head", "vision", "visual", "projector", "image_newline")
"Parts that stay in 16 bit when the rest is quantised."
CLIP_336 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
}  # fmt: skip
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def decoder(vocabulary: int, width: int, inner: int, layers: int, heads: int, kv_heads: int, **more: Any) -> Any:
    shape = {
        "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads,
    }  # fmt: skip
    return {**shape, **more}


def llava(text: Any, kind: str) -> tuple[str, str, Any]:
    config = {"vision_config": CLIP_336, "text_config": {"model_type": kind, **text}, "image_grid_pinpoints": PINPOINTS}
    return "LlavaNextForConditionalGeneration", "LlavaNextConfig", config


def qwen25_vl(text: Any) -> tuple[str, str, Any]:
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
        "out_hidden_size": text["hidden_size"],
    }  # fmt: skip
    rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    config = {"text_config": {**text, "rope_scaling": rope}, "vision_config": vision}
    tied = text["tie_word_embeddings"]
    return "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig", {**config, "tie_word_embeddings": tied}


def qwen3_vl(text: Any, **vision: Any) -> tuple[str, str, Any]:
    vision |= {
        "num_heads": 16,
        "patch_size": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": text["hidden_size"],
    }
    config = {"text_config": text, "vision_config": vision, "tie_word_embeddings": text["tie_word_embeddings"]}
    return "Qwen3VLForConditionalGeneration", "Qwen3VLConfig", config


PUBLISHED = {
    "llava-v1.6-mistral-7b": llava(decoder(32064, 4096, 14336, 32, 32, 8), "mistral"),
    "llava-v1.6-vicuna-7b": llava(decoder(32064, 4096, 11008, 32, 32, 32), "llama"),
    "llava-v1.6-vicuna-13b": llava(decoder(32064, 5120, 13824, 40, 40, 40), "llama"),
    "qwen2.5-vl-7b": qwen25_vl(decoder(152064, 3584, 18944, 28, 28, 4, tie_word_embeddings=False)),
    "qwen2.5-vl-3b": qwen25_vl(decoder(151936, 2048, 11008, 36, 16, 2, tie_word_embeddings=True)),
    "qwen3-vl-8b": qwen3_vl(
        decoder(151936, 4096, 12288, 36, 32, 8, head_dim=128, tie_word_embeddings=False),
        depth=27, hidden_size=1152, intermediate_size=4304, deepstack_visual_indexes=[8, 16, 24],
    ),
    "qwen3-vl-4b": qwen3_vl(
        decoder(151936, 2560, 9728, 36, 32, 8, head_dim=128, tie_word_embeddings=True),
        depth=24, hidden_size=1024, intermediate_size=4096, deepstack_visual_indexes=[5, 11, 17],
    ),
    "llama-3.1-8b-instruct": ("LlamaForCausalLM", "LlamaConfig", decoder(128256, 4096, 14336, 32, 32, 8)),
    "qwen2.5-7b-instruct": ("Qwen2ForCausalLM", "Qwen2Config", decoder(152064, 3584, 18944, 28, 28, 4)),
    "qwen2.5-3b-instruct": (
        "Qwen2ForCausalLM", "Qwen2Config", decoder(151936, 2048, 11008, 36, 16, 2, tie_word_embeddings=True)
    ),
    "qwen2.5-1.5b-instruct": (
        "Qwen2ForCausalLM", "Qwen2Config", decoder(151936, 1536, 8960, 28, 12, 2, tie_word_embeddings=True)
    ),
    "qwen3-4b-instruct": (
        "Qwen3ForCausalLM", "Qwen3Config",
        decoder(151936, 2560, 9728, 36, 32, 8, head_dim=128, tie_word_embeddings=True),
    ),
    "qwen3-1.7b": (
        "Qwen3ForCausalLM", "Qwen3Config",
        decoder(151936, 2048, 6144, 28, 16, 8, head_dim=128, tie_word_embeddings=True),
    ),
}  # fmt: skip


@pytest.mark.slow  # torch and transformers are imported, which is half a minute on a busy machine
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_layers_and_heads_are_those_of_the_architecture(name: str) -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model_class, config_class, shape = PUBLISHED[name]
    config = getattr(transformers, config_class)(**shape)
    with torch.device("meta"):
        model = getattr(transformers, model_class)(config)
    parameters = dict(model.named_parameters())
    entry = entry_of(name)
    assert config.model_type == entry.model_type
    assert sum(tensor.numel() for tensor in parameters.values()) == entry.parameters
    kept = {key: tensor for key, tensor in parameters.items() if any(part in key for part in KEPT)}
    assert sum(tensor.numel() for tensor in kept.values()) == entry.kept
    text = config.get_text_config()
    assert (text.num_hidden_layers, text.num_key_value_heads) == (entry.layers, entry.kv_heads)
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    assert head_width == entry.head_width
