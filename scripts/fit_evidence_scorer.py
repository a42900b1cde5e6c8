"""Fit the evidence scorer on train mentions, set its temperature on held-out train mentions, report it on val.

    python scripts/fit_evidence_scorer.py --kb KB --data FOLDER            -> weights/evidence-scorer
    python scripts/fit_evidence_scorer.py --kb KB --data FOLDER --no-counts -> weights/evidence-scorer-no-counts

FOLDER holds NAME-train.jsonl and NAME-val.jsonl; KB is an indexed KB.  Val takes no part in the fitting.
The data have no pictures: for every fifth mention a piece of its sentence is moved into "visible text" and the sentence
becomes a neutral one, so that writing is weighed as the words it consists of.  Same inputs, same bytes."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from localmel.encode.minilm import MiniLM
from localmel.generate.visible_text import VisibleLine
from localmel.kb.splits import read_split
from localmel.kb.store import KnowledgeBase
from localmel.linker import Caption, Linker
from localmel.records import Mention, Span
from localmel.rerank.features import COUNTS, FEATURES
from localmel.rerank.scorer import _CLIP, VERSION
from localmel.settings import load_profile

DATASETS = ("richpediamel", "wikimel", "wikidiverse")
MOST_CANDIDATES = 80
HELD_OUT, EPOCHS, BATCH, RATE, SEED = 0.05, 14, 256, 4e-3, 0
NEUTRAL = ("{}, photographed last year.", "This is {}.", "A picture of {}.", "{} seen here.", "Here we saw {} again.")


class Scorer(nn.Module):
    """The network that `localmel.rerank.scorer` runs in NumPy."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.candidate = nn.ModuleList([nn.Linear(n_features, 48), nn.Linear(48, 48), nn.Linear(48, 1)])
        self.nil = nn.ModuleList([nn.Linear(2 * n_features, 24), nn.Linear(24, 1)])
        self.drop = nn.Dropout(0.1)

    def forward(self, inputs: Tensor, present: Tensor) -> Tensor:
        """inputs: (batch, candidates, features), present: (batch, candidates).  Returns (batch, candidates + 1)."""
        hidden = self.drop(nn.functional.gelu(self.candidate[0](inputs), approximate="tanh"))
        hidden = nn.functional.gelu(self.candidate[1](hidden), approximate="tanh")
        scores = self.candidate[2](hidden)[..., 0].masked_fill(~present, -1e4)
        best = inputs[torch.arange(len(inputs)), scores.argmax(dim=1)]
        highest = inputs.masked_fill(~present[..., None], -_CLIP).amax(dim=1)
        hidden = nn.functional.gelu(self.nil[0](torch.cat([best, highest], dim=1)), approximate="tanh")
        return torch.cat([scores, self.nil[1](hidden)], dim=1)


def captions_of(
    mentions: tuple[Mention, ...], *, move: float, seed: int
) -> Iterator[tuple[Caption, list[VisibleLine]]]:
    """Each mention as a caption, and the lines of visible text that a part of them gets."""
    chance = random.Random(seed)
    for mention in mentions:
        words = (mention.context[: mention.span.start] + " " + mention.context[mention.span.end :]).split()
        if chance.random() >= move or len(words) < 4:
            yield Caption(text=mention.context, spans=(mention.span,)), []
            continue
        length = chance.randint(2, min(7, len(words)))
        start = chance.randint(0, len(words) - length)
        cut = chance.randint(1, length)
        piece = words[start : start + length]
        frame = chance.choice(NEUTRAL)
        begin = frame.index("{}")
        text = frame.format(mention.surface)
        span = Span(start=begin, end=begin + len(mention.surface))
        lines = [" ".join(part).upper() for part in (piece[:cut], piece[cut:]) if part]
        yield Caption(text=text, spans=(span,)), [VisibleLine(text=line, confidence=1.0) for line in lines]


