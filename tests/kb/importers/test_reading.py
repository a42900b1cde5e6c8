"""Files become numbered lines in bounded memory, and one policy decides about bad ones."""

from __future__ import annotations

import bz2
import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from localmel.errors import BadInput, ImportProblem, LocalmelError, MissingExtra
from localmel.kb.importers.reading import Problems, excerpt, read_blocks, stem_suffix
from localmel.store.progress import Listener, listening

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
compressions = pytest.mark.parametrize("suffix", COMPRESS)
packed = pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def numbered(path: Path, *, max_line: int = 1 << 20) -> tuple[list[tuple[int, str]], list[ImportProblem]]:
    problems: list[ImportProblem] = []
    blocks = read_blocks(path, Problems(on_problem=problems.append), max_line=max_line)
    return [(number, line) for block in blocks for number, line in enumerate(block.lines, block.first)], problems


@compressions
def test_every_compression_gives_the_same_numbered_lines(tmp_path: Path, suffix: str) -> None:
    data = "".join(f"line {number} é 東京 🌍\n" for number in range(1, 200_001)).encode()
    lines, problems = numbered(written(tmp_path, f"a.txt{suffix}", COMPRESS[suffix](data)))
    assert lines == [(number, f"line {number} é 東京 🌍") for number in range(1, 200_001)]
    assert problems == []


@packed
def test_a_compressed_file_is_known_without_its_suffix(tmp_path: Path, suffix: str) -> None:
    assert numbered(written(tmp_path, "a.txt", COMPRESS[suffix](b"x\ny\n")))[0] == [(1, "x"), (2, "y")]


def test_text_that_begins_like_bzip2_is_text(tmp_path: Path) -> None:
    assert numbered(written(tmp_path, "a.txt", b"BZh9 is a name\n"))[0] == [(1, "BZh9 is a name")]


@packed
def test_several_members_are_one_file(tmp_path: Path, suffix: str) -> None:
    data = COMPRESS[suffix](b"x\ny") + COMPRESS[suffix](b"z\nw\n")
    assert numbered(written(tmp_path, f"a{suffix}", data))[0] == [(1, "x"), (2, "yz"), (3, "w")]


@packed
def test_a_truncated_file_names_the_last_good_line(tmp_path: Path, suffix: str) -> None:
    whole, rest = COMPRESS[suffix](b"one\ntwo\nthr"), COMPRESS[suffix](b"ee\nfour\n")
    path = written(tmp_path, f"a{suffix}", whole + rest[:6])
    with pytest.raises(BadInput, match=r"cut off: its last whole line is 2\n") as caught:
        numbered(path)
    assert caught.value.hint


@packed
def test_an_empty_file_named_as_compressed_is_cut_off(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BadInput, match="cut off: no whole line could be read"):
        numbered(written(tmp_path, f"a{suffix}", b""))


@packed
def test_a_file_that_is_not_what_its_suffix_says_is_damaged(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BadInput, match="is damaged"):
        numbered(written(tmp_path, f"a{suffix}", b"this is plain text, and a lot of it\n" * 9))


def test_a_missing_file_and_a_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        numbered(tmp_path / "none.txt")
    with pytest.raises(BadInput, match="cannot read"):
        numbered(tmp_path)


