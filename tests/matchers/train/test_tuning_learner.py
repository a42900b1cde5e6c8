"""A matcher and its encoder are trained by one loop: both move, each at its rate; a stopped run goes on to the same
bytes; what validation saw is what the encoder that was kept gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from localmel.encode.clip import Clip
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput
from localmel.matchers.learner import TunedNetwork, encoded_by
from localmel.matchers.protocol import Features
from localmel.matchers.search_quality import appraised
from localmel.matchers.train.learner import Ranks, TrainingInputs
from localmel.matchers.train.loop import Epoch, Trained
from localmel.matchers.train.settings import EncoderTuning
from localmel.matchers.train.tuning_rows import LiveFeatures, Rows
from tests.encode.clip_folders import ROOT
from tests.matchers.tuning_world import PEOPLE, PICTURES, QUICK, TUNING, people, trained_on


@pytest.fixture(scope="module")
def clip(tiny_models: Callable[[str], Path]) -> Clip:
    pytest.importorskip("open_clip", reason="open_clip is not installed here: pip install 'localmel[clip]'")
    return Clip(tiny_models("tiny-clip"), device="cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> TrainingInputs:
    broken = tmp_path_factory.mktemp("pictures") / "broken.jpg"
    broken.write_bytes(b"no picture")
    return people(broken)


def network_of(trained: Trained) -> TunedNetwork:
    assert isinstance(trained.network, TunedNetwork)
    return trained.network


def moved(clip: Clip, trained: Trained) -> dict[str, float]:
    """How far each of the encoder's trained weights has gone at most."""
    before = clip.tunable(sees=True, recompute=False).state_dict()
    return {
        name: float((weight.detach() - before[name]).abs().max())
        for name, weight in network_of(trained).encoder.named_parameters()
        if weight.requires_grad
    }


