"""A dozen people whom name and trade tell apart, some with a picture, and a tiny CLIP that is trained on them; as a
program, for tests that need processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from localmel.encode.clip import Clip
from localmel.encode.registry import Encoders
from localmel.matchers.learner import MatcherLearner
from localmel.matchers.m3el.kind import M3elKind
from localmel.matchers.train.learner import TrainingInputs
from localmel.matchers.train.loop import Epoch, Trained, train_learner
from localmel.matchers.train.settings import EncoderTuning, TrainingSettings
from localmel.matchers.train.tuning_rows import Rows
from tests.encode.clip_folders import ROOT

PICTURES = sorted((ROOT / "examples").glob("*.jpg"))[:3]
NAMES, TRADES = ("Byron", "Ford", "Turner"), ("painter", "chemist", "judge", "singer")
PEOPLE = [(name, trade) for name in NAMES for trade in TRADES]
QUICK = TrainingSettings(epochs=2, batch=8, rate=1e-3, hard_negatives=1, without_image=0.3)
TUNING = EncoderTuning(rate=1e-4)


def people(broken: Path | None = None, *, every: int = 2) -> TrainingInputs:
    """One in `every` has a picture, and the last mention has the broken one."""
    shown = [PICTURES[number % 3] if number % every == 1 else None for number in range(len(PEOPLE))]
    gold = np.arange(len(PEOPLE))
    gold[2] = -1
    return TrainingInputs(
        mentions=Rows(texts=[f"{name}: {name}, the {trade}" for name, trade in PEOPLE], pictures=[*shown[:-1], broken]),
        validation=Rows(texts=[f"{name}: the {trade} {name}" for name, trade in PEOPLE], pictures=shown),
        entities=Rows(texts=[f"{name}: a {trade}" for name, trade in PEOPLE], pictures=[*shown[1:], None]),
        gold=gold,
        validation_gold=np.arange(len(PEOPLE)),
        candidates=(np.arange(len(PEOPLE))[:, None] + [0, 1]) % len(PEOPLE),
    )


def trained_on(
    clip: Clip,
    inputs: TrainingInputs,
    folder: Path,
    settings: TrainingSettings = QUICK,
    tuning: EncoderTuning = TUNING,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_step: Callable[..., None] = lambda *_: None,
) -> Trained:
    kind, encoders = M3elKind(), Encoders(text=clip, image=clip)

    def new(chosen: TrainingSettings) -> MatcherLearner:
        encoder = clip.tunable(sees=True, recompute=tuning.recompute)
        return MatcherLearner(kind, lambda: kind.new(encoders, width=8), chosen, inputs, (encoder, tuning))

    made_from = {"people": len(PEOPLE)}
    return train_learner(new, settings, folder, made_from=made_from, on_epoch=on_epoch, on_step=on_step)


def main(model: Path, folder: Path, *, accumulate: int = 1, stop_after: int = 0, recompute: int = 0) -> None:
    from dataclasses import replace

    from safetensors.torch import save_file

    done: list[Epoch] = []

    def kill_in_the_middle(*_: Any) -> None:
        if stop_after and len(done) == stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = trained_on(
        Clip(model, device="cpu"), people(every=len(PEOPLE)), folder / "checkpoint",
        replace(QUICK, accumulate=accumulate, batch=3), replace(TUNING, recompute=bool(recompute)),
        on_epoch=done.append, on_step=kill_in_the_middle,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        save_file(trained.network.state_dict(), folder / "network.safetensors")


if __name__ == "__main__":
    options = {name: int(value) for name, _, value in (one.partition("=") for one in sys.argv[3:])}
    main(Path(sys.argv[1]), Path(sys.argv[2]), **options)
