"""The tar of a bundle: other programs read it, it is the same every time, and nothing else is taken for one."""

from __future__ import annotations

import random
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput, CorruptArtifact
from localmel.store.progress import Listener, listening
from localmel.weights.archive import Member, header, opened, read_members, write_bytes, write_end, write_file
from localmel.weights.contents import UnsafeWeights, refused_name
from tests.weights import small

FILES = {"config.json": b"{}", "model.safetensors": b"x" * 1234, "1_Pooling/config.json": b"", "LICENSE": b"y" * 512}


def members(path: Path) -> list[Member]:
    with opened(path) as file:
        return read_members(file, path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "small.tar"
    with path.open("wb") as file:
        for name, data in FILES.items():
            write_bytes(file, "models/small", name, data)
        write_end(file)
    return path


def test_python_reads_what_was_written(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        found = {one.name: one for one in tar.getmembers()}
        assert {name: tar.extractfile(one).read() for name, one in found.items()} == {  # type: ignore[union-attr]
            f"models/small/{name}": data for name, data in FILES.items()
        }
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in found.values()} == {(0, 0, 0, "", 0o644)}


def test_the_system_s_tar_reads_what_was_written(archive: Path, tmp_path: Path) -> None:
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("this system has no tar")
    subprocess.run([tar, "-xf", str(archive), "-C", str(tmp_path)], check=True, capture_output=True)
    assert {name: (tmp_path / "models" / "small" / name).read_bytes() for name in FILES} == FILES


def test_members_come_back_with_their_places(archive: Path) -> None:
    whole = archive.read_bytes()
    assert {one.path: whole[one.start : one.start + one.size] for one in members(archive)} == {
        f"models/small/{name}": data for name, data in FILES.items()
    }


@given(
    folder=st.sampled_from(["", "models/a", "models/qwen2.5-vl-7b"]),
    name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,80}\.json", fullmatch=True).filter(
        lambda n: not refused_name(n)
    ),
    size=st.integers(0, 1 << 50),
)
def test_headers_of_any_size_are_read_by_python_as_they_were_meant(folder: str, name: str, size: int) -> None:
    found = tarfile.TarInfo.frombuf(header(folder, name, size), "ascii", "strict")
    assert (found.name, found.size, found.type) == (f"{folder}/{name}" if folder else name, size, tarfile.REGTYPE)


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 9000)
    told: list[int] = []
    out = BytesIO()
    with listening(Listener(on_done=told.append)):
        digest = write_file(out, "", "a.json", source, source.stat().st_size)
    assert digest == small.sha256(source.read_bytes())
    assert sum(told) == source.stat().st_size
    assert len(out.getvalue()) % 512 == 0


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_file_that_changes_while_it_is_packed_is_named(tmp_path: Path, wrong: int) -> None:
    source = tmp_path / "source.json"
    source.write_bytes(b"x" * 1000)
    with pytest.raises(CorruptArtifact, match=r"source\.json changed"):
        write_file(BytesIO(), "", "a.json", source, 1000 + wrong)


KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
    tarfile.CONTTYPE: "a contiguous file",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.XHDTYPE: "an extended header",
    tarfile.XGLTYPE: "a global header",
    tarfile.GNUTYPE_LONGNAME: "a long name",
    tarfile.GNUTYPE_LONGLINK: "a long link",
    tarfile.AREGTYPE: "not a plain file",
    b"Z": "not a plain file",
}


