"""A name or a path leads to a whole model, or to the next command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.errors import CorruptArtifact, MissingWeights, UsageError
from localmel.weights.catalog import MINILM, catalog
from localmel.weights.contents import UnsafeWeights
from localmel.weights.find import find_model
from localmel.weights.install import install_bundle
from localmel.weights.listing import described, listing
from localmel.weights.model_folder import model_folder
from localmel.weights.pack import pack
from tests.weights import small


def test_a_path_leads_to_itself(own_home: Path, model: Path) -> None:
    assert find_model(str(model)).path == model
    found = find_model(str(model))
    assert (found.folder.model_type, found.record, found.folder.weight_bytes > 0) == ("llama", None, True)


def test_a_path_may_begin_at_home(own_home: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert find_model("~/small").path == model


def test_the_packaged_encoder_has_a_name_too(own_home: Path) -> None:
    facts = find_model(MINILM.name).folder
    assert (facts.architecture, facts.context) == ("BertModel", 512)


@pytest.mark.parametrize("name", ["llava-v1.6-mistral-7b", "qwen2.5-vl-7b"])
def test_a_model_of_the_catalog_that_is_not_here_says_how_to_get_it(own_home: Path, name: str) -> None:
    with pytest.raises(MissingWeights, match="in the catalog but not on this machine; installed: none") as caught:
        find_model(name)
    assert caught.value.hint == "localmel weights install BUNDLE.tar"


def test_an_unknown_name_is_said_to_be_unknown_and_the_known_are_named(
    own_home: Path, model: Path, tmp_path: Path
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    install_bundle(tmp_path / "b.tar")
    with pytest.raises(MissingWeights, match="neither installed nor in the catalog; installed: small"):
        find_model("smal")


@pytest.mark.parametrize("name", ["", "..", ".", "a b", "x" * 5000, "a\0b", "CON/../x\0"])
def test_what_can_be_no_name_is_a_usage_error_or_missing(own_home: Path, name: str) -> None:
    with pytest.raises((UsageError, MissingWeights)):
        find_model(name)


def test_a_folder_with_a_manifest_of_something_else_is_read_all_the_same(own_home: Path, model: Path) -> None:
    (model / "manifest.json").write_text('{"kind": "run", "version": 7}', encoding="utf-8")
    assert find_model(str(model)).path == model


def test_an_installed_folder_found_by_path_is_held_against_its_record(
    own_home: Path, model: Path, tmp_path: Path
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    (installed.folder / "config.json").write_bytes((model / "config.json").read_bytes() + b" ")
    for name in ("small", str(installed.folder)):
        with pytest.raises(CorruptArtifact, match="its record says") as caught:
            find_model(name)
        assert "--replace BUNDLE.tar" in caught.value.hint


def test_an_edited_configuration_of_the_same_length_is_noticed(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    (installed,) = install_bundle(tmp_path / "b.tar")
    config = installed.folder / "config.json"
    config.write_bytes(config.read_bytes().replace(b"64", b"65"))
    with pytest.raises(CorruptArtifact, match="differs from its record"):
        find_model("small")


def test_half_a_model_at_a_path_names_the_file_and_the_next_command(own_home: Path, model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingWeights, match="shard model-00002-of-00002") as caught:
        find_model(str(model))
    assert caught.value.hint == "localmel weights install BUNDLE.tar"


def test_remote_code_at_a_path_is_refused(own_home: Path, model: Path) -> None:
    (model / "config.json").write_text('{"auto_map": {}, "vocab_size": 8}', encoding="utf-8")
    with pytest.raises(UnsafeWeights):
        find_model(str(model))


def test_the_list_has_the_catalog_and_what_is_beside_it(
    own_home: Path, model: Path, tmp_path: Path, stands_for: Callable[..., None]
) -> None:
    pack([f"{model}/"], tmp_path / "b.tar")
    install_bundle(tmp_path / "b.tar")
    pack([f"{small.write(tmp_path / 'x', small.language_model())}/"], tmp_path / "c.tar", name="qwen3-1.7b")
    stands_for("qwen3-1.7b", model_type="llama", parameters=model_folder(tmp_path / "x").n_parameters)
    (damaged,) = install_bundle(tmp_path / "c.tar")
    (damaged.folder / "config.json").unlink()
    found = {one.name: one for one in listing()}
    assert list(found) == [*catalog(), "small"]
    assert {name: one.state for name, one in found.items() if one.state != "not here"} == {
        MINILM.name: "packaged",
        "small": "installed",
        "qwen3-1.7b": "damaged",
    }
    assert "config.json is missing" in found["qwen3-1.7b"].problem


def test_a_description_of_nothing_is_a_usage_error(own_home: Path) -> None:
    with pytest.raises(UsageError, match="'nothing' is not in the catalog"):
        described("nothing")
