"""Build tiny random models in the layouts in which the large ones are published, so that every path can be run.

In: a folder, a seed, and the starter KB's texts, on which the tokenizers are trained.  Out: one folder for each model:
safetensors, configuration, tokenizer, processor, chat template.  The same seed gives the same bytes.
The weights are random and the answers mean nothing; names, shapes, prompts, token ids and limits are the real kind.
`tiny-llava-mistral` and `tiny-llava-vicuna` cut pictures as LLaVA-1.6 does (tiles of 336 pixels, patches of 14, five
layouts of tiles) and have its limits of 32,768 and 4,096 tokens.  Needs numpy and tokenizers, no torch.

    python scripts/make_tiny_models.py FOLDER                      all of them
    python scripts/make_tiny_models.py FOLDER --only tiny-llama    one
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiny_model_layouts import (
    CLIP_336,
    CLIP_TEXT,
    CLIP_VISION,
    CLIP_WIDTH,
    LLAMA_ADDED,
    LLAMA_CHAT,
    LLAVA_ADDED,
    LLAVA_TEXT,
    MISTRAL_CHAT,
    QWEN_ADDED,
    QWEN_CHAT,
    QWEN_VISION,
    QWEN_VL_CHAT,
    SMALL_TEXT,
    VICUNA_CHAT,
    Json,
    decoder_config,
    llava_config,
    llava_preprocessor,
    llava_processor,
    llava_tokenizer_config,
    open_clip_config,
    qwen_vl_preprocessor,
    tokenizer_config,
)
from tiny_model_tokenizers import llama_tokenizer, llava_tokenizer, qwen_tokenizer
from tiny_model_weights import Plans, as_bytes, clip_weights, filled, language_model, llava_weights, qwen_vision_weights
from tokenizers import Tokenizer

from localmel.store.artifacts import replace_folder, temporary_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyModel:
    """What goes into one folder."""

    files: dict[str, Json]
    "File name -> what it holds."
    weights: Plans
    dtype: str
    "Of the numbers in the safetensors files, as published."
    tokenizer: Tokenizer | None = None
    weights_file: str = "model.safetensors"
    n_shards: int = 1
    "Over how many files the weights are spread; with more than one, an index names them."
    with_vocabulary: bool = False
    "Write vocab.json and merges.txt too, as Qwen does."


def ids_of(tokenizer: Tokenizer, tokens: tuple[str, ...]) -> dict[str, int]:
    """Token -> id."""
    return {token: tokenizer.token_to_id(token) for token in tokens}


def rows(tokenizer: Tokenizer) -> int:
    """Rows of the embedding: more than there are tokens, as published."""
    return math.ceil((tokenizer.get_vocab_size() + 1) / 64) * 64


def llava(text: Json, chat: str) -> TinyModel:
    """LLaVA-1.6 around a Mistral or a Vicuna; `text` is the text_config without its vocabulary."""
    tokenizer = llava_tokenizer()
    ids, vocabulary = ids_of(tokenizer, ("<unk>", "<s>", "</s>", *LLAVA_ADDED)), rows(tokenizer)
    text = {**text, "vocab_size": vocabulary}
    return TinyModel(
        files={
            "config.json": llava_config(text, CLIP_336, ids, vocabulary),
            "generation_config.json": {
                "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": ids["<pad>"],
            },
            "preprocessor_config.json": llava_preprocessor(CLIP_336["image_size"]),
            "processor_config.json": llava_processor(CLIP_336["patch_size"]),
            "chat_template.json": {"chat_template": chat},
            "tokenizer_config.json": llava_tokenizer_config(ids, text["max_position_embeddings"]),
        },
        weights=llava_weights(text, vocabulary, said=ids["<image>"]),
        dtype="float16", tokenizer=tokenizer, n_shards=3,
    )  # fmt: skip


def llava_mistral() -> TinyModel:
    sizes = {**LLAVA_TEXT, "num_key_value_heads": 2, "rms_norm_eps": 1e-05}
    text = decoder_config(
        "MistralForCausalLM", "mistral", sizes, context=32768, dtype="bfloat16", rope_theta=1e6, sliding_window=None
    )
    return llava(text, MISTRAL_CHAT)


def llava_vicuna() -> TinyModel:
    sizes = {**LLAVA_TEXT, "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "pad_token_id": 0}
    return llava(decoder_config("LlamaForCausalLM", "llama", sizes, context=4096, dtype="float16"), VICUNA_CHAT)


def llama() -> TinyModel:
    """Llama 3.1: three tokens stop an answer, and the generation settings sample."""
    tokenizer = llama_tokenizer()
    ids, vocabulary = ids_of(tokenizer, LLAMA_ADDED), rows(tokenizer)
    begin, stop = ids["<|begin_of_text|>"], [ids[name] for name in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")]
    sizes = {**SMALL_TEXT, "num_key_value_heads": 1, "rms_norm_eps": 1e-05, "vocab_size": vocabulary}
    scaling = {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024,
        "rope_type": "llama3",
    }  # fmt: skip
    return TinyModel(
        files={
            "config.json": decoder_config(
                "LlamaForCausalLM", "llama", sizes, context=8192, dtype="bfloat16", rope_theta=5e5,
                rope_scaling=scaling, bos_token_id=begin, eos_token_id=stop, attention_bias=False, mlp_bias=False,
            ),
            "generation_config.json": {
                "bos_token_id": begin, "eos_token_id": stop, "do_sample": True, "temperature": 0.6, "top_p": 0.9,
            },
            "tokenizer_config.json": tokenizer_config(
                "PreTrainedTokenizerFast", ids, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
                model_input_names=["input_ids", "attention_mask"], model_max_length=8192, chat_template=LLAMA_CHAT,
            ),
        },
        weights=language_model(sizes, vocabulary, ids[LLAMA_ADDED[0]], tuple(stop)),
        dtype="bfloat16", tokenizer=tokenizer,
    )  # fmt: skip


def qwen_files(ids: dict[str, int], chat: str, context: int) -> dict[str, Json]:
    """What Qwen2 and Qwen2.5-VL have in common beside their weights; the generation settings sample and penalise."""
    stop = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    return {
        "generation_config.json": {
            "bos_token_id": stop[1], "pad_token_id": stop[1], "eos_token_id": stop, "do_sample": True,
            "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
        },
        "tokenizer_config.json": tokenizer_config(
            "Qwen2Tokenizer", ids, add_bos_token=False, add_prefix_space=False, eos_token="<|im_end|>",
            pad_token="<|endoftext|>", errors="replace", model_max_length=context, split_special_tokens=False,
            additional_special_tokens=list(QWEN_ADDED[1:]), chat_template=chat,
        ),
    }  # fmt: skip


def qwen2() -> TinyModel:
    """Qwen2 and Qwen2.5 (one layout)."""
    tokenizer = qwen_tokenizer()
    ids, vocabulary, context = ids_of(tokenizer, QWEN_ADDED), rows(tokenizer), 4096
    stop = (ids["<|im_end|>"], ids["<|endoftext|>"])
    sizes = {**SMALL_TEXT, "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "vocab_size": vocabulary}
    config = decoder_config(
        "Qwen2ForCausalLM", "qwen2", sizes, context=context, dtype="bfloat16", rope_theta=1e6, attention_dropout=0.0,
        bos_token_id=stop[1], eos_token_id=stop[0], max_window_layers=2, sliding_window=context,
        use_sliding_window=False,
    )  # fmt: skip
    return TinyModel(
        files={"config.json": config, **qwen_files(ids, QWEN_CHAT, context)},
        weights=language_model(sizes, vocabulary, ids[QWEN_ADDED[0]], stop, bias=True),
        dtype="bfloat16", tokenizer=tokenizer, with_vocabulary=True,
    )  # fmt: skip


def qwen_vl() -> TinyModel:
    """Qwen2.5-VL; a picture takes 4 to 64 tokens."""
    tokenizer = qwen_tokenizer()
    ids, vocabulary, context = ids_of(tokenizer, QWEN_ADDED), rows(tokenizer), 4096
    stop = (ids["<|im_end|>"], ids["<|endoftext|>"])
    sizes = {**SMALL_TEXT, "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "vocab_size": vocabulary}
    config = decoder_config(
        "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", sizes, context=context, dtype="bfloat16", rope_theta=1e6,
        rope_scaling={"type": "mrope", "mrope_section": [4, 6, 6]}, attention_dropout=0.0, max_window_layers=2,
        sliding_window=context, use_sliding_window=False, vision_config=QWEN_VISION,
        bos_token_id=stop[1], eos_token_id=stop[0], vision_token_id=ids["<|vision_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
    )  # fmt: skip
    files = {
        "config.json": config,
        "preprocessor_config.json": qwen_vl_preprocessor(QWEN_VISION, 64),
        "chat_template.json": {"chat_template": QWEN_VL_CHAT},
        **qwen_files(ids, QWEN_VL_CHAT, context),
    }
    weights = language_model(sizes, vocabulary, ids[QWEN_ADDED[0]], stop, bias=True) | qwen_vision_weights()
    return TinyModel(files=files, weights=weights, dtype="bfloat16", tokenizer=tokenizer, with_vocabulary=True)


def clip() -> TinyModel:
    """CLIP ViT-B/32 for open_clip, which brings CLIP's tokenizer with it; the vectors have the real 512 numbers."""
    files = {"open_clip_config.json": open_clip_config(CLIP_WIDTH, CLIP_TEXT, CLIP_VISION)}
    return TinyModel(files=files, weights=clip_weights(), dtype="float16", weights_file="open_clip_model.safetensors")