@pytest.fixture(scope="module")
def trained(clip: Clip, inputs: TrainingInputs, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_on(clip, inputs, tmp_path_factory.mktemp("tuned") / "run")


def test_both_towers_move_down_to_their_first_layer(clip: Clip, trained: Trained) -> None:
    far = moved(clip, trained)
    for name in ("token_embedding.weight", "positional_embedding", "visual.conv1.weight", "visual.proj"):
        assert 0 < far[f"network.{name}"] < 1e-3, name
    assert trained.history[-1].loss < trained.history[0].loss


def test_the_encoder_moves_at_its_own_rate(clip: Clip, inputs: TrainingInputs, tmp_path: Path) -> None:
    """AdamW moves a weight by its rate in its first step, where its gradient is large beside epsilon."""
    first = replace(QUICK, epochs=1, batch=64, clip=1e9, warm_up=1)
    tuning = EncoderTuning(rate=1e-4, epsilon=1e-12)
    far = moved(clip, trained_on(clip, inputs, tmp_path / "run", first, tuning))
    assert max(far.values()) == pytest.approx(1e-4, rel=0.02)


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    clip: Clip, inputs: TrainingInputs, trained: Trained, tmp_path: Path
) -> None:
    def interrupt(_: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained_on(clip, inputs, tmp_path / "run", on_epoch=interrupt)
    again = trained_on(clip, inputs, tmp_path / "run")
    whole = network_of(trained).state_dict()
    assert whole.keys() == network_of(again).state_dict().keys()
    assert all(torch.equal(weight, whole[name]) for name, weight in network_of(again).state_dict().items())
    assert [epoch.loss for epoch in again.history] == [epoch.loss for epoch in trained.history]


def test_another_rate_of_the_encoder_is_another_run(clip: Clip, inputs: TrainingInputs, tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=1)
    trained_on(clip, inputs, tmp_path / "run", settings)
    with pytest.raises(BadInput, match=r"tuning\.rate 0\.0001 there, 0\.001 now"):
        trained_on(clip, inputs, tmp_path / "run", settings, EncoderTuning(rate=1e-3))


def test_bfloat16_and_recomputing_train_too(clip: Clip, inputs: TrainingInputs, tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=1, precision="bfloat16", hard_from="index")  # which encodes train mentions too
    found = trained_on(clip, inputs, tmp_path / "run", settings, replace(TUNING, recompute=True))
    assert np.isfinite(found.history[0].loss)
    assert all(weight.dtype == torch.float32 for weight in network_of(found).state_dict().values())
    assert moved(clip, found)["network.token_embedding.weight"] > 0
    plain = trained_on(clip, inputs, tmp_path / "plain", settings)
    assert found.history[0].loss == pytest.approx(plain.history[0].loss, rel=0.01)
    exact = trained_on(clip, inputs, tmp_path / "exact", replace(settings, precision="float32"))
    assert plain.history[0].loss != exact.history[0].loss  # it was computed in bfloat16


def test_the_encoder_that_is_kept_gives_what_validation_saw(
    clip: Clip, inputs: TrainingInputs, trained: Trained, tmp_path: Path
) -> None:
    network = network_of(trained)
    ranks, quality = appraised(network.matcher, encoded_by(network.encoder, inputs, QUICK.precision))
    assert trained.best.ranks
    assert Ranks.of(ranks[ranks > 0]) == trained.best.ranks
    assert quality.first > quality.last
    network.encoder.save(tmp_path / "encoder", {})
    kept = Clip(tmp_path / "encoder", device="cpu")
    assert kept.space != clip.space
    kept_ranks, kept_quality = appraised(network.matcher, as_tables(kept, inputs))
    assert torch.equal(kept_ranks, ranks)
    assert kept_quality.first == pytest.approx(quality.first, rel=2e-3)  # words are kept in float16
    stale, _ = appraised(network.matcher, as_tables(clip, inputs))
    assert stale.shape == ranks.shape
    live = LiveFeatures(network.encoder, inputs.entities, precision="float32")
    with torch.no_grad():
        made = live.of(np.arange(4)).text.numpy()
    np.testing.assert_allclose(made, kept.encode(inputs.entities.texts[:4]), atol=3e-6)
    assert np.abs(made - clip.encode(inputs.entities.texts[:4])).max() > 1e-3


class Table:
    """What an encoder in use makes of rows: an `EntityFeatures`."""

    def __init__(self, encoder: Clip, rows: Rows) -> None:
        self._rows, self._text, self._words = rows, encoder.encode(rows.texts), encoder.words(rows.texts)
        opened = {path: open_picture(path) for path in rows.pictures or () if path and path.suffix == ".jpg"
                  and path in PICTURES}  # fmt: skip
        self._whole = dict(zip(opened, encoder.encode_images(opened.values()), strict=True))
        self._patches = dict(zip(opened, encoder.patches(opened.values()), strict=True))

    def __len__(self) -> int:
        return len(self._text)

    def of(self, positions: Any) -> Features:
        words = [torch.from_numpy(self._words[place]).float() for place in positions]
        padded = torch.nn.utils.rnn.pad_sequence(words, batch_first=True) if words else torch.zeros(0, 1, 32)
        n = torch.tensor([len(own) for own in words])
        paths = [(self._rows.pictures or ())[place] for place in positions]
        some, none = next(iter(self._patches.values())), np.zeros(512, np.float32)
        patches = [self._patches.get(path, np.zeros_like(some)) for path in paths]
        there = torch.tensor([path in self._patches for path in paths], dtype=torch.bool)
        return Features(
            text=torch.from_numpy(self._text[positions]),
            words=padded if words else torch.zeros(0, 1, self._words[0].shape[1]),
            is_word=torch.arange(padded.shape[1]) < n[:, None] if words else torch.zeros(0, 1, dtype=torch.bool),
            image=torch.from_numpy(np.array([self._whole.get(path, none) for path in paths]).reshape(-1, 512)),
            patches=torch.from_numpy(np.array(patches, np.float32).reshape(-1, *some.shape)),
            is_patch=there[:, None].expand(-1, len(some)),
        )


def as_tables(encoder: Clip, inputs: TrainingInputs) -> TrainingInputs:
    mentions, validation, entities = (
        Table(encoder, rows) for rows in (inputs.mentions, inputs.validation, inputs.entities)
    )
    return TrainingInputs(
        mentions=mentions,
        validation=validation,
        entities=entities,
        gold=inputs.gold,
        validation_gold=inputs.validation_gold,
        candidates=inputs.candidates,
    )


@torch.no_grad()
def test_a_row_is_the_same_in_every_batch_and_as_the_encoder_in_use_gives_it(
    clip: Clip, inputs: TrainingInputs
) -> None:
    live = LiveFeatures(clip.tunable(sees=True, recompute=False), inputs.mentions, precision="float32")
    table = Table(clip, inputs.mentions)
    assert len(live) == len(table) == len(PEOPLE)
    order = np.array([5, 0, 11, 3, 5])
    found, expected = live.of(order), table.of(order)
    torch.testing.assert_close(found.text, expected.text, atol=3e-6, rtol=0)
    assert torch.equal(found.is_word, expected.is_word)
    torch.testing.assert_close(found.words, expected.words, atol=4e-3, rtol=2e-3)
    assert found.image is not None
    assert expected.image is not None
    torch.testing.assert_close(found.image, expected.image, atol=3e-6, rtol=0)
    assert found.is_patch is not None
    assert expected.is_patch is not None
    assert torch.equal(found.is_patch, expected.is_patch)
    assert found.is_patch.any(dim=1).tolist() == [True, False, False, True, True]  # 11 names a broken picture
    for place, row in enumerate(order):
        alone = live.of(np.array([row]))
        torch.testing.assert_close(found.text[place], alone.text[0], atol=3e-6, rtol=0)
    assert live.of(np.arange(0)).text.shape == (0, 512)


def test_the_state_of_pictures_changes_with_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    rows = Rows(texts=["a", "b"], pictures=[path, None])
    absent = rows.pictures_state()
    path.write_bytes(PICTURES[0].read_bytes())
    there = rows.pictures_state()
    path.write_bytes(PICTURES[1].read_bytes())
    assert (
        len({absent, there, rows.pictures_state(), Rows(texts=["a", "b"], pictures=[None, path]).pictures_state()}) == 4
    )


# --- processes --------------------------------------------------------------------------------------------------


def start(model: Path, folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "tests.matchers.tuning_world",
            str(model),
            str(folder),
            *options,
        ],
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


@pytest.mark.slow(reason="three processes load torch and open_clip")
def test_two_processes_come_to_the_numbers_of_one_that_accumulates_two_batches(clip: Clip, tmp_path: Path) -> None:
    """Most of their batches show no picture: every weight has a gradient all the same, or they would wait forever."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "1",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    both = [start(clip.folder, tmp_path / "two", "recompute=1", **shared, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    alone = start(clip.folder, tmp_path / "one", "accumulate=2")
    for process in (*both, alone):
        finished(process)
    one, two = (load_file(tmp_path / name / "network.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=2e-5, rtol=0), name


@pytest.mark.slow(reason="three processes load torch and open_clip")
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(clip: Clip, tmp_path: Path) -> None:
    whole, killed = start(clip.folder, tmp_path / "whole"), start(clip.folder, tmp_path / "killed", "stop_after=1")
    finished(whole)
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "network.safetensors").exists()
    finished(start(clip.folder, tmp_path / "killed"))
    bytes_of = [(tmp_path / name / "network.safetensors").read_bytes() for name in ("whole", "killed")]
    assert bytes_of[0] == bytes_of[1]
