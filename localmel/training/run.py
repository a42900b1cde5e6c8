"""Train one network per seed on benchmarks, and report validation results.

In: a recipe, a KB, its encoders and a folder.  Out: `seed-S/network` with a card for each seed, `history.json` and
`training.png`.  An interrupted run resumes; a finished one is not repeated; one of another recipe is refused.
Validation chooses the epoch; no test split is read."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.encode.registry import Encoders
from localmel.errors import BadInput, CorruptArtifact, MissingExtra
from localmel.kb.store import KnowledgeBase
from localmel.matchers.registry import load_matcher
from localmel.matchers.train.learner import Ranks
from localmel.store import progress
from localmel.store.artifacts import behind_links, failed_writes_are_reported, write_json
from localmel.training.recipe import Recipe
from localmel.training.trainee import Trainee, check_tuned_encoder, prepare_trainee

if TYPE_CHECKING:
    from localmel.matchers.train.loop import Epoch, Processes


OnEpoch = Callable[[int, "Epoch"], None]
"Called with the seed and each finished epoch."


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """The network of one seed and its results."""

    seed: int
    network: Path
    epochs: int
    best_epoch: int
    seconds: float
    validation: Mapping[str, Ranks] = field(repr=False)
    "Results under `all`, and under each dataset that has a gold in the KB."
    was_there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of all seeds of a run."""

    seeds: tuple[SeedResult, ...]
    dropped: int
    leads: bool
    "Whether this process reports the result."

    @property
    def best(self) -> SeedResult:
        """Return the seed with the highest MRR on validation."""
        return max(self.seeds, key=lambda result: result.validation["all"].mrr)

    def mean(self, name: str) -> float:
        """Return the mean of `hits_at_1`, `hits_at_16` or `mrr` over the seeds."""
        return statistics.fmean(self._values(name))

    def deviation(self, name: str) -> float | None:
        """Return the sample deviation over the seeds; None for one seed."""
        return statistics.stdev(self._values(name)) if len(self.seeds) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [float(getattr(result.validation["all"], name)) for result in self.seeds]


def train_networks(
    recipe: Recipe,
    kb: KnowledgeBase,
    encoders: Encoders,
    folder: Path,
    *,
    encoded: Path | None = None,
    on_epoch: OnEpoch = lambda _seed, _epoch: None,
) -> Outcome:
    """Return the results of one network per seed, trained in `folder`.  Runs on the same mentions may share `encoded`.

    With an image encoder, the networks use the pictures of mentions and entities.

    Raises MissingExtra before anything is written, and BadInput if data, KB or an earlier run do not fit."""
    if find_spec("matplotlib") is None:
        raise MissingExtra("training draws its curve with matplotlib", hint="pip install 'localmel[train]'")
    from localmel.matchers.train.loop import start_processes

    processes = start_processes()
    folder = behind_links(folder)
    with _alone_in(folder, processes), nullcontext() if processes.leads else progress.silence():
        trainee = prepare_trainee(recipe, kb, encoders, encoded or folder / "encode", processes)
        results = []
        for seed in recipe.seeds:
            results.append(_one_seed(recipe, seed, trainee, folder, processes, on_epoch))
            if processes.leads:
                cards = [load_matcher(result.network).card for result in results]
                write_history(folder, cards, new=not all(one.was_there for one in results))
        return Outcome(seeds=tuple(results), dropped=trainee.dropped, leads=processes.leads)


@contextmanager
def _alone_in(folder: Path, processes: Processes) -> Iterator[None]:
    """Lock the folder, since two runs in it at once would overwrite each other's checkpoints."""
    from filelock import FileLock, Timeout

    if not processes.leads:
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
    recipe: Recipe, seed: int, trainee: Trainee, folder: Path, processes: Processes, on_epoch: OnEpoch
) -> SeedResult:
    from localmel.matchers.train.checkpoint import refuse_other_facts
    from localmel.matchers.train.loop import facts_of, train_learner

    settings = replace(recipe.training, seed=seed)
    facts = facts_of(trainee.facts(), settings, trainee.made_from, processes)
    network = folder / f"seed-{seed}" / "network"
    there = network.is_dir()
    processes.wait()  # every process checks before the first one writes
    if there:
        card = load_matcher(network).card
        refuse_other_facts(network, card.get("run", {}), facts)
        check_tuned_encoder(network, card)
        return _result(seed, network, card, was_there=True)
    trained = train_learner(
        trainee.new(),
        settings,
        folder / f"seed-{seed}" / "checkpoint",
        made_from=trainee.made_from,
        on_epoch=lambda epoch: on_epoch(seed, epoch),
        on_step=_Steps(f"training seed {seed}"),
    )
    found, more = trainee.validated(trained.network, processes)
    card = {
        "seed": seed,
        "data": trainee.made_from["datasets"],
        "mentions": trainee.counts(),
        "without": sorted(recipe.without),
        "best_epoch": trained.best.number,
        "validation": {name: asdict(ranks) for name, ranks in found.items()},
        "seconds": round(sum(epoch.seconds for epoch in trained.history), 1),
        "command": recipe.command,
        "history": [asdict(epoch) for epoch in trained.history],
        "run": facts,
        **more,
    }
    if processes.leads:
        trainee.save(network, trained.network, card)
    processes.wait()
    return _result(seed, network, card, was_there=False)


class _Steps:
    """Turn "step 30 of 600" into a total, reported once, and increments."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, -1

    def __call__(self, step: int, steps: int, _loss: float) -> None:
        if self._last < 0:
            progress.begin(self._what, steps)
            self._last = 0
        progress.advance(step - self._last)
        self._last = step


def _result(seed: int, network: Path, card: Mapping[str, Any], *, was_there: bool) -> SeedResult:
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


def write_history(folder: Path, cards: Sequence[Mapping[str, Any]], *, new: bool) -> None:
    """Write both files, unless they exist and nothing is `new`."""
    files = folder / "history.json", folder / "training.png"
    if not new and all(file.is_file() for file in files):
        return
    histories = {str(card["seed"]): card["history"] for card in cards}
    write_json(files[0], histories)
    _draw(files[1], histories)


def _draw(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Plot loss and HITS of each seed over its epochs."""
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(9, 3.5), layout="constrained"
    )  # not pyplot, which would keep the figure in memory; Agg draws it
    losses, hits = figure.subplots(1, 2)
    for number, (seed, history) in enumerate(histories.items()):
        colour = f"C{number % 10}"
        losses.plot([epoch["number"] for epoch in history], [epoch["loss"] for epoch in history], color=colour)
        validated = [epoch for epoch in history if epoch["ranks"]]
        for name, style in (("hits_at_1", "-"), ("hits_at_16", "--")):
            hits.plot(
                [epoch["number"] for epoch in validated],
                [epoch["ranks"][name] for epoch in validated],
                style,
                color=colour,
                label=f"seed {seed}, {name.replace('hits_at_', 'HITS@')}",
            )
    losses.set(xlabel="epoch", title="loss in training")
    hits.set(xlabel="epoch", title="validation, by vectors alone")
    hits.legend(fontsize="small")
    with failed_writes_are_reported(path):
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            figure.savefig(file, format="png", metadata={"Software": None})
        temporary.replace(path)
