"""The fusion network beside the published arithmetic: same weights, same data, runs that alternate in one process.

    python -m bench.run fusion
    python -m bench.fusion [--nodes 100000] [--rounds 5]

20,000 entities with 1 to 50 triples each (512,000), 1,433 relations, tails drawn from 20,000 nodes, mentions with 0 to
10 triples, width 512, batch 512, AdamW; dropout 0.2 in training; float32.  Both sides start from tables and index
lists, so that gathering and padding, or gathering and finding what is distinct, are in the time.  Peaks of memory are
those of processes of their own (VmHWM of /proc, which unlike ru_maxrss starts anew with a process; so Linux only)."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.published import PaddedBatch, PublishedRetriever, published_loss
from bench.run import ROOT, Figure
from localmel.matchers.kgmel.losses import contrastive_losses
from localmel.matchers.kgmel.network import FusionNetwork, PackedTriples, from_published
from localmel.matchers.train.settings import LossSettings

WIDTH, BATCH, RATE = 512, 512, 1e-3
ENTITIES, TRIPLES, RELATIONS, MENTIONS = 20_000, 512_000, 1433, 8192
PLAIN_ENTITIES = 10 * BATCH
"Of which the plain side embeds so many in a round; it is as fast for all."
LOSS = LossSettings(published_negatives=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Mentions or entities: vectors, and the triples of each row as rows of the tables."""

    text: Tensor  # (n, WIDTH)
    image: Tensor  # (n, WIDTH)
    tails: Tensor  # (t,)
    relations: Tensor  # (t,)
    starts: Tensor  # (n + 1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Tables and both sides; `gold` is the entity of each mention."""

    nodes: Tensor  # (n_nodes, WIDTH)
    relations: Tensor  # (RELATIONS, WIDTH)
    mentions: Side
    entities: Side
    gold: Tensor  # (MENTIONS,)


def make_world(n_nodes: int) -> World:
    """Random unit rows from one seed."""
    chance = torch.Generator().manual_seed(0)

    def units(n: int) -> Tensor:
        return F.normalize(torch.randn(n, WIDTH, generator=chance), dim=1)

    def side(counts: Tensor) -> Side:
        n = int(counts.sum())
        return Side(
            text=units(len(counts)),
            image=units(len(counts)),
            tails=torch.randint(n_nodes, (n,), generator=chance),
            relations=torch.randint(RELATIONS, (n,), generator=chance),
            starts=F.pad(counts.cumsum(0), (1, 0)),
        )

    counts = torch.randint(1, 51, (ENTITIES,), generator=chance)
    while missing := TRIPLES - int(counts.sum()):
        changed = torch.randperm(ENTITIES, generator=chance)[: abs(missing)]
        counts[changed] = (counts[changed] + (1 if missing > 0 else -1)).clamp(1, 50)
    return World(
        nodes=units(n_nodes),
        relations=units(RELATIONS),
        mentions=side(torch.randint(0, 11, (MENTIONS,), generator=chance)),
        entities=side(counts),
        gold=torch.randperm(ENTITIES, generator=chance)[:MENTIONS],
    )


def padded(world: World, side: Side, rows: Tensor) -> PaddedBatch:
    """Vectors of each row's triples, filled up with zeros to the longest row, as the published loader collates."""
    own = [
        slice(begin, end) for begin, end in zip(side.starts[rows].tolist(), side.starts[rows + 1].tolist(), strict=True)
    ]
    lengths = side.starts[rows + 1] - side.starts[rows]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = torch.arange(max(int(lengths.max()), 1)) < lengths.clamp(min=1)[:, None]  # no triples: one row of zeros
    shape = (*mask.shape, WIDTH)
    relations = pad([world.relations[side.relations[part]] for part in own], batch_first=True)
    tails = pad([world.nodes[side.tails[part]] for part in own], batch_first=True)
    if tails.shape != shape:  # no row has triples
        relations = tails = torch.zeros(shape)
    return PaddedBatch(text=side.text[rows], image=side.image[rows], relations=relations, tails=tails, mask=mask)


