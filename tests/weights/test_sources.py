"""Folders and caches of others are used where they are; what changes there is noticed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError
from localmel.weights.contents import UnsafeWeights
from localmel.weights.find import find_model
from localmel.weights.folders import installed_names, place_of
from localmel.weights.install import remove
from localmel.weights.pack import pack
from localmel.weights.sources import adopt
from localmel.weights.verify import verify
from tests.weights import small

COMMIT = "a09a35458c702b33eeacc393d103063234e8bc28"
DETECTOR = 20_074_456
"Parameters of the smallest model of the catalog that is not packaged."


def cache(root: Path, files: dict[str, bytes], repository: str = "Someone/Small") -> Path:
    """A Hugging Face cache of one model: blobs named by their hashes, a snapshot of links to them."""
    folder = root / f"models--{repository.replace('/', '--')}"
    for name, data in files.items():
        blob = folder / "blobs" / small.sha256(data)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = folder / "snapshots" / COMMIT / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return folder


def empty_tensors(numbers: int) -> bytes:
    """A safetensors file of zeros."""
    header = {"a": {"dtype": "I8", "shape": [numbers], "data_offsets": [0, numbers]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(numbers)


def detector(*, numbers: int = DETECTOR, **configuration: object) -> dict[str, bytes]:
    """The catalog's detector as far as names and counts go."""
    config = {"model_type": "rt_detr_v2", "architectures": ["RTDetrV2ForObjectDetection"], **configuration}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": empty_tensors(numbers)}


def test_a_folder_is_used_where_it_is(own_home: Path, model: Path) -> None:
    record = adopt(model)
    assert find_model("small").path == model
    assert [path.name for path in place_of("small").iterdir()] == ["manifest.json"]
    assert record.files["config.json"].sha256 == small.sha256((model / "config.json").read_bytes())
    assert verify("small").findings == ()


@pytest.mark.parametrize("way", ["cache", "snapshot"])
def test_a_cache_gives_repository_revision_and_licence(own_home: Path, tmp_path: Path, way: str) -> None:
    folder = cache(tmp_path / "hub", detector(), "PekingU/rtdetr_v2_r18vd")
    snapshot = folder / "snapshots" / COMMIT
    record = adopt(folder if way == "cache" else snapshot)
    assert (record.name, record.repository) == ("rtdetr-v2-r18", "PekingU/rtdetr_v2_r18vd")
    assert (record.revision, record.licence, record.purpose) == (COMMIT, "apache-2.0", "detector")
    assert find_model("rtdetr-v2-r18").path == snapshot
    assert find_model("rtdetr-v2-r18").folder.n_parameters == DETECTOR


def test_a_damaged_blob_of_a_cache_is_found_when_it_is_adopted(own_home: Path, tmp_path: Path) -> None:
    folder = cache(tmp_path / "hub", small.language_model())
    weights = (folder / "snapshots" / COMMIT / "model.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors is damaged: the cache names it by"):
        adopt(folder)
    assert installed_names() == []


def test_a_cache_with_a_link_into_nowhere_is_half_a_model(own_home: Path, tmp_path: Path) -> None:
    folder = cache(tmp_path / "hub", small.language_model(shards=2))
    (folder / "snapshots" / COMMIT / "model-00002-of-00002.safetensors").resolve().unlink()
    with pytest.raises(MissingWeights, match="model-00002-of-00002"):
        adopt(folder)


def test_a_cache_with_two_snapshots_and_no_main_is_not_guessed(own_home: Path, tmp_path: Path) -> None:
    folder = cache(tmp_path / "hub", small.language_model())
    (folder / "snapshots" / ("b" * 40)).mkdir()
    assert adopt(folder).revision == COMMIT
    (folder / "refs" / "main").unlink()
    with pytest.raises(MissingWeights, match="cannot choose a snapshot"):
        adopt(folder, name="other")


