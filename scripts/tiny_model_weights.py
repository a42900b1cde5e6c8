"""The weights of the tiny models: names, shapes and types as published, numbers at random.

In: sizes, a seed.  Out: for each tensor how it is filled, and the numbers.  The spreads keep what goes through a layer
at its size, so answers are finite and depend on all of the prompt.  Knows nothing of files."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState  # not Generator: numpy promises that these numbers never change
from numpy.typing import NDArray
from tiny_model_layouts import CLIP_336, CLIP_TEXT, CLIP_VISION, CLIP_WIDTH, QWEN_VISION, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one tensor is filled: normally distributed around `mean`, rows from `said` on (but for `also`) zero."""

    shape: tuple[int, ...]
    spread: float = 0.0
    mean: float = 0.0
    said: int | None = None
    also: tuple[int, ...] = ()


Plans = dict[str, Plan]


def linear(name: str, n_out: int, n_in: int, *, bias: bool = False, gain: float = 1.0) -> Plans:
    """A matrix that keeps the size of what goes through it, times `gain`."""
    plans = {f"{name}.weight": Plan(shape=(n_out, n_in), spread=gain / math.sqrt(n_in))}
    return plans | ({f"{name}.bias": Plan(shape=(n_out,), spread=0.1)} if bias else {})


def norm(name: str, width: int, *, bias: bool = False) -> Plans:
    plans = {f"{name}.weight": Plan(shape=(width,), mean=1.0)}
    return plans | ({f"{name}.bias": Plan(shape=(width,))} if bias else {})


def attention_inputs(name: str, sizes: Json, n_keys: int, *, bias: bool) -> Plans:
    """Queries, keys and values.  With a gain of 3 a token looks at few others, so every part of a prompt can matter."""
    width, head = sizes["hidden_size"], sizes["hidden_size"] // sizes["num_attention_heads"]
    return (
        linear(f"{name}.q_proj", width, width, bias=bias, gain=3)
        | linear(f"{name}.k_proj", n_keys * head, width, bias=bias, gain=3)
        | linear(f"{name}.v_proj", n_keys * head, width, bias=bias)
    )


def language_model(sizes: Json, vocabulary: int, said: int, stop: tuple[int, ...], *, bias: bool = False) -> Plans:
    """Llama, Mistral, Qwen2 (`bias`).  Tokens from `said` on are never answered, but for those of `stop`."""
    width, middle = sizes["hidden_size"], sizes["intermediate_size"]
    plans = {"model.embed_tokens.weight": Plan(shape=(vocabulary, width), spread=1.0)}
    for number in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        plans |= norm(f"{layer}.input_layernorm", width) | norm(f"{layer}.post_attention_layernorm", width)
        plans |= attention_inputs(f"{layer}.self_attn", sizes, sizes["num_key_value_heads"], bias=bias)
        plans |= linear(f"{layer}.self_attn.o_proj", width, width)
        plans |= linear(f"{layer}.mlp.gate_proj", middle, width) | linear(f"{layer}.mlp.up_proj", middle, width)
        plans |= linear(f"{layer}.mlp.down_proj", width, middle)
    head = Plan(shape=(vocabulary, width), spread=2 / math.sqrt(width), said=said, also=stop)
    return plans | norm("model.norm", width) | {"lm_head.weight": head}


