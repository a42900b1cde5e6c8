"""Two trained matchers on the same validation mentions: how often each finds the right entity of the whole KB.

    python scripts/compare_matchers.py --kb KB --data FOLDER --kgmel runs/kgmel --other runs/m3el runs/m3el-1

In: runs of `localmel train` with the same mentions, one of kgmel and one or more of another matcher.  Out: a table in
Markdown: HITS@1 and recall@16 of each dataset, means over seeds, with 95% intervals over sentences; paired
differences with p (signs of sentences' differences drawn at random); a combination of both scores whose weight is
fitted on one half of the sentences and counted on the other, both ways round; CPU seconds and bytes of each search.
What runs were trained with (mentions, folds) is read from their cards; nothing is fitted on what it is counted on."""

from __future__ import annotations

import argparse
import shlex
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from localmel.cli.output import progress_bar
from localmel.encode.registry import open_encoder
from localmel.errors import BadInput
from localmel.kb.locate import open_kb
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.kgmel.ranking import embed_entities, embed_mentions
from localmel.matchers.registry import kind_in, load_matcher
from localmel.matchers.search_quality import found_for, searched
from localmel.matchers.train.loop import start_processes
from localmel.matchers.train.settings import TrainingSettings
from localmel.settings import load_profile
from localmel.training.data import read_datasets
from localmel.training.recipe import Recipe
from localmel.training.trainee import Trainee, prepare_trainee

NEAR = 64
"Of each matcher this many candidates are put together."
DRAWS, SEED = 2000, 0
WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))
"Of the other matcher in the combination; 0 is kgmel alone, 1 the other alone."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """One network on m mentions."""

    scores: NDArray[Any]  # (m, NEAR) best first
    entities: NDArray[Any]  # (m, NEAR) positions
    of: Any
    "(mention, positions) -> the scores of any entities."
    seconds: float
    "CPU seconds for all mentions, their entities being ready."
    held: int
    "Bytes of what is searched."


