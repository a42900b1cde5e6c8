"""Assemble the inputs of a network, evaluate it after training, and save it.

In: a recipe, a KB, a profile's encoders, a folder for encoded data.  Out: a trainee of any kind, which makes new
learners, ranks validation mentions with a trained network, and saves that network with its card.  An encoder that is
tuned with the matcher is saved next to it, as a folder that `[encode] model` can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, index_images, load_images
from localmel.encode.kb_vectors import KbVectors, index_kb, load_vectors
from localmel.encode.registry import Encoders, open_encoder, tunable
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, UsageError, shell_line
from localmel.kb.packed import PackedKb, load_packed, pack
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kind import MatcherKind
from localmel.matchers.registry import matcher_kind
from localmel.matchers.train.learner import Learner, Material, NewLearner, Ranks, TrainingInputs, Workers
from localmel.matchers.train.settings import TrainingSettings
from localmel.matchers.trained import TUNED
from localmel.settings import EncodeSettings
from localmel.store import progress
from localmel.training.data import Datasets, EncodedSplit, encoded_splits, read_datasets
from localmel.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from localmel.matchers.train.loop import Processes

Card = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainee:
    """A network of one kind, its inputs, and the encoders that made them."""

    recipe: Recipe
    kind: MatcherKind
    network: Callable[[], nn.Module]
    "Returns a new, untrained network."
    inputs: TrainingInputs
    encoders: Encoders
    "The encoders before any tuning."
    validation_sets: Mapping[str, NDArray[Any]]
    "Name of the dataset -> (m,) bool."
    made_from: Mapping[str, Any]
    dropped: int
    "Number of validation mentions left out because they are in train."

    def counts(self) -> dict[str, int]:
        """Return the numbers of mentions, for the card."""
        train, validation = self.inputs.gold, self.inputs.validation_gold
        return {
            "train": int((train >= 0).sum()),
            "validation": int((validation >= 0).sum()),
            "without_gold_in_kb_or_left_out": int((train < 0).sum()),
            "dropped": self.dropped,
        }

    def facts(self) -> dict[str, Any]:
        """Return the same facts as `Learner.facts`, without making a learner."""
        import torch

        from localmel.matchers.learner import tuning_facts

        with torch.random.fork_rng(devices=[]):
            own = self.kind.facts(self.network())
        tuning = self.recipe.options.tuning
        return {**own, **tuning_facts(self.encoders.text.space, tuning)} if tuning else own

    def new(self) -> NewLearner:
        """Return a function that makes a learner, with a fresh copy of the encoder if it is tuned."""
        from localmel.matchers.learner import MatcherLearner

        def made(settings: TrainingSettings) -> Learner:
            tuning = self.recipe.options.tuning
            tuned = (tunable(self.encoders, recompute=tuning.recompute), tuning) if tuning else None
            return MatcherLearner(self.kind, self.network, settings, self.inputs, tuned)

        return made

    def validated(self, network: nn.Module, workers: Workers) -> tuple[dict[str, Ranks], Card]:
        """Return the validation ranks of a trained network (`all`, and each dataset), and further facts for its
        card."""
        import torch

        from localmel.matchers.learner import TunedNetwork, encoded_by

        inputs = self.inputs
        if isinstance(network, TunedNetwork):
            inputs = encoded_by(network.encoder, inputs, self.recipe.training.precision)
            network = network.matcher
        with torch.no_grad():
            ranks, card = self.kind.appraise(network, inputs, workers)
        return _by_dataset(ranks, self.validation_sets), card

    def save(self, folder: Path, network: nn.Module, card: Card) -> None:
        """Write the network; a tuned encoder is written first, so that a network always has its encoder."""
        from localmel.matchers.learner import TunedNetwork

        before, images = self.encoders.text.space, self.encoders.image_space
        tuning = self.recipe.options.tuning
        if not isinstance(network, TunedNetwork) or tuning is None:
            self.kind.save(folder, network, before, images, card)
            return
        place = _encoder_of(folder)
        about: Card = {
            name: card[name] for name in ("seed", "data", "mentions", "best_epoch", "command") if name in card
        }
        network.encoder.save(place, {**about, **asdict(tuning)})
        now = open_encoder(EncodeSettings(model=str(place.absolute())))
        tuned = {"folder": place.name, "from": before.name, "from_sha256": before.weights_sha256}
        own_images = now.image_space if images else None
        self.kind.save(folder, network.matcher, now.text.space, own_images, {**card, TUNED: tuned})


def check_tuned_encoder(network: Path, card: Mapping[str, Any]) -> None:
    """Raise CorruptArtifact if the encoder that was tuned with a network is missing or damaged."""
    if TUNED not in card:
        return
    again = shell_line("rm -r", network, note="then run the same command again: its last epoch is kept")
    try:
        open_encoder(EncodeSettings(model=str(_encoder_of(network).absolute())))
    except LocalmelError as error:
        raise CorruptArtifact(f"cannot use the encoder of {network}: {error.fact}", hint=again) from None


def prepare_trainee(
    recipe: Recipe, kb: KnowledgeBase, encoders: Encoders, folder: Path, processes: Processes
) -> Trainee:
    """Return the trainee, after reading and encoding the recipe's inputs; whatever is in `folder` is reused.

    Raises UsageError if the recipe leaves out parts that the kind or the encoders do not have."""
    kind = matcher_kind(recipe.matcher)
    encoders = _shown(recipe, kind, encoders)
    recipe.options.check_pictures(seen=encoders.image is not None, encoder=encoders.text.space.name)
    kind = kind.chosen(recipe.options)
    datasets = read_datasets(
        recipe.data, recipe.datasets, drop=recipe.drop_leaked, most=(recipe.mentions, recipe.validation_mentions)
    )
    prepare = _prepare_rows if recipe.options.tuning else _prepare_features
    with processes.leader_first():
        prepared = prepare(recipe, kind, datasets, kb, encoders, folder, processes)
    kind, inputs, facts, train, validation = prepared
    _note_left_out(datasets, train)
    return Trainee(
        recipe=recipe,
        kind=kind,
        network=lambda: kind.new(encoders, width=recipe.width, without=recipe.without),
        inputs=inputs,
        encoders=encoders,
        validation_sets={name: validation.dataset == number for number, name in enumerate(datasets.names)},
        made_from={**facts, **recipe.withheld()},
        dropped=datasets.dropped,
    )


_Prepared = tuple[MatcherKind, TrainingInputs, dict[str, Any], EncodedSplit, EncodedSplit]


def _prepare_features(
    recipe: Recipe,
    kind: MatcherKind,
    datasets: Datasets,
    kb: KnowledgeBase,
    encoders: Encoders,
    folder: Path,
    processes: Processes,
) -> _Prepared:
    """Return features encoded once with the unchanged encoder."""
    packed, vectors = _vectors_of(kb, encoders)
    visible_text = recipe.visible_text if kind.reads_triples else 0.0
    train, validation, facts = encoded_splits(datasets, kb, packed, encoders.text, folder, visible_text=visible_text)
    images: KbImages | None = None
    if encoders.image:
        if processes.leads:  # the other processes do not check for changed pictures
            found = index_images(kb, packed, encoders.image)
            if note := found.note():
                progress.note(note)
        images = load_images(kb, packed, encoders.image.image_space)
        facts = {**facts, "kb_pictures": images.state}
    if processes.leads:
        kind.index_parts(kb, packed, encoders, images)
    kind = kind.bound_to_kb(kb, packed, vectors, images)
    material = Material(
        kb=kb,
        packed=packed,
        vectors=vectors,
        images=images,
        encoders=encoders,
        splits={"train": datasets.train, "validation": datasets.validation},
        encoded={"train": replace(train.vectors, gold=_trained_on(recipe, train)), "validation": validation.vectors},
        folder=folder,
        without=recipe.without,
    )
    inputs, more = kind.training_inputs(material)
    return kind, inputs, {**facts, **more}, train, validation


def _prepare_rows(
    recipe: Recipe,
    kind: MatcherKind,
    datasets: Datasets,
    kb: KnowledgeBase,
    encoders: Encoders,
    folder: Path,
    processes: Processes,
) -> _Prepared:
    """Return raw texts and pictures, for an encoder that is trained; golds and names are looked up once."""
    from localmel.matchers.train.tuning_rows import rows_of_kb, rows_of_mentions

    sees = encoders.image is not None
    try:
        packed = load_packed(kb)
    except (FileNotFoundError, CorruptArtifact):
        progress.begin("reading triples", len(kb))
        packed = pack(kb, on_entities=progress.advance)
    train, validation, facts = encoded_splits(datasets, kb, packed, encoders.text, folder, visible_text=0.0)
    rows = {
        "train": rows_of_mentions(datasets.train.mentions, sees=sees),
        "validation": rows_of_mentions(datasets.validation.mentions, sees=sees),
        "kb": rows_of_kb(kb, packed.rows, sees=sees),
    }
    inputs = TrainingInputs(
        mentions=rows["train"],
        validation=rows["validation"],
        entities=rows["kb"],
        gold=_trained_on(recipe, train),
        validation_gold=validation.vectors.gold,
        candidates=train.vectors.candidates,
    )
    if sees:
        progress.begin("reading pictures", sum(len(own.texts) for own in rows.values()))
        facts = {**facts, "pictures": {name: own.pictures_state() for name, own in rows.items()}}
    return kind, inputs, facts, train, validation


def _shown(recipe: Recipe, kind: MatcherKind, encoders: Encoders) -> Encoders:
    """Return the encoders, without the image encoder if the recipe leaves out pictures."""
    if others := [one for one in recipe.without if one not in kind.removable]:
        raise UsageError(
            f"{recipe.matcher} cannot be trained without {', '.join(sorted(others))}; only without "
            f"{', '.join(kind.removable)}",
            hint="leave --without out",
        )
    if "image" not in recipe.without:
        return encoders
    if encoders.image is None:
        fact = f"a network cannot be trained without image: {encoders.text.space.name} looks at none"
        raise UsageError(fact, hint="leave --without image out")
    return replace(encoders, image=None)


def _vectors_of(kb: KnowledgeBase, encoders: Encoders) -> tuple[PackedKb, KbVectors]:
    """Return the KB's own vectors, encoded or updated if necessary; training needs no fused vectors."""
    try:
        return load_vectors(kb, encoders.text.space)
    except (BadInput, CorruptArtifact):
        index_kb(kb, encoders.text)
        return load_vectors(kb, encoders.text.space)


