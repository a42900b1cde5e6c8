"""Folders of tiny random CLIP models, and copies of them in which one thing is different."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 512


def changed_copy(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a model whose open_clip_config.json was changed."""
    shutil.copytree(source, target)
    path = target / "open_clip_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")
    return target


def make_tiny_siglip(folder: Path) -> Path:
    """As SigLIP is laid out: a text tower that reads its padding, a tokenizer in the folder, bent pictures."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = "<pad> </s> <unk> a dog cat plays chess on red mars".split()
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    text = {
        "context_length": 16, "vocab_size": len(words), "width": 32, "heads": 2, "layers": 2, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last",
    }  # fmt: skip
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2}
    torch.manual_seed(0)
    network = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=dict(vision), text_cfg=dict(text))
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    text |= {"hf_tokenizer_name": "somebody/on-a-hub", "tokenizer_kwargs": {"clean": "canonicalize"}}
    half = [0.5, 0.5, 0.5]
    config = {
        "model_cfg": {"embed_dim": 24, "custom_text": True, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": half, "std": half, "interpolation": "bilinear", "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