def test_windows_line_ends_and_a_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    assert numbered(written(tmp_path, "a", b"\xef\xbb\xbfone\r\ntwo\r\n"))[0] == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_with_the_command_that_converts_it(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(BadInput, match="UTF-16") as caught:
        numbered(written(tmp_path, "a.csv", "name,country\nEiffel,France\n".encode(encoding)))
    assert caught.value.hint.startswith("iconv -f UTF-16 -t UTF-8")


def test_a_line_that_is_not_utf_8_is_reported_and_comes_out_empty(tmp_path: Path) -> None:
    lines, problems = numbered(written(tmp_path, "a", b"one\nZ\xfcrich\nthree\n"))
    assert lines == [(1, "one"), (2, ""), (3, "three")]
    assert [problem.line for problem in problems] == [2]
    assert "not UTF-8 at byte 2" in problems[0].fact
    assert "rich" in problems[0].fact


def test_characters_that_are_no_text_become_blanks_and_tabs_stay(tmp_path: Path) -> None:
    text = "a\x00b\x1fc\x7fd\x85e\u2028f\u2029g\th\rk\n"
    assert numbered(written(tmp_path, "a", b"safe\n" + text.encode()))[0][1] == (2, "a b c d e f g\th k")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_cleaning_is_per_character_however_the_fast_check_works(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    def slowly(line: str) -> str:
        controls = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"} - {"\t"}
        return "".join(" " if character in controls else character for character in line)

    path = written(tmp_path_factory.getbasetemp(), "clean.txt", f"first\n{text}\n".encode())
    expected = [slowly(line) for line in text.replace("\r\n", "\n").removesuffix("\r").split("\n")]
    assert [line for _, line in numbered(path)[0]] == ["first", *expected]


def test_a_line_without_end_is_refused_before_memory_runs_out(tmp_path: Path) -> None:
    bomb = bz2.compress(b"ok\n" + b"0" * (64 << 20))
    assert len(bomb) < 10_000
    with pytest.raises(BadInput, match=":2: a line of more than 4 MiB"):
        numbered(written(tmp_path, "a.bz2", bomb), max_line=4 << 20)


@compressions
def test_progress_adds_up_to_the_size_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, f"a{suffix}", COMPRESS[suffix](b"some line or other\n" * 100_000))
    told: list[int] = []
    with listening(Listener(on_done=told.append)):
        list(read_blocks(path, Problems()))
    assert sum(told) == path.stat().st_size
    assert min(told) >= 0


def test_zstandard_that_is_not_installed_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "a.zst", COMPRESS[".zst"](b"x\n"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtra) as caught:
        numbered(path)
    assert caught.value.hint == "pip install zstandard"


def test_the_suffix_below_the_compression_is_found() -> None:
    names = ["a.jsonl.gz", "a.CSV", "a.b.json.zst", "a"]
    assert [stem_suffix(Path(name)) for name in names] == [".jsonl", ".csv", ".json", ""]


@given(
    data=st.binary(max_size=300), suffix=st.sampled_from(list(COMPRESS)), really=st.booleans(), cut=st.integers(0, 30)
)
def test_any_bytes_give_lines_or_a_localmel_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str, really: bool, cut: int
) -> None:
    stored = COMPRESS[suffix](data) if really else data
    path = written(tmp_path_factory.getbasetemp(), f"any{suffix}", stored[: len(stored) - cut])
    try:
        lines, problems = numbered(path)
    except LocalmelError as error:
        assert str(path) in error.fact  # noqa: PT017
    else:
        assert [number for number, _ in lines] == list(range(1, len(lines) + 1))
        assert {problem.line for problem in problems} <= {number for number, line in lines if not line}


def test_problems_are_collected_and_raised_together_at_the_end() -> None:
    problems = Problems()
    for line in (3, 7):
        problems.report("it is blue", "a.tsv", line)
    with pytest.raises(BadInput) as caught:
        problems.finish()
    assert caught.value.fact == "2 lines cannot be used:\n  a.tsv:3: it is blue\n  a.tsv:7: it is blue"
    assert "--skip-bad" in caught.value.hint


def test_the_twentieth_problem_ends_the_reading() -> None:
    problems = Problems()
    for line in range(1, 20):
        problems.report("it is blue", "a.tsv", line)
    with pytest.raises(BadInput, match="20 lines cannot be used, and reading stopped there") as caught:
        problems.report("it is blue", "a.tsv", 20)
    assert caught.value.fact.count("it is blue") == 20


def test_no_problem_is_no_error() -> None:
    problems = Problems()
    problems.finish()
    assert problems.count == 0


def test_a_collector_gets_every_problem_and_nothing_is_raised() -> None:
    seen: list[ImportProblem] = []
    problems = Problems(on_problem=seen.append)
    for line in range(1, 101):
        problems.report("it is blue", "a.tsv", line)
    problems.finish()
    assert [each.line for each in seen] == list(range(1, 101))
    assert problems.count == 100


def test_the_hint_of_a_problem_is_listed_with_it() -> None:
    problems = Problems()
    problems.report("it is blue", "a", 1, hint="paint it")
    with pytest.raises(BadInput, match=r"a:1: it is blue \(paint it\)"):
        problems.finish()


@pytest.mark.parametrize("value", ["x" * 1000, ["y"] * 1000, {"k": "z" * 1000}, b"\xff" * 1000, 10**50])
def test_an_excerpt_is_short(value: object) -> None:
    assert len(excerpt(value)) <= 60


def test_an_excerpt_of_a_value_nested_without_end_is_possible() -> None:
    nested: object = []
    for _ in range(100_000):
        nested = {"a": nested}
    assert excerpt(nested) == "a deeply nested dict"
    while isinstance(nested, dict):  # let go of it level by level
        nested = nested["a"]