def padded(features: list[NDArray[Any]], target: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Lists of candidates -> (inputs, present, target); a target beyond the list means NIL."""
    inputs = torch.zeros(len(features), MOST_CANDIDATES, features[0].shape[1])
    present = torch.zeros(len(features), MOST_CANDIDATES, dtype=torch.bool)
    for line, values in enumerate(features):
        inputs[line, : len(values)] = torch.from_numpy(values)
        present[line, : len(values)] = True
    return inputs, present, torch.from_numpy(target)


def gather(
    linker: Linker, folder: Path, part: str, *, move: float
) -> tuple[list[NDArray[Any]], NDArray[Any], list[str]]:
    """Features, target place and sentence of every mention of one part of all datasets."""
    rows = dict(linker.kb.select("SELECT id, row FROM entities"))
    features: list[NDArray[Any]] = []
    target: list[int] = []
    sentences: list[str] = []
    for seed, name in enumerate(DATASETS):
        split = read_split(folder / f"{name}-{part}.jsonl")
        weighed = linker.weigh_many(captions_of(split.mentions, move=move, seed=seed))
        for done, (mention, known) in enumerate(zip(split.mentions, weighed, strict=True), 1):
            right = np.flatnonzero(known.rows == rows.get(split.gold[mention.id] or "", -1))
            features.append(known.features)
            target.append(int(right[0]) if len(right) else MOST_CANDIDATES)
            sentences.append(mention.context)
            if done % 1000 == 0:
                print(f"{split.name}: {done:,} of {len(split.mentions):,} mentions", flush=True)
    return features, np.array(target), sentences


def fit(inputs: Tensor, present: Tensor, target: Tensor) -> Scorer:
    """Cross-entropy over candidates and NIL, AdamW, one-cycle rate."""
    torch.manual_seed(SEED)
    scorer = Scorer(inputs.shape[2])
    optimiser = torch.optim.AdamW(scorer.parameters(), RATE, weight_decay=1e-3)
    steps = EPOCHS * -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            loss = nn.functional.cross_entropy(scorer(inputs[chosen], present[chosen]), target[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(inputs):.4f}")
    return scorer.eval()


def best_temperature(logits: Tensor, target: Tensor) -> float:
    """The divisor of the logits with the lowest loss on mentions that were not fitted on."""
    grid = torch.arange(0.5, 2.51, 0.05)
    losses = [nn.functional.cross_entropy(logits / temperature, target).item() for temperature in grid]
    return round(float(grid[int(np.argmin(losses))]), 2)


def main() -> None:
    """Fit and write one scorer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--no-counts", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights")
    given = parser.parse_args()
    profile = load_profile("embedded")
    profile = replace(profile, retrieve=replace(profile.retrieve, use_counts=not given.no_counts))
    linker = Linker(KnowledgeBase(given.kb), profile, encoder=MiniLM(method="torch"))
    columns = [place for place, name in enumerate(FEATURES) if not (given.no_counts and name in COUNTS)]

    features, target, sentences = gather(linker, given.data, "train", move=0.2)
    features = [values[:, columns] for values in features]
    flat = np.concatenate(features)
    mean, deviation = flat.mean(axis=0), flat.std(axis=0) + 1e-3
    features = [np.clip((values - mean) / deviation, -_CLIP, _CLIP) for values in features]
    chance = random.Random(SEED)
    kept_apart = {sentence for sentence in sorted(set(sentences)) if chance.random() < HELD_OUT}
    apart = np.array([sentence in kept_apart for sentence in sentences])
    inputs, present, goal = padded(features, target)
    scorer = fit(inputs[~apart], present[~apart], goal[~apart])
    with torch.no_grad():
        logits = scorer(inputs[apart], present[apart])
    temperature = best_temperature(logits, goal[apart])

    folder = given.out / ("evidence-scorer-no-counts" if given.no_counts else "evidence-scorer")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"mean": mean, "deviation": deviation}
    for name, value in scorer.state_dict().items():
        weights[name.replace(".weight", "")] = value.numpy()
    save_file(
        {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()},
        folder / "weights.safetensors",
    )
    card = {
        "version": VERSION,
        "features": [FEATURES[place] for place in columns],
        "temperature": temperature,
        "fitted_on": {"mentions": int((~apart).sum()), "held_out": int(apart.sum()), "seed": SEED},
        "command": "python scripts/fit_evidence_scorer.py" + (" --no-counts" if given.no_counts else ""),
    }
    (folder / "scorer.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {folder}: temperature {temperature}")


if __name__ == "__main__":
    main()
