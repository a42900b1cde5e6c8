"""Define the interfaces of the training loop: the network in training, and the processes that share the work.

In: which rows are contrasted.  Out: losses, and ranks of the validation mentions.  The schedule, the choice of the
epoch and the checkpoint belong to `loop.py`; features and search belong to its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages
from localmel.encode.kb_vectors import KbVectors
from localmel.encode.registry import Encoders
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.train.settings import TrainingSettings
from localmel.records import Split

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Summary of how a network ranks the golds of n mentions.  Ties count half."""

    n: int
    hits_at_1: float
    hits_at_16: float
    mrr: float

    @staticmethod
    def of(ranks: Tensor) -> Ranks | None:
        """Return the measures of (n,) ranks; None where there are none."""
        if not len(ranks):
            return None
        return Ranks(
            n=len(ranks),
            hits_at_1=float((ranks <= 1).double().mean()),
            hits_at_16=float((ranks <= 16).double().mean()),
            mrr=float((1.0 / ranks.double()).mean()),
        )


class Workers(Protocol):
    """Processes that share work; each knows its number and can add up tensors with the others."""

    number: int
    of: int

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in each of them."""


class Alone:
    """One process that does everything itself."""

    number, of = 0, 1

    def sum(self, values: Tensor) -> Tensor:
        """Return the values unchanged, since there is no other process."""
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingInputs:
    """The data that a matcher is trained and validated on.  The features of each side belong to the kind."""

    mentions: Any
    validation: Any
    entities: Any
    gold: NDArray[Any]
    "(m,) int64 positions of the train mentions' golds, -1 without one."
    validation_gold: NDArray[Any]
    "The same for the validation mentions."
    candidates: NDArray[Any]
    "(m, k) int64 positions of entities that bear each train mention's name, -1 beyond."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Validated:
    """Ranks of the validation mentions, and what the network finds for the train mentions."""

    ranks: Tensor
    "(m,) of each validation mention's gold among all entities; infinity where it was not ranked, 0 without a gold."
    nearest: NDArray[Any] | None
    "(train mentions, k) positions; None where they were not asked for."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightGroup:
    """Weights of a network that move at a rate of their own."""

    weights: Sequence[nn.Parameter]
    rate: float
    "Highest learning rate; it rises and falls with that of the other weights."
    weight_decay: float
    epsilon: float
    "Epsilon of AdamW."


class Learner(Protocol):
    """A network in training, and what it is trained and validated on."""

    network: nn.Module
    "Holds all weights that are trained, chosen and kept."
    step: nn.Module
    """`step(part)` gives the loss of a `Part`, and the term of it that tells mentions' entities apart.  It holds the
    network: processes that share a step wrap this."""
    inputs: TrainingInputs
    groups: Sequence[WeightGroup]
    "Weights to which rate and decay of the settings do not apply; none for most."

    def facts(self) -> dict[str, Any]:
        """Return the settings of network and loss by name: what a run depends on besides inputs and schedule."""
        ...

    def validate(self, workers: Workers, *, nearest: int) -> Validated:
        """Rank the validation mentions; with `nearest` above 0 also find that many entities for each train mention."""
        ...


NewLearner = Callable[[TrainingSettings], Learner]
"Makes a learner; torch draws its weights, with the seed that training has set."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """Mentions and a KB, with the vectors of their whole texts."""

    kb: KnowledgeBase
    packed: PackedKb
    vectors: KbVectors
    images: KbImages | None
    "The KB's pictures; None if they are not used."
    encoders: Encoders
    splits: Mapping[str, Split]
    "train and validation."
    encoded: Mapping[str, Any]
    "`MentionVectors` of both: text vectors, triples, golds (-1 for those not trained on) and candidates of both."
    folder: Path
    "Where the run keeps what is encoded; a kind appends its own ending."
    without: tuple[str, ...]
    "Parts that the network is trained without."