def _trained_on(recipe: Recipe, train: EncodedSplit) -> NDArray[Any]:
    """Return the golds (m,); also -1 for mentions of the fold that the recipe leaves out."""
    gold: NDArray[Any] = train.vectors.gold
    if recipe.fold is None:
        return gold
    own, of = recipe.fold
    return np.where(train.sentence % of == own, -1, gold)


def _note_left_out(datasets: Datasets, train: EncodedSplit) -> None:
    """Report how many mentions are excluded from validation and from training."""
    if datasets.dropped:
        progress.note(f"{datasets.dropped:,} validation mentions were left out, because train has their sentence")
    if outside := int((train.vectors.gold < 0).sum()):
        n = len(train.vectors)
        progress.note(f"{outside:,} of {n:,} train mentions have no gold in the KB and are not trained on")


def _by_dataset(ranks: Tensor, sets: Mapping[str, NDArray[Any]]) -> dict[str, Ranks]:
    """Return the measures of `all`, and of each dataset with a gold in the KB.  ranks: (m,), 0 without a gold."""
    import torch

    found = {"all": Ranks.of(ranks[ranks > 0])}
    for name, own in sets.items():
        found[name] = Ranks.of(ranks[(ranks > 0) & torch.from_numpy(own)])
    return {name: known for name, known in found.items() if known}


def _encoder_of(network: Path) -> Path:
    return network.with_name("encoder")
