"""The pictures of a KB: only what is new or changed is encoded, and what cannot be read is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from localmel.encode.kb_images import PicturesFound, index_images, load_images, picture_path
from localmel.encode.space import Space
from localmel.engines.pictures import open_picture
from localmel.errors import BadInput, BadPicture, CorruptArtifact, KbBusy, OutOfSpace
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.packed import PackedKb, pack
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb, remove_from_kb
from tests.encode.colours import Colours

ROOT = Path(__file__).resolve().parents[2]
SPACE = Colours().image_space
OpenKb = Callable[[], tuple[KnowledgeBase, PackedKb]]


def beside(folder: Path) -> Path:
    """Where a KB's relative pictures lie."""
    return folder.with_name(f"{folder.name}.images")


def paint(path: Path, colour: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), colour).save(path, "PNG")
    return path


@pytest.fixture
def folder(change_kb: Callable[..., Path], tmp_path: Path) -> Path:
    """Three pictures that can be read (one by its absolute path), one broken, one missing, one entity without."""
    (tmp_path / "broken.png").write_bytes(paint(tmp_path / "whole.png", "gold").read_bytes()[:40])
    folder = change_kb(
        [
            {"id": "Q1", "label": "Red", "image": "red.png"},
            {"id": "Q2", "label": "Nothing"},
            {"id": "Q3", "label": "Teal", "image": "deeper/teal.png"},
            {"id": "Q4", "label": "Broken", "image": "broken.png"},
            {"id": "Q5", "label": "Navy", "image": str(paint(tmp_path / "elsewhere" / "navy.png", "navy"))},
            {"id": "Q6", "label": "Missing", "image": "missing.png"},
        ]
    )
    paint(beside(folder) / "red.png", "red")
    paint(beside(folder) / "deeper" / "teal.png", "teal")
    shutil.copy(tmp_path / "broken.png", beside(folder) / "broken.png")
    return folder


@pytest.fixture
def opened(folder: Path) -> Iterator[OpenKb]:
    bases: list[KnowledgeBase] = []

    def open_it() -> tuple[KnowledgeBase, PackedKb]:
        bases.append(KnowledgeBase(folder))
        return bases[-1], pack(bases[-1])

    yield open_it
    for kb in bases:
        kb.close()


def run(opened: OpenKb, encoder: Colours) -> PicturesFound:
    kb, packed = opened()
    return index_images(kb, packed, encoder)


def check_everything(opened: OpenKb, space: Space = SPACE) -> None:
    """Every row holds the vector of its own picture as it is now."""
    kb, packed = opened()
    found = load_images(kb, packed, space)
    named = dict(kb.select("SELECT entity, path FROM images"))
    assert found.vectors.shape == (len(packed.rows), 3)
    for row, vector, there in zip(packed.rows.tolist(), found.vectors, found.there, strict=True):
        try:
            expected = Colours.vector(open_picture(picture_path(kb, named[row]))).astype(np.float16)
        except (KeyError, BadPicture):
            assert not there
            assert not vector.any()
            continue
        assert there
        assert np.array_equal(vector, expected)


def test_every_entity_gets_the_vector_of_its_picture_and_bad_ones_are_counted(opened: OpenKb, folder: Path) -> None:
    encoder = Colours()
    found = run(opened, encoder)
    assert (found.named, found.encoded, found.missing, found.broken) == (5, 3, 1, 1)
    note = found.note()
    assert "the KB names: 5, missing: 1, broken: 1" in note
    assert "Q4: " in note
    assert "Q6: there is no " in note
    assert str(beside(folder) / "missing.png") in note
    check_everything(opened)