def clip_tower(prefix: str, vision: Json) -> Plans:
    """LLaVA's vision tower, by the published names (transformers 5 saves them without `vision_model`)."""
    width, patch = vision["hidden_size"], vision["patch_size"]
    n_patches = (vision["image_size"] // patch) ** 2
    plans = {
        f"{prefix}.embeddings.class_embedding": Plan(shape=(width,), spread=1.0),
        f"{prefix}.embeddings.patch_embedding.weight": Plan(
            shape=(width, 3, patch, patch), spread=1 / math.sqrt(3 * patch * patch)
        ),
        f"{prefix}.embeddings.position_embedding.weight": Plan(shape=(n_patches + 1, width), spread=0.5),
    }
    plans |= norm(f"{prefix}.pre_layrnorm", width, bias=True) | norm(f"{prefix}.post_layernorm", width, bias=True)
    for number in range(vision["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layers.{number}"
        plans |= norm(f"{layer}.layer_norm1", width, bias=True) | norm(f"{layer}.layer_norm2", width, bias=True)
        plans |= attention_inputs(f"{layer}.self_attn", vision, vision["num_attention_heads"], bias=True)
        plans |= linear(f"{layer}.self_attn.out_proj", width, width, bias=True)
        plans |= linear(f"{layer}.mlp.fc1", vision["intermediate_size"], width, bias=True)
        plans |= linear(f"{layer}.mlp.fc2", width, vision["intermediate_size"], bias=True)
    return plans


def llava_weights(text: Json, vocabulary: int, said: int) -> Plans:
    """LLaVA-1.6; 2 is the id of </s>."""
    width = text["hidden_size"]
    decoder = language_model(text, vocabulary, said, (2,))
    plans = {"image_newline": Plan(shape=(width,), spread=1.0)}
    plans |= {f"language_model.{name}": plan for name, plan in decoder.items()}
    plans |= linear("multi_modal_projector.linear_1", width, CLIP_336["hidden_size"], bias=True)
    plans |= linear("multi_modal_projector.linear_2", width, width, bias=True)
    return plans | clip_tower("vision_tower.vision_model", CLIP_336)


def qwen_vision_weights() -> Plans:
    """Qwen2.5-VL's vision tower: windows of patches, merged two by two."""
    vision = QWEN_VISION
    width, patch, middle = vision["hidden_size"], vision["patch_size"], vision["intermediate_size"]
    shape = (width, 3, vision["temporal_patch_size"], patch, patch)
    plans = {"visual.patch_embed.proj.weight": Plan(shape=shape, spread=1 / math.sqrt(math.prod(shape[1:])))}
    for number in range(vision["depth"]):
        block = f"visual.blocks.{number}"
        plans |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        plans |= linear(f"{block}.attn.qkv", 3 * width, width, bias=True, gain=2)
        plans |= linear(f"{block}.attn.proj", width, width, bias=True)
        plans |= linear(f"{block}.mlp.gate_proj", middle, width, bias=True)
        plans |= linear(f"{block}.mlp.up_proj", middle, width, bias=True)
        plans |= linear(f"{block}.mlp.down_proj", width, middle, bias=True)
    merged = width * vision["spatial_merge_size"] ** 2
    plans |= norm("visual.merger.ln_q", width) | linear("visual.merger.mlp.0", merged, merged, bias=True)
    return plans | linear("visual.merger.mlp.2", vision["out_hidden_size"], merged, bias=True)


def open_clip_tower(prefix: str, width: int, n_layers: int) -> Plans:
    plans: Plans = {}
    for number in range(n_layers):
        block = f"{prefix}transformer.resblocks.{number}"
        plans |= norm(f"{block}.ln_1", width, bias=True) | norm(f"{block}.ln_2", width, bias=True)
        plans[f"{block}.attn.in_proj_weight"] = Plan(shape=(3 * width, width), spread=2 / math.sqrt(width))
        plans[f"{block}.attn.in_proj_bias"] = Plan(shape=(3 * width,))
        plans |= linear(f"{block}.attn.out_proj", width, width, bias=True)
        plans |= linear(f"{block}.mlp.c_fc", 4 * width, width, bias=True)
        plans |= linear(f"{block}.mlp.c_proj", width, 4 * width, bias=True)
    return plans


def clip_weights() -> Plans:
    """CLIP ViT-B/32 by open_clip's names."""
    text, vision = CLIP_TEXT["width"], CLIP_VISION["width"]
    patch, n_patches = CLIP_VISION["patch_size"], (CLIP_VISION["image_size"] // CLIP_VISION["patch_size"]) ** 2
    plans = {
        "logit_scale": Plan(shape=(), mean=math.log(100)),
        "token_embedding.weight": Plan(shape=(CLIP_TEXT["vocab_size"], text), spread=1.0),
        "positional_embedding": Plan(shape=(CLIP_TEXT["context_length"], text), spread=0.5),
        "text_projection": Plan(shape=(text, CLIP_WIDTH), spread=1 / math.sqrt(text)),
        "visual.class_embedding": Plan(shape=(vision,), spread=1.0),
        "visual.conv1.weight": Plan(shape=(vision, 3, patch, patch), spread=1 / math.sqrt(3 * patch * patch)),
        "visual.positional_embedding": Plan(shape=(n_patches + 1, vision), spread=0.5),
        "visual.proj": Plan(shape=(vision, CLIP_WIDTH), spread=1 / math.sqrt(vision)),
    }
    plans |= norm("ln_final", text, bias=True) | norm("visual.ln_pre", vision, bias=True)
    plans |= norm("visual.ln_post", vision, bias=True)
    plans |= open_clip_tower("", text, CLIP_TEXT["layers"])
    return plans | open_clip_tower("visual.", vision, CLIP_VISION["layers"])


def filled(plan: Plan, seed: str, name: str) -> NDArray[np.float32]:
    """Numbers for one tensor; they depend on nothing but these."""
    random = RandomState(np.frombuffer(hashlib.sha256(f"{seed} {name}".encode()).digest(), dtype="<u4"))
    values = np.asarray(random.standard_normal(plan.shape) * plan.spread + plan.mean, dtype=np.float32)
    if plan.said is not None:
        kept = values[list(plan.also)]
        values[plan.said :] = 0
        values[list(plan.also)] = kept
    return values


def as_bytes(values: NDArray[np.float32], dtype: str) -> bytes:
    """Little-endian, as in safetensors files."""
    if dtype == "float16":
        return values.astype("<f2").tobytes()
    bits = np.ascontiguousarray(values).view("<u4").astype(np.uint64) + 0x8000  # bfloat16: the upper half, rounded
    return (bits >> 16).astype("<u2").tobytes()