def main(arguments: list[str] | None = None) -> None:
    """Score, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kb", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kgmel", type=Path, nargs="+", required=True)
    parser.add_argument("--other", type=Path, nargs="+", required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    networks = {way: _networks(runs) for way, runs in (("kgmel", given.kgmel), ("other", given.other))}
    card = load_matcher(networks["other"][0]).card
    name = kind_in(networks["other"][0])
    words = shlex.split(card["command"])
    sizes = [int(words[words.index(one) + 1]) if one in words else 0 for one in ("--mentions", "--validation-mentions")]
    kb, encoders = open_kb(given.kb), open_encoder(load_profile("embedded").encode, method="torch")
    with progress_bar():
        trainees = {}
        for way, matcher in (("kgmel", "kgmel"), ("other", name)):
            recipe = Recipe(data=given.data, training=TrainingSettings(), matcher=matcher, mentions=sizes[0],
                            validation_mentions=sizes[1], visible_text=0.0, drop_leaked=True)  # fmt: skip
            run = networks[way][0].parents[1]
            trainees[way] = prepare_trainee(recipe, kb, encoders, run / "encode", start_processes())
    fused, matched = trainees["kgmel"], trainees["other"]
    split = read_datasets(given.data, drop=True, most=(sizes[0], sizes[1])).validation
    rows = np.flatnonzero(matched.inputs.validation_gold >= 0)
    gold = matched.inputs.validation_gold[rows]
    sentence = np.array([zlib.crc32(split.mentions[row].context.encode()) for row in rows])
    scored = {
        "kgmel": [_by_fusion(fused, folder, rows) for folder in networks["kgmel"]],
        name: [_by_matcher(matched, folder, rows) for folder in networks["other"]],
    }
    if len(scored["kgmel"]) != len(scored[name]):
        raise BadInput("both are to have the same number of seeds")
    pairs = list(zip(scored["kgmel"], scored[name], strict=True))
    both = [_combined(one, other, gold, sentence) for one, other in pairs]
    ranks = {way: np.stack([_ranks(one, gold) for one in found]) for way, found in scored.items()}
    ranks["both"] = np.stack([rank for rank, _ in both])
    sets = {"all": np.ones(len(rows), bool)} | {key: own[rows] for key, own in matched.validation_sets.items()}
    for line in (*_table(ranks, sets, sentence), *_costs(scored, len(rows), len(kb))):
        print(line)
    print(f"\nweights of {name} in the combination: {', '.join(f'{one:.1f} {other:.1f}' for _, (one, other) in both)}")


def _networks(runs: Sequence[Path]) -> list[Path]:
    found = [path for run in runs for path in sorted(run.glob("seed-*/network"))]
    if not found:
        raise BadInput(f"{', '.join(map(str, runs))} hold no trained network")
    return found


def _by_fusion(trainee: Trainee, folder: Path, rows: NDArray[Any]) -> Scored:
    stored = load_network(folder)
    network = FusionNetwork(stored.network.settings)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in stored.network.weights.items()})
    entities = embed_entities(network.eval(), trainee.inputs.entities)
    started = time.process_time()
    scores = embed_mentions(network, trainee.inputs.validation, rows) @ entities.T
    best = scores.topk(NEAR, dim=1)
    return Scored(
        scores=best.values.numpy(),
        entities=best.indices.numpy(),
        of=lambda mention, positions: scores[mention, torch.from_numpy(positions)].numpy(),
        seconds=time.process_time() - started,
        held=entities.nelement() * 2,  # kept in float16
    )


def _by_matcher(trainee: Trainee, folder: Path, rows: NDArray[Any]) -> Scored:
    kept = load_matcher(folder)
    kept.check_spaces(trainee.encoders.text.space, trainee.encoders.image_space)  # not tuned with another
    network: Any = kept.network
    search, sides = searched(network, trainee.inputs.entities)
    started = time.process_time()
    found = [one for _, one in found_for(search, trainee.inputs.validation, rows, 16)]
    seconds = time.process_time() - started
    found = [one for _, one in found_for(search, trainee.inputs.validation, rows, NEAR)]

    @torch.no_grad()
    def of(mention: int, positions: NDArray[Any]) -> NDArray[Any]:
        one = network.mentions(trainee.inputs.validation.of(rows[[mention]]))
        made: NDArray[Any] = network.scores(one, sides.of(positions))[0].numpy()
        return made

    return Scored(
        scores=np.concatenate([one.scores for one in found]),
        entities=np.concatenate([one.entities for one in found]),
        of=of,
        seconds=seconds,
        held=sides.vectors.nbytes + sum(lists.values.nbytes + lists.starts.nbytes for lists in sides.tokens.values()),
    )


def _ranks(found: Scored, gold: NDArray[Any]) -> NDArray[Any]:
    at = found.entities == gold[:, None]
    return np.where(at.any(axis=1), 1.0 + at.argmax(axis=1), np.inf)


# --- both together ------------------------------------------------------------------------------------------------


def _combined(
    one: Scored, other: Scored, gold: NDArray[Any], sentence: NDArray[Any]
) -> tuple[NDArray[Any], tuple[float, float]]:
    """(m,) ranks by a weighted sum over what either found; the weights, each fitted on the other half."""
    found = [_both(one, other, mention) for mention in range(len(gold))]
    ranks = np.stack([_with_weight(found, gold, weight) for weight in WEIGHTS])
    half = sentence % 2
    result, chosen = np.full(len(gold), np.inf), []
    for own in (0, 1):
        best = int((1.0 / ranks[:, half != own]).mean(axis=1).argmax())
        result[half == own] = ranks[best, half == own]
        chosen.append(WEIGHTS[best])
    return result, (chosen[0], chosen[1])


def _both(one: Scored, other: Scored, mention: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n,) what either found, and its scores (2, n), each as a share of how far its 16th lies below its best."""
    found = np.union1d(one.entities[mention], other.entities[mention])
    positions = found[found >= 0]
    spread = [float((matcher.scores[:, 0] - matcher.scores[:, 15]).mean()) for matcher in (one, other)]
    return positions, np.stack([one.of(mention, positions) / spread[0], other.of(mention, positions) / spread[1]])


