"""Small worlds in which it is known what tells entities apart, and a training run over one as a process of its own.

    python -m tests.matchers.planted FOLDER [accumulate=2] [epochs=3] [stop_after=1]

`stop_after` kills the process with signal 9 in the middle of the epoch that follows."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.kb.packed import Lists
from localmel.matchers.kgmel.inputs import EntityVectors, MentionVectors
from localmel.matchers.kgmel.kb_triples import KbTriples, TripleArrays
from localmel.matchers.kgmel.kind import KgmelKind
from localmel.matchers.kgmel.network import FusionNetwork
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.matchers.learner import MatcherLearner
from localmel.matchers.train.learner import TrainingInputs
from localmel.matchers.train.loop import Epoch, Trained, train_learner
from localmel.matchers.train.settings import TrainingSettings

WIDTH, GROUPS, ALIKE = 16, 16, 4
"Entities come in groups; those of a group bear the same name."
FUSION = FusionSettings(text_width=WIDTH, triple_width=WIDTH, width=24, dropout=0.0)
QUICK = TrainingSettings(epochs=4, batch=64, rate=3e-3, without_triples=0.0, patience=9)


@dataclass(frozen=True)
class World:
    mentions: MentionVectors
    validation: MentionVectors
    entities: EntityVectors


def unit(values: NDArray[Any]) -> NDArray[Any]:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def planted(told_apart_by: str, *, n_train: int = 256, n_validation: int = 96, seed: int = 0) -> World:
    """A KB of GROUPS x ALIKE entities; "triple": those of a group differ in one triple, "text": in their text."""
    chance = np.random.default_rng(seed)
    n = GROUPS * ALIKE
    group = np.repeat(np.arange(GROUPS), ALIKE)
    by_triple = told_apart_by == "triple"
    texts = unit(chance.normal(size=(GROUPS, WIDTH)))[group] if by_triple else unit(chance.normal(size=(n, WIDTH)))
    phrases = unit(chance.normal(size=(n + 1, WIDTH)))  # the last one is said of everybody
    own = np.stack([np.arange(n), np.full(n, n)], axis=1) if by_triple else np.full((n, 1), n)
    packed = SimpleNamespace(
        rows=np.arange(n),
        phrases=Lists(starts=np.arange(n + 1) * own.shape[1], values=own.ravel()),
        phrase_relation=np.zeros(n + 1, np.int32),
    )
    vectors = SimpleNamespace(phrases=phrases.astype(np.float16), relations=unit(chance.normal(size=(1, WIDTH))))
    entities = EntityVectors(text=texts.astype(np.float16), triples=KbTriples(packed, vectors))  # type: ignore[arg-type]

    def mentions(m: int) -> MentionVectors:
        gold = chance.integers(0, n, m)
        tails = unit(phrases[gold] + 0.1 * chance.normal(size=(m, WIDTH)))
        triples = TripleArrays(
            tails=tails,
            relations=unit(chance.normal(size=(1, WIDTH))),
            pair_tail=np.arange(m),
            pair_relation=np.zeros(m, np.int64),
            triples=np.arange(m),
            starts=np.arange(m + 1),
        )
        return MentionVectors(
            text=unit(texts[gold] + 0.1 * chance.normal(size=(m, WIDTH))),
            triples=triples,
            gold=gold,
            candidates=np.nonzero(group[gold][:, None] == group[None, :])[1].reshape(m, ALIKE),
        )

    return World(mentions(n_train), mentions(n_validation), entities)


def trained_on(
    world: World, settings: TrainingSettings, folder: Path, *, fusion: FusionSettings = FUSION, **more: Any
) -> Trained:
    inputs = TrainingInputs(
        mentions=world.mentions,
        validation=world.validation,
        entities=world.entities,
        gold=world.mentions.gold,
        validation_gold=world.validation.gold,
        candidates=world.mentions.candidates,
    )

    def new(chosen: TrainingSettings) -> MatcherLearner:
        return MatcherLearner(KgmelKind(), lambda: FusionNetwork(fusion), chosen, inputs)

    return train_learner(new, settings, folder, made_from={"seed": 0}, **more)


def main(folder: Path, *, accumulate: int = 1, epochs: int = 3, stop_after: int = 0) -> None:
    from dataclasses import replace

    from safetensors.torch import save_file

    settings = replace(QUICK, epochs=epochs, accumulate=accumulate, batch=32)
    done: list[Epoch] = []

    def kill_in_the_middle(*_: Any) -> None:
        if stop_after and len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = trained_on(
        planted("triple"), settings, folder / "checkpoint", on_epoch=done.append, on_step=kill_in_the_middle
    )
    if os.environ.get("RANK", "0") == "0":
        save_file(trained.network.state_dict(), folder / "network.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), **{name: int(value) for name, _, value in (one.partition("=") for one in sys.argv[2:])})
