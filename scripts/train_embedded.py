"""Train the network that ships with localmel, and the ones of three folds.

    python scripts/train_embedded.py --kb KB --data FOLDER     -> weights/kgmel-minilm, runs/kgmel-minilm/fold-I

KB is the benchmark KB (name or path), FOLDER holds NAME-train.jsonl and NAME-val.jsonl.  Three seeds; the one with the
best MRR on val ships.  A fold's network has not seen a third of the sentences (CRC-32 leaves I when divided by 3): what
it says of them is what the evidence scorer may be fitted on.  What is finished is not made again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from localmel.cli.output import print_note, progress_bar
from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.kb.locate import open_kb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import KgmelMatcher, load_network, save_network
from localmel.matchers.train.learner import Alone
from localmel.matchers.train.settings import LossSettings, TrainingSettings
from localmel.training.recipe import Recipe
from localmel.training.run import Outcome, train_networks
from localmel.training.trainee import Trainee, prepare_trainee

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python scripts/train_embedded.py --kb KB --data FOLDER"
SEEDS, FOLDS = (0, 1, 2), 3
MOST_BYTES = 20 << 20
NO_LOSS = 5e-4
"Float16 weights ship where no number on val changes by more."
TRAINING = TrainingSettings(
    epochs=6, batch=512, hard_negatives=3, hard_from="names", loss=LossSettings(temperature=0.05)
)


def main(arguments: list[str] | None = None) -> None:
    """Train, choose, pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kb", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "kgmel-minilm")
    parser.add_argument("--out", type=Path, default=ROOT / "weights" / "kgmel-minilm")
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs)
    given = parser.parse_args(arguments)
    training = replace(TRAINING, epochs=given.epochs)
    recipe = Recipe(data=given.data, training=training, seeds=SEEDS, drop_leaked=True, command=COMMAND)
    encoder, kb = MiniLM(method="torch"), open_kb(given.kb)
    with progress_bar():
        outcome = train_networks(recipe, kb, Encoders(text=encoder, image=None), given.runs / "full", on_epoch=_tell)
        pack(outcome, recipe, kb, encoder, given.runs / "full" / "encode", given.out)
        for fold in range(FOLDS):
            apart = replace(recipe, seeds=(0,), fold=(fold, FOLDS))
            encoded = given.runs / "full" / "encode"
            train_networks(
                apart,
                kb,
                Encoders(text=encoder, image=None),
                given.runs / f"fold-{fold}",
                encoded=encoded,
                on_epoch=_tell,
            )


def pack(outcome: Outcome, recipe: Recipe, kb: KnowledgeBase, encoder: MiniLM, encoded: Path, out: Path) -> None:
    """The best seed's network into `out`, in float16 where that loses nothing, with its card in JSON and in words."""
    best = load_network(outcome.best.network)
    shipped = out / "network.json"
    if shipped.is_file() and load_network(out).card.get("packed_from") == best.sha256:
        print_note(f"{out} holds the network of seed {outcome.best.seed} already")
        return
    from localmel.matchers.train.loop import start_processes

    trainee = prepare_trainee(recipe, kb, Encoders(text=encoder, image=None), encoded, start_processes())
    halves = {name: value.astype(np.float16) for name, value in best.network.weights.items()}
    lost = _lost(best, halves, trainee)
    weights = halves if lost <= NO_LOSS else best.network.weights
    size = sum(value.nbytes for value in weights.values())
    if size > MOST_BYTES:
        sys.exit(f"the network has {size:,} bytes; at most {MOST_BYTES:,} ship")
    seeds = {str(one.seed): {"best_epoch": one.best_epoch, "mrr": one.validation["all"].mrr} for one in outcome.seeds}
    card = {key: value for key, value in best.card.items() if key not in ("version", "fusion", "weights_sha256")}
    card |= {
        "command": COMMAND,
        "packed_from": best.sha256,
        "precision": str(weights["mix.weight"].dtype),
        "seeds": seeds,
    }
    card["lost_by_rounding"] = lost
    space = Space(name=card.pop("space"), width=encoder.space.width, weights_sha256=card.pop("space_sha256"))
    save_network(out, weights, best.network.settings, space, card)
    (out / "README.md").write_text(_words(card, size), encoding="utf-8")
    print_note(f"wrote {out}: seed {outcome.best.seed}, {size:,} bytes, {card['precision']}")


def _lost(best: KgmelMatcher, halves: dict[str, Any], trainee: Trainee) -> float:
    """The largest change of HITS@1, HITS@16 or MRR on val when weights are rounded to float16."""
    import torch

    from localmel.matchers.kgmel.network import FusionNetwork

    def numbers(weights: dict[str, Any]) -> list[float]:
        network = FusionNetwork(best.network.settings)
        network.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()})
        ranks = trainee.validated(network, Alone())[0]["all"]
        return [ranks.hits_at_1, ranks.hits_at_16, ranks.mrr]

    return float(np.abs(np.subtract(numbers(best.network.weights), numbers(halves))).max())


def _words(card: dict[str, Any], size: int) -> str:
    """The model card."""
    rows = [
        f"| {name} | {ranks['n']:,} | {ranks['hits_at_1']:.4f} | {ranks['hits_at_16']:.4f} | {ranks['mrr']:.4f} |"
        for name, ranks in card["validation"].items()
    ]
    seeds = ", ".join(f"{seed}: {facts['mrr']:.4f}" for seed, facts in card["seeds"].items())
    return f"""# kgmel-minilm

The fusion network of the `embedded` profile: text and triples of a mention, or of an entity, to one vector; near means
alike. After KGMEL (SIGIR 2025, section 3.2) over vectors of all-MiniLM-L6-v2; it has no image space.

- Data: {", ".join(card["data"])}; {card["mentions"]["train"]:,} train mentions with their gold in the KB.
- Choice: seed {card["seed"]} of {len(card["seeds"])}, epoch {card["best_epoch"]}, by MRR on val ({seeds}).
- Weights: {card["precision"]}, {size:,} bytes; trained in float32; rounding changed no number below by more than
  {card["lost_by_rounding"]:.1e}.
- Made by `{COMMAND}`.

| val | mentions | HITS@1 | HITS@16 | MRR |
|---|---|---|---|---|
{chr(10).join(rows)}

By vectors alone, over all entities of the benchmark KB, without names; mentions whose gold is not in the KB do not
count. The epoch and the seed were chosen on these very mentions, so the numbers are a little too good. The linker adds
candidates found by name, and decides with the evidence scorer.

Limits: English captions and an English KB; writing in pictures reaches it as words only, and in training it was words
of the sentence taken away (a fifth of the mentions), not what a reader of pictures gets wrong. It knows no faces and no
scenes.
"""


def _tell(seed: int, epoch: Any) -> None:
    found = f"HITS@1 {epoch.ranks.hits_at_1:.4f}, MRR {epoch.ranks.mrr:.4f}" if epoch.ranks else "not validated"
    print_note(f"seed {seed}, epoch {epoch.number}: loss {epoch.loss:.4f}, {found}, {epoch.seconds:.0f} s")


if __name__ == "__main__":
    main()