def packed(world: World, parts: list[tuple[Side, Tensor]]) -> dict[str, Tensor | PackedTriples]:
    """The arguments of the network for rows of one side or of both, end to end."""
    tails, relations, lengths = [], [], []
    for side, rows in parts:
        length = side.starts[rows + 1] - side.starts[rows]
        shift = side.starts[rows] - F.pad(length.cumsum(0), (1, 0))[:-1]
        places = torch.arange(int(length.sum())) + torch.repeat_interleave(shift, length)
        tails.append(side.tails[places])
        relations.append(side.relations[places])
        lengths.append(length)
    used_tails, pair_tail = torch.unique(torch.cat(tails), return_inverse=True)
    used_relations, pair_relation = torch.unique(torch.cat(relations), return_inverse=True)
    triples = PackedTriples(
        tails=world.nodes[used_tails],
        relations=world.relations[used_relations],
        pair_tail=pair_tail,
        pair_relation=pair_relation,
        triples=torch.arange(len(pair_tail)),
        starts=F.pad(torch.cat(lengths).cumsum(0), (1, 0)),
    )
    text, image = (torch.cat([getattr(side, name)[rows] for side, rows in parts]) for name in ("text", "image"))
    return {"text": text, "image": image, "triples": triples}


def whole_kb(world: World) -> dict[str, Tensor | PackedTriples]:
    """All entities: the tables as they are."""
    side = world.entities
    triples = PackedTriples(
        tails=world.nodes,
        relations=world.relations,
        pair_tail=side.tails,
        pair_relation=side.relations,
        triples=torch.arange(len(side.tails)),
        starts=side.starts,
    )
    return {"text": side.text, "image": side.image, "triples": triples}


class Plain:
    """The published form, on padded batches."""

    name = "plain"

    def __init__(self, world: World, start: PublishedRetriever) -> None:
        self._world, self._network = world, start
        self._optimiser = torch.optim.AdamW(start.parameters(), lr=RATE)

    def loss(self, chosen: Tensor) -> Tensor:
        """Of one batch of mentions and their entities."""
        world = self._world
        mentions, entities = (
            F.normalize(self._network(padded(world, side, rows)), dim=1)
            for side, rows in ((world.mentions, chosen), (world.entities, world.gold[chosen]))
        )
        return published_loss(mentions, entities)

    def step(self, chosen: Tensor) -> None:
        """Train on one batch."""
        self._network.train()
        _step(self.loss(chosen), self._optimiser)

    @torch.no_grad()
    def embed(self, n_entities: int = PLAIN_ENTITIES) -> Tensor:
        """The first entities."""
        self._network.eval()
        vectors = torch.empty(n_entities, WIDTH)
        for rows in torch.arange(n_entities).split(BATCH):
            vectors[rows] = F.normalize(self._network(padded(self._world, self._world.entities, rows)), dim=1)
        return vectors


class Ours:
    """The fusion network, on packed triples.  `autocast` makes the linear layers' products in bfloat16."""

    name = "ours"

    def __init__(self, world: World, start: PublishedRetriever, *, autocast: bool = False) -> None:
        self._world, self._autocast = world, autocast
        self.network: FusionNetwork = from_published(start.state_dict(), dropout=start.dropout)
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=RATE)

    def loss(self, chosen: Tensor) -> Tensor:
        """As `Plain.loss`; both sides are one call."""
        world = self._world
        inputs = packed(world, [(world.mentions, chosen), (world.entities, world.gold[chosen])])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._autocast):
            vectors = F.normalize(self.network(**inputs), dim=1)
        return contrastive_losses(*vectors.float().chunk(2), torch.arange(len(chosen)), LOSS).total

    def step(self, chosen: Tensor) -> None:
        """Train on one batch."""
        self.network.train()
        _step(self.loss(chosen), self._optimiser)

    def embed(self, n_entities: int = ENTITIES, precision: str = "float32") -> Tensor:
        """All entities; `n_entities` is not asked."""
        return self.network.embed(**whole_kb(self._world), precision=precision)


