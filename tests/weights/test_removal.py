"""What is removed lies under the user's home, and nothing half is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localmel.errors import MissingWeights, UsageError
from localmel.weights.folders import installed_names, weights_home
from localmel.weights.install import removal, remove, remove_unfinished, unfinished
from tests.weights import small


def installed(name: str = "small") -> Path:
    from localmel.weights.manifest import write_record

    files = small.language_model()
    folder = small.write(weights_home() / name, files)
    write_record(folder, small.record(name, files))
    return folder


def test_weights_are_removed_with_all_their_files(own_home: Path) -> None:
    folder = installed()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert removal("small").bytes == size
    assert remove("small").bytes == size
    assert not folder.exists()
    assert sorted(path.name for path in weights_home().iterdir()) == [".lock"]


def test_damaged_weights_can_be_removed_too(own_home: Path) -> None:
    folder = installed()
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    remove("small")
    assert not folder.exists()


def test_a_link_in_the_place_of_weights_is_removed_and_its_target_is_not(own_home: Path, tmp_path: Path) -> None:
    outside = small.write(tmp_path / "outside", small.language_model())
    weights_home().mkdir(parents=True)
    (weights_home() / "linked").symlink_to(outside)
    remove("linked")
    assert not os.path.lexists(weights_home() / "linked")
    assert (outside / "config.json").exists()


@pytest.mark.parametrize("name", ["..", "../outside", ".lock", "/etc", "a/b", ""])
def test_names_that_lead_elsewhere_are_refused(own_home: Path, tmp_path: Path, name: str) -> None:
    small.write(tmp_path / "outside", small.language_model())
    with pytest.raises(UsageError):
        remove(name)
    assert (tmp_path / "outside" / "config.json").exists()


def test_what_is_not_there_is_missing(own_home: Path) -> None:
    with pytest.raises(MissingWeights):
        remove("small")


def test_what_interrupted_installs_left_is_counted_and_removed(own_home: Path) -> None:
    installed()
    left = small.write(weights_home() / ".incoming-0123456789abcdef" / "big", {"model.safetensors": b"x" * 100})
    assert [one.bytes for one in unfinished()] == [100]
    assert [one.name for one in remove_unfinished()] == [".incoming-0123456789abcdef"]
    assert not left.exists()
    assert installed_names() == ["small"]