MODELS: dict[str, Callable[[], TinyModel]] = {
    "tiny-llava-mistral": llava_mistral,
    "tiny-llava-vicuna": llava_vicuna,
    "tiny-qwen-vl": qwen_vl,
    "tiny-llama": llama,
    "tiny-qwen2": qwen2,
    "tiny-clip": clip,
}


CODES = {"float16": "F16", "bfloat16": "BF16"}


def write(model: TinyModel, folder: Path, seed: str) -> None:
    """Fill an empty folder."""
    for name, content in model.files.items():
        write_json(folder / name, content)
    if model.tokenizer is not None:
        model.tokenizer.save(str(folder / "tokenizer.json"))
        if model.with_vocabulary:
            model.tokenizer.model.save(str(folder))
    tensors = [
        (name, model.dtype, plan.shape, as_bytes(filled(plan, seed, name), model.dtype))
        for name, plan in model.weights.items()
    ]
    if model.n_shards == 1:
        write_safetensors(folder / model.weights_file, tensors)
        return
    total, written = sum(len(data) for *_, data in tensors), 0
    shards: list[list[Tensor]] = [[] for _ in range(model.n_shards)]
    for tensor in tensors:  # by the middle of its bytes: neighbours stay together
        shards[int((written + len(tensor[3]) / 2) * model.n_shards / total)].append(tensor)
        written += len(tensor[3])
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{model.n_shards:05}.safetensors"
        write_safetensors(folder / file, shard)
        places |= dict.fromkeys((name for name, *_ in shard), file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


Tensor = tuple[str, str, tuple[int, ...], bytes]
"Name, type of its numbers, shape, bytes."


def write_safetensors(path: Path, tensors: list[Tensor]) -> None:
    """A header in JSON with its length before it, then the bytes one after another."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape, data in tensors:
        place = [position, position + len(data)]
        header[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": place}
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in tensors))


def write_json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Build what is asked for; a folder of that name is replaced."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the models' folders are made")
    parser.add_argument("--only", nargs="+", choices=MODELS, metavar="NAME", help=f"some of: {', '.join(MODELS)}")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other weights (default: 0)")
    arguments = parser.parse_args()
    for name in arguments.only or MODELS:
        target = arguments.folder / name
        with temporary_folder(target) as temporary:
            write(MODELS[name](), temporary, f"{arguments.seed} {name}")
            replace_folder(temporary, target)
        size = sum(path.stat().st_size for path in target.iterdir())
        print(f"{target}  {size / 1e6:.1f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
