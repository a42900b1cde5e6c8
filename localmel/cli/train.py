"""`localmel train`: train a network for each seed on the mentions of a benchmark, and report how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.matcher_options import options_from, with_matcher_options
from localmel.cli.options import AsJson, command_line
from localmel.cli.output import print_json, print_note, print_table, progress_bar
from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.encode.space import TextEncoder
    from localmel.kb.store import KnowledgeBase
    from localmel.matchers.train.loop import Epoch
    from localmel.training.recipe import Recipe
    from localmel.training.run import Outcome

_NUMBERS = {"hits_at_1": "HITS@1", "hits_at_16": "HITS@16", "mrr": "MRR"}


Data = Annotated[Path, typer.Argument(help="A benchmark: MIMIC's or KGMEL's layout, or NAME-train/val.jsonl.")]
GoldKb = Annotated[str, typer.Option("--kb", help="Name or path of the KB that contains the golds.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of the run; the same command resumes it.")]
Datasets = Annotated[
    list[str] | None, typer.Option("--dataset", help="Only this dataset of the folder (repeatable; joined).")
]
Matcher = Annotated[
    str, typer.Option("--matcher", help="What to train: kgmel (fusion network), m3el or dwe; see docs/matchers.md.")
]
Mentions = Annotated[
    int, typer.Option("--mentions", min=0, help="Train on at most this many mentions, drawn by sentence; 0: all.")
]
Validation = Annotated[
    int, typer.Option("--validation-mentions", min=0, help="Choose the epoch by at most this many; 0: all.")
]
Seeds = Annotated[str, typer.Option("--seeds", help="Train one network for each of these seeds: 0,1,2.")]
Epochs = Annotated[int, typer.Option("--epochs", min=1, help="How often to pass over the mentions, at most.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Mentions contrasted at once, per process.")]
Rate = Annotated[float, typer.Option("--rate", help="Highest learning rate.")]
Width = Annotated[
    int | None, typer.Option("--width", min=1, help="Length of the compared vectors; kgmel: 384, m3el: 96.")
]
Precision = Annotated[str, typer.Option("--precision", help="float32 or bfloat16.")]
Accumulate = Annotated[int, typer.Option("--accumulate", min=1, help="Batches per optimiser step.")]
HardNegatives = Annotated[
    int, typer.Option("--hard-negatives", min=0, help="Additional wrong entities for each mention.")
]
HardFrom = Annotated[
    str, typer.Option("--hard-from", help="names (bearers of the name) or index (nearest by the network so far).")
]
Without = Annotated[
    list[str] | None, typer.Option("--without", help="Ablation: triples, gate, text or image (repeatable).")
]
PublishedNegatives = Annotated[
    bool, typer.Option("--published-negatives", help="As published: a repeated gold in a batch counts as a negative.")
]
LeaveOutLeaked = Annotated[
    bool, typer.Option("--drop-leaked", help="Leave out validation mentions whose sentence is in train.")
]
VisibleText = Annotated[
    float, typer.Option("--visible-text", help="Share of train sentences of which a piece moves into the picture.")
]
Fold = Annotated[str | None, typer.Option("--fold", help="I/N: leave out sentences whose CRC-32 modulo N is I.")]
EncoderProfile = Annotated[str, typer.Option("--profile", help="Profile whose encoders are used.")]


@with_matcher_options
def train_command(
    data: Data,
    kb: GoldKb,
    out: Out,
    dataset: Datasets = None,
    matcher: Matcher = "kgmel",
    mentions: Mentions = 0,
    validation_mentions: Validation = 0,
    seeds: Seeds = "0",
    epochs: Epochs = 6,
    batch: Batch = 512,
    rate: Rate = 1e-3,
    width: Width = None,
    precision: Precision = "float32",
    accumulate: Accumulate = 1,
    hard_negatives: HardNegatives = 3,
    hard_from: HardFrom = "names",
    without: Without = None,
    published_negatives: PublishedNegatives = False,
    drop_leaked: LeaveOutLeaked = False,
    visible_text: VisibleText = 0.2,
    fold: Fold = None,
    profile: EncoderProfile = "embedded",
    as_json: AsJson = False,
    *,
    typed: Mapping[str, Any],
) -> None:
    """Train a network for each seed; validation chooses its epoch."""
    from localmel.matchers.train.settings import LossSettings, TrainingSettings
    from localmel.training.recipe import Recipe

    loss = LossSettings(temperature=0.05, published_negatives=published_negatives)
    training = TrainingSettings(
        epochs=epochs, batch=batch, rate=rate, precision=precision, accumulate=accumulate,
        hard_negatives=hard_negatives, hard_from=hard_from, loss=loss,
    )  # fmt: skip
    recipe = Recipe(
        data=data, datasets=tuple(dataset or ()), training=training, seeds=_numbers("--seeds", seeds, ","),
        matcher=matcher, options=options_from(typed, matcher, profile), width=width,
        mentions=mentions, validation_mentions=validation_mentions, drop_leaked=drop_leaked, fold=_fold(fold),
        without=tuple(dict.fromkeys(without or ())), visible_text=visible_text, command=command_line(),
    )  # fmt: skip
    outcome = _trained(recipe, kb, out, profile)
    if outcome.leads:
        print_json(_to_json(outcome, out)) if as_json else _print_outcome(outcome, out)


def _trained(recipe: Recipe, kb: str, out: Path, profile: str) -> Outcome:
    from localmel.encode.registry import open_encoder
    from localmel.settings import load_profile
    from localmel.training.run import train_networks

    def tell(seed: int, epoch: Epoch) -> None:
        ranks = epoch.ranks
        found = f", HITS@1 {ranks.hits_at_1:.4f}, HITS@16 {ranks.hits_at_16:.4f}, MRR {ranks.mrr:.4f}" if ranks else ""
        line = f"seed {seed}, epoch {epoch.number}: loss {epoch.loss:.4f}, rate {epoch.rate:.1e}{found}"
        print_note(f"{line}, {epoch.seconds:.1f} s")

    chosen = load_profile(profile).encode
    encoders = open_encoder(chosen, method="torch")
    seen = encoders.image is not None and "image" not in recipe.without
    recipe.options.check_pictures(seen=seen, encoder=encoders.text.space.name)
    try:
        with progress_bar():
            return train_networks(recipe, _opened(kb, encoders.text), encoders, out, on_epoch=tell)
    except KeyboardInterrupt:
        print_note("run the same command to resume after the last finished epoch")
        raise


def _opened(name: str, encoder: TextEncoder) -> KnowledgeBase:
    """Open the KB; the starter KB is built if it is missing, without a fusion network."""
    from localmel.encode.kb_vectors import index_kb
    from localmel.kb.locate import STARTER, open_kb, prepare_starter

    if name == STARTER:
        prepare_starter(lambda kb: index_kb(kb, encoder))
    return open_kb(name)


def _numbers(option: str, text: str, between: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(between))
    except ValueError:
        raise UsageError(f"{option} is {text!r}; it is numbers with {between!r} between them") from None


def _fold(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    numbers = _numbers("--fold", text, "/")
    if len(numbers) != 2:
        raise UsageError(f"--fold is {text!r}; it is two numbers", hint="--fold 0/3")
    return numbers[0], numbers[1]


def _to_json(outcome: Outcome, out: Path) -> dict[str, Any]:
    seeds = [
        {
            "seed": one.seed,
            "network": str(one.network),
            "epochs": one.epochs,
            "best_epoch": one.best_epoch,
            "seconds": one.seconds,
            "was_there": one.was_there,
            "validation": {name: asdict(ranks) for name, ranks in one.validation.items()},
        }
        for one in outcome.seeds
    ]
    return {
        "run": str(out),
        "dropped": outcome.dropped,
        "seeds": seeds,
        "best_seed": outcome.best.seed,
        "mean": {name: outcome.mean(name) for name in _NUMBERS},
        "deviation": {name: outcome.deviation(name) for name in _NUMBERS},
    }


def _print_outcome(outcome: Outcome, out: Path) -> None:
    if all(one.was_there for one in outcome.seeds):
        print_note(f"nothing to do: {out} holds the networks of this command")
    rows = []
    for one in outcome.seeds:
        ranks = one.validation["all"]
        scores = [f"{getattr(ranks, name):.4f}" for name in _NUMBERS]
        rows.append((str(one.seed), f"{one.best_epoch} of {one.epochs}", *scores, f"{one.seconds:.0f}"))
    if len(rows) > 1:
        rows.append(("mean", "", *(f"{outcome.mean(name):.4f}" for name in _NUMBERS), ""))
        rows.append(("deviation", "", *(f"{outcome.deviation(name):.4f}" for name in _NUMBERS), ""))
    n = outcome.best.validation["all"].n
    title = f"validation, {n:,} mentions, by vectors alone"
    print_table(("seed", "best epoch", *_NUMBERS.values(), "seconds"), rows, title=title)
    print(f"networks in {out}/seed-*/network; the best one by MRR is {outcome.best.network}")
