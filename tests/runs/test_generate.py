"""A stage is made once, goes on where it was killed, and is never something other than it says."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localmel.engines.protocol import Request, Response
from localmel.engines.scripted import ScriptedEngine
from localmel.errors import BadInput, CorruptArtifact, EngineStopped, UsageError
from localmel.records import Description, Mention, Span
from localmel.runs.folder import finished_stage, journal_of, make_stage, run_folder
from localmel.runs.generate import (
    DESCRIPTIONS,
    GENERATE,
    UNPARSED,
    generate_stage,
    mentions_sha256,
    read_descriptions,
)
from localmel.settings import EngineSettings, GenerateSettings
from localmel.store.journal import Journal, JournalBusy
from localmel.store.progress import Listener, listening

ROOT = Path(__file__).resolve().parents[2]
UNDER_TEST = Path(__file__).with_name("stage_under_test.py")
SETTINGS = GenerateSettings(backend="vlm", model=EngineSettings(engine="scripted"))


class Counting(ScriptedEngine):
    def __init__(self, answer: Any = lambda _: None) -> None:
        super().__init__(EngineSettings(engine="scripted"), answer)
        self.sent = 0

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        def counted() -> Iterator[Request]:
            for request in requests:
                self.sent += 1
                yield request

        return super().generate(counted())


def mentions(n_sentences: int = 5) -> list[Mention]:
    found = []
    for number in range(n_sentences):
        sentence = f"Ann{number} met Bob{number}."
        for name in (f"Ann{number}", f"Bob{number}"):
            start = sentence.index(name)
            span = Span(start=start, end=start + len(name))
            found.append(Mention(id=name, surface=name, context=sentence, span=span))
    return found


def unreadable(request: Request) -> Response | None:
    if "Ann2" not in str(request.messages[-1].parts[-1]):
        return None
    return Response(request_id=request.id, text="no \ud800", finish="stop", output_tokens=2)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- the generate stage ------------------------------------------------------------------------------------------


def test_every_mention_stands_in_one_of_the_two_files_in_order(tmp_path: Path) -> None:
    stage = generate_stage(mentions(), SETTINGS, Counting(unreadable), tmp_path / "run")
    described, unparsed = rows(stage.folder / DESCRIPTIONS), rows(stage.folder / UNPARSED)
    order = [mention.id for mention in mentions()]
    assert [row["mention_id"] for row in described] == [one for one in order if one not in ("Ann2", "Bob2")]
    assert [row["mention_id"] for row in unparsed] == ["Ann2", "Bob2"]
    assert unparsed[0]["raw"] == "no \ud800"
    assert unparsed[0]["attempts"] == 3
    assert "not JSON" in unparsed[0]["problem"]
    assert all(set(row) >= {"entity_type", "summary", "triples", "raw", "attempts"} for row in described)
    assert all(len(triple) == 3 for row in described for triple in row["triples"])


def test_the_manifest_says_what_it_was_made_from_and_what_it_cost(tmp_path: Path) -> None:
    stage = generate_stage(mentions(), SETTINGS, Counting(unreadable), tmp_path / "run", command="localmel generate x")
    manifest = json.loads((stage.folder / "manifest.json").read_text())
    figures = manifest["figures"]
    assert (figures["mentions"], figures["sentences"], figures["described"], figures["unparsed"]) == (10, 5, 8, 2)
    assert (figures["answers"], figures["answers_now"], figures["failed"]) == (7, 7, 0)
    assert figures["prompt_tokens_per_mention"] == round(figures["prompt_tokens"] / 10, 1) > 50
    assert figures["answers_per_second"] > 0
    assert manifest["made_from"]["inputs"]["mentions"] == mentions_sha256(mentions())
    assert manifest["made_from"]["settings"]["max_tokens"] == 1024
    assert manifest["command"] == "localmel generate x"
    assert set(manifest["files"]) == {DESCRIPTIONS, UNPARSED}
    assert manifest["versions"]["python"]


def test_the_same_again_sends_nothing_and_writes_nothing(tmp_path: Path) -> None:
    generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    before = (tmp_path / "run" / GENERATE / "manifest.json").stat()
    again = Counting()
    stage = generate_stage(mentions(), SETTINGS, again, tmp_path / "run")
    assert not stage.made
    assert again.sent == 0
    assert (tmp_path / "run" / GENERATE / "manifest.json").stat() == before


def test_settings_that_change_no_answer_are_the_same_inputs(tmp_path: Path) -> None:
    generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    faster = replace(SETTINGS, model=EngineSettings(engine="scripted", at_once=4, timeout=5.0), read_writing=False)
    assert not generate_stage(mentions(), faster, Counting(), tmp_path / "run").made


def test_another_stage_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    with pytest.raises(BadInput, match=r"differs in settings\.most_triples, inputs\.mentions"):
        generate_stage(mentions(4), replace(SETTINGS, most_triples=3), Counting(), tmp_path / "run")
    with pytest.raises(BadInput, match="no mentions"):
        generate_stage([], SETTINGS, Counting(), tmp_path / "other")


def test_a_damaged_stage_is_refused_with_the_command_that_makes_it_anew(tmp_path: Path) -> None:
    stage = generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    content = (stage.folder / DESCRIPTIONS).read_bytes()
    (stage.folder / DESCRIPTIONS).write_bytes(content.replace(b"Ann0", b"Ann9"))
    with pytest.raises(CorruptArtifact) as error:
        generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    assert error.value.hint.startswith("rm -r ")
    shutil.rmtree(stage.folder)
    again = Counting()
    assert generate_stage(mentions(), SETTINGS, again, tmp_path / "run").made
    assert again.sent == 0
    assert (stage.folder / DESCRIPTIONS).read_bytes() == content


def test_an_engine_that_stops_leaves_no_folder_and_the_next_run_asks_the_rest(tmp_path: Path) -> None:
    def stops(request: Request) -> None:
        if "Ann3" in str(request.messages[-1].parts[-1]):
            raise EngineStopped("out of memory")

    with pytest.raises(EngineStopped):
        generate_stage(mentions(), SETTINGS, Counting(stops), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["journals"]
    notes: list[str] = []
    again = Counting()
    with listening(Listener(on_note=notes.append)):
        generate_stage(mentions(), SETTINGS, again, tmp_path / "run")
    assert again.sent == 2
    assert notes == [f"going on: 3 answers of earlier runs are in {journal_of(tmp_path / 'run', GENERATE)}"]


def test_what_failed_is_asked_again_only_where_that_is_wanted(tmp_path: Path) -> None:
    def down(request: Request) -> Response | None:
        if "Ann3" not in str(request.messages[-1].parts[-1]):
            return unreadable(request)
        return Response(request_id=request.id, text="", finish="failed", problem="429")

    first = generate_stage(mentions(), SETTINGS, Counting(down), tmp_path / "run")
    assert (first.manifest["figures"]["unparsed"], first.manifest["figures"]["unanswered"]) == (4, 2)
    assert not generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run").made
    up = Counting()
    stage = generate_stage(mentions(), SETTINGS, up, tmp_path / "run", again=True)
    assert up.sent == 1
    assert (stage.manifest["figures"]["unparsed"], stage.manifest["figures"]["unanswered"]) == (2, 0)
    assert not generate_stage(mentions(), SETTINGS, up, tmp_path / "run", again=True).made


def test_two_at_once_in_one_run_are_kept_apart(tmp_path: Path) -> None:
    with Journal(journal_of(tmp_path / "run", GENERATE)), pytest.raises(JournalBusy):
        generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")


def test_a_damaged_journal_is_told_and_the_damaged_answer_asked_again(tmp_path: Path) -> None:
    stage = generate_stage(mentions(), SETTINGS, Counting(), tmp_path / "run")
    expected = (stage.folder / DESCRIPTIONS).read_bytes()
    shutil.rmtree(stage.folder)
    path = journal_of(tmp_path / "run", GENERATE)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b":", b";", 1), *lines[3:]]))
    notes: list[str] = []
    again = Counting()
    with listening(Listener(on_note=notes.append)):
        generate_stage(mentions(), SETTINGS, again, tmp_path / "run")
    assert again.sent == 1
    assert "1 line is damaged" in notes[0]
    assert (stage.folder / DESCRIPTIONS).read_bytes() == expected


def test_descriptions_are_read_back_as_they_were(tmp_path: Path) -> None:
    generate_stage(mentions(), SETTINGS, Counting(unreadable), tmp_path / "run")
    found = read_descriptions(tmp_path / "run", mentions())
    assert list(found) == [mention.id for mention in mentions() if mention.id not in ("Ann2", "Bob2")]
    one = found["Bob4"]
    assert isinstance(one, Description)
    assert all(triple.head == "Bob4" for triple in one.triples)
    assert one.entity_type
    assert list(read_descriptions(tmp_path / "run", mentions(1))) == ["Ann0", "Bob0"]
    with pytest.raises(BadInput, match="has nothing about 2 mentions, for example 'Ann5'"):
        read_descriptions(tmp_path / "run", mentions(6))
    with pytest.raises(BadInput, match="no finished stage 'generate'"):
        read_descriptions(tmp_path / "none", mentions())


def test_the_hash_of_mentions_follows_words_places_and_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    one = Mention(id="1", surface="a", context="a b a", span=Span(start=0, end=1), image=picture)
    seen = {mentions_sha256([one])}
    picture.write_bytes(b"x")
    seen.add(mentions_sha256([one]))
    picture.write_bytes(b"y")
    seen.add(mentions_sha256([one]))
    seen.add(mentions_sha256([replace(one, span=Span(start=4, end=5))]))
    seen.add(mentions_sha256([replace(one, context="a b a ")]))
    seen.add(mentions_sha256([replace(one, id="2")]))
    assert len(seen) == 6
    (tmp_path / "q.jpg").write_bytes(b"y")
    assert mentions_sha256([replace(one, image=tmp_path / "q.jpg")]) == mentions_sha256([one])


# --- any stage ---------------------------------------------------------------------------------------------------


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("x")
        raise EngineStopped("gone")

    with pytest.raises(EngineStopped):
        make_stage(tmp_path / "run", "rerank", fails, settings={}, inputs={})
    assert list((tmp_path / "run").iterdir()) == []


def test_a_stage_carries_its_figures_and_is_of_its_kind(tmp_path: Path) -> None:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "x.txt").write_text("x")
        return {"mentions": 3}

    made = make_stage(tmp_path / "run", "rerank", make, settings={"k": (1, 2)}, inputs={"a": "b"})
    assert made.made
    assert made.manifest["figures"] == {"mentions": 3}
    assert not make_stage(tmp_path / "run", "rerank", make, settings={"k": [1, 2]}, inputs={"a": "b"}).made
    assert finished_stage(tmp_path / "run", "rerank").manifest["kind"] == "rerank"
    (tmp_path / "run" / "rerank").rename(tmp_path / "run" / "generate")
    with pytest.raises(CorruptArtifact, match="holds 'rerank', not 'generate'"):
        finished_stage(tmp_path / "run", "generate")
    (tmp_path / "run" / "retrieve").mkdir()
    with pytest.raises(CorruptArtifact, match="is not finished"):
        make_stage(tmp_path / "run", "retrieve", make, settings={}, inputs={})


@pytest.mark.parametrize("name", ["", " ", "..", ".", "a\0b", "x" * 300])
def test_a_run_needs_a_name(name: str) -> None:
    with pytest.raises(UsageError):
        run_folder(name)


def test_a_run_stands_below_runs_or_at_a_path() -> None:
    assert run_folder("first") == Path("runs/first")
    assert run_folder("/data/first") == Path("/data/first")
    assert run_folder("./first") == Path("first")
    assert run_folder("first/") == run_folder("first//") == Path("runs/first")
    assert run_folder("/data/first/") == Path("/data/first")


# --- killed ------------------------------------------------------------------------------------------------------


def start(run: Path, log: Path, *model: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, (UNDER_TEST, run, log, *model))]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def sent_in(log: Path) -> list[str]:
    """Keys of the requests that were sent, in order; a line that is half written was not."""
    return [line for line in log.read_text().split("\n") if len(line) == 64] if log.exists() else []


def answered_in(run: Path) -> set[str]:
    """Keys of whole lines with an answer."""
    path = journal_of(run, GENERATE)
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {row["key"] for row in map(json.loads, lines) if "answer" in row}


def output_of(run: Path) -> dict[str, bytes]:
    return {name: (run / GENERATE / name).read_bytes() for name in (DESCRIPTIONS, UNPARSED)}


def killed_and_resumed(folder: Path, n_kills: int, seed: int, *model: Path, under_way: int = 4) -> None:
    """Kill the process at random moments, then let it finish; the folder is made anew whenever it was finished."""
    assert start(folder / "whole", folder / "whole.log", *model).wait() == 0
    expected, all_keys = output_of(folder / "whole"), sent_in(folder / "whole.log")
    assert len(set(all_keys)) == len(all_keys) >= 6

    chance = random.Random(seed)
    run, log = folder / "killed", folder / "killed.log"
    sent_by_now = finished = 0
    for _ in range(n_kills):
        answered = answered_in(run)
        process = start(run, log, *model)
        wanted = sent_by_now + chance.randint(0, 2 * len(all_keys) // n_kills)
        while process.poll() is None and len(sent_in(log)) < min(wanted, len(all_keys)):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        sent = sent_in(log)
        assert not answered & set(sent[sent_by_now:]), "a request was sent although its answer was in the journal"
        sent_by_now = len(sent)
        if (run / GENERATE).exists():
            finished += 1
            assert output_of(run) == expected
            shutil.rmtree(run / GENERATE)
    assert start(run, log, *model).wait() == 0
    assert output_of(run) == expected
    answered = answered_in(run)
    sent = [key for key in sent_in(log) if key in answered]  # failures are asked again by every run
    assert set(sent_in(log)) == set(all_keys)
    assert len(sent) - len(set(sent)) <= under_way * n_kills  # at most what was under way when it was killed
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert finished < n_kills


def test_a_stage_killed_at_random_moments_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 8, seed=1)


@pytest.mark.slow  # fifty starts of a process
def test_a_stage_killed_fifty_times_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, 50, seed=2)


@pytest.mark.slow  # four starts of torch and a model
@pytest.mark.timeout(900)
def test_a_stage_of_a_real_model_killed_ends_as_if_nothing_had_been(
    tmp_path: Path, tiny_models: Callable[[str], Path]
) -> None:
    killed_and_resumed(tmp_path, 2, 3, tiny_models("tiny-llava-mistral"), under_way=2)


def test_ctrl_c_keeps_what_was_answered(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(run, log)
    while len(sent_in(log)) < 30:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    assert 20 < len(answered_in(run)) < 120
    assert [path.name for path in run.iterdir()] == ["journals"]