def _step(loss: Tensor, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def batches(seed: int = 0) -> Iterator[Tensor]:
    """Mentions in random order, without end."""
    chance = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(MENTIONS, generator=chance).split(BATCH)


def start_of(dropout: float) -> PublishedRetriever:
    """The weights both sides start from."""
    torch.manual_seed(0)
    return PublishedRetriever(WIDTH, dropout=dropout)


# --- what is measured -------------------------------------------------------------------------------------------


def agreement(world: World) -> Figure:
    """How far the two forms lie apart, without dropout: the loss of a batch, the vectors of 1,024 entities."""
    start = start_of(0.0)
    plain, ours = Plain(world, start), Ours(world, start)
    chosen = next(batches())
    with torch.no_grad():
        loss = abs(float(plain.loss(chosen)) - float(ours.loss(chosen)))
    vectors = float((plain.embed(1024) - ours.embed()[:1024]).abs().max())
    value = f"{loss:.0e}, {vectors:.0e}"
    return Figure(
        section="fusion", name="difference of loss, of entity vectors", value=value, asked="at most 1e-4",
        reached=max(loss, vectors) <= 1e-4,
    )  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def training(world: World, rounds: int) -> list[Figure]:
    """Steps a second of both forms, in turn."""
    contenders: dict[str, Plain | Ours] = {
        "plain": Plain(world, start_of(0.2)),
        "ours": Ours(world, start_of(0.2)),
        "ours, bfloat16 products": Ours(world, start_of(0.2), autocast=True),
    }
    drawn = batches()
    for contender in contenders.values():
        contender.step(next(drawn))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        chosen = next(drawn)
        for name, contender in contenders.items():
            times[name].append(seconds(partial(contender.step, chosen)))
    return _rates("training steps/s", {name: (1.0, spent) for name, spent in times.items()}, 4.0)


def embedding(world: World, rounds: int) -> list[Figure]:
    """Entities a second of both forms, in turn."""
    start = start_of(0.2)
    plain, ours = Plain(world, start), Ours(world, start)
    works: dict[str, tuple[float, Callable[[], object]]] = {
        "plain": (PLAIN_ENTITIES, plain.embed),
        "ours": (ENTITIES, ours.embed),
        "ours, bfloat16 products": (ENTITIES, lambda: ours.embed(precision="bfloat16")),
    }
    ours.embed()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (_, work) in works.items():
            times[name].append(seconds(work))
    return _rates("entities embedded/s", {name: (n, times[name]) for name, (n, _) in works.items()}, 8.0)


def _rates(what: str, found: dict[str, tuple[float, list[float]]], least: float) -> list[Figure]:
    rates = {name: n / statistics.median(spent) for name, (n, spent) in found.items()}
    figures = []
    for name, rate in rates.items():
        n, spent = found[name]
        times = rate / rates["plain"]
        ratio = "" if name == "plain" else f", {times:.1f} times plain"
        spread = f"{n / max(spent):.3g} to {n / min(spent):.3g}"
        asked = {"asked": f"at least {least:.0f} times", "reached": times >= least} if name == "ours" else {}
        figures.append(Figure(section="fusion", name=f"{what}, {name}", value=f"{rate:.3g} ({spread}){ratio}", **asked))
    return figures


def memory(n_nodes: int) -> list[Figure]:
    """Peaks of resident memory, each in a process of its own."""
    figures = []
    for phase, what in (("train", "training"), ("embed", "embedding")):
        plain, ours = (_measured_apart(f"{name}-{phase}", n_nodes) for name in ("plain", "ours"))
        for which, kind in enumerate(("", ", above what was held before")):
            value = f"{ours[which]:.0f} MiB, plain {plain[which]:.0f} MiB"
            figures.append(
                Figure(
                    section="fusion",
                    name=f"peak memory in {what}{kind}",
                    value=value,
                    asked="at most half",
                    reached=2 * ours[which] <= plain[which],
                )
            )
    return figures


def _measured_apart(phase: str, n_nodes: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "bench.fusion", "--phase", phase, "--nodes", str(n_nodes)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    peak, above = json.loads(done.stdout)
    return peak, above


def _phase(phase: str, n_nodes: int) -> None:
    """Run one phase and print [peak, peak above the start] in MiB."""
    name, _, work = phase.partition("-")
    world, start = make_world(n_nodes), start_of(0.2)
    contender = Plain(world, start) if name == "plain" else Ours(world, start)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    drawn = batches()
    if work == "train":
        for _ in range(3):
            contender.step(next(drawn))
    else:
        contender.embed()
    peak = _resident("VmHWM")
    print(json.dumps([peak, peak - before]))


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def measure(_: Path, *, n_nodes: int = 20_000, rounds: int = 5) -> list[Figure]:
    """Everything about the fusion network's speed.  Needs no shared data."""
    return list(_measured(n_nodes, rounds))


def _measured(n_nodes: int, rounds: int) -> Iterator[Figure]:
    """Each as soon as it is known."""
    world = make_world(n_nodes)
    yield agreement(world)
    yield from training(world, rounds)
    yield from embedding(world, rounds)
    yield from memory(n_nodes)


def main() -> None:
    """Print the table, or run one phase for its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--phase", choices=[f"{name}-{work}" for name in ("plain", "ours") for work in ("train", "embed")]
    )
    given = parser.parse_args()
    if given.phase:
        _phase(given.phase, given.nodes)
        return
    print("| part | what | measured | asked | reached |\n|---|---|---|---|---|")
    for figure in _measured(given.nodes, given.rounds):
        print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
