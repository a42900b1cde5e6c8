"""An incomplete model, one with code and one that was cut off are refused with the name of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.errors import CorruptArtifact, MissingWeights
from localmel.weights.contents import UnsafeWeights
from localmel.weights.model_folder import model_folder
from tests.weights import small

Models = Callable[[str], Path]
LAYOUTS = {
    "one file": small.language_model(),
    "shards": small.language_model(shards=3),
    "vision": small.vision_language_model(),
    "open_clip": small.clip(),
}


def changed(path: Path, **values: object) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}), encoding="utf-8")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_model_is_described(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    whole = model_folder(small.write(tmp_path / "model", files))
    weights = [name for name in files if name.endswith(".safetensors")]
    assert sorted(path.name for path in whole.weight_files) == sorted(weights)
    assert whole.weight_bytes == sum(len(files[name]) for name in weights)
    assert whole.for_open_clip == (layout == "open_clip")
    assert whole.n_parameters == (16 if layout == "open_clip" else 4 * 8 * 4)


@pytest.mark.parametrize(
    ("layout", "lacking", "said"),
    [
        ("one file", ["config.json"], "neither config.json nor open_clip_config.json"),
        ("one file", ["model.safetensors"], "model.safetensors (or an index with its shards) is missing"),
        ("one file", ["tokenizer.json"], "the tokenizer is missing"),
        ("shards", ["model-00002-of-00003.safetensors"], "shard model-00002-of-00003.safetensors"),
        ("shards", ["model.safetensors.index.json"], "model.safetensors (or an index"),
        ("vision", ["processor_config.json", "preprocessor_config.json"], "preprocessor_config.json or processor_"),
        ("open_clip", ["open_clip_model.safetensors"], "open_clip_model.safetensors is missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, layout: str, lacking: list[str], said: str) -> None:
    folder = small.write(tmp_path / "model", LAYOUTS[layout])
    for name in lacking:
        (folder / name).unlink()
    with pytest.raises(MissingWeights) as caught:
        model_folder(folder)
    assert said in caught.value.fact
    assert str(folder) in caught.value.fact


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_file_is_named_whichever_it_is(tmp_path: Path, layout: str) -> None:
    for name in LAYOUTS[layout]:
        if name in ("LICENSE", "README.md"):
            continue
        folder = small.write(tmp_path / name / "model", LAYOUTS[layout])
        (folder / name).write_bytes(b"")
        with pytest.raises(CorruptArtifact, match="is empty") as caught:
            model_folder(folder)
        assert str(folder / name) in caught.value.fact


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_weights_that_was_cut_off_or_grew_is_named(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    for name in (name for name in files if name.endswith(".safetensors")):
        whole = files[name]
        for number, broken in enumerate((whole[:4], whole[:40], whole[:-1], whole + b"x", b"\x80\x04K")):
            folder = small.write(tmp_path / f"{number}{name}" / "model", files)
            (folder / name).write_bytes(broken)
            with pytest.raises(CorruptArtifact) as caught:
                model_folder(folder)
            assert str(folder / name) in caught.value.fact


@pytest.mark.parametrize("text", ["{", "", "[]", "[" * 100_000])
def test_a_tokenizer_that_was_cut_off_is_named(tmp_path: Path, text: str) -> None:
    folder = small.write(tmp_path / "model", LAYOUTS["one file"])
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptArtifact) as caught:
        model_folder(folder)
    assert str(folder / "tokenizer.json") in caught.value.fact


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", small.language_model(shards=2))
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(small.tensors({"model.layers.1.weight": (8, 4)}))
    with pytest.raises(CorruptArtifact, match=r"lacks tensor 'model\.layers\.3\.weight'"):
        model_folder(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/x.safetensors", "pytorch_model.bin", 7, None])
def test_an_index_may_not_name_files_elsewhere(tmp_path: Path, shard: object) -> None:
    folder = small.write(tmp_path / "model", small.language_model(shards=2))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="as the shard of 'a'"):
        model_folder(folder)


def test_pickles_alone_are_no_weights(tmp_path: Path) -> None:
    files = small.language_model()
    del files["model.safetensors"]
    folder = small.write(tmp_path / "model", files | {"pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(MissingWeights, match=r"pickles \(pytorch_model\.bin\)"):
        model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_a_folder_that_asks_for_code_is_refused(name: str, tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", small.language_model())
    changed(folder / name, nested=[{"auto_map": {"AutoModel": "modeling.Model"}}])
    with pytest.raises(UnsafeWeights, match=rf"{name} has 'auto_map': it asks for Python code"):
        model_folder(folder)


def test_a_folder_for_both_libraries_is_read_by_the_one_whose_weights_are_there(tmp_path: Path) -> None:
    """Repositories of open_clip weights often carry timm's or transformers' config.json beside their own."""
    files = small.clip() | {"config.json": b'{"architecture": "vit_base"}'}
    assert model_folder(small.write(tmp_path / "model", files)).for_open_clip


def test_an_open_clip_model_with_its_own_tokenizer_needs_the_tokenizer(tmp_path: Path) -> None:
    config = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP2"}}}
    files = small.clip() | {"open_clip_config.json": json.dumps(config).encode()}
    with pytest.raises(MissingWeights, match="tokenizer"):
        model_folder(small.write(tmp_path / "model", files))


@pytest.mark.parametrize("config", ["[]", "3", '"text"', "{", '{"text_config": 3}', '{"model_cfg": []}'])
@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json"])
def test_a_configuration_of_another_form_is_an_error_and_no_crash(tmp_path: Path, name: str, config: str) -> None:
    files = small.language_model() if name == "config.json" else small.clip()
    folder = small.write(tmp_path / "model", files)
    (folder / name).write_text(config, encoding="utf-8")
    error = small.error_of(lambda: model_folder(folder))
    assert error is None or str(folder) in error.fact


def test_a_configuration_tells_size_context_and_quantisation(tiny_models: Models, tmp_path: Path) -> None:
    llama = Path(shutil.copytree(tiny_models("tiny-llama"), tmp_path / "llama"))
    text, seeing = model_folder(llama), model_folder(tiny_models("tiny-llava-mistral"))
    assert (text.takes_pictures, seeing.takes_pictures) == (False, True)
    assert (text.context, seeing.context) == (8192, 32768)
    assert len(seeing.weight_files) == 3
    assert text.bytes_per_number == seeing.bytes_per_number == 2
    config = json.loads((llama / "config.json").read_text())
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    assert text.cache_bytes_per_token == 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * width
    assert text.quantized_as == ""
    changed(llama / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    assert model_folder(llama).quantized_as == "awq"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_damage_anywhere_is_an_error_of_ours(data: st.DataObject, tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", LAYOUTS["vision"])
    path = data.draw(st.sampled_from(sorted(folder.glob("*.json")) + sorted(folder.glob("*-00001-*"))))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, min(len(whole), 400) - 1))
    path.write_bytes(whole[:place] + data.draw(st.binary(max_size=8)) + whole[place + 1 :])
    error = small.error_of(lambda: model_folder(folder))
    assert error is None or str(folder) in error.fact


def test_a_revision_moves_with_everything_that_decides_answers(tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", LAYOUTS["one file"])
    first = model_folder(folder).revision()
    assert first == model_folder(folder).revision()
    seen = {first}
    changed(folder / "config.json", rope_theta=1.0)
    seen.add(model_folder(folder).revision())
    changed(folder / "tokenizer_config.json", chat_template="{{ other }}")
    seen.add(model_folder(folder).revision())
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": {"sha256": "ab"}}}))
    seen.add(model_folder(folder).revision())
    assert len(seen) == 4
    (folder / "README.md").write_text("decides nothing")
    assert model_folder(folder).revision() in seen
