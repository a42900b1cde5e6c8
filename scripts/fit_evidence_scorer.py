"""Fit the evidence scorer on train mentions, set its temperature on held-out train mentions.

    python scripts/fit_evidence_scorer.py --kb KB --data FOLDER --folds RUNS                  -> weights/evidence-scorer
    python scripts/fit_evidence_scorer.py --kb KB --data FOLDER --folds RUNS --without counts  -> ...-no-counts

FOLDER holds NAME-train.jsonl; KB is an indexed KB; RUNS holds fold-0, fold-1, ... as scripts/train_embedded.py leaves
them: fusion networks, each trained without the mentions of its fold.  A mention's features come from the network that
has not seen it: a network is surer of what it was trained on.  Val takes no part.
For every fifth mention a piece of its sentence is moved into "visible text".  Same inputs, same bytes."""

from __future__ import annotations

import argparse
import json
import random
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from localmel.benchmarks.json_lines import read_split
from localmel.captions import Caption
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.minilm import MiniLM
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network
from localmel.matchers.kgmel.fused import fuse_kb
from localmel.rerank.features import FEATURE_NAMES, features_in
from localmel.rerank.scorer import CLIP, VERSION
from localmel.settings import Profile, load_profile
from localmel.training.data import with_moved_text

DATASETS = ("richpediamel", "wikimel", "wikidiverse")
MOST_CANDIDATES = 80
HELD_OUT, EPOCHS, BATCH, RATE, SEEDS = 0.05, 14, 256, 4e-3, (0, 1, 2)
MOVED = 0.2
WRITTEN = 3.0
"Weight of a mention of which something is stated, against 1: rarer here than in front of a picture with writing."
STATED = "stated triples"
GROUPS = ("counts", "names")
"The groups of features that `--without` leaves out.  Without names no candidate is found by name, either."


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
        highest = inputs.masked_fill(~present[..., None], -CLIP).amax(dim=1)
        hidden = nn.functional.gelu(self.nil[0](torch.cat([best, highest], dim=1)), approximate="tanh")
        return torch.cat([scores, self.nil[1](hidden)], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathered:
    """What is known of some mentions, and what is right."""

    features: list[NDArray[Any]]
    target: NDArray[Any]  # place of the gold in the list, MOST_CANDIDATES where it is not there
    sentences: list[str]

    def save(self, path: Path) -> None:
        """Keep it, so that a second fit need not gather again."""
        lengths = np.array([len(values) for values in self.features])
        flat = np.concatenate(self.features)
        np.savez(path, features=flat, lengths=lengths, target=self.target, sentences=np.array(self.sentences))


def load_gathered(path: Path) -> Gathered:
    """What `save` kept."""
    with np.load(path, allow_pickle=False) as kept:
        ends = np.cumsum(kept["lengths"])[:-1]
        return Gathered(
            features=np.split(kept["features"], ends), target=kept["target"], sentences=kept["sentences"].tolist()
        )


def fold_of(sentence: str, n_folds: int) -> int:
    """As `localmel train --fold` tells them apart."""
    return zlib.crc32(sentence.encode("utf-8")) % n_folds


def gather(
    kb: KnowledgeBase, profile: Profile, folder: Path, network: KgmelMatcher, fold: int, n_folds: int
) -> Gathered:
    """Features of the train mentions of one fold, by the network that was trained without it."""
    rows = dict(kb.select("SELECT id, row FROM entities"))
    features: list[NDArray[Any]] = []
    target: list[int] = []
    sentences: list[str] = []
    encoder = MiniLM(method="torch")
    fuse_kb(kb, *load_vectors(kb, encoder.space), network)
    linker = Linker(kb, profile, encoder=encoder, matcher=network)
    for number, name in enumerate(DATASETS):
        split = read_split(folder / f"{name}-train.jsonl")
        context = {mention.id: mention.context for mention in split.mentions}
        shown = with_moved_text(split.mentions, share=MOVED, seed=number)
        chosen = [(mention, lines) for mention, lines in shown if fold_of(context[mention.id], n_folds) == fold]
        captions = ((Caption(text=mention.context, spans=(mention.span,)), lines) for mention, lines in chosen)
        for (mention, _), known in zip(chosen, linker.weigh_many(captions), strict=True):
            right = np.flatnonzero(known.rows == rows.get(split.gold[mention.id] or "", -1))
            features.append(known.features)
            target.append(int(right[0]) if len(right) else MOST_CANDIDATES)
            sentences.append(context[mention.id])
        print(f"fold {fold}, {split.name}: {len(chosen):,} mentions", flush=True)
    return Gathered(features=features, target=np.array(target), sentences=sentences)


def gather_all(given: argparse.Namespace, profile: Profile) -> Gathered:
    """All folds asked for, from `--keep` where they were gathered before."""
    parts = []
    for fold in given.only or range(given.n_folds):
        kept = given.keep / f"fold-{fold}.npz" if given.keep else None
        if kept and kept.exists():
            parts.append(load_gathered(kept))
            continue
        network = load_network(network_in(given.folds / f"fold-{fold}"))
        part = gather(KnowledgeBase(given.kb), profile, given.data, network, fold, given.n_folds)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part.save(kept)
        parts.append(part)
    return Gathered(
        features=[values for part in parts for values in part.features],
        target=np.concatenate([part.target for part in parts]),
        sentences=[sentence for part in parts for sentence in part.sentences],
    )


def padded(features: list[NDArray[Any]], target: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Lists of candidates -> (inputs, present, target); a target beyond the list means NIL."""
    inputs = torch.zeros(len(features), MOST_CANDIDATES, features[0].shape[1])
    present = torch.zeros(len(features), MOST_CANDIDATES, dtype=torch.bool)
    for line, values in enumerate(features):
        inputs[line, : len(values)] = torch.from_numpy(values)
        present[line, : len(values)] = True
    return inputs, present, torch.from_numpy(target)


def fit(inputs: Tensor, present: Tensor, target: Tensor, weight: Tensor, *, seed: int) -> Scorer:
    """Cross-entropy over candidates and NIL, each mention by its weight; AdamW, one-cycle rate."""
    torch.manual_seed(seed)
    scorer = Scorer(inputs.shape[2])
    optimiser = torch.optim.AdamW(scorer.parameters(), RATE, weight_decay=1e-3)
    steps = EPOCHS * -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            logits = scorer(inputs[chosen], present[chosen])
            losses = nn.functional.cross_entropy(logits, target[chosen], reduction="none")
            loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"seed {seed}, epoch {epoch + 1}: loss {total / len(inputs):.4f}")
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
    parser.add_argument("--folds", type=Path, required=True, help="folder of fold-I/, each with a network/")
    parser.add_argument("--only", type=int, nargs="*", help="fit on these folds only")
    parser.add_argument("--n-folds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for what is gathered; taken from there the next time")
    parser.add_argument("--without", choices=GROUPS, action="append", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    retrieve = load_profile("embedded").retrieve
    if "counts" in given.without:
        retrieve = replace(retrieve, use_counts=False)
    if "names" in given.without:
        retrieve = replace(retrieve, by_name=0, by_vector=64)
    profile = replace(load_profile("embedded"), retrieve=retrieve)
    left_out = {name for group in given.without for name in features_in(group)}
    columns = [place for place, name in enumerate(FEATURE_NAMES) if name not in left_out]

    known = gather_all(given, profile)
    features = [values[:, columns] for values in known.features]
    flat = np.concatenate(features)
    mean, deviation = flat.mean(axis=0), flat.std(axis=0) + 1e-3
    features = [np.clip((values - mean) / deviation, -CLIP, CLIP) for values in features]
    chance = random.Random(SEEDS[0])
    kept_apart = {sentence for sentence in sorted(set(known.sentences)) if chance.random() < HELD_OUT}
    apart = np.array([sentence in kept_apart for sentence in known.sentences])
    inputs, present, goal = padded(features, known.target)
    column = FEATURE_NAMES.index(STATED)
    stated = np.array([values[0, column] > 0 if len(values) else False for values in known.features])
    weight = torch.from_numpy(np.where(stated, WRITTEN, 1.0).astype(np.float32))
    scorers = [fit(inputs[~apart], present[~apart], goal[~apart], weight[~apart], seed=seed) for seed in SEEDS]
    with torch.no_grad():
        logits = torch.stack([scorer(inputs[apart], present[apart]) for scorer in scorers]).mean(dim=0)
    temperature = best_temperature(logits, goal[apart])

    ending = "".join(f"-no-{group}" for group in given.without)
    folder = given.out or Path(__file__).parent.parent / "weights" / f"evidence-scorer{ending}"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"mean": mean, "deviation": deviation}
    for member, scorer in enumerate(scorers):
        for name, value in scorer.state_dict().items():
            weights[f"{member}.{name.replace('.weight', '')}"] = value.numpy()
    save_file(
        {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()},
        folder / "weights.safetensors",
    )
    card = {
        "version": VERSION,
        "features": [FEATURE_NAMES[place] for place in columns],
        "members": len(SEEDS),
        "temperature": temperature,
        "fitted_on": {"mentions": int((~apart).sum()), "held_out": int(apart.sum()), "seeds": list(SEEDS)},
        "command": "python scripts/fit_evidence_scorer.py" + "".join(f" --without {group}" for group in given.without),
    }
    (folder / "scorer.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {folder}: temperature {temperature}")


def network_in(folder: Path) -> Path:
    """The network of a run of one seed."""
    found = sorted(folder.glob("**/network.json"))
    if len(found) != 1:
        raise SystemExit(f"{folder} holds {len(found)} networks, not one; run scripts/train_embedded.py")
    return found[0].parent


if __name__ == "__main__":
    main()
