"""Half a model, a model with code and a model that a copy cut off are refused with the name of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.engines.facts import revision_of, versions_of
from localmel.engines.model_folder import model_folder
from localmel.errors import CorruptArtifact, LocalmelError, MissingWeights

Models = Callable[[str], Path]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def llama(tmp_path: Path, tiny_models: Models) -> Path:
    return Path(shutil.copytree(tiny_models("tiny-llama"), tmp_path / "llama"))


@pytest.fixture
def llava(tmp_path: Path, tiny_models: Models) -> Path:
    return Path(shutil.copytree(tiny_models("tiny-llava-mistral"), tmp_path / "llava"))


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


def test_a_whole_folder_tells_what_it_holds(llama: Path, llava: Path) -> None:
    text, seeing = model_folder(llama), model_folder(llava)
    assert (text.takes_pictures, seeing.takes_pictures) == (False, True)
    assert (text.context, seeing.context) == (8192, 32768)
    assert seeing.weight_bytes == sum(file.stat().st_size for file in llava.glob("*.safetensors"))
    assert len(seeing.weight_files) == 3
    assert text.bytes_per_number == seeing.bytes_per_number == 2
    config = json.loads((llama / "config.json").read_text())
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    assert text.cache_bytes_per_token == 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * width
    assert text.quantized_as == ""


def test_a_quantised_model_says_how(llama: Path) -> None:
    changed(llama / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    assert model_folder(llama).quantized_as == "awq"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_folder_that_asks_for_code_is_refused(name: str, llama: Path) -> None:
    changed(llama / name, nested=[{"auto_map": {"AutoModel": "modeling.Model"}}])
    with pytest.raises(CorruptArtifact, match=rf"{name} has 'auto_map': it asks for Python code"):
        model_folder(llama)


def test_pickles_are_no_weights(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(MissingWeights, match=r"has no safetensors, only pickles \(pytorch_model.bin\)"):
        model_folder(llama)


@pytest.mark.parametrize(
    ("absent", "fact"),
    [
        ("config.json", "holds no model: config.json is missing"),
        ("model-00002-of-00003.safetensors", "model-00002-of-00003.safetensors, which .* names, is missing"),
        (INDEX, "is incomplete: model.safetensors is missing"),
        ("tokenizer.json", "the tokenizer is missing"),
    ],
)
def test_half_a_model_is_refused_with_the_missing_file(absent: str, fact: str, llava: Path) -> None:
    (llava / absent).unlink()
    with pytest.raises(MissingWeights, match=fact):
        model_folder(llava)


def test_a_model_that_sees_needs_its_processor(llava: Path) -> None:
    for path in llava.glob("*processor_config.json"):
        path.unlink()
    with pytest.raises(MissingWeights, match=r"preprocessor_config.json or processor_config.json is missing"):
        model_folder(llava)


def test_a_file_that_was_cut_off_or_grew_is_refused(llava: Path) -> None:
    shard = llava / "model-00003-of-00003.safetensors"
    whole = shard.read_bytes()
    for broken in (whole[:-1], whole + b"x", whole[: len(whole) // 2], whole[:100], b"", b"\x80\x04K"):
        shard.write_bytes(broken)
        with pytest.raises(CorruptArtifact, match=r"model-00003-of-00003\.safetensors"):
            model_folder(llava)


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "weights.bin"])
def test_an_index_that_leads_elsewhere_is_refused(shard: str, llava: Path) -> None:
    (llava / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="is no safetensors file of this folder"):
        model_folder(llava)


def test_a_configuration_that_is_no_json_is_refused(llama: Path) -> None:
    for text in ("{", "[]", "", "\udcff", '{"a":' * 5000):
        (llama / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CorruptArtifact, match=r"config.json is no"):
            model_folder(llama)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours(data: st.DataObject, llava: Path) -> None:
    path = data.draw(st.sampled_from(sorted(llava.glob("*.json")) + sorted(llava.glob("*-00001-*"))))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, min(len(whole), 400) - 1))
    path.write_bytes(whole[:place] + data.draw(st.binary(max_size=8)) + whole[place + 1 :])
    facts = []
    try:
        model_folder(llava)
    except LocalmelError as error:
        facts.append(error.fact)
    finally:
        path.write_bytes(whole)
    assert all(str(llava) in fact for fact in facts)


def test_a_revision_moves_with_everything_that_decides_answers(llama: Path) -> None:
    first = revision_of(model_folder(llama))
    assert first == revision_of(model_folder(llama))
    seen = {first}
    changed(llama / "config.json", rope_theta=1.0)
    seen.add(revision_of(model_folder(llama)))
    changed(llama / "tokenizer_config.json", chat_template="{{ messages }}")
    seen.add(revision_of(model_folder(llama)))
    (llama / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": {"sha256": "ab"}}}))
    seen.add(revision_of(model_folder(llama)))
    assert len(seen) == 4
    (llama / "README.md").write_text("decides nothing")
    assert revision_of(model_folder(llama)) in seen


def test_versions_are_of_what_is_installed() -> None:
    found = versions_of(["torch", "no-such-package"])
    assert list(found) == ["torch"]
    assert found["torch"].startswith("2.")
