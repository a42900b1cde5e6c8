"""What stands beside the weights of published checkpoints, with small numbers: configurations, processors, templates.

In: the ids of the special tokens.  Out: tables to be written as JSON, with the keys of the files on the model hub.
The chat templates are worded anew and give the prompts that the published ones give; the two LLaVA families differ:
`[INST] <image>\\n... [/INST]` and `USER: <image>\\n... ASSISTANT:`.  Knows nothing of tensors or of tokenizers."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# --- sizes: as small as the layouts allow.  Heads of 32: vLLM's attention on a CPU has none smaller -----------

LLAVA_TEXT = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP_336 = {
    "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 336, "patch_size": 14, "projection_dim": 64, "vocab_size": 32000,
}  # fmt: skip
QWEN_VISION = {
    "depth": 2, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "in_chans": 3,
    "out_hidden_size": 64, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
    "fullatt_block_indexes": [1], "tokens_per_second": 2, "temporal_patch_size": 2,
}  # fmt: skip
CLIP_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2}
CLIP_VISION = {"image_size": 224, "patch_size": 32, "width": 64, "head_width": 32, "layers": 2}
CLIP_WIDTH = 512

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
CLIP_MEAN, CLIP_SPREAD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

# --- chat templates: both LLaVAs put the pictures of a turn before its texts, wherever they stood --------------------

_PICTURES_FIRST = (
    "{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}{{- part['text'] TAIL -}}"
    "{%- endfor -%}"
)
MISTRAL_CHAT = (
    "{%- for message in messages -%}{%- if message['role'] == 'system' -%}"
    "{{- '<<SYS>>\\n' + message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' -}}"
    "{%- elif message['role'] == 'user' -%}{{- '[INST] ' -}}"
    + _PICTURES_FIRST.replace(" TAIL", "")
    + "{{- ' [/INST]' -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- ' ' + message['content'][0]['text'] + '<\\\\s> ' -}}"
    "{%- else -%}{{- raise_exception('roles are system, user and assistant') -}}{%- endif -%}{%- endfor -%}"
)
VICUNA_CHAT = (
    "{%- for message in messages -%}"
    "{%- if message['role'] != 'system' -%}{{- message['role'].upper() + ': ' -}}{%- endif -%}"
    + _PICTURES_FIRST.replace("TAIL", "+ ' '")
    + "{%- endfor -%}{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)
LLAMA_CHAT = (
    "{%- set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' -%}"
    "{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n'"
    " + 'Today Date: ' + (date_string | default('26 Jul 2024')) + '\\n\\n' + system + '<|eot_id|>' -}}"
    "{%- for message in messages -%}{%- if not (loop.first and message['role'] == 'system') -%}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim -}}"
    "{{- '<|eot_id|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"
)
_QWEN_SYSTEM = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nNAMEYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}"
)
_QWEN_END = "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
QWEN_CHAT = (
    _QWEN_SYSTEM.replace("NAME", "You are Qwen, created by Alibaba Cloud. ") + "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}{%- endfor -%}" + _QWEN_END
)
QWEN_VL_CHAT = (
    _QWEN_SYSTEM.replace("NAME", "") + "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}" + _QWEN_END
)

# --- special tokens, in the order of their ids -----------------------------------------------------------------------

LLAVA_ADDED = ("<image>", "<pad>")
LLAMA_ADDED = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
QWEN_ADDED = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

# --- files beside the weights ----------------------------------------------------------------------------------------


def tokenizer_config(kind: str, added: dict[str, int], **more: object) -> Json:
    """tokenizer_config.json.  `kind`: the class that the published file names."""
    decoder = {
        str(number): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True,
        }
        for token, number in added.items()
    }  # fmt: skip
    return {
        "tokenizer_class": kind, "added_tokens_decoder": decoder, "clean_up_tokenization_spaces": False,
        "bos_token": None, "unk_token": None, **more,
    }  # fmt: skip


def llava_tokenizer_config(added: dict[str, int], context: int) -> Json:
    """tokenizer_config.json of LLaVA-1.6; its tokenizer is LLaMA's."""
    return tokenizer_config(
        "LlamaTokenizer", added, add_bos_token=True, add_eos_token=False, bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", pad_token="<pad>", image_token="<image>", extra_special_tokens={"image_token": "<image>"},
        legacy=True, model_max_length=context, padding_side="left", processor_class="LlavaNextProcessor",
        sp_model_kwargs={}, use_default_system_prompt=False,
    )  # fmt: skip


def llava_config(text: Json, vision: Json, ids: dict[str, int], vocabulary: int) -> Json:
    """config.json of LLaVA-1.6."""
    return {
        "architectures": ["LlavaNextForConditionalGeneration"], "model_type": "llava_next", "ignore_index": -100,
        "image_grid_pinpoints": PINPOINTS, "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
        "image_token_index": ids["<image>"], "pad_token_id": ids["<pad>"], "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu", "text_config": text, "vision_config": vision, "tie_word_embeddings": False,
        "torch_dtype": "float16", "use_image_newline_parameter": True, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "vocab_size": vocabulary,
    }  # fmt: skip


def llava_preprocessor(side: int) -> Json:
    """preprocessor_config.json of LLaVA-1.6: tiles of `side` pixels."""
    return {
        "aspect_ratio_setting": "anyres", "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor", "image_grid_pinpoints": PINPOINTS,
        "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, "resample": 3,
        "rescale_factor": 1 / 255, "image_mean": CLIP_MEAN, "image_std": CLIP_SPREAD, "do_center_crop": True,
        "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
    }  # fmt: skip


def llava_processor(patch: int) -> Json:
    """processor_config.json of LLaVA-1.6."""
    return {
        "processor_class": "LlavaNextProcessor", "image_token": "<image>", "num_additional_image_tokens": 1,
        "patch_size": patch, "vision_feature_select_strategy": "default",
    }  # fmt: skip


def decoder_config(
    architecture: str, model_type: str, sizes: Json, *, context: int, dtype: str, **more: object
) -> Json:
    """config.json of a language model; `sizes` as in published files (hidden_size, num_hidden_layers, ...)."""
    return {
        "architectures": [architecture], "model_type": model_type, "hidden_act": "silu", "initializer_range": 0.02,
        "max_position_embeddings": context, "torch_dtype": dtype, "use_cache": True, "tie_word_embeddings": False,
        **sizes, **more,
    }  # fmt: skip


def qwen_vl_preprocessor(vision: Json, most_tokens: int) -> Json:
    """preprocessor_config.json of Qwen2.5-VL: 4 to `most_tokens` tokens for a picture."""
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    token = (patch * merge) ** 2
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 4 * token, "max_pixels": most_tokens * token, "patch_size": patch, "merge_size": merge,
        "temporal_patch_size": vision["temporal_patch_size"], "image_mean": CLIP_MEAN, "image_std": CLIP_SPREAD,
    }  # fmt: skip


def open_clip_config(width: int, text: Json, vision: Json) -> Json:
    """open_clip_config.json.  It names no tokenizer: open_clip brings CLIP's own, with 49,408 tokens."""
    return {
        "model_cfg": {"embed_dim": width, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_SPREAD},
    }
