"""Train the tokenizers of the tiny models: the kinds that LLaVA, Llama 3 and Qwen have, with fewer pieces.

In: the starter KB's texts.  Out: tokenizers with the published kinds of pieces, splitting rules and special tokens.
Knows nothing of weights; the same texts give the same tokenizer."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from tiny_model_layouts import LLAMA_ADDED, LLAVA_ADDED, QWEN_ADDED
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

STARTER = Path(__file__).resolve().parents[1] / "localmel" / "kb" / "starter"
PIECES = 4000
"Of each tokenizer, before the special tokens."

LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def corpus() -> Iterator[str]:
    """Sentences about the starter KB's entities, as text and as the JSON that models are asked for."""
    with (STARTER / "entities.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield f"{row['label']}: {row['description']}, also known as {', '.join(row['aliases'])}.\n"
    with (STARTER / "triples.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield f"The {row['relation']} of it is {row['tail']}; answer with this name.\n"
            yield json.dumps({"relation": row["relation"], "tail": row["tail"], "evidence": "text"}, ensure_ascii=False)


def byte_level(split: str, added: tuple[str, ...], *, ignore_merges: bool) -> Tokenizer:
    """The kind that Llama 3 and Qwen use: every byte is a piece, so nothing is unknown."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer


def llama_tokenizer() -> Tokenizer:
    """Llama 3.1: the beginning of the text is marked by the tokenizer."""
    tokenizer = byte_level(LLAMA_SPLIT, LLAMA_ADDED, ignore_merges=True)
    begin = LLAMA_ADDED[0]
    marked = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), marked])
    return tokenizer


def qwen_tokenizer() -> Tokenizer:
    """Qwen2 and Qwen2.5-VL: nothing is added to a text."""
    tokenizer = byte_level(QWEN_SPLIT, QWEN_ADDED, ignore_merges=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def llava_tokenizer() -> Tokenizer:
    """LLaMA's, which both LLaVAs have: pieces of text with a mark for a blank; what has no piece becomes bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    size = PIECES - len(first)
    trained.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=size, limit_alphabet=120, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    vocabulary = {piece: number for number, piece in enumerate(first + pieces)}
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokens = (*first[:3], *LLAVA_ADDED)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return tokenizer
