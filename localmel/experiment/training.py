"""Train networks on benchmarks: read, encode once, train one network for each seed, and say how good they are.

In: a recipe, a KB, a text encoder and a folder.  Out: `seed-S/network` with a card for each seed, `history.json` and
`training.png`.  A run that was stopped goes on; one that is finished is not done again; one of another recipe is
refused.  Validation chooses the epoch; nothing here reads a test split."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.artifacts import behind_links, failed_writes_are_reported
from localmel.encode.kb_vectors import KbVectors, index_kb, load_vectors
from localmel.encode.space import TextEncoder
from localmel.errors import BadInput, CorruptArtifact, MissingExtra, UsageError
from localmel.experiment.training_curve import write_history
from localmel.experiment.training_data import Datasets, EncodedSplit, encoded_splits, read_datasets
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.retrieve.fused import load_network, save_network
from localmel.retrieve.fusion_settings import FusionSettings
from localmel.retrieve.kb_triples import KbTriples

if TYPE_CHECKING:
    from localmel.retrieve.fusion import FusionNetwork
    from localmel.retrieve.inputs import EntityVectors, MentionVectors
    from localmel.retrieve.ranking import Ranks, Workers
    from localmel.retrieve.training import Epoch, Together
    from localmel.retrieve.training_settings import TrainingSettings

ABLATIONS = ("triples", "gate", "text")
"What a network can be trained without, to see what it is good for."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is trained on what."""

    data: Path
    "A benchmark folder."
    training: TrainingSettings
    "Of every seed; its own seed is replaced."
    datasets: tuple[str, ...] = ()
    "Which datasets of the folder are joined; all where none is named."
    seeds: tuple[int, ...] = (0,)
    width: int = 384
    "Length of the vectors that come out."
    without: tuple[str, ...] = ()
    "Of ABLATIONS."
    drop_leaked: bool = False
    "Leave validation mentions out that train has, instead of refusing them."
    visible_text: float = 0.2
    "Share of train mentions of which a piece of the sentence is taken for writing in the picture."
    fold: tuple[int, int] | None = None
    "(i, n): without the mentions whose sentence's CRC-32 leaves i when divided by n."
    command: str = ""
    "Stands in the card."

    def __post_init__(self) -> None:
        if unknown := set(self.without) - set(ABLATIONS):
            raise UsageError(f"a network cannot be trained without {', '.join(unknown)}; only {', '.join(ABLATIONS)}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"the seeds are {list(self.seeds)}; they are different numbers from 0 on")
        if not 0 <= self.visible_text <= 1:
            raise UsageError(f"visible_text is {self.visible_text}; it is a share between 0 and 1")
        if self.fold is not None and not (self.fold[1] >= 2 and 0 <= self.fold[0] < self.fold[1]):
            raise UsageError(f"there is no fold {self.fold[0]} of {self.fold[1]}", hint="--fold 0/3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Hears how far a run is.  Only the first of several processes speaks."""

    on_total: Callable[[str, int], None] = lambda _what, _total: None
    "A step and its size."
    on_done: Callable[[int], None] = lambda _: None
    "How many more of it are done."
    on_note: Callable[[str], None] = lambda _: None
    on_epoch: Callable[[int, Epoch], None] = lambda _seed, _epoch: None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Everything a network is trained from."""

    train: MentionVectors
    validation: MentionVectors
    validation_sets: Mapping[str, Any]  # name of the dataset -> (m,) bool
    entities: EntityVectors
    fusion: FusionSettings
    made_from: Mapping[str, Any]
    dropped: int
    "Validation mentions that were left out because train has them."


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """The network of one seed."""

    seed: int
    network: Path
    epochs: int
    best_epoch: int
    seconds: float
    validation: Mapping[str, Ranks] = field(repr=False)
    "Under `all`, and under each dataset that has a gold in the KB."
    was_there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All seeds of a run."""

    seeds: tuple[SeedResult, ...]
    dropped: int
    leads: bool
    "Whether this process is the one that reports it."

    @property
    def best(self) -> SeedResult:
        """The seed with the highest MRR on validation."""
        return max(self.seeds, key=lambda result: result.validation["all"].mrr)

    def mean(self, name: str) -> float:
        """Of `hits_at_1`, `hits_at_16` or `mrr` over the seeds."""
        return statistics.fmean(self._values(name))

    def deviation(self, name: str) -> float | None:
        """Sample deviation over the seeds; None of one seed."""
        return statistics.stdev(self._values(name)) if len(self.seeds) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [float(getattr(result.validation["all"], name)) for result in self.seeds]


def train_networks(
    recipe: Recipe,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    folder: Path,
    *,
    encoded: Path | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Train a network for each seed of the recipe in `folder`.  `encoded` may be shared by runs on the same mentions.

    Raises MissingExtra before anything is made, BadInput where data, KB or an earlier run do not fit."""
    if find_spec("matplotlib") is None:
        raise MissingExtra("training draws its curve with matplotlib", hint="pip install 'localmel[train]'")
    from localmel.retrieve.training import start_processes

    together = start_processes()
    listener = listener if listener and together.leads else Listener()
    folder = behind_links(folder)
    with _alone_in(folder, together):
        prepared = prepare(recipe, kb, encoder, encoded or folder / "encode", together, listener)
        results = []
        for seed in recipe.seeds:
            results.append(_one_seed(recipe, seed, prepared, encoder, folder, together, listener))
            if together.leads:
                write_history(
                    folder, [result.network for result in results], new=not all(one.was_there for one in results)
                )
        return Outcome(seeds=tuple(results), dropped=prepared.dropped, leads=together.leads)


def prepare(
    recipe: Recipe,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    folder: Path,
    together: Together,
    listener: Listener | None = None,
) -> Prepared:
    """Read and encode what the recipe names, the KB's texts included; what stands in `folder` is taken from there."""
    listener = listener or Listener()
    datasets = read_datasets(recipe.data, recipe.datasets, drop=recipe.drop_leaked)
    with together.leader_first():
        packed, vectors = _vectors_of(kb, encoder, listener)
        train, validation, facts = encoded_splits(
            datasets,
            kb,
            packed,
            encoder,
            folder,
            visible_text=recipe.visible_text,
            on_total=listener.on_total,
            on_done=listener.on_done,
        )
    if datasets.dropped:
        listener.on_note(f"{datasets.dropped:,} validation mentions were left out, because train has their sentence")
    if outside := int((train.vectors.gold < 0).sum()):
        n = len(train.vectors)
        listener.on_note(f"{outside:,} of {n:,} train mentions have no gold in the KB and are not trained on")
    return _prepared(recipe, datasets, train, validation, packed, vectors, facts)


def validate(network: FusionNetwork, prepared: Prepared, workers: Workers | None = None) -> dict[str, Ranks]:
    """How a network ranks the validation mentions: `all`, and each dataset."""
    import torch

    from localmel.retrieve.ranking import Ranks, embed_entities, gold_ranks

    vectors = embed_entities(network, prepared.entities, workers)
    ranks = gold_ranks(network, prepared.validation, vectors, workers).cpu()
    found = {"all": Ranks.of(ranks[ranks > 0])}
    for name, own in prepared.validation_sets.items():
        found[name] = Ranks.of(ranks[(ranks > 0) & torch.from_numpy(own)])
    return {name: known for name, known in found.items() if known}


# --- what goes in ------------------------------------------------------------------------------------------------


def _vectors_of(kb: KnowledgeBase, encoder: TextEncoder, listener: Listener) -> tuple[PackedKb, KbVectors]:
    """The KB's own vectors, made or brought up to date where need be; fused ones are not needed for training."""
    try:
        return load_vectors(kb, encoder.space)
    except (BadInput, CorruptArtifact):
        index_kb(kb, encoder, on_total=listener.on_total, on_done=listener.on_done)
        return load_vectors(kb, encoder.space)


def _prepared(
    recipe: Recipe,
    datasets: Datasets,
    train: EncodedSplit,
    validation: EncodedSplit,
    packed: PackedKb,
    vectors: KbVectors,
    facts: Mapping[str, Any],
) -> Prepared:
    import numpy as np

    from localmel.retrieve.inputs import EntityVectors, NoTriples, no_triples

    space = vectors.space
    mentions, checked = train.vectors, validation.vectors
    if recipe.fold is not None:
        own, of = recipe.fold
        mentions = replace(mentions, gold=np.where(train.sentence % of == own, -1, mentions.gold))
    entity_text = vectors.entities
    if "text" in recipe.without:
        blank = np.zeros(1, np.float16)
        entity_text = np.broadcast_to(blank, vectors.entities.shape)
        mentions, checked = (
            replace(one, text=np.broadcast_to(blank, (len(one), space.width))) for one in (mentions, checked)
        )
    kind = KbTriples
    if "triples" in recipe.without:
        kind = NoTriples
        mentions, checked = (replace(one, triples=no_triples(len(one), space.width)) for one in (mentions, checked))
    return Prepared(
        train=mentions,
        validation=checked,
        validation_sets={name: validation.dataset == number for number, name in enumerate(datasets.names)},
        entities=EntityVectors(text=entity_text, triples=kind(packed, vectors)),
        fusion=FusionSettings(
            text_width=space.width, triple_width=space.width, width=recipe.width, gate="gate" not in recipe.without
        ),
        made_from={
            **facts,
            "without": sorted(recipe.without),
            "fold": "/".join(map(str, recipe.fold)) if recipe.fold else None,
        },
        dropped=datasets.dropped,
    )


@contextmanager
def _alone_in(folder: Path, together: Together) -> Iterator[None]:
    """Two runs in one folder at once would undo each other's checkpoints."""
    from filelock import FileLock, Timeout

    if not together.leads:
        yield
        return
    with failed_writes_are_reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BadInput(f"another process is training in {folder}", hint="choose another --out") from None
    try:
        yield
    finally:
        lock.release()


# --- one seed ----------------------------------------------------------------------------------------------------


def _one_seed(
    recipe: Recipe,
    seed: int,
    prepared: Prepared,
    encoder: TextEncoder,
    folder: Path,
    together: Together,
    listener: Listener,
) -> SeedResult:
    from localmel.retrieve.checkpoint import refuse_other_facts
    from localmel.retrieve.training import facts_of, train

    settings = replace(recipe.training, seed=seed)
    facts = facts_of(prepared.fusion, settings, prepared.made_from, together)
    network = folder / f"seed-{seed}" / "network"
    there = network.is_dir()
    together.wait()  # all have looked before the first one writes
    if there:
        card = load_network(network).card
        refuse_other_facts(network, card.get("run", {}), facts)
        return _result(seed, network, card, was_there=True)
    steps = _Steps(f"training seed {seed}", listener)
    trained = train(
        prepared.fusion,
        settings,
        prepared.train,
        prepared.validation,
        prepared.entities,
        folder / f"seed-{seed}" / "checkpoint",
        made_from=prepared.made_from,
        on_epoch=lambda epoch: listener.on_epoch(seed, epoch),
        on_step=steps,
    )
    found = validate(trained.network, prepared, together)
    card = {
        "seed": seed,
        "data": prepared.made_from["datasets"],
        "mentions": {
            "train": int((prepared.train.gold >= 0).sum()),
            "validation": int((prepared.validation.gold >= 0).sum()),
            "without_gold_in_kb_or_left_out": int((prepared.train.gold < 0).sum()),
            "dropped": prepared.dropped,
        },
        "without": sorted(recipe.without),
        "best_epoch": trained.best.number,
        "validation": {name: asdict(ranks) for name, ranks in found.items()},
        "seconds": round(sum(epoch.seconds for epoch in trained.history), 1),
        "command": recipe.command,
        "history": [asdict(epoch) for epoch in trained.history],
        "run": facts,
    }
    if together.leads:
        weights = {name: value.cpu().numpy() for name, value in trained.network.state_dict().items()}
        save_network(network, weights, prepared.fusion, encoder.space, card)
    together.wait()
    return _result(seed, network, card, was_there=False)


class _Steps:
    """Turns "step 30 of 600" into a total, told once, and what is more of it."""

    def __init__(self, what: str, listener: Listener) -> None:
        self._what, self._listener, self._last = what, listener, -1

    def __call__(self, step: int, steps: int, _loss: float) -> None:
        if self._last < 0:
            self._listener.on_total(self._what, steps)
            self._last = 0
        self._listener.on_done(step - self._last)
        self._last = step


def _result(seed: int, network: Path, card: Mapping[str, Any], *, was_there: bool) -> SeedResult:
    from localmel.retrieve.ranking import Ranks

    try:
        return SeedResult(
            seed=seed,
            network=network,
            epochs=len(card["history"]),
            best_epoch=card["best_epoch"],
            seconds=card["seconds"],
            validation={name: Ranks(**ranks) for name, ranks in card["validation"].items()},
            was_there=was_there,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"the card of {network} is not one of a training ({error})") from None