def test_a_second_index_opens_no_picture(opened: OpenKb, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(opened, Colours())
    (beside(folder) / "broken.png").unlink()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    encoder = Colours()
    assert run(opened, encoder).encoded == 0
    assert encoder.asked == []
    check_everything(opened)


def test_a_changed_picture_is_encoded_anew_and_no_other(opened: OpenKb, folder: Path) -> None:
    run(opened, Colours())
    kb, packed = opened()
    before = load_images(kb, packed, SPACE).state
    path = beside(folder) / "red.png"
    times = path.stat()
    paint(path, "lime")  # as many bytes as before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    encoder = Colours()
    assert run(opened, encoder).encoded == 1
    assert [path.name for path in encoder.asked] == ["red.png"]
    assert load_images(kb, packed, encoder.image_space).state != before
    check_everything(opened)


def test_a_copied_or_touched_picture_is_read_but_not_encoded_again(opened: OpenKb, folder: Path) -> None:
    run(opened, Colours())
    kb, packed = opened()
    before = load_images(kb, packed, SPACE).state
    for path in (beside(folder)).rglob("*.png"):
        os.utime(path, (1, 1))
    assert run(opened, Colours()).encoded == 0
    assert load_images(kb, packed, SPACE).state == before


def test_a_picture_that_came_later_or_went_is_noticed(opened: OpenKb, folder: Path) -> None:
    run(opened, Colours())
    paint(beside(folder) / "missing.png", "gold")
    (beside(folder) / "deeper" / "teal.png").unlink()
    found = run(opened, Colours())
    assert (found.encoded, found.missing) == (1, 1)
    check_everything(opened)


def test_the_same_picture_of_two_entities_is_encoded_once(opened: OpenKb, folder: Path) -> None:
    for name in ("missing.png", "broken.png"):
        shutil.copy(beside(folder) / "red.png", beside(folder) / name)
    encoder = Colours()
    found = run(opened, encoder)
    assert (found.encoded, len(encoder.asked), found.note()) == (3, 3, "")
    check_everything(opened)


def test_after_a_change_of_the_kb_only_new_pictures_are_encoded(
    opened: OpenKb, folder: Path, change_kb: Callable[..., Path]
) -> None:
    run(opened, Colours())
    remove_from_kb(folder, ["Q1"])
    change_kb([{"id": "Q7", "label": "Gold", "image": "gold.png"}], add=True)
    change_kb([{"id": "Q3", "label": "Teal"}], add=True, update=True)  # without its picture now
    paint(beside(folder) / "gold.png", "gold")
    kb, packed = opened()
    with pytest.raises(BadInput, match="has changed since") as caught:
        load_images(kb, packed, SPACE)
    assert "localmel index" in caught.value.hint
    encoder = Colours()
    assert run(opened, encoder).encoded == 1
    assert [path.name for path in encoder.asked] == ["gold.png"]
    check_everything(opened)


def test_vectors_of_two_encoders_stand_side_by_side_and_new_weights_start_anew(opened: OpenKb) -> None:
    run(opened, Colours())
    run(opened, Colours(name="others", weights="b" * 64))
    check_everything(opened)
    check_everything(opened, Space(name="others", width=3, weights_sha256="b" * 64))
    other = Colours(weights="c" * 64)
    kb, packed = opened()
    with pytest.raises(BadInput, match="no image vectors of colours"):
        load_images(kb, packed, other.image_space)
    assert run(opened, other).encoded == 3


def test_a_kb_never_indexed_says_so(opened: OpenKb) -> None:
    kb, packed = opened()
    with pytest.raises(BadInput, match="never indexed") as caught:
        load_images(kb, packed, SPACE)
    assert "localmel index" in caught.value.hint


def test_a_kb_that_names_no_picture_is_legal(change_kb: Callable[..., Path]) -> None:
    with KnowledgeBase(change_kb([{"id": "Q1", "label": "Nothing"}], name="bare")) as kb:
        packed = pack(kb)
        assert index_images(kb, packed, Colours()).note() == ""
        assert not load_images(kb, packed, SPACE).there.any()


def test_a_path_out_of_the_kb_and_odd_files_are_broken_and_harm_nothing(change_kb: Callable[..., Path]) -> None:
    names = ["../kb.sqlite", "a/../../x.png", "folder.png", "pipe.png", "n" * 300, "http://example.org/x.png"]
    folder = change_kb(
        [{"id": f"Q{n}", "label": f"Name {n}", "image": name} for n, name in enumerate(names)], name="odd"
    )
    (beside(folder) / "folder.png").mkdir(parents=True)
    os.mkfifo(beside(folder) / "pipe.png")
    with KnowledgeBase(folder) as kb:
        found = index_images(kb, pack(kb), Colours())
    assert (found.missing, found.broken) == (1, 5)
    assert "is outside" in found.note()


def test_when_a_picture_of_an_index_is_damaged_on_disk_it_is_refused_and_made_anew(
    opened: OpenKb, folder: Path
) -> None:
    run(opened, Colours())
    (file,) = (folder / "vectors" / "colours.images").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    kb, packed = opened()
    with pytest.raises(CorruptArtifact, match="damaged") as caught:
        load_images(kb, packed, SPACE)
    assert "localmel index" in caught.value.hint
    assert run(opened, Colours()).encoded == 3
    check_everything(opened)


def test_a_kb_changed_while_it_is_indexed_is_not_mixed_up(opened: OpenKb, folder: Path) -> None:
    _, packed = opened()
    remove_from_kb(folder, ["Q1"])
    with KnowledgeBase(folder) as kb, pytest.raises(KbBusy):
        index_images(kb, packed, Colours())


def test_a_rebuilt_kb_keeps_its_pictures_and_takes_over_their_vectors(
    opened: OpenKb, folder: Path, tmp_path: Path
) -> None:
    run(opened, Colours())
    problems = Problems()
    paths = {"entities": tmp_path / "tables" / "entities.jsonl", "triples": tmp_path / "tables" / "triples.tsv"}
    build_kb(folder, TablesSource(**paths, problems=problems), problems, replace=True)
    assert run(opened, Colours()).encoded == 0
    check_everything(opened)


KILLED = """
import os, signal, sys
from pathlib import Path
import localmel.encode.kb_images as module
from localmel.kb.packed import load_packed
from localmel.kb.store import KnowledgeBase
from tests.encode.colours import Colours

class Dying(Colours):
    def encode_images(self, pictures, on_pictures=lambda _: None):
        if len(self.asked) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(pictures, on_pictures)

module._PICTURES_AT_ONCE = 2
kb = KnowledgeBase(Path(sys.argv[1]))
module.index_images(kb, load_packed(kb), Dying())
"""


def test_a_killed_run_goes_on_where_it_was(opened: OpenKb, folder: Path) -> None:
    opened()
    done = subprocess.run([sys.executable, "-c", KILLED, folder], cwd=ROOT, check=False)
    assert done.returncode == -9
    (record,) = (folder / "vectors").glob(".*.encoding.*")
    with record.open("ab") as file:
        file.write(b"cut off")
    encoder = Colours()
    assert run(opened, encoder).encoded == 1
    assert [path.name for path in encoder.asked] == ["navy.png"]
    check_everything(opened)
    assert not list((folder / "vectors").glob(".*"))


def test_a_full_disk_is_reported_and_what_stood_stands(
    opened: OpenKb, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run(opened, Colours())
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutOfSpace):
        run(opened, Colours())
    monkeypatch.undo()
    check_everything(opened)
