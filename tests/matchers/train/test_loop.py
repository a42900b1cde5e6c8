"""Training learns what is there to learn, stops and goes on without a trace, and says what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from localmel.errors import BadInput, CorruptArtifact, OutOfSpace, UsageError
from localmel.matchers.kgmel.kb_triples import no_triples
from localmel.matchers.train.batches import Batches, draw_negatives
from localmel.matchers.train.learner import Ranks
from localmel.matchers.train.loop import Epoch, Trained
from localmel.matchers.train.settings import LossSettings, TrainingSettings
from localmel.store.artifacts import MANIFEST
from tests.matchers.planted import ALIKE, FUSION, GROUPS, QUICK, World, planted, trained_on

ROOT = Path(__file__).resolve().parents[3]
CHANCE_IN_A_GROUP = 1 / ALIKE


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products on several threads wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> World:
    return planted("triple")


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def ranks_of(trained: Trained) -> Ranks:
    assert trained.best.ranks
    return trained.best.ranks


def stopped_after(epochs: int, world: World, settings: TrainingSettings, folder: Path) -> None:
    """Train as a person would who presses Ctrl-C when the line of that epoch appears."""

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained_on(world, settings, folder, on_epoch=interrupt)


# --- what is learnt ---------------------------------------------------------------------------------------------


def test_entities_that_only_a_triple_tells_apart_are_told_apart(world: World, tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=12)
    assert ranks_of(trained_on(world, settings, tmp_path / "a")).hits_at_1 > 0.85
    blind = replace(world, mentions=_without_triples(world.mentions), validation=_without_triples(world.validation))
    assert ranks_of(trained_on(blind, settings, tmp_path / "b")).hits_at_1 < CHANCE_IN_A_GROUP + 0.15


def _without_triples(mentions: Any) -> Any:
    return replace(mentions, triples=no_triples(len(mentions), mentions.text.shape[1]))


def test_entities_that_only_their_text_tells_apart_are_told_apart(tmp_path: Path) -> None:
    ranks = ranks_of(trained_on(planted("text"), replace(QUICK, epochs=8), tmp_path / "run"))
    assert ranks.hits_at_1 > 0.85
    assert ranks.hits_at_1 > 10 / (GROUPS * ALIKE)


def test_bfloat16_learns_nearly_the_same(world: World, tmp_path: Path) -> None:
    exact = trained_on(world, QUICK, tmp_path / "exact")
    rounded = trained_on(world, replace(QUICK, precision="bfloat16"), tmp_path / "rounded")
    assert not same(exact, rounded)
    for one, other in zip(exact.history, rounded.history, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.02)


# --- the same again ---------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(world: World, tmp_path: Path) -> None:
    fusion = replace(FUSION, dropout=0.2)
    settings = replace(QUICK, epochs=2, without_triples=0.2)
    torch.manual_seed(1)
    one = trained_on(world, settings, tmp_path / "one", fusion=fusion)
    torch.manual_seed(2)
    two = trained_on(world, settings, tmp_path / "two", fusion=fusion)
    assert same(one, two)
    files = [(tmp_path / name / "state.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
    other = trained_on(world, replace(settings, seed=1), tmp_path / "other", fusion=fusion)
    assert not same(one, other)


def test_training_leaves_the_random_numbers_of_its_caller_alone(world: World, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained_on(world, replace(QUICK, epochs=1), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("hard_from", ["names", "index"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(world: World, tmp_path: Path, hard_from: str) -> None:
    settings = replace(QUICK, hard_from=hard_from)
    whole = trained_on(world, settings, tmp_path / "whole")
    stopped_after(2, world, settings, tmp_path / "stopped")
    heard: list[int] = []
    resumed = trained_on(world, settings, tmp_path / "stopped", on_epoch=lambda epoch: heard.append(epoch.number))
    assert heard == [3, 4]
    assert same(whole, resumed)
    assert [epoch.rate for epoch in whole.history] == [epoch.rate for epoch in resumed.history]
    files = [(tmp_path / name / "state.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


def test_a_finished_run_is_not_trained_again(world: World, tmp_path: Path) -> None:
    first = trained_on(world, QUICK, tmp_path / "run")
    again = trained_on(world, QUICK, tmp_path / "run", on_epoch=lambda _: pytest.fail("an epoch was trained"))
    assert same(first, again)
    assert again.history == first.history


def test_the_rate_rises_and_falls_over_the_whole_run() -> None:
    settings = TrainingSettings(rate=1.0, warm_up=10)
    rates = [settings.rate_at(step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert 8 <= rates.index(max(rates)) <= 10
    assert rates[-1] == pytest.approx(0.02)
    assert settings.rate_at(0, 20) == pytest.approx(0.5)  # of 20 steps, the first two warm up


# --- which epoch is kept ----------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, mrr: list[float]) -> None:
    """Let validation find these, one after the other."""
    found = iter(mrr)

    def ranks(*_: Any) -> Ranks:
        value = next(found)
        return Ranks(n=1, hits_at_1=value, hits_at_16=value, mrr=value)

    monkeypatch.setattr("localmel.matchers.train.loop._Run._validate", ranks)


def test_training_ends_when_validation_gets_no_better_and_keeps_the_best_epoch(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUICK, epochs=9, patience=2)
    scripted(monkeypatch, [0.2, 0.5, 0.5, 0.4])
    trained = trained_on(world, settings, tmp_path / "run")
    assert (trained.best.number, len(trained.history)) == (2, 4)
    state = load_file(tmp_path / "run" / "state.safetensors")
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, state[f"best.{name}"])
    assert not torch.equal(state["best.mix.weight"], state["network.mix.weight"])
    scripted(monkeypatch, [0.2, 0.5])
    stopped_after(2, world, settings, tmp_path / "stopped")
    second = load_file(tmp_path / "stopped" / "state.safetensors")
    assert torch.equal(second["network.mix.weight"], state["best.mix.weight"])


def test_the_last_epoch_is_validated_whatever_the_rhythm(world: World, tmp_path: Path) -> None:
    trained = trained_on(world, replace(QUICK, epochs=3, validate_every=2), tmp_path / "run")
    assert [bool(epoch.ranks) for epoch in trained.history] == [False, True, True]


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_settings_is_refused_with_what_differs(world: World, tmp_path: Path) -> None:
    trained_on(world, replace(QUICK, epochs=1), tmp_path / "run")
    with pytest.raises(BadInput, match=r"training\.rate 0\.003 there, 0\.01 now") as caught:
        trained_on(world, replace(QUICK, epochs=1, rate=0.01), tmp_path / "run")
    assert "rm -r" in caught.value.hint
    with pytest.raises(BadInput, match=r"fusion\.width 24 there, 8 now"):
        trained_on(world, replace(QUICK, epochs=1), tmp_path / "run", fusion=replace(FUSION, width=8))


def test_a_damaged_checkpoint_is_a_corrupt_artifact(world: World, tmp_path: Path) -> None:
    trained_on(world, replace(QUICK, epochs=1), tmp_path / "run")
    state = tmp_path / "run" / "state.safetensors"
    whole = bytearray(state.read_bytes())
    whole[-7] ^= 255
    state.write_bytes(whole)
    with pytest.raises(CorruptArtifact, match="damaged"):
        trained_on(world, replace(QUICK, epochs=1), tmp_path / "run")
    manifest = tmp_path / "run" / MANIFEST
    manifest.write_text(manifest.read_text()[:50])
    with pytest.raises(CorruptArtifact, match="not a manifest"):
        trained_on(world, replace(QUICK, epochs=1), tmp_path / "run")


def test_a_loss_that_is_no_number_ends_training_before_it_is_saved(world: World, tmp_path: Path) -> None:
    broken = replace(world, mentions=replace(world.mentions, text=np.full_like(world.mentions.text, np.nan)))
    with pytest.raises(BadInput, match="the loss became nan in epoch 1") as caught:
        trained_on(broken, QUICK, tmp_path / "run")
    assert caught.value.hint == "--rate 0.001"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["mentions", "validation"])
def test_mentions_without_any_gold_in_the_kb_are_refused(world: World, tmp_path: Path, part: str) -> None:
    vectors = getattr(world, part)
    outside = replace(world, **{part: replace(vectors, gold=np.full(len(vectors), -1))})
    with pytest.raises(BadInput, match="has its gold in the KB"):
        trained_on(outside, QUICK, tmp_path / "run")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"precision": "float16"},
        {"hard_from": "luck"},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"hard_negatives": -1},
        {"without_triples": 1.5},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainingSettings(**wrong)


# --- batches ----------------------------------------------------------------------------------------------------


def test_a_batch_of_one_and_a_single_mention_can_be_trained_on(world: World, tmp_path: Path) -> None:
    gold = np.where(np.arange(len(world.mentions)) < 3, world.mentions.gold, -1)
    few = replace(world, mentions=replace(world.mentions, gold=gold))
    assert trained_on(few, replace(QUICK, epochs=1, batch=1), tmp_path / "one").best.number == 1
    one = replace(world, mentions=replace(world.mentions, gold=np.where(np.arange(len(gold)) < 1, gold, -1)))
    assert trained_on(one, replace(QUICK, epochs=1, hard_negatives=0), tmp_path / "two").best.number == 1
    with pytest.raises(BadInput, match="1 training mentions cannot be shared"):
        trained_on(one, replace(QUICK, accumulate=2), tmp_path / "three")


def test_each_mention_with_a_gold_stands_in_one_part_of_an_epoch_and_no_part_is_empty() -> None:
    gold = np.arange(103) % 20 - 1
    candidates = np.full((103, 4), -1)
    for batch, accumulate, processes in ((16, 1, 1), (16, 2, 2), (200, 3, 1), (1, 1, 2)):
        settings = TrainingSettings(batch=batch, accumulate=accumulate)
        seen: list[int] = []
        for process in range(processes):
            batches = Batches(gold, settings, process=process, processes=processes)
            steps = list(batches.of_epoch(0, candidates))
            assert len(steps) == batches.steps
            assert all(len(parts) == accumulate for parts in steps)
            sizes = [len(part.mentions) for parts in steps for part in parts]
            assert 1 <= min(sizes) <= max(sizes) <= max(batch, 2)
            seen += [int(number) for parts in steps for part in parts for number in part.mentions]
        assert sorted(seen) == np.flatnonzero(gold >= 0).tolist()


def test_an_entity_stands_once_in_a_part_unless_the_published_form_is_asked_for() -> None:
    gold, candidates = np.array([3, 3, 5, 3]), np.array([[5, 7, -1, 3]] * 4)
    ours = next(Batches(gold, TrainingSettings(), process=0).of_epoch(0, candidates))[0]
    assert ours.entities.tolist() == [3, 5, 7]
    assert ours.entities[ours.gold].tolist() == gold.tolist()
    loss = LossSettings(published_negatives=True)
    theirs = next(Batches(gold, TrainingSettings(loss=loss)).of_epoch(0, candidates))[0]
    assert theirs.entities[:4].tolist() == gold.tolist()
    assert theirs.gold.tolist() == [0, 1, 2, 3]


def test_the_published_negatives_push_a_repeated_gold_away(tmp_path: Path) -> None:
    """All mentions mean one entity: without negatives there is nothing to lose."""
    world = planted("triple", n_train=32)
    alike = replace(world.mentions, gold=np.zeros(32, np.int64))
    settings = replace(QUICK, epochs=1, hard_negatives=0)
    loss = replace(settings.loss, mention_weight=0.0, entity_weight=0.0)
    for published, expected in ((False, 0.0), (True, float(np.log(32)))):
        chosen = replace(settings, loss=replace(loss, published_negatives=published))
        trained = trained_on(replace(world, mentions=alike), chosen, tmp_path / str(published))
        assert trained.history[0].loss == pytest.approx(expected, abs=0.01)


def test_negatives_are_different_candidates_that_are_not_the_gold() -> None:
    candidates = np.array([[1, 2, 3, -1], [4, -1, -1, -1], [5, 6, 7, 8]])
    gold = np.array([2, 4, 9])
    for seed in range(20):
        drawn = draw_negatives(candidates, gold, 3, np.random.default_rng(seed)).tolist()
        assert set(drawn[:2]) == {1, 3}  # nothing is left for the second mention
        assert len(set(drawn[2:])) == 3
        assert set(drawn[2:]) <= {5, 6, 7, 8}
    assert len(draw_negatives(candidates, gold, 0, np.random.default_rng(0))) == 0


# --- processes --------------------------------------------------------------------------------------------------


def start(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.matchers.planted", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one_that_accumulates_two_batches(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "ACCELERATE_USE_CPU": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    both = [start(tmp_path / "two", **shared, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    alone = start(tmp_path / "one", "accumulate=2")
    for process in (*both, alone):
        finished(process)
    one, two = (load_file(tmp_path / name / "network.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=1e-5, rtol=0), name


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = start(tmp_path / "whole"), start(tmp_path / "killed", "stop_after=1")
    finished(whole)
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "network.safetensors").exists()
    finished(start(tmp_path / "killed"))
    bytes_of = [(tmp_path / name / "network.safetensors").read_bytes() for name in ("whole", "killed")]
    assert bytes_of[0] == bytes_of[1]


def test_a_full_disk_leaves_the_checkpoint_of_the_epoch_before(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    whole = trained_on(world, QUICK, tmp_path / "whole")
    stopped_after(2, world, QUICK, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("localmel.matchers.train.checkpoint.os.fsync", full)
        with pytest.raises(OutOfSpace, match="what was there before is unchanged"):
            trained_on(world, QUICK, tmp_path / "run")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run", "whole"]
    assert same(trained_on(world, QUICK, tmp_path / "run"), whole)
