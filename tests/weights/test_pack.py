"""Folders become bundles: the same bytes every time, and only what is part of the model."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, OutOfSpace, UsageError
from localmel.weights import pack as packing
from localmel.weights.folders import place_of
from localmel.weights.install import install_bundle
from localmel.weights.pack import pack
from localmel.weights.sources import adopt
from tests.weights import small


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_the_same_files_give_the_same_bytes(own_home: Path, model: Path, tmp_path: Path) -> None:
    """Whatever their times, their order on the disk, and the folder they stand in."""
    first = pack([f"{model}/"], tmp_path / "a.tar")
    again = tmp_path / "elsewhere" / "small"
    for name in reversed(sorted(small.language_model(shards=2))):
        small.write(again, {name: (model / name).read_bytes()})
        os.utime(again / name, (1, 1))
        (again / name).chmod(0o600)
    second = pack([f"{again}/"], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert first.manifest_sha256 == second.manifest_sha256


def test_an_installed_model_packs_into_the_bundle_it_came_from(own_home: Path, model: Path, tmp_path: Path) -> None:
    pack([f"{model}/"], tmp_path / "a.tar")
    install_bundle(tmp_path / "a.tar")
    pack(["small"], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_adopted_model_packs_without_what_only_this_machine_knows(
    own_home: Path, model: Path, tmp_path: Path
) -> None:
    pack([f"{model}/"], tmp_path / "a.tar")
    adopt(model)
    pack(["small"], tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_the_manifest_comes_first_and_names_every_file(own_home: Path, model: Path, tmp_path: Path) -> None:
    packed = pack([f"{model}/"], tmp_path / "a.tar")
    files = small.language_model(shards=2)
    assert names_in(packed.path) == [
        "manifest.json",
        "sbom.cdx.json",
        *(f"models/small/{name}" for name in sorted(files)),
    ]
    with tarfile.open(packed.path) as tar:
        table = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert table["models"][0]["files"] == {
        name: {"bytes": len(data), "sha256": small.sha256(data)} for name, data in files.items()
    }


def test_what_is_no_part_of_the_model_is_left_out_and_listed(own_home: Path, model: Path, tmp_path: Path) -> None:
    other = {"pytorch_model.bin": b"\x80", "modeling.py": b"", ".gitattributes": b"", "figure.png": b"\x89PNG"}
    small.write(model, other | {"consolidated.safetensors": small.tensors({"a": (2,)}), "original/x.pth": b"\x80"})
    (model / ".cache").mkdir()
    packed = pack([f"{model}/"], tmp_path / "a.tar")
    assert not {name for name in names_in(packed.path) if not name.startswith(("manifest", "sbom"))} - {
        f"models/small/{name}" for name in small.language_model(shards=2)
    }
    expected = {"pytorch_model.bin", "modeling.py", "figure.png", "consolidated.safetensors", "original/x.pth"}
    assert set(packed.left_out) == expected
    assert "pickle" in packed.left_out["pytorch_model.bin"]
    assert "loader" in packed.left_out["consolidated.safetensors"]


def test_a_folder_with_half_a_model_is_not_packed(own_home: Path, model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(MissingWeights, match="tokenizer"):
        pack([f"{model}/"], tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_a_file_that_is_not_as_recorded_stops_the_packing(own_home: Path, model: Path, tmp_path: Path) -> None:
    """A large file is not hashed when a model is looked up; it is when it is packed."""
    files = small.language_model(rows=200_000)
    pack([f"{small.write(tmp_path / 'big', files)}/"], tmp_path / "a.tar")
    (installed,) = install_bundle(tmp_path / "a.tar")
    weights = installed.folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors is damaged"):
        pack(["big"], tmp_path / "b.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "big", "home", "small"]


def test_a_licence_can_be_added_and_its_absence_is_said(own_home: Path, model: Path, tmp_path: Path) -> None:
    (model / "LICENSE").unlink()
    assert pack([f"{model}/"], tmp_path / "a.tar").without_licence == ("small",)
    text = tmp_path / "terms"
    text.write_text("Terms.\n", encoding="utf-8")
    packed = pack([f"{model}/"], tmp_path / "b.tar", licence=text)
    assert packed.without_licence == ()
    (installed,) = install_bundle(packed.path)
    assert (installed.folder / "LICENSE").read_text(encoding="utf-8") == "Terms.\n"


def test_an_output_that_is_there_is_not_overwritten(own_home: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match="already exists"):
        pack([f"{model}/"], tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_text(encoding="utf-8") == "mine"
    pack([f"{model}/"], tmp_path / "a.tar", replace_output=True)


def test_too_little_space_is_said_before_writing(
    own_home: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 5))
    with pytest.raises(OutOfSpace, match="5 free"):
        pack([f"{model}/"], tmp_path / "a.tar")


def test_two_models_of_one_name_do_not_fit_into_one_bundle(own_home: Path, model: Path, tmp_path: Path) -> None:
    other = small.write(tmp_path / "x" / "Small", small.language_model())
    with pytest.raises(UsageError, match="have the same name"):
        pack([f"{model}/", f"{other}/"], tmp_path / "a.tar")


@pytest.mark.parametrize("source", ["nothing", "/no/such/folder", "a b", "", "../x"])
def test_what_is_neither_folder_nor_name_is_refused(own_home: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises((MissingWeights, UsageError)):
        pack([source], tmp_path / "a.tar")
    assert not place_of("x").exists()
