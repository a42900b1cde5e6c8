"""Half a model is named for what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localmel.errors import CorruptArtifact, MissingWeights
from localmel.weights.complete import whole_model
from localmel.weights.contents import UnsafeWeights
from tests.weights import small

LAYOUTS = {
    "one file": small.language_model(),
    "shards": small.language_model(shards=3),
    "vision": small.vision_language_model(),
    "open_clip": small.clip(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_whole_model_is_described(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    whole = whole_model(small.write(tmp_path / "model", files))
    weights = [name for name in files if name.endswith(".safetensors")]
    assert sorted(path.name for path in whole.tensor_files) == sorted(weights)
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
        whole_model(folder)
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
            whole_model(folder)
        assert str(folder / name) in caught.value.fact


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cut_file_of_weights_is_named(tmp_path: Path, layout: str) -> None:
    files = LAYOUTS[layout]
    for name in (name for name in files if name.endswith(".safetensors")):
        for keep in (4, 40, len(files[name]) - 1):
            folder = small.write(tmp_path / f"{keep}{name}" / "model", files)
            (folder / name).write_bytes(files[name][:keep])
            with pytest.raises(CorruptArtifact) as caught:
                whole_model(folder)
            assert str(folder / name) in caught.value.fact


@pytest.mark.parametrize("text", ["{", "", "[]", "[" * 100_000])
def test_a_tokenizer_that_was_cut_off_is_named(tmp_path: Path, text: str) -> None:
    folder = small.write(tmp_path / "model", LAYOUTS["one file"])
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(CorruptArtifact) as caught:
        whole_model(folder)
    assert str(folder / "tokenizer.json") in caught.value.fact


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", small.language_model(shards=2))
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(small.tensors({"model.layers.1.weight": (8, 4)}))
    with pytest.raises(CorruptArtifact, match=r"lacks tensor 'model\.layers\.3\.weight'"):
        whole_model(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/x.safetensors", "pytorch_model.bin", 7, None])
def test_an_index_may_not_name_files_elsewhere(tmp_path: Path, shard: object) -> None:
    folder = small.write(tmp_path / "model", small.language_model(shards=2))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}), encoding="utf-8")
    with pytest.raises(CorruptArtifact, match="as the shard of 'a'"):
        whole_model(folder)


def test_pickles_alone_are_no_weights(tmp_path: Path) -> None:
    files = small.language_model()
    del files["model.safetensors"]
    folder = small.write(tmp_path / "model", files | {"pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(MissingWeights, match=r"pickles \(pytorch_model\.bin\)"):
        whole_model(folder)


def test_remote_code_is_refused_in_a_folder_too(tmp_path: Path) -> None:
    folder = small.write(tmp_path / "model", small.language_model())
    (folder / "tokenizer_config.json").write_text('{"auto_map": {}}', encoding="utf-8")
    with pytest.raises(UnsafeWeights, match=r"tokenizer_config\.json"):
        whole_model(folder)


def test_a_folder_for_both_libraries_is_read_by_the_one_whose_weights_are_there(tmp_path: Path) -> None:
    """Repositories of open_clip weights often carry timm's or transformers' config.json beside their own."""
    files = small.clip() | {"config.json": b'{"architecture": "vit_base"}'}
    assert whole_model(small.write(tmp_path / "model", files)).for_open_clip


def test_an_open_clip_model_with_its_own_tokenizer_needs_the_tokenizer(tmp_path: Path) -> None:
    config = {"model_cfg": {"text_cfg": {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP2"}}}
    files = small.clip() | {"open_clip_config.json": json.dumps(config).encode()}
    with pytest.raises(MissingWeights, match="tokenizer"):
        whole_model(small.write(tmp_path / "model", files))


@pytest.mark.parametrize("config", ["[]", "3", '"text"', "{", '{"text_config": 3}', '{"model_cfg": []}'])
@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json"])
def test_a_configuration_of_another_form_is_an_error_and_no_crash(tmp_path: Path, name: str, config: str) -> None:
    files = small.language_model() if name == "config.json" else small.clip()
    folder = small.write(tmp_path / "model", files)
    (folder / name).write_text(config, encoding="utf-8")
    error = small.error_of(lambda: whole_model(folder))
    assert error is None or str(folder) in error.fact
