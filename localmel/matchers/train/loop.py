"""Train a network: contrast mentions with their entities and choose the best epoch on validation mentions.

In: a learner, which knows the inputs of its network.  Out: the best network of the run, and its history.  The last
finished epoch is kept on disk; an interrupted run resumes from it with identical results.  Several processes share each
step and each validation; each contrasts within its own parts (see `batches`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from localmel.errors import BadInput, MissingExtra
from localmel.matchers.train.batches import Batches, Part
from localmel.matchers.train.checkpoint import broken, load_checkpoint, save_checkpoint
from localmel.matchers.train.learner import Learner, NewLearner, Ranks
from localmel.matchers.train.settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOOK = 10
"Number of steps between fetching the loss from the device, reporting it and checking that it is finite."
_NEAREST = 32
"Number of nearest entities per mention from which negatives are drawn (`hard_from` index)."
_PATIENCE_OF_PROCESSES = timedelta(hours=24)
"Maximum time that processes wait while one of them encodes."


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The result of one epoch.  `ranks` is None if it was not validated."""

    number: int
    loss: float
    mention_to_entity: float
    rate: float
    seconds: float
    ranks: Ranks | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """The network of the best epoch, and the history of all epochs."""

    network: nn.Module
    best: Epoch
    history: tuple[Epoch, ...]


def train_learner(
    new: NewLearner,
    settings: TrainingSettings,
    folder: Path,
    *,
    made_from: Mapping[str, Any],
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: Callable[[int, int, float], None] = lambda _step, _steps, _loss: None,
) -> Trained:
    """Return the network of the best epoch, after the last epoch or once validation stops improving.

    `folder` keeps the last epoch. `made_from` names the inputs; a checkpoint of other inputs or settings is refused.
    `on_step` is called at intervals with the step, the number of steps and the epoch's mean loss so far. Both callbacks
    run in the first process only. Raises BadInput if no gold is in the KB or the loss is no longer finite."""
    together = start_processes()
    devices = [together.device] if together.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # leaves the caller's random state unchanged
        torch.manual_seed(settings.seed)
        run = _Run(new(settings), settings, folder, dict(made_from), together)
        return run.go(on_epoch, on_step)


class Processes:
    """The processes of this launch, as `learner.Workers`; a single one without a launcher."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.number, self.of = accelerator.process_index, accelerator.num_processes
        self.leads: bool = accelerator.is_main_process
        "Whether this is the process that writes files and reports progress."
        self.device: torch.device = accelerator.device

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in each of them."""
        total: Tensor = self.accelerator.reduce(values, "sum") if self.of > 1 else values
        return total

    def wait(self) -> None:
        """Wait until every process reaches this call."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in the first process, then in the others."""
        with self.accelerator.main_process_first():
            yield


def start_processes() -> Processes:
    """Return the processes of this launch and set the device.  Repeated calls return the same object."""
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
    except ImportError:
        raise MissingExtra("training needs accelerate", hint="pip install 'localmel[train]'") from None
    # Precision and accumulation are ours: accelerate would hold them for the whole process, and seeds follow each other
    handlers = [InitProcessGroupKwargs(timeout=_PATIENCE_OF_PROCESSES)]
    on_cpu = not torch.cuda.is_available()  # no other device type: the sums of an epoch are float64
    return Processes(Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=handlers))


def facts_of(
    learner: Mapping[str, Any], settings: TrainingSettings, made_from: Mapping[str, Any], together: Processes
) -> dict[str, Any]:
    """Return everything that a run depends on: equal facts give an equal network (without a GPU, to the byte on one
    machine).

    learner: the result of `Learner.facts`."""
    return {"made_from": dict(made_from), **learner, "training": asdict(settings), "processes": together.of}


