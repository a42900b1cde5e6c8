"""A folder of ours is whole or absent, and damage is named before it is read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from localmel.errors import BadInput, CorruptArtifact, OutOfSpace
from localmel.store.artifacts import (
    MANIFEST,
    _exchanged,
    create_arrays,
    failed_writes_are_reported,
    flush_arrays,
    map_arrays,
    new_folder,
    read_manifest,
    sha256_of,
    write_json,
)

ROOT = Path(__file__).resolve().parents[2]


def sealed(target: Path, text: str = "hello") -> Path:
    with new_folder(target, kind="test", version=3, facts={"seed": 7}) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "a.txt").write_text(text)
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_sealed_folder_reads_back_with_the_facts_it_was_given(tmp_path: Path) -> None:
    manifest = read_manifest(sealed(tmp_path / "deep" / "run"), kind="test", version=3, every_byte=True)
    assert manifest["seed"] == 7
    assert manifest["files"] == {
        "part/a.txt": {"bytes": 5, "sha256": sha256_of(tmp_path / "deep" / "run" / "part" / "a.txt")}
    }
    assert names(tmp_path / "deep") == ["run"]


def test_facts_cannot_pass_for_the_kind_of_a_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "run", kind="test", version=3, facts={"kind": "other", "files": {}}) as folder:
        (folder / "a").write_text("a")
    assert list(read_manifest(tmp_path / "run", kind="test", version=3)["files"]) == ["a"]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    sealed(tmp_path / "run")
    (tmp_path / "run" / "stray.txt").write_text("from before")
    sealed(tmp_path / "run", "again")
    assert names(tmp_path / "run") == [MANIFEST, "part"]
    assert (tmp_path / "run" / "part" / "a.txt").read_text() == "again"
    assert names(tmp_path) == ["run"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux swaps two folders in one step")
def test_a_folder_is_never_absent_while_it_is_replaced(tmp_path: Path) -> None:
    sealed(tmp_path / "run")
    if not _exchanged(tmp_path / "run", sealed(tmp_path / "other")):
        pytest.skip(f"the file system of {tmp_path} cannot swap folders")
    absent, done = 0, threading.Event()

    def replace_often() -> None:
        for _ in range(150):
            sealed(tmp_path / "run")
        done.set()

    writer = threading.Thread(target=replace_often)
    writer.start()
    while not done.is_set():
        absent += not (tmp_path / "run" / MANIFEST).exists()
    writer.join()
    assert absent == 0
    assert names(tmp_path) == ["other", "run"]


def test_a_link_to_a_folder_on_another_disk_stays_one_when_the_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(sealed(tmp_path / "big disk" / "run"), target_is_directory=True)
    sealed(tmp_path / "run", "again")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "big disk" / "run" / "part" / "a.txt").read_text() == "again"
    assert names(tmp_path) == ["big disk", "run"]
    assert names(tmp_path / "big disk") == ["run"]


def test_an_error_while_it_is_filled_leaves_the_old_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    sealed(tmp_path / "run")

    def fail() -> None:
        with new_folder(tmp_path / "run", kind="test", version=3, facts={}) as folder:
            (folder / "half.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["run"]
    assert (tmp_path / "run" / "part" / "a.txt").read_text() == "hello"


def test_what_a_killed_process_left_is_cleared_by_the_next_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys\n"
        "from localmel.store.artifacts import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1]), kind='test', version=3, facts={}) as folder:\n"
        "    (folder / 'half.bin').write_bytes(bytes(1000))\n"
        "    print(folder, flush=True)\n"
        "    signal.pause()\n"
    )

    def started() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, left = started()
    living, at_work = started()
    try:
        with killed:
            killed.send_signal(signal.SIGKILL)
        assert (left / "half.bin").is_file()
        sealed(tmp_path / "run")
        assert not left.exists()
        assert (at_work / "half.bin").is_file()
    finally:
        with living:
            living.send_signal(signal.SIGKILL)
    sealed(tmp_path / "run")
    assert names(tmp_path) == ["run"]


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path, kind="test", version=3)


@pytest.mark.parametrize(("kind", "version", "said"), [("other", 3, "holds 'test'"), ("test", 4, "version 3")])
def test_a_folder_of_another_kind_or_version_is_refused(tmp_path: Path, kind: str, version: int, said: str) -> None:
    with pytest.raises(CorruptArtifact, match=said):
        read_manifest(sealed(tmp_path / "run"), kind=kind, version=version)


def test_a_missing_a_shorter_and_a_changed_file_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sealed(tmp_path / "run") / "part" / "a.txt"
    file.write_text("jello")
    with pytest.raises(CorruptArtifact, match="not the one in its manifest"):
        read_manifest(tmp_path / "run", kind="test", version=3)
    monkeypatch.setattr("localmel.store.artifacts.HASHED_BYTES", 4)  # a file above it is hashed on request only
    assert read_manifest(tmp_path / "run", kind="test", version=3)
    with pytest.raises(CorruptArtifact, match="not the one in its manifest"):
        read_manifest(tmp_path / "run", kind="test", version=3, every_byte=True)
    file.write_text("jell")
    with pytest.raises(CorruptArtifact, match="4 bytes, its manifest says 5"):
        read_manifest(tmp_path / "run", kind="test", version=3)
    file.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        read_manifest(tmp_path / "run", kind="test", version=3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "[" * 100_000,
        "\udcff\udcfe",
        '{"kind": "test"}',
        '{"kind": "test", "version": 3, "files": []}',
        '{"kind": "test", "version": 3, "files": {"a": 1}}',
        '{"kind": "test", "version": 3, "files": {"a": {"bytes": 1}}}',
    ],
)
def test_any_text_in_place_of_a_manifest_is_a_corrupt_artifact(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, errors="surrogateescape")
    with pytest.raises(CorruptArtifact, match="is not a manifest"):
        read_manifest(tmp_path, kind="test", version=3)


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Beyoncé"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"name": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": "Beyoncé"}
    assert names(tmp_path) == ["a.json"]


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write") as caught:
        sealed(tmp_path / "file" / "run")
    assert str(tmp_path / "file") in caught.value.hint


def test_a_full_disk_and_a_limit_on_files_are_out_of_space() -> None:
    with pytest.raises(OutOfSpace) as caught, failed_writes_are_reported(Path("/somewhere/run")):
        Path("/dev/full").write_bytes(b"x")
    assert caught.value.exit_code == 3
    assert "/somewhere" in caught.value.hint


def test_an_array_file_that_does_not_fit_says_so_before_a_page_of_it_is_touched(tmp_path: Path) -> None:
    script = (
        "import resource, sys, pathlib\n"
        "from localmel.store.artifacts import create_arrays\n"
        "from localmel.errors import OutOfSpace\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: create_arrays(pathlib.Path(sys.argv[1]), {'a': ('<f4', (50_000,))})\n"
        "except OutOfSpace: print('out of space')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.safetensors")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "out of space\n"


shapes = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.sampled_from(["<f4", "<f2", "<i8", "<i4", "<u4", "|i1"]), st.lists(st.integers(0, 4), max_size=3)),
    min_size=1,
)


@given(shapes=shapes, seed=st.integers(0, 2**32 - 1))
def test_arrays_read_back_as_written_here_and_by_safetensors(
    shapes: dict[str, tuple[str, list[int]]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.safetensors"
    random = np.random.default_rng(seed)
    written = create_arrays(path, {name: (dtype, tuple(shape)) for name, (dtype, shape) in shapes.items()})
    values: dict[str, Any] = {}
    for name, (dtype, shape) in shapes.items():
        assert not written[name].any()
        values[name] = random.integers(0, 100, tuple(shape)).astype(dtype)
        np.copyto(written[name], values[name])
    flush_arrays(written)
    for read in (map_arrays(path), load_file(path)):
        assert read.keys() == values.keys()
        for name, value in values.items():
            assert read[name].dtype == value.dtype
            np.testing.assert_array_equal(read[name], value)


def test_arrays_that_are_read_cannot_be_written(tmp_path: Path) -> None:
    create_arrays(tmp_path / "a", {"a": ("<f4", (2,))})
    with pytest.raises(ValueError, match="read-only"):
        map_arrays(tmp_path / "a")["a"][0] = 1


def test_any_damage_to_an_array_file_is_a_corrupt_artifact_or_leaves_its_shapes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_arrays(path, {"a": ("<f4", (2, 3)), "b": ("<i8", (4,))})
    whole = path.read_bytes()
    refused = 0
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptArtifact, match="cannot read the arrays"):
            map_arrays(path)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(0, 120)] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            map_arrays(path)
        except CorruptArtifact:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    "header", [b"[]", b"7", b'{"a": 1}', b'{"a": {}}', b"[" * 5000, b'{"a": {"dtype": [], "shape": 1}}']
)
def test_a_header_that_is_none_is_a_corrupt_artifact(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CorruptArtifact, match="cannot read the arrays"):
        map_arrays(tmp_path / "a")


def test_a_file_that_is_absent_is_a_corrupt_artifact(tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match="No such file"):
        map_arrays(tmp_path / "a")
    assert names(tmp_path) == []