@pytest.mark.parametrize("kind", KINDS, ids=KINDS.values())
def test_anything_but_a_plain_file_is_refused_by_name_and_kind(archive: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("models/small/tokenizer.json")
    member.type, member.linkname = kind, "/etc/passwd"
    archive.write_bytes(archive.read_bytes()[:-1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UnsafeWeights, match=KINDS[kind]) as caught:
        members(archive)
    assert "models/small/tokenizer.json" in caught.value.fact


@pytest.mark.parametrize(
    "name",
    ["../escape.json", "models/small/../../../escape.json", "/etc/cron.json", "models/small/evil.py", "a\x1b[2J.json",
     "models/small/model.bin", "C:\\x.json", "models/small/con.json", "x" * 100],
)  # fmt: skip
def test_dangerous_names_are_refused_and_shown(archive: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    archive.write_bytes(archive.read_bytes()[:-1024] + member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(UnsafeWeights) as caught:
        members(archive)
    assert name.rpartition("/")[2][:20] in caught.value.fact.replace("\\\\", "\\").replace("\\x1b", "\x1b")


@pytest.mark.parametrize("second", ["config.json", "CONFIG.json"])
def test_a_name_twice_is_refused(archive: Path, second: str) -> None:
    more = BytesIO()
    write_bytes(more, "models/small", second, b"[]")
    archive.write_bytes(archive.read_bytes()[:-1024] + more.getvalue() + bytes(1024))
    with pytest.raises(UnsafeWeights, match=f"{second}' twice"):
        members(archive)


@pytest.mark.parametrize("change", [{"mode": 0o755}, {"uid": 1}, {"gid": 1}, {"mtime": 1}, {"uname": "me"}, {"pax": 1}])
def test_a_plain_file_written_by_another_program_is_refused(archive: Path, change: dict[str, int | str]) -> None:
    member = tarfile.TarInfo("models/small/tokenizer.json")
    for key, value in change.items():
        setattr(member, key, value) if key != "pax" else None
    written = member.tobuf(tarfile.GNU_FORMAT if "pax" in change else tarfile.USTAR_FORMAT)
    archive.write_bytes(archive.read_bytes()[:-1024] + written + bytes(1024))
    with pytest.raises(CorruptArtifact, match=r"not written by `localmel weights pack`: .*tokenizer\.json"):
        members(archive)


def test_a_huge_declared_size_is_held_against_the_file(archive: Path) -> None:
    for size in (1 << 20, 1 << 62, (1 << 88) - 1):
        archive.write_bytes(header("models/small", "model.safetensors", size) + bytes(2048))
        with pytest.raises(CorruptArtifact, match="cut off"):
            members(archive)


def test_every_way_to_cut_it_is_noticed(archive: Path) -> None:
    whole = archive.read_bytes()
    for keep in range(0, len(whole), 97):
        archive.write_bytes(whole[:keep])
        with pytest.raises(CorruptArtifact):
            members(archive)


@pytest.mark.parametrize("more", [b"\0", b"x", bytes(512), bytes(9216), b"PK\x03\x04"])
def test_nothing_may_stand_after_the_end(archive: Path, more: bytes) -> None:
    archive.write_bytes(archive.read_bytes() + more)
    with pytest.raises(CorruptArtifact, match="does not end"):
        members(archive)


def test_every_byte_outside_the_content_is_fixed(archive: Path) -> None:
    """Headers, padding and end: whichever byte is another, it is noticed."""
    whole = archive.read_bytes()
    inside = {at for one in members(archive) for at in range(one.start, one.start + one.size)}
    places = [at for at in range(len(whole)) if at not in inside]
    for at in random.Random(0).sample(places, 300):
        with archive.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 0x15]))
            file.flush()
            with pytest.raises((CorruptArtifact, UnsafeWeights)):
                read_members(file, archive)
            file.seek(at)
            file.write(whole[at : at + 1])


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1024), b"\x1f\x8b" + bytes(2000), b"PK\x03\x04" * 300])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    error = small.error_of(lambda: members(path))
    if error is None:
        assert members(path) == []  # an empty archive; a bundle needs more
    else:
        assert str(path) in error.fact


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no bundle .*none\.tar"):
        members(tmp_path / "none.tar")
    with pytest.raises(BadInput, match="is a folder, not a bundle"):
        members(tmp_path)
