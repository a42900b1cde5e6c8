"""Bundles that were mutated at random: refused with an error of ours, or installed as they were packed; nothing else.

Whatever happens, no file appears outside the folder of the weights."""

from __future__ import annotations

import json
import math
import tarfile
from io import BytesIO
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.errors import CorruptArtifact
from localmel.weights.archive import write_bytes
from localmel.weights.bundle import read_bundle
from localmel.weights.install import install_bundle
from localmel.weights.manifest import record_from
from localmel.weights.pack import pack
from localmel.weights.verify import verify
from tests.weights import small

FILES = small.language_model(shards=2)
ATTEMPTS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("packed")
    small.write(folder / "small", FILES)
    return pack([f"{folder / 'small'}/"], folder / "b.tar").path.read_bytes()


def attempt(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Install it; afterwards there is the whole model, or nothing at all, and nothing elsewhere."""
    place = tmp_path_factory.mktemp("attempt")
    path = place / "b.tar"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALMEL_HOME", str(place / "home"))
        if error := small.error_of(lambda: install_bundle(path)):
            assert str(path) in error.fact
            found = {one.relative_to(place).as_posix() for one in place.rglob("*")}
            assert found <= {"b.tar", "home", "home/weights", "home/weights/.lock"}
            return
        found = {one.relative_to(place).as_posix() for one in place.rglob("*") if one.is_file()}
        expected = {f"home/weights/small/{name}" for name in (*FILES, "manifest.json")}
        assert found == {"b.tar", "home/weights/.lock", *expected}
        assert {name: (place / "home/weights/small" / name).read_bytes() for name in FILES} == FILES
        assert verify("small").findings == ()


@given(data=st.data())
@ATTEMPTS
def test_flipped_bytes(bundle: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    changed = bytearray(bundle)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    attempt(bytes(changed), tmp_path_factory)


@given(data=st.data())
@ATTEMPTS
def test_cut_grown_repeated_and_exchanged_pieces(
    bundle: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """In blocks of the archive, so that many of the results are archives again."""
    blocks = [bundle[at : at + 512] for at in range(0, len(bundle), 512)]
    for _ in range(data.draw(st.integers(1, 3))):
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(blocks))] * 2)))
        piece = blocks[first:last]
        what = data.draw(st.sampled_from(["cut", "repeat", "move", "end", "noise"]))
        if what in ("cut", "move"):
            del blocks[first:last]
        if what in ("repeat", "move"):
            at = data.draw(st.integers(0, len(blocks)))
            blocks[at:at] = piece
        if what == "end":
            del blocks[first:]
        if what == "noise":
            blocks.insert(first, data.draw(st.binary(min_size=0, max_size=1024)))
    attempt(b"".join(blocks), tmp_path_factory)


NAMES = st.one_of(
    st.sampled_from([
        "../../escape.json", "/tmp/escape.json", "models/small/../../../escape.json", "models/small/x.py",
        "models/small/config.json", "models/other/config.json", "manifest.json", "models/small/..", ".", "\\\\x",
        "models/small/a.json/b.json", "models/small/pytorch_model.bin", "models/small/.lock", "~/.bashrc",
    ]),
    st.text(min_size=1, max_size=90),
)  # fmt: skip


@given(
    name=NAMES,
    kind=st.sampled_from([b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"\0"]),
    target=st.sampled_from(["/etc/passwd", "../../../escape", "models/small/config.json", ""]),
    content=st.binary(max_size=600),
    where=st.sampled_from(["first", "middle", "last"]),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@ATTEMPTS
def test_extra_members_of_every_kind(
    bundle: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    kind: bytes,
    target: str,
    content: bytes,
    where: str,
    form: int,
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target if kind in b"12" else ""
    member.size = len(content) if kind in (b"0", b"\0", b"7", b"L", b"x", b"S") else 0
    try:
        extra = member.tobuf(form, errors="surrogateescape")
    except (ValueError, UnicodeError):  # a name that this form of header cannot hold
        return
    if member.size:
        extra += content + bytes(-len(content) % 512)
    at = {"first": 0, "middle": bundle.index(b"models/small") - 345, "last": len(bundle) - 1024}[where]
    attempt(bundle[:at] + extra + bundle[at:], tmp_path_factory)


@given(size=st.integers(0, (1 << 88) - 1), at=st.integers(0, len(FILES) + 1))
@ATTEMPTS
def test_declared_sizes(bundle: bytes, tmp_path_factory: pytest.TempPathFactory, size: int, at: int) -> None:
    """A header whose size is another, with a checksum that is right."""
    with tarfile.open(fileobj=BytesIO(bundle)) as tar:
        offset = tar.getmembers()[at].offset
    header = bytearray(bundle[offset : offset + 512])
    header[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    attempt(bundle[:offset] + bytes(header) + bundle[offset + 512 :], tmp_path_factory)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def any_text(random: Random) -> str:
    """Return up to eight characters of any script, none of them half a character."""
    return "".join(chr(random.choice((random.randrange(0xD800), random.randrange(0xE000, 0x110000))))
                   for _ in range(random.randrange(9)))  # fmt: skip


def any_json(random: Random, depth: int = 0) -> Any:
    """Return a JSON value of at most four levels."""
    kind = random.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [any_json(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 6:
        return {any_text(random): any_json(random, depth + 1) for _ in range(random.randrange(4))}
    number = random.choice((0, -1, 1, 2**63, -(2**64), random.randrange(-(10**6), 10**6)))
    return (None, random.random() < 0.5, number, random.choice((0.5, -0.0, 1e308, math.inf, math.nan)),
            any_text(random))[kind]  # fmt: skip


def mutated(value: Any, random: Random) -> Any:
    """Return the value with one place in it exchanged, removed or added to."""
    if isinstance(value, dict) and value and random.randrange(4):
        key = random.choice(sorted(value))
        return {**value, key: mutated(value[key], random)}
    if isinstance(value, list) and value and random.randrange(4):
        at = random.randrange(len(value))
        return [*value[:at], mutated(value[at], random), *value[at + 1 :]]
    if isinstance(value, dict) and random.randrange(2):
        return {**value, any_text(random): any_json(random)}
    return any_json(random)


@given(seed=st.integers(0, 2**64))
@settings(max_examples=150, deadline=None)
def test_mutated_manifests(bundle: bytes, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Read only: a manifest that passes says the same as the true one but for texts."""
    with tarfile.open(fileobj=BytesIO(bundle)) as tar:
        first = tar.getmembers()[1].offset
        table = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    out = BytesIO()
    write_bytes(out, "", "manifest.json", json.dumps(mutated(table, Random(seed))).encode())
    path = tmp_path_factory.mktemp("read") / "b.tar"
    path.write_bytes(out.getvalue() + bundle[first:])
    with path.open("rb") as file:
        if error := small.error_of(lambda: read_bundle(file, path)):
            assert str(path) in error.fact
            return
        (record,) = read_bundle(file, path).records
    assert record.name == "small"
    assert {name: one.bytes for name, one in record.files.items()} == {n: len(d) for n, d in FILES.items()}


@given(value=JSON)
@settings(max_examples=150, deadline=None)
def test_any_json_is_a_record_or_an_error_of_ours(value: object) -> None:
    with pytest.raises(CorruptArtifact, match="cannot read here"):
        record_from(value, where="here")