def change_size(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def change_time(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors"])
@pytest.mark.parametrize("change", [change_size, change_time, Path.unlink])
def test_a_later_change_is_noticed_by_the_next_look(own_home: Path, model: Path, name: str, change: object) -> None:
    adopt(model)
    change(model / name)  # type: ignore[operator]
    with pytest.raises((CorruptArtifact, MissingWeights)) as caught:
        find_model("small")
    assert str(model / name) in caught.value.fact
    assert "localmel weights" in caught.value.hint


def test_a_file_that_was_only_touched_verifies_and_can_be_adopted_again(own_home: Path, model: Path) -> None:
    adopt(model)
    change_time(model / "config.json")
    assert verify("small").findings == ()
    with pytest.raises(BadInput, match="weights are already installed as 'small'"):
        adopt(model)
    adopt(model, replace_installed=True)
    assert find_model("small").path == model


def test_a_new_file_beside_adopted_ones_is_the_owner_s_business_unless_it_asks_for_code(
    own_home: Path, model: Path
) -> None:
    adopt(model)
    (model / "notes.txt").write_text("mine", encoding="utf-8")
    assert verify("small").findings == ()
    (model / "processor_config.json").write_text('{"auto_map": {}}', encoding="utf-8")
    with pytest.raises(UnsafeWeights, match="processor_config"):
        find_model("small")
    assert [finding.kind for finding in verify("small").findings] == ["unusable"]


def test_adopted_weights_are_forgotten_not_removed(own_home: Path, model: Path) -> None:
    adopt(model)
    removed = remove("small")
    assert (removed.adopted, removed.bytes, removed.folder) == (True, 0, model)
    assert {path.name for path in model.iterdir()} == set(small.language_model(shards=2))
    assert installed_names() == []


@pytest.mark.parametrize(
    ("layout", "name", "said"),
    [
        (small.language_model, "qwen2.5-7b-instruct", "its architecture is 'llama', the catalog says 'qwen2'"),
        (small.clip, "qwen2.5-7b-instruct", "its architecture is 'open_clip', the catalog says 'qwen2'"),
        (small.language_model, "llama-3.1-8b-instruct", "hold 128 numbers, the catalog says 8,030,261,248"),
        (small.clip, "clip-vit-b-32", "hold 16 numbers, the catalog says 151,277,313"),
    ],
)
def test_a_name_of_the_catalog_is_for_that_model_only(
    own_home: Path, tmp_path: Path, layout: Callable[[], dict[str, bytes]], name: str, said: str
) -> None:
    folder = small.write(tmp_path / "some", layout())
    with pytest.raises(BadInput, match=said) as caught:
        adopt(folder, name=name)
    assert f"{folder} is not {name}" in caught.value.fact
    assert (caught.value.hint, caught.value.exit_code) == ("--name OTHER", 3)
    assert installed_names() == []
    assert adopt(folder, name="other").name == "other"


@pytest.mark.parametrize(
    ("share", "configuration", "said"),
    [
        (4 / 3, {}, "hold 26,765,941 numbers, the catalog says 20,074,456"),
        (1 / 2, {}, "hold 10,037,228 numbers, the catalog says 20,074,456"),
        (1, {"model_type": "rt_detr"}, "its architecture is 'rt_detr', the catalog says 'rt_detr_v2'"),
        (6 / 5, {}, ""),
        (5 / 6, {}, ""),
        (1 / 8, {"quantization_config": {"quant_method": "awq"}}, ""),
    ],
)
def test_a_catalog_s_model_may_be_somewhat_larger_or_packed(
    own_home: Path, tmp_path: Path, share: float, configuration: dict[str, object], said: str
) -> None:
    folder = small.write(tmp_path / "some", detector(numbers=int(DETECTOR * share), **configuration))
    error = small.error_of(lambda: adopt(folder, name="rtdetr-v2-r18"))
    assert said in error.fact if error and said else error is None
    assert installed_names() == ([] if said else ["rtdetr-v2-r18"])


def test_a_folder_spelt_as_on_its_page_gets_the_name_of_the_catalog(own_home: Path, tmp_path: Path) -> None:
    folder = small.write(tmp_path / "RTDETR-v2-R18", detector(numbers=DETECTOR))
    assert adopt(folder).name == "rtdetr-v2-r18"


@pytest.mark.parametrize("name", ["Qwen2.5-7B-Instruct", "ALL-MINILM-L6-v2"])
def test_a_name_that_differs_from_the_catalog_s_in_case_only_is_refused(own_home: Path, model: Path, name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' and '.*' of the catalog differ in upper and lower case") as caught:
        adopt(model, name=name)
    assert "--name OTHER" in caught.value.hint
    assert installed_names() == []


def test_what_is_installed_already_cannot_be_adopted(own_home: Path, model: Path, tmp_path: Path) -> None:
    inside = small.write(place_of("other"), small.language_model())
    with pytest.raises(UsageError, match="already installed"):
        adopt(inside)


@pytest.mark.parametrize("name", ["../x", ".hidden", "a/b", "all-MiniLM-L6-v2", "x" * 90])
def test_a_name_that_would_not_do_is_refused(own_home: Path, model: Path, name: str) -> None:
    with pytest.raises(UsageError):
        adopt(model, name=name)
    assert installed_names() == []


def test_a_folder_that_is_none_is_bad_input(own_home: Path, model: Path) -> None:
    for folder, said in ((model / "config.json", "it is a file, not a folder"), (model / "none", "there is no folder")):
        with pytest.raises(BadInput, match=said):
            adopt(folder)


def test_what_cannot_be_adopted_says_what_can(own_home: Path, model: Path, tmp_path: Path) -> None:
    bundle = pack([f"{model}/"], tmp_path / "b.tar").path
    with pytest.raises(BadInput, match="it is a file, not a folder") as caught:
        adopt(bundle)
    assert caught.value.hint == f"localmel weights install {bundle}"
    with pytest.raises(BadInput, match="there is no folder") as caught:
        adopt(tmp_path / "none")
    assert caught.value.hint == f"ls -l {tmp_path}"
    (model / "tokenizer.json").unlink()
    with pytest.raises(MissingWeights, match="the tokenizer is missing") as missing:
        adopt(model)
    assert missing.value.hint == f"ls -l {model}"


def test_a_folder_whose_name_no_model_can_have_is_called_as_nearly_as_possible(
    own_home: Path, model: Path, tmp_path: Path
) -> None:
    assert adopt(model.rename(tmp_path / "half a möbel")).name == "half-a-m-bel"