def _with_weight(
    found: Sequence[tuple[NDArray[Any], NDArray[Any]]], gold: NDArray[Any], weight: float
) -> NDArray[np.float64]:
    """(m,) ranks; `weight` is that of the other matcher."""
    ranks = np.full(len(gold), np.inf)
    for mention, (positions, scores) in enumerate(found):
        total = (1 - weight) * scores[0] + weight * scores[1]
        order = positions[np.lexsort((positions, -total))]
        at = np.flatnonzero(order == gold[mention])
        if len(at):
            ranks[mention] = 1.0 + at[0]
    return ranks


# --- what is printed ----------------------------------------------------------------------------------------------


def _table(ranks: dict[str, NDArray[Any]], sets: dict[str, NDArray[Any]], sentence: NDArray[Any]) -> Iterator[str]:
    """ranks: (seeds, m) of each way."""
    yield "| mentions | | HITS@1 | recall@16 |"
    yield "|---|---|---|---|"
    hits = {(way, k): (found <= k).mean(axis=0) for way, found in ranks.items() for k in (1, 16)}
    for key, own in sets.items():
        for way in ranks:
            cells = [_with_interval(hits[way, k][own], sentence[own]) for k in (1, 16)]
            yield f"| {key} ({own.sum():,}) | {way} | {cells[0]} | {cells[1]} |"
    yield ""
    yield "| first minus second | mentions | HITS@1 | p | recall@16 | p |"
    yield "|---|---|---|---|---|---|"
    ways = list(ranks)
    for first, second in ((ways[1], ways[0]), (ways[2], ways[0]), (ways[2], ways[1])):
        for key, own in sets.items():
            change = {k: (hits[first, k] - hits[second, k])[own] for k in (1, 16)}
            cells = [f"{_with_interval(one, sentence[own], sign=True)} | {_p(one, sentence[own]):.4f}" for one in
                     change.values()]  # fmt: skip
            yield f"| {first} - {second} | {key} | {cells[0]} | {cells[1]} |"
    yield ""
    deviations = "; ".join(
        f"{way} {', '.join(f'{value:.4f}' for value in (found <= 1).mean(axis=1))}" for way, found in ranks.items()
    )
    yield f"HITS@1 of each seed: {deviations}"


def _sums(values: NDArray[Any], sentence: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of each sentence: the sum over its mentions, and how many there are."""
    _, place = np.unique(sentence, return_inverse=True)
    return np.bincount(place, values), np.bincount(place)


def _with_interval(values: NDArray[Any], sentence: NDArray[Any], *, sign: bool = False) -> str:
    sums, counts = _sums(values, sentence)
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    form = "+.3f" if sign else ".3f"
    return f"{values.mean():{form}} [{low:{form}}, {high:{form}}]"


def _p(values: NDArray[Any], sentence: NDArray[Any]) -> float:
    """Two-sided: how often sums with signs drawn at random are as far from 0."""
    sums, _ = _sums(values, sentence)
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], size=(10 * DRAWS, len(sums)))
    return float((1 + (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).sum()) / (1 + 10 * DRAWS))


def _costs(scored: dict[str, list[Scored]], n_mentions: int, n_entities: int) -> Iterator[str]:
    yield ""
    yield f"| for 1,000 mentions against {n_entities:,} entities | CPU seconds, one thread | MB searched |"
    yield "|---|---|---|"
    for way, found in scored.items():
        seconds = np.mean([one.seconds for one in found]) / n_mentions * 1000
        yield f"| {way} | {seconds:.1f} | {found[0].held / 1e6:.0f} |"


if __name__ == "__main__":
    main()
