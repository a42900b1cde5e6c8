"""`localmel train` from end to end: a network for each seed, the same again, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.minilm import MiniLM
from localmel.encode.registry import Encoders
from localmel.errors import BadInput, MissingExtra, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.train.settings import TrainingSettings
from localmel.store.progress import Listener, listening
from localmel.training.data import checksum_of, encoded_splits, read_datasets
from localmel.training.recipe import Recipe
from localmel.training.run import Outcome, train_networks
from tests.in_process import run_in_process

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--epochs", "2", "--batch", "8", "--width", "16")
TRADES = ("painter", "chemist", "goalkeeper", "judge", "singer", "farmer")
FAMILIES = ("Byron", "Miller", "Turner", "Ford")


def rows(part: str, n: int) -> list[dict[str, object]]:
    """Mentions of people of one name, whom only their trade tells apart."""
    found = []
    for number in range(n):
        family, trade = FAMILIES[number % 4], TRADES[number % 6]
        sentence = f"{family}, the {trade}, {part} visit number {number}."
        answer = f"{family}-{trade}" if number % 9 else "Q-unknown"
        found.append({"id": f"{part}-{number}", "sentence": sentence, "mention": family, "answer": answer})
    return found


def write(path: Path, found: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM(method="onnxruntime", threads=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two datasets in one folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("one", "two"):
        write(folder / f"{name}-train.jsonl", rows(f"{name} morning", 24))
        write(folder / f"{name}-val.jsonl", rows(f"{name} evening", 12))
    return folder


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    people = [(f"{family}-{trade}", family, trade) for family in FAMILIES for trade in TRADES]
    entities = [{"id": person, "label": family, "description": f"a {trade}"} for person, family, trade in people]
    return change_kb(entities, [(person, "occupation", "", trade) for person, _, trade in people])


def recipe(data: Path, **more: Any) -> Recipe:
    training = TrainingSettings(epochs=more.pop("epochs", 1), batch=16)
    return Recipe(data=data, training=training, width=16, **more)


def trained(chosen: Recipe, kb: Path, encoder: Any, folder: Path, **more: Any) -> Outcome:
    base = KnowledgeBase(kb)
    try:
        return train_networks(chosen, base, Encoders(text=encoder, image=None), folder, **more)
    finally:
        base.close()


def bytes_under(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- the command ------------------------------------------------------------------------------------------------


def localmel(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command; training wants no starter KB, so none is built for it."""
    variables = {**os.environ, "LOCALMEL_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # tiny products on several threads wait for each other on a busy machine
    try:
        return run_in_process([*map(str, arguments)], environment=variables, seconds=250)
    finally:
        os.sched_setaffinity(0, before)


def test_the_command_trains_says_how_good_and_has_nothing_to_do_the_second_time(
    data: Path, kb: Path, tmp_path: Path
) -> None:
    command = ("train", data, "--kb", kb, "--out", tmp_path / "run", "--seeds", "0,1", *QUICK)
    done = localmel(tmp_path / "home", *command)
    assert done.returncode == 0, done.stderr
    assert "seed 1, epoch 2: loss" in done.stderr
    assert "6 of 48 train mentions have no gold in the KB" in done.stderr
    assert "deviation" in done.stdout
    assert "HITS@16" in done.stdout
    before = bytes_under(tmp_path / "run")
    assert {"history.json", "training.png", "encode/train.safetensors", "seed-1/network/network.json"} <= set(before)
    again = localmel(tmp_path / "home", *command, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert [one["was_there"] for one in found["seeds"]] == [True, True]
    assert set(found["seeds"][0]["validation"]) == {"all", "one", "two"}
    assert found["mean"].keys() == found["deviation"].keys() == {"hits_at_1", "hits_at_16", "mrr"}
    assert bytes_under(tmp_path / "run") == before
    card = load_network(tmp_path / "run" / "seed-0" / "network").card
    assert card["command"].startswith("localmel train ")
    assert (card["mentions"]["train"], card["mentions"]["validation"], card["data"]) == (42, 20, ["one", "two"])


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--seeds", "0,x"], 2, "--seeds is '0,x'"),
        (["--seeds", "1,1"], 2, "they are different numbers"),
        (["--without", "image"], 2, "cannot be trained without image"),
        (["--fold", "3/3"], 2, "there is no fold 3 of 3"),
        (["--precision", "float8"], 2, "there is no precision 'float8'"),
        (["--dataset", "three"], 3, "holds no dataset 'three'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_said_before_anything_is_encoded(
    options: list[str], code: int, said: str, data: Path, kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from localmel.cli.app import run

    assert run(["train", str(data), "--kb", str(kb), "--out", str(tmp_path / "run"), *QUICK, *options]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "encode").exists()


def test_the_options_have_the_defaults_of_the_settings() -> None:
    import inspect

    from localmel.cli.train import train_command

    settings, parameters = TrainingSettings(), inspect.signature(train_command).parameters
    for name in ("epochs", "batch", "rate", "precision", "accumulate", "hard_negatives", "hard_from"):
        assert parameters[name].default == getattr(settings, name), name
    for name in ("width", "visible_text", "drop_leaked"):
        assert parameters[name].default == getattr(Recipe(data=Path(), training=settings), name), name


# --- what goes in -----------------------------------------------------------------------------------------------


def test_a_sentence_in_train_and_in_validation_of_any_dataset_is_refused_or_dropped(
    data: Path, kb: Path, encoder: Any, tmp_path: Path
) -> None:
    leaked = {"id": "elsewhere", "sentence": rows("two morning", 1)[0]["sentence"], "mention": "Byron", "answer": "x"}
    write(data / "one-val.jsonl", [*rows("one evening", 12), leaked])
    with pytest.raises(BadInput, match="1 of 25 mentions of val are also in train") as caught:
        trained(recipe(data), kb, encoder, tmp_path / "run")
    assert "--drop-leaked" in caught.value.hint
    notes: list[str] = []
    listener = Listener(on_note=notes.append)
    with listening(listener):
        outcome = trained(recipe(data, drop_leaked=True), kb, encoder, tmp_path / "run")
    assert outcome.dropped == 1
    assert notes[0].startswith("1 validation mentions were left out")


def test_datasets_with_the_same_ids_are_joined_and_one_can_be_chosen(data: Path) -> None:
    for name in ("one", "two"):
        for part in ("train", "val"):
            found = [{**row, "id": str(number)} for number, row in enumerate(rows(f"{name} {part}", 4))]
            write(data / f"{name}-{part}.jsonl", found)
    with pytest.raises(BadInput, match="by their id"):
        read_datasets(data)  # "one/0" is a mention of train and one of validation
    for name in ("one", "two"):
        write(data / f"{name}-val.jsonl", rows(f"{name} val", 4))
    both = read_datasets(data)
    assert (both.names, len(both.train.mentions)) == (("one", "two"), 8)
    only = read_datasets(data, ["two"])
    assert (only.names, len(only.train.mentions)) == (("two",), 4)
    (data / "two-val.jsonl").unlink()
    with pytest.raises(BadInput, match=r"two in .* has no split val"):
        read_datasets(data)


def test_mentions_are_encoded_once_and_again_when_something_changed(
    data: Path, kb: Path, encoder: Any, tmp_path: Path
) -> None:
    class Counting:
        space = encoder.space
        texts = 0

        def encode(self, texts: Any, on_texts: Any = None) -> Any:
            self.texts += len(texts)
            return encoder.encode(texts)

    counting = Counting()
    trained(recipe(data), kb, counting, tmp_path / "run")
    assert counting.texts > 0
    counting.texts = 0
    trained(recipe(data, fold=(0, 3)), kb, counting, tmp_path / "fold", encoded=tmp_path / "run" / "encode")
    assert counting.texts == 0
    array = tmp_path / "run" / "encode" / "train.safetensors"
    array.write_bytes(array.read_bytes()[:-1] + b"x")
    shutil.rmtree(tmp_path / "fold")
    trained(recipe(data), kb, counting, tmp_path / "fold", encoded=tmp_path / "run" / "encode")
    assert counting.texts > 0
    write(data / "one-train.jsonl", rows("one morning", 20))
    with pytest.raises(BadInput, match=r"made_from\.train .* there, .* now"):
        trained(recipe(data), kb, counting, tmp_path / "run")


def test_a_fold_leaves_the_sentences_of_one_checksum_out(data: Path, kb: Path, encoder: Any, tmp_path: Path) -> None:
    datasets = read_datasets(data)
    known = [mention for mention in datasets.train.mentions if datasets.train.gold[mention.id] != "Q-unknown"]
    counts = []
    for own in range(3):
        folder = tmp_path / f"fold-{own}"
        trained(recipe(data, fold=(own, 3)), kb, encoder, folder, encoded=tmp_path / "encode")
        counts.append(load_network(folder / "seed-0" / "network").card["mentions"]["train"])
    assert counts == [sum(checksum_of(mention) % 3 != own for mention in known) for own in range(3)]


def test_a_part_of_the_sentences_moves_into_the_picture_in_train_only(
    data: Path, kb: Path, encoder: Any, tmp_path: Path
) -> None:
    from localmel.encode.kb_vectors import index_kb, load_vectors

    base = KnowledgeBase(kb)
    index_kb(base, encoder)
    packed, _ = load_vectors(base, encoder.space)
    made = [
        encoded_splits(read_datasets(data), base, packed, encoder, tmp_path / str(share), visible_text=share)
        for share in (0.0, 1.0)
    ]
    base.close()
    (plain, checked, _), (moved, checked_too, _) = made
    assert (plain.vectors.text != moved.vectors.text).any()
    assert (checked.vectors.text == checked_too.vectors.text).all()
    assert (plain.sentence == moved.sentence).all()


def test_mentions_that_were_drawn_keep_their_own_texts_and_golds(
    data: Path, kb: Path, encoder: Any, tmp_path: Path
) -> None:
    from localmel.encode.kb_vectors import index_kb, load_vectors
    from localmel.encode.mention_inputs import mention_text

    drawn = read_datasets(data, most=(20, 9))
    assert (len(drawn.train.mentions), len(drawn.validation.mentions)) == (20, 9)
    assert {drawn.origin[mention.id] for mention in drawn.train.mentions} == {0, 1}  # of both, in no order of them
    assert read_datasets(data, most=(20, 9)) == drawn
    base = KnowledgeBase(kb)
    index_kb(base, encoder)
    packed, _ = load_vectors(base, encoder.space)
    train, _, _ = encoded_splits(drawn, base, packed, encoder, tmp_path / "encode", visible_text=0.0)
    texts = encoder.encode([mention_text(mention) for mention in drawn.train.mentions])
    np.testing.assert_allclose(train.vectors.text, texts, atol=1e-5)
    ids = [entity for (entity,) in base.select("SELECT id FROM entities ORDER BY row")]
    golds = [ids[place] if place >= 0 else "Q-unknown" for place in train.vectors.gold.tolist()]
    assert golds == [drawn.train.gold[mention.id] for mention in drawn.train.mentions]
    base.close()


@pytest.mark.parametrize("without", ["triples", "gate", "text"])
def test_a_network_trained_without_something_says_so_in_its_card(
    without: str, data: Path, kb: Path, encoder: Any, tmp_path: Path
) -> None:
    outcome = trained(recipe(data, without=(without,)), kb, encoder, tmp_path / "run")
    network = load_network(outcome.best.network)
    assert network.card["without"] == [without]
    assert network.network.settings.gate is (without != "gate")
    with pytest.raises(BadInput, match="other settings or inputs"):
        trained(recipe(data), kb, encoder, tmp_path / "run")


def test_a_missing_matplotlib_is_told_before_training(
    data: Path, kb: Path, encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.training.run.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="matplotlib") as caught:
        trained(recipe(data), kb, encoder, tmp_path / "run")
    assert caught.value.hint == "pip install 'localmel[train]'"
    assert not (tmp_path / "run").exists()


def test_two_runs_in_one_folder_at_once_are_refused(data: Path, kb: Path, encoder: Any, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(BadInput, match="another process is training"):
        trained(recipe(data), kb, encoder, tmp_path / "run")


def test_a_recipe_that_means_nothing_is_refused(data: Path) -> None:
    for wrong in ({"seeds": ()}, {"seeds": (-1,)}, {"visible_text": 2.0}, {"fold": (0, 1)}, {"without": ("gates",)}):
        with pytest.raises(UsageError):
            recipe(data, **wrong)