class _Run:
    def __init__(
        self, learner: Learner, settings: TrainingSettings, folder: Path, made_from: dict[str, Any], together: Processes
    ) -> None:
        self._learner, self._settings = learner, settings
        self._folder, self._together = folder, together
        if not (learner.inputs.validation_gold >= 0).any():
            raise BadInput("no validation mention has its gold in the KB", hint="localmel data check FOLDER --kb KB")
        self._batches = Batches(learner.inputs.gold, settings, process=together.number, processes=together.of)
        self._all_steps = settings.epochs * self._batches.steps
        self._facts = facts_of(learner.facts(), settings, made_from, together)
        self._network = learner.network
        self._shared = together.accelerator.prepare(learner.step)
        self._optimiser = _optimiser(learner, settings)
        self._hard = learner.inputs.candidates
        self._history: list[Epoch] = []
        self._best_weights: dict[str, Tensor] = {}

    def go(self, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, int, float], None]) -> Trained:
        self._resume()
        while len(self._history) < self._settings.epochs and not self._over():
            epoch = self._epoch(on_step)
            self._history.append(epoch)
            if epoch is self._best():
                self._best_weights = _copy(self._network)
            self._save()
            if self._together.leads:
                on_epoch(epoch)
        best = self._best()
        if best is None or not self._best_weights:  # the last epoch is always validated, so a checkpoint lacks it
            raise broken(self._folder, "no validated epoch")
        self._network.load_state_dict(self._best_weights)
        return Trained(network=self._network.eval(), best=best, history=tuple(self._history))

    # --- one epoch ---

    def _epoch(self, on_step: Callable[[int, int, float], None]) -> Epoch:
        settings, number = self._settings, len(self._history)
        started = time.perf_counter()
        torch.manual_seed(1_000_003 * settings.seed + 1009 * number + self._together.number)
        self._shared.train()
        done = number * self._batches.steps
        sums = torch.zeros(2, dtype=torch.float64, device=self._together.device)
        means = (math.nan, math.nan)
        for step, parts in enumerate(self._batches.of_epoch(number, self._hard), 1):
            self._step(parts, settings.rate_at(done + step - 1, self._all_steps), sums)
            if step % _LOOK == 0 or step == self._batches.steps:
                means = self._means(sums, step)
                if self._together.leads:
                    on_step(done + step, self._all_steps, means[0])
        last = number + 1 == settings.epochs
        ranks = self._validate() if last or (number + 1) % settings.validate_every == 0 else None
        return Epoch(
            number=number + 1,
            loss=means[0],
            mention_to_entity=means[1],
            rate=settings.rate_at(done + self._batches.steps - 1, self._all_steps),
            seconds=time.perf_counter() - started,
            ranks=ranks,
        )

    def _step(self, parts: list[Part], rate: float, sums: Tensor) -> None:
        """Update the weights once; the losses are added to `sums`."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["share"]
        for part in parts:
            last = part is parts[-1]  # processes exchange gradients once for each step
            with nullcontext() if last else self._together.accelerator.no_sync(self._shared):
                total, matched = self._shared(part)
                self._together.accelerator.backward(total / len(parts))
            sums += torch.stack([total.detach(), matched.detach()]).double()
        nn.utils.clip_grad_norm_(self._network.parameters(), self._settings.clip)
        self._optimiser.step()
        self._optimiser.zero_grad()

    def _means(self, sums: Tensor, step: int) -> tuple[float, float]:
        """Return the mean losses of the epoch so far over all processes; all processes continue, or all raise."""
        n = step * self._settings.accumulate * self._together.of
        loss, matched = (self._together.sum(sums.clone()) / n).tolist()
        if not (math.isfinite(loss) and math.isfinite(matched)):
            epoch = len(self._history) + 1
            raise BadInput(
                f"the loss became {loss} in epoch {epoch}, at step {step} of {self._batches.steps} or shortly before",
                hint=f"--rate {self._settings.rate / 3:.2g}"
                + "".join(f" --encoder-rate {group.rate / 3:.2g}" for group in self._learner.groups[:1]),
            )
        return loss, matched

    # --- validation, choice, checkpoint ---

    def _validate(self) -> Ranks | None:
        from_index = self._settings.hard_from == "index"
        found = self._learner.validate(self._together, nearest=_NEAREST if from_index else 0)
        if found.nearest is not None:
            self._hard = found.nearest
        return Ranks.of(found.ranks[found.ranks > 0])

    def _best(self) -> Epoch | None:
        """Return the first epoch with the highest MRR."""
        return max((epoch for epoch in self._history if epoch.ranks), key=_mrr, default=None)

    def _over(self) -> bool:
        validated = [epoch.number for epoch in self._history if epoch.ranks]
        best = self._best()
        return best is not None and len(validated) - 1 - validated.index(best.number) >= self._settings.patience

    def _save(self) -> None:
        if self._together.leads:
            tensors = {f"network.{name}": value for name, value in _copy(self._network).items()}
            tensors |= {f"best.{name}": value for name, value in self._best_weights.items()}
            for number, state in self._optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{number}.{name}": value.detach().cpu() for name, value in state.items()}
            if self._settings.hard_from == "index":
                tensors["hard"] = torch.from_numpy(np.ascontiguousarray(self._hard, np.int64))
            save_checkpoint(self._folder, tensors, [asdict(epoch) for epoch in self._history], self._facts)
        self._together.wait()

    def _resume(self) -> None:
        found = load_checkpoint(self._folder, self._facts)
        self._together.wait()  # every process reads before the first one writes
        if found is None:
            return
        tensors, history = found
        try:
            self._history = [epoch_from(facts) for facts in history]
            self._best_weights = _part_of(tensors, "best.")
            self._network.load_state_dict(_part_of(tensors, "network."))
            state: dict[int, dict[str, Tensor]] = {}
            for name, moment in _part_of(tensors, "optimiser.").items():
                number, _, key = name.partition(".")
                state.setdefault(int(number), {})[key] = moment
            groups = self._optimiser.state_dict()["param_groups"]
            self._optimiser.load_state_dict({"state": state, "param_groups": groups})
            if self._settings.hard_from == "index":
                self._hard = tensors["hard"].numpy()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise broken(self._folder, error) from None


def _optimiser(learner: Learner, settings: TrainingSettings) -> torch.optim.AdamW:
    """Return the optimiser; `share` of a group is its rate divided by that of the settings."""
    apart = {weight for group in learner.groups for weight in group.weights}
    rest = [weight for weight in learner.network.parameters() if weight not in apart]
    groups: list[dict[str, Any]] = [{"params": rest, "share": 1.0, "weight_decay": settings.weight_decay}]
    for group in learner.groups:
        share = group.rate / settings.rate
        own = {"weight_decay": group.weight_decay, "eps": group.epsilon}
        groups.append({"params": list(group.weights), "share": share, **own})
    return torch.optim.AdamW(groups, lr=settings.rate)


def epoch_from(facts: Mapping[str, Any]) -> Epoch:
    """Return an epoch from the result of `asdict`.  Raises TypeError if it does not fit."""
    epoch = Epoch(**facts)
    return replace(epoch, ranks=Ranks(**facts["ranks"])) if facts["ranks"] else epoch


def _mrr(epoch: Epoch) -> float:
    return epoch.ranks.mrr if epoch.ranks else -math.inf


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
