"""A JSON list is read element by element, whatever the size of the pieces; a broken one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.benchmarks.json_lists import read_list, read_object
from localmel.errors import BadInput
from localmel.store.progress import Listener, listening

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def written(folder: Path, data: bytes | str) -> Path:
    path = folder / "list.json"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@given(values=st.lists(VALUES, max_size=6), piece=st.integers(1, 40), indent=st.sampled_from([None, 0, 3]))
def test_pieces_of_any_size_give_what_the_plain_reader_gives(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], piece: int, indent: int | None
) -> None:
    text = (
        json.dumps(values, ensure_ascii=False, indent=indent)
        .encode("utf-8", "surrogatepass")
        .decode("utf-8", "replace")
    )
    path = written(tmp_path_factory.mktemp("list"), text)
    assert [element.value for element in read_list(path, piece=piece)] == json.loads(text)


@given(values=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
def test_a_list_that_is_cut_off_anywhere_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], data: st.DataObject
) -> None:
    text = json.dumps(values).encode()
    path = written(tmp_path_factory.mktemp("list"), text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(BadInput):
        list(read_list(path, piece=7))


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_list_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("list"), b"[" + data)
    try:
        values = [element.value for element in read_list(path, piece=5)]
    except BadInput:
        return
    assert values == json.loads((b"[" + data).decode(), strict=False)


def test_elements_carry_their_number_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeff[\n{"a": 1},\n\n {"b":\n 2}, 3]\n')
    assert [(one.number, one.line) for one in read_list(path, piece=1)] == [(1, 2), (2, 4), (3, 5)]


def test_progress_adds_up_to_the_size_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([{"a": "x" * 100}] * 50))
    told: list[int] = []
    with listening(Listener(on_done=told.append)):
        list(read_list(path, piece=64))
    assert sum(told) == path.stat().st_size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "cut off"),
        ("  \n", "cut off"),
        ("{}", "not a JSON list"),
        ("[1, 2", "cut off: its last whole element is 2"),
        ('[{"a": 1}, {"b": "x', "cut off: its last whole element is 1"),
        ("[1,]", "after element 1"),
        ("[1 2]", "after element 1"),
        ("[1] 2", "after element 1"),
        ("[nothing]", "after element 0"),
        ("[" * 100_000, "after element 0"),
        ("[" + "9" * 5000 + "]", "after element 0"),
        (b'[{"a": "\xff"}]', "not UTF-8"),
        ('[{"a": 1}]'.encode("utf-16"), "not UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_broken_is_said_with_the_last_whole_element(tmp_path: Path, data: bytes | str, said: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(BadInput, match=said) as caught:
        list(read_list(path))
    assert str(path) in caught.value.fact
    assert caught.value.hint


def test_a_broken_element_is_not_looked_for_in_the_whole_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[{"a" 1},' + '{"a": 1},' * 5000)
    read = 0

    def count(more: int) -> None:
        nonlocal read
        read += more

    with pytest.raises(BadInput, match="more than 100 characters"), listening(Listener(on_done=count)):
        list(read_list(path, piece=64, max_element=100))
    assert read < 1000


def test_an_absent_file_and_a_value_that_is_no_object_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        list(read_list(tmp_path / "absent.json"))
    for data, said in (("[]", "a list"), ("{", "not JSON"), (b"\xff", "not JSON"), ("[" * 100_000, "not JSON")):
        with pytest.raises(BadInput, match=said):
            read_object(written(tmp_path, data))
    assert read_object(written(tmp_path, '{"a": [1]}')) == {"a": [1]}
