"""The journal holds what was answered, whatever is done to its file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, CorruptArtifact, LocalmelError, OutOfSpace
from localmel.store import journal as module
from localmel.store.journal import Journal, JournalBusy


def key(number: object) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def filled(path: Path, n_answers: int = 4) -> bytes:
    """Write a journal with answers and one failure; returns its bytes."""
    with Journal(path) as journal:
        for number in range(n_answers):
            journal.keep(key(number), {"text": f"answer {number} – ü\n", "tokens": number})
            if number == 1:
                journal.keep_failure(key("failed"), {"problem": "429"})
    return path.read_bytes()


def answers_of(path: Path, n_answers: int = 4) -> list[dict[str, Any] | None]:
    with Journal(path) as journal:
        return [journal.get(key(number)) for number in range(n_answers)]


@pytest.fixture(scope="module", autouse=True)
def disk_is_not_waited_for() -> Iterator[None]:
    """Thousands of journals are opened here; none has to outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


ANSWERS = [{"text": f"answer {number} – ü\n", "tokens": number} for number in range(4)]


def test_what_was_kept_is_there_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    filled(tmp_path / "deep" / "journal.jsonl")
    assert answers_of(tmp_path / "deep" / "journal.jsonl") == ANSWERS


def test_every_line_is_json(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in filled(tmp_path / "j").splitlines()]
    assert rows[0]["journal"] == 1
    assert [("answer" in row, "failure" in row) for row in rows[1:]] == [
        (True, False), (True, False), (False, True), (True, False), (True, False),
    ]  # fmt: skip


def test_a_failure_is_no_answer_and_an_answer_that_comes_later_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.keep_failure(key(0), {"problem": "the server is down"})
        assert key(0) not in journal
        assert journal.get(key(0)) is None
    with Journal(tmp_path / "j") as journal:
        assert (len(journal), journal.failures) == (0, 1)
        journal.keep(key(0), {"text": "now"})
    with Journal(tmp_path / "j") as journal:
        assert journal.get(key(0)) == {"text": "now"}
        assert (len(journal), journal.failures) == (1, 1)


def test_an_answer_once_given_does_not_change(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.keep(key(0), {"text": "first"})
        journal.keep(key(0), {"text": "second"})
        assert journal.get(key(0)) == {"text": "first"}
    assert (tmp_path / "j").read_bytes().count(b"\n") == 2


def test_answers_are_read_while_others_are_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for number in range(300):
            journal.keep(key(number), {"text": "x" * number})
            assert journal.get(key(number // 2)) == {"text": "x" * (number // 2)}


def test_half_characters_survive(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.keep(key(0), {"text": "\ud800 \x00 \u2028"})
    with Journal(tmp_path / "j") as journal:
        assert journal.get(key(0)) == {"text": "\ud800 \x00 \u2028"}


def test_the_disk_is_waited_for_once_a_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, now = [], [0.0]
    monkeypatch.setattr(os, "fsync", flushed.append)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Journal(tmp_path / "j") as journal:
        begun = len(flushed)
        for number in range(10):
            now[0] += 0.3
            journal.keep(key(number), {})
        assert len(flushed) - begun == 2
    assert len(flushed) - begun == 3
    with Journal(tmp_path / "j"):
        pass
    assert len(flushed) - begun == 3


# --- damage ------------------------------------------------------------------------------------------------------


def test_cut_at_any_byte_the_whole_lines_are_kept_and_the_rest_is_cut_off(tmp_path: Path) -> None:
    whole = filled(tmp_path / "j")
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:size])
        lines = sum(end <= size for end in ends)
        n_answers = {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 3, 6: 4}[lines]
        with Journal(path) as journal:
            assert [journal.get(key(number)) for number in range(4)] == ANSWERS[:n_answers] + [None] * (4 - n_answers)
            assert journal.damaged == 0
            for number in range(4):
                journal.keep(key(number), ANSWERS[number])
        assert answers_of(path) == ANSWERS


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_gives_the_right_answer_or_none(tmp_path_factory: Any, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damage") / "j"
    damaged = bytearray(filled(path))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(damaged) - 1, 0)))
        change = data.draw(st.sampled_from(["flip", "cut", "insert", "delete", "zeros"]))
        if change == "flip" and damaged:
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del damaged[place:]
        elif change == "insert":
            damaged[place:place] = data.draw(st.binary(max_size=40))
        elif change == "delete":
            del damaged[place : place + data.draw(st.integers(1, 400))]
        else:
            damaged[place:] = bytes(len(damaged) - place)
    path.write_bytes(damaged)
    refused = None
    try:
        found = answers_of(path)
    except CorruptArtifact as error:
        refused = error
    if refused:
        assert refused.hint
        assert path.read_bytes() == bytes(damaged)  # what is no journal is left as it is
        return
    assert all(answer in (None, ANSWERS[number]) for number, answer in enumerate(found))
    with Journal(path) as journal:
        for number in range(4):
            journal.keep(key(number), ANSWERS[number])
    assert answers_of(path) == ANSWERS


