"""What `training.py` trains, kind by kind: the fusion network, or a matcher of words, patches and more.

In: a recipe, a KB, a profile's encoders, a folder for what is encoded.  Out: a trainee: it makes a new network, says
how the trained one ranks validation mentions, and keeps it with its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localmel.encode.kb_images import KbImages
from localmel.encode.registry import Encoders
from localmel.encode.space import ImageEncoder, Space, TextEncoder
from localmel.errors import UsageError
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import save_network
from localmel.matchers.registry import DWE, KGMEL, dwe_seeing, load_matcher, matcher_kind
from localmel.matchers.two_step_kind import TwoStepKind
from localmel.store import progress
from localmel.training.data import read_datasets
from localmel.training.inputs import (
    Prepared,
    encoded_texts,
    golds_trained_on,
    images_of,
    prepare,
    tell_left_out,
)
from localmel.training.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from localmel.matchers.kgmel.ranking import Ranks, Workers
    from localmel.matchers.train.learner import NewLearner
    from localmel.matchers.train.loop import Together
    from localmel.matchers.train.matcher_learner import MatcherInputs

Card = dict[str, Any]


class Trainee(Protocol):
    """Everything a network is trained from, and what becomes of it."""

    @property
    def made_from(self) -> Mapping[str, Any]:
        """Of which inputs."""
        ...

    @property
    def dropped(self) -> int:
        """Validation mentions that were left out because train has them."""
        ...

    def counts(self) -> dict[str, int]:
        """Mentions, for the card."""
        ...

    def facts(self) -> dict[str, Any]:
        """See `Learner.facts`."""
        ...

    def new(self) -> NewLearner:
        """How a new one is made."""
        ...

    def validated(self, network: nn.Module, workers: Workers) -> tuple[dict[str, Ranks], Card]:
        """How it ranks validation mentions: `all`, and each dataset; and what else the card is to say."""
        ...

    def save(self, folder: Path, network: nn.Module, card: Card) -> None:
        """Keep it."""
        ...


def card_of(folder: Path) -> Mapping[str, Any]:
    """The card of a network that a run has kept.  Raises CorruptArtifact."""
    return load_matcher(folder).card


def prepare_trainee(
    recipe: Recipe,
    kb: KnowledgeBase,
    encoder: TextEncoder,
    folder: Path,
    together: Together,
    *,
    images: ImageEncoder | None = None,
    tokens: Encoders | None = None,
) -> Trainee:
    """Read and encode what the recipe names.  tokens: the encoders of a matcher other than KGMEL's."""
    if recipe.matcher == KGMEL:
        prepared = prepare(recipe, kb, encoder, folder, together, images=images)
        return FusionTrainee(prepared=prepared, space=encoder.space)
    if tokens is None:
        raise UsageError(f"{recipe.matcher} looks at words, and {encoder.space.name} was given without them")
    tokens = _seen_by(recipe, tokens)
    if recipe.tuning is not None:
        from localmel.training.tuning import tuning_trainee

        return tuning_trainee(recipe, kb, tokens, folder, together)
    return _matcher_trainee(recipe, kb, tokens, folder, together)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusionTrainee:
    """KGMEL's fusion network."""

    prepared: Prepared
    space: Space

    @property
    def made_from(self) -> Mapping[str, Any]:
        """Of which inputs."""
        return self.prepared.made_from

    @property
    def dropped(self) -> int:
        """See `Trainee`."""
        return self.prepared.dropped

    def counts(self) -> dict[str, int]:
        """See `Trainee`."""
        return counts_of(self.prepared.train.gold, self.prepared.validation.gold, self.dropped)

    def facts(self) -> dict[str, Any]:
        """Its shape."""
        return {"fusion": asdict(self.prepared.fusion)}

    def new(self) -> NewLearner:
        """A `FusionLearner`."""
        from localmel.matchers.kgmel.learner import FusionLearner

        one = self.prepared
        return lambda settings: FusionLearner(one.fusion, settings, one.train, one.validation, one.entities)

    def validated(self, network: Any, workers: Workers) -> tuple[dict[str, Ranks], Card]:
        """By all fused vectors."""
        from localmel.matchers.kgmel.ranking import embed_entities, gold_ranks

        vectors = embed_entities(network, self.prepared.entities, workers)
        ranks = gold_ranks(network, self.prepared.validation, vectors, workers).cpu()
        return ranks_by_dataset(ranks, self.prepared.validation_sets), {}

    def save(self, folder: Path, network: nn.Module, card: Card) -> None:
        """As the profiles take it."""
        weights = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
        one = self.prepared
        save_network(folder, weights, one.fusion, self.space, card, images=one.image_space)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatcherTrainee:
    """A matcher of any kind beside."""

    kind: TwoStepKind
    network: Callable[[], nn.Module]
    inputs: MatcherInputs
    encoders: Encoders
    validation_sets: Mapping[str, Any]
    made_from: Mapping[str, Any]
    dropped: int

    def counts(self) -> dict[str, int]:
        """See `Trainee`."""
        return counts_of(self.inputs.gold, self.inputs.validation_gold, self.dropped)

    def facts(self) -> dict[str, Any]:
        """Of the kind."""
        import torch

        with torch.random.fork_rng(devices=[]):
            return self.kind.facts(self.network())

    def new(self) -> NewLearner:
        """A `MatcherLearner`."""
        from localmel.matchers.train.matcher_learner import MatcherLearner

        return lambda settings: MatcherLearner(self.kind, self.network, settings, self.inputs)

    def validated(self, network: nn.Module, workers: Workers) -> tuple[dict[str, Ranks], Card]:
        """By the search that answers are found with; the card also says how true that is to the scores of all pairs."""
        from localmel.matchers.train.matcher_learner import appraised

        ranks, quality = appraised(network, self.inputs)
        progress.note(quality.note(len(self.inputs.entities)))
        return ranks_by_dataset(ranks, self.validation_sets), {"search": asdict(quality)}

    def save(self, folder: Path, network: nn.Module, card: Card) -> None:
        """See `MatcherKind.save`."""
        self.kind.save(folder, network, self.encoders.text.space, self.encoders.image_space, card)


