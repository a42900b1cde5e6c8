"""A matcher that is trained together with its encoder: read what a recipe names, train both, keep both.

In: a recipe, a KB, a profile's encoders.  Out: a trainee.  Nothing of the KB is encoded beforehand; mentions are, once,
by the encoder as it was, for what training draws negatives from.  The encoder is kept beside the network, as a folder
that `[encode] model` can name; the network is tied to its space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.encode.registry import Encoders, open_encoder
from localmel.errors import CorruptArtifact, LocalmelError, shell_line
from localmel.kb.packed import PackedKb, load_packed, pack
from localmel.kb.store import KnowledgeBase
from localmel.matchers.registry import matcher_kind
from localmel.matchers.train.tuning_settings import EncoderTuning
from localmel.matchers.trained import TUNED
from localmel.matchers.two_step_kind import TwoStepKind
from localmel.settings import EncodeSettings
from localmel.store import progress
from localmel.training.data import encoded_splits, read_datasets
from localmel.training.inputs import golds_trained_on, tell_left_out
from localmel.training.recipe import Recipe
from localmel.training.trainees import Card, counts_of, ranks_by_dataset

if TYPE_CHECKING:
    from torch import nn

    from localmel.matchers.kgmel.ranking import Ranks, Workers
    from localmel.matchers.train.learner import NewLearner
    from localmel.matchers.train.loop import Together
    from localmel.matchers.train.settings import TrainingSettings
    from localmel.matchers.train.tuning_learner import TuningInputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningTrainee:
    """A `Trainee`."""

    kind: TwoStepKind
    network: Callable[[], nn.Module]
    tuning: EncoderTuning
    training: TrainingSettings
    inputs: TuningInputs
    encoders: Encoders
    "As they were before."
    validation_sets: Mapping[str, Any]
    made_from: Mapping[str, Any]
    dropped: int

    def counts(self) -> dict[str, int]:
        """See `Trainee`."""
        return counts_of(self.inputs.gold, self.inputs.validation_gold, self.dropped)

    def facts(self) -> dict[str, Any]:
        """Of the kind and of the tuning."""
        import torch

        from localmel.matchers.train.tuning_learner import tuning_facts

        with torch.random.fork_rng(devices=[]):
            own = self.kind.facts(self.network())
        return {**own, **tuning_facts(self.encoders.text.space, self.tuning)}

    def new(self) -> NewLearner:
        """A `TuningLearner` with a fresh copy of the encoder."""
        from localmel.encode.registry import tunable
        from localmel.matchers.train.tuning_learner import TuningLearner

        def made(settings: TrainingSettings) -> TuningLearner:
            encoder = tunable(self.encoders, recompute=self.tuning.recompute)
            return TuningLearner(self.kind, self.network, encoder, self.tuning, settings, self.inputs)

        return made

    def validated(self, network: Any, workers: Workers) -> tuple[dict[str, Ranks], Card]:
        """By its own encoder, as it is at the end."""
        from localmel.matchers.train.tuning_learner import appraised_together

        ranks, quality = appraised_together(network, self.inputs, self.training)
        progress.note(quality.note(len(self.inputs.entities.texts)))
        return ranks_by_dataset(ranks, self.validation_sets), {"search": asdict(quality)}

    def save(self, folder: Path, network: Any, card: Card) -> None:
        """The encoder first: a network that stands is one that can be used."""
        place = encoder_beside(folder)
        before = self.encoders.text.space
        told: Card = {
            name: card[name] for name in ("seed", "data", "mentions", "best_epoch", "command") if name in card
        }
        network.encoder.save(place, {**told, **asdict(self.tuning)})
        now = open_encoder(EncodeSettings(model=str(place.absolute())))
        images = now.image_space if self.encoders.image else None
        tuned = {"folder": place.name, "from": before.name, "from_sha256": before.weights_sha256}
        kept: Card = {**card, TUNED: tuned}
        self.kind.save(folder, network.matcher, now.text.space, images, kept)


def encoder_beside(network: Path) -> Path:
    """Where the encoder stands that was tuned with the network in this folder."""
    return network.with_name("encoder")


def check_encoder_beside(network: Path, card: Mapping[str, Any]) -> None:
    """Raise CorruptArtifact where the encoder of a network is gone, or is no more as it was written."""
    if TUNED not in card:
        return
    again = shell_line("rm -r", network, note="then run the same command again: its last epoch is kept")
    try:
        open_encoder(EncodeSettings(model=str(encoder_beside(network).absolute())))
    except LocalmelError as error:
        raise CorruptArtifact(f"the encoder of {network} cannot be used ({error.fact})", hint=again) from None


def tuning_trainee(
    recipe: Recipe, kb: KnowledgeBase, encoders: Encoders, folder: Path, together: Together
) -> TuningTrainee:
    """encoders: without those of pictures where the recipe looks at none."""
    from localmel.matchers.train.tuning_learner import TuningInputs
    from localmel.matchers.train.tuning_rows import rows_of_kb, rows_of_mentions

    assert recipe.tuning is not None
    kind: Any = matcher_kind(recipe.matcher)
    sees = encoders.image is not None
    datasets = read_datasets(
        recipe.data, recipe.datasets, drop=recipe.drop_leaked, most=(recipe.mentions, recipe.validation_mentions)
    )
    with together.leader_first():
        packed = _packed(kb)
        train, validation, facts = encoded_splits(
            datasets, kb, packed, encoders.text, folder,
            visible_text=0.0,
        )  # fmt: skip
    tell_left_out(datasets, train)
    inputs = TuningInputs(
        mentions=rows_of_mentions(datasets.train.mentions, sees=sees),
        validation=rows_of_mentions(datasets.validation.mentions, sees=sees),
        entities=rows_of_kb(kb, packed.rows, sees=sees),
        gold=golds_trained_on(recipe, train),
        validation_gold=validation.vectors.gold,
        candidates=train.vectors.candidates,
    )
    return TuningTrainee(
        kind=kind,
        network=lambda: kind.new(encoders, width=recipe.width),
        tuning=recipe.tuning,
        training=recipe.training,
        inputs=inputs,
        encoders=encoders,
        validation_sets={name: validation.dataset == number for number, name in enumerate(datasets.names)},
        made_from={**facts, **_pictures(inputs, sees=sees), **recipe.withheld()},
        dropped=datasets.dropped,
    )


def _packed(kb: KnowledgeBase) -> PackedKb:
    try:
        return load_packed(kb)
    except (FileNotFoundError, CorruptArtifact):
        progress.begin("reading triples", len(kb))
        return pack(kb, on_entities=progress.advance)


def _pictures(inputs: TuningInputs, *, sees: bool) -> dict[str, Any]:
    """The state of all pictures, by whose they are."""
    if not sees:
        return {}
    rows = {"train": inputs.mentions, "validation": inputs.validation, "kb": inputs.entities}
    progress.begin("reading pictures", sum(len(own.texts) for own in rows.values()))
    return {"pictures": {name: own.pictures_state() for name, own in rows.items()}}