@given(content=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("other") / "j"
    path.write_bytes(content)
    refused = None
    try:
        Journal(path).close()
    except CorruptArtifact as error:
        refused = error
    if refused:
        assert str(path) in refused.fact
        assert path.read_bytes() == content
    else:
        assert b'{"check":"'.startswith(content[:10])


def test_a_damaged_line_is_named_and_its_question_is_open_again(tmp_path: Path) -> None:
    lines = filled(tmp_path / "j").splitlines(keepends=True)
    lines[2] = lines[2].replace(b"answer 1", b"answer 7")
    (tmp_path / "j").write_bytes(b"".join(lines))
    with Journal(tmp_path / "j") as journal:
        assert journal.note == f"1 line is damaged in {tmp_path / 'j'} (3); their questions are asked again"
        assert journal.get(key(1)) is None
        journal.keep(key(1), ANSWERS[1])
    assert answers_of(tmp_path / "j") == ANSWERS


def test_a_line_that_somebody_else_sealed_is_no_answer(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    with (tmp_path / "j").open("ab") as file:
        for row in ({"key": 5, "answer": {}}, {"key": "zz", "answer": {}}, {"key": key(9), "answer": [1]}, {}):
            file.write(module._sealed(row))
        file.write(module._BEFORE + module._check(b"[" * 99) + module._BEHIND + b"[" * 99 + b"\n")
    with Journal(tmp_path / "j") as journal:
        assert (len(journal), journal.damaged) == (4, 5)
        assert key(9) not in journal


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(module._sealed({"journal": 2}))
    with pytest.raises(CorruptArtifact, match="j:1: journal version 2; this localmel reads 1"):
        Journal(tmp_path / "j")


def test_an_endless_line_is_passed_over_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINE", 64 * 1024)
    lines = filled(tmp_path / "j").splitlines(keepends=True)
    lines.insert(3, b"x" * 20_000_000 + b"\n")
    (tmp_path / "j").write_bytes(b"".join(lines))
    del lines
    tracemalloc.start()
    assert answers_of(tmp_path / "j") == ANSWERS
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    with (tmp_path / "j").open("ab") as file:
        file.write(b"y" * 1_000_000)  # unfinished
    assert answers_of(tmp_path / "j") == ANSWERS
    with Journal(tmp_path / "j") as journal, pytest.raises(BadInput, match="longer than a line"):
        journal.keep(key(9), {"text": "z" * 70_000})


def test_of_many_answers_only_keys_and_places_are_held(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for number in range(5_000):
            journal.keep(key(number), {"text": "x" * 2_000})
    tracemalloc.start()
    with Journal(tmp_path / "j") as journal:
        assert len(journal) == 5_000
        assert tracemalloc.get_traced_memory()[0] / 5_000 < 250
    tracemalloc.stop()


def test_a_file_that_changes_while_it_is_open_is_no_wrong_answer(tmp_path: Path) -> None:
    size = len(filled(tmp_path / "j"))
    with Journal(tmp_path / "j") as journal:
        (tmp_path / "j").write_bytes(b" " * size)
        with pytest.raises(CorruptArtifact, match="was changed at byte"):
            journal.get(key(2))


# --- writers -----------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from localmel.store.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    number = 0
    while True:
        journal.keep(f"{number:064x}", {"text": "x" * (number % 5000)})
        number += 1
"""


def writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    process.stdout.close()
    return process


def test_a_second_writer_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    process = writer(tmp_path / "j")
    try:
        with pytest.raises(JournalBusy, match="another process is writing"):
            Journal(tmp_path / "j")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Journal(tmp_path / "j") as journal:
        assert journal.damaged == 0
        assert all(journal.get(f"{number:064x}") == {"text": "x" * (number % 5000)} for number in range(len(journal)))


def test_two_in_one_process_are_refused_as_well(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(JournalBusy):
        Journal(tmp_path / "j")
    Journal(tmp_path / "j").close()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    real = os.write

    def half(handle: int, data: bytes) -> int:
        written = real(handle, data[: len(data) // 2])
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        return written

    with Journal(path) as journal:
        journal.keep(key(0), ANSWERS[0])
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OutOfSpace, match="is full"):
            journal.keep(key(1), ANSWERS[1])
        assert path.read_bytes() == before
        assert key(1) not in journal
        monkeypatch.setattr(os, "write", real)
        journal.keep(key(1), ANSWERS[1])
    assert answers_of(path, 2) == ANSWERS[:2]


def test_a_write_that_was_interrupted_half_way_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def interrupted(handle: int, data: bytes) -> int:
        real(handle, data[: len(data) // 2])
        raise KeyboardInterrupt

    with Journal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.keep(key(0), ANSWERS[0])
        monkeypatch.setattr(os, "write", real)
        journal.keep(key(1), ANSWERS[1])
    assert answers_of(tmp_path / "j", 2) == [None, ANSWERS[1]]


@pytest.mark.parametrize("what", ["folder", "pipe", "file above"])
def test_a_place_that_cannot_be_written_is_a_fact(tmp_path: Path, what: str) -> None:
    path = tmp_path / "j"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("x")
        path = path / "j"
    with pytest.raises(LocalmelError) as error:
        Journal(path)
    assert error.value.hint
