"""What can be trained by `training.py`: a network, its loss on some mentions and entities, and how good it is.

In: which rows are contrasted.  Out: numbers.  The schedule, the choice of the epoch and the checkpoint are training's;
what a network looks at, and how it is searched, is the learner's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

    from localmel.matchers.kgmel.ranking import Workers
    from localmel.matchers.train.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Validated:
    """How a network ranks the validation mentions, and what it finds for those of train."""

    ranks: Tensor
    "(m,) of each validation mention's gold among all entities; infinity where it was not ranked, 0 without a gold."
    nearest: NDArray[Any] | None
    "(train mentions, k) positions; None where they were not asked for."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightsApart:
    """Weights of a network that move at a rate of their own."""

    weights: Sequence[nn.Parameter]
    rate: float
    "The highest; it rises and falls as that of the other weights does."
    weight_decay: float
    epsilon: float
    "Of AdamW."


class Learner(Protocol):
    """A network on its way, and what it is trained and validated on."""

    @property
    def network(self) -> nn.Module:
        """Whose weights are trained, chosen and kept."""
        ...

    @property
    def step(self) -> nn.Module:
        """`step(part)` gives the loss of a `Part`, and the part of it that tells mentions' entities apart.

        It holds the network: processes that share a step wrap this."""
        ...

    @property
    def gold(self) -> NDArray[Any]:
        """(m,) int64 position of each train mention's gold, -1 where it has none."""
        ...

    @property
    def validation_gold(self) -> NDArray[Any]:
        """The same of the validation mentions."""
        ...

    @property
    def candidates(self) -> NDArray[Any]:
        """(m, k) int64 positions of entities that bear each train mention's name, -1 beyond."""
        ...

    @property
    def apart(self) -> Sequence[WeightsApart]:
        """Weights to which rate and decay of the settings do not apply; none for most."""
        ...

    def facts(self) -> dict[str, Any]:
        """Settings of network and loss by name: what a run hangs on beside its inputs and the schedule."""
        ...

    def validate(self, workers: Workers, *, nearest: int) -> Validated:
        """With `nearest` above 0 also that many entities nearest to each train mention."""
        ...


NewLearner = Callable[["TrainingSettings"], Learner]
"Makes one; its weights are drawn by torch, whose seed training has set."
