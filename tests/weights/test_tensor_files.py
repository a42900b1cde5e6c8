"""Headers of safetensors files, held against the library that the format comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from localmel.errors import CorruptArtifact
from localmel.weights.contents import read_header
from tests.weights import small

TYPES = (np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, np.bool_)


@given(
    shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=3)), max_size=6),
    notes=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_what_the_library_writes_is_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[Any], notes: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    arrays = {f"tensor {number}": np.zeros(shape, kind) for number, (kind, shape) in enumerate(shapes)}
    save_file(arrays, path, metadata=notes or None)
    found = read_header(path)
    assert {name: place.shape for name, place in found.items()} == {name: a.shape for name, a in arrays.items()}
    assert sum(place.n_numbers for place in found.values()) == sum(array.size for array in arrays.values())
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for name, place in found.items():
        assert path.read_bytes()[begin + place.start : begin + place.end] == arrays[name].tobytes()


def opens(path: Path) -> bool:
    """Whether the library takes the file."""
    try:
        with safe_open(path, "np"):
            return True
    except SafetensorError:
        return False


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_or_the_library_takes_it_too(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Never another error, and never more trusting than the format's own reader."""
    whole = bytearray(small.tensors({"a": (2, 3), "b": (4,)}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole))) :]
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    path.write_bytes(whole)
    if error := small.error_of(lambda: read_header(path)):
        assert str(path) in error.fact
    else:
        assert opens(path)


def with_header(header: object, n_bytes: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(n_bytes)


def tensor(start: int, end: int, *, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        (b"", "a header of 0 bytes in a file of 0"),
        (b"\xff" * 16, "a header of 18,446,744,073,709,551,615 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "a header of"),
        (with_header([], 0), "not a table"),
        (with_header({"a": tensor(0, 4), "b": tensor(2, 6)}, 6), "begins at 2"),
        (with_header({"a": tensor(0, 4), "b": tensor(6, 8)}, 8), "begins at 6"),
        (with_header({"a": tensor(0, 4)}, 5), "the tensors have 5 bytes"),
        (with_header({"a": tensor(0, 4)}, 3), "the tensors have 3 bytes"),
        (with_header({"a": tensor(0, 4, shape=[2, 1])}, 4), "of shape [2, 1] takes 4 bytes"),
        (with_header({"a": tensor(0, 4, shape=[-2, -2])}, 4), "not a count"),
        (with_header({"a": tensor(0, 4, shape=[True, 4])}, 4), "not a count"),
        (with_header({"a": tensor(4, 0, shape=[4])}, 4), "takes -4 bytes"),
        (with_header({"a": tensor(0, 4, dtype="PY")}, 4), "type 'PY'"),
        (with_header({"a": {"dtype": "U8"}}, 0), "lacks dtype"),
        (with_header({"__metadata__": {"a": 1}}, 0), "not text"),
        (b"\x1b\0\0\0\0\0\0\0" + b'{"a":{"x":1},"a":{"x":1}}  ', "appears twice"),
        (with_header({"a": tensor(0, 4)}, 4)[:-30], "bytes in a file of"),
        ((100_000).to_bytes(8, "little") + b'{"a":' + b"[" * 99_995, "recursion"),
    ],
)
def test_a_header_that_does_not_add_up_is_refused_with_the_reason(tmp_path: Path, whole: bytes, why: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole)
    with pytest.raises(CorruptArtifact) as caught:
        read_header(path)
    assert why in caught.value.fact
    assert str(path) in caught.value.fact