def ranks_by_dataset(ranks: Tensor, sets: Mapping[str, Any]) -> dict[str, Ranks]:
    """`all`, and each dataset that has a gold in the KB.  ranks: (m,), 0 without a gold."""
    import torch

    from localmel.matchers.kgmel.ranking import Ranks

    found = {"all": Ranks.of(ranks[ranks > 0])}
    for name, own in sets.items():
        found[name] = Ranks.of(ranks[(ranks > 0) & torch.from_numpy(own)])
    return {name: known for name, known in found.items() if known}


def counts_of(train: Any, validation: Any, dropped: int) -> dict[str, int]:
    """From golds, (m,) each, -1 where there is none."""
    return {
        "train": int((train >= 0).sum()),
        "validation": int((validation >= 0).sum()),
        "without_gold_in_kb_or_left_out": int((train < 0).sum()),
        "dropped": dropped,
    }


def _seen_by(recipe: Recipe, encoders: Encoders) -> Encoders:
    """What a matcher other than KGMEL's looks through: no pictures where the recipe says so.  Raises UsageError."""
    if others := set(recipe.without) - {"image"}:
        raise UsageError(
            f"{recipe.matcher} cannot be trained without {', '.join(sorted(others))}; only without image",
            hint="leave --without out",
        )
    if "image" not in recipe.without:
        return encoders
    if encoders.image is None:
        fact = f"a network cannot be trained without image: {encoders.text.space.name} looks at none"
        raise UsageError(fact, hint="leave --without image out")
    return Encoders(text=encoders.text, image=None)


def _matcher_trainee(
    recipe: Recipe, kb: KnowledgeBase, encoders: Encoders, folder: Path, together: Together
) -> MatcherTrainee:
    """Whole texts and golds as the fusion network has them; words, patches and more as the kind makes them."""
    from localmel.matchers.train.matcher_learner import MatcherInputs

    recipe.dwe.check_pictures(seen=encoders.image is not None, encoder=encoders.text.space.name)
    kind: Any = dwe_seeing(recipe.dwe) if recipe.matcher == DWE else matcher_kind(recipe.matcher)
    datasets = read_datasets(
        recipe.data, recipe.datasets, drop=recipe.drop_leaked, most=(recipe.mentions, recipe.validation_mentions)
    )
    seen: KbImages | None = None
    with together.leader_first():
        texts = encoded_texts(recipe, datasets, kb, encoders.text, folder, visible_text=0.0)
        if encoders.image:
            seen = images_of(kb, texts.packed, encoders.image, together)
        if together.leads:
            kind.index_parts(kb, texts.packed, encoders, seen)
        kind = kind.beside(kb, texts.packed, texts.vectors, seen)
        parts = {
            part: kind.mentions(
                split.mentions,
                encoders,
                folder=folder.with_name(f"{folder.name}.{kind.name}") / part,
            )
            for part, split in (("train", datasets.train), ("validation", datasets.validation))
        }
    tell_left_out(datasets, texts.train)
    shown = {"kb_pictures": seen.state} if seen else {}
    return MatcherTrainee(
        kind=kind,
        network=lambda: kind.new(encoders, width=recipe.width),
        inputs=MatcherInputs(
            mentions=parts["train"],
            validation=parts["validation"],
            entities=kind.entities(kb, texts.packed, texts.vectors, seen),
            gold=golds_trained_on(recipe, texts.train),
            validation_gold=texts.validation.vectors.gold,
            candidates=texts.train.vectors.candidates,
        ),
        encoders=encoders,
        validation_sets={name: texts.validation.dataset == number for number, name in enumerate(datasets.names)},
        made_from={**texts.facts, **shown, **kind.texts_state(kb), **recipe.withheld()},
        dropped=datasets.dropped,
    )
