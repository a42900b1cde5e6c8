"""A KB is made, added to and taken from as a whole or not at all, whatever happens half-way."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localmel.errors import BadInput, ImportProblem, KbBusy, UnknownKb
from localmel.kb.export import export_kb
from localmel.kb.importers import EntityRow, Problems, TablesSource, TripleRow
from localmel.kb.names import NameIndex
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import Changed, add_to_kb, build_kb, remove_from_kb
from localmel.records import Entity
from tests.kb.conftest import MemorySource, in_mount_namespace, new_entity

MakeKb = Callable[..., Path]
OpenKb = Callable[[Path], KnowledgeBase]


def exported(folder: Path) -> tuple[bytes, bytes, str]:
    """Everything the KB holds, as bytes, and its fingerprint."""
    target = folder.parent / f"export-{time.monotonic_ns()}"
    with closing(KnowledgeBase(folder)) as kb:
        export_kb(kb, target)
        return (target / "entities.jsonl").read_bytes(), (target / "triples.tsv").read_bytes(), kb.fingerprint


def ids_of(kb: KnowledgeBase, name: str) -> list[str]:
    return [entity.id for entity in kb.entities_at([match.row for match in NameIndex(kb).find(name)])]


# --- add, update, remove -----------------------------------------------------------------------------------------


def test_an_added_entity_is_found_at_once_by_every_kind_of_name(make_kb: MakeKb, open_kb: OpenKb) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    names = NameIndex(kb)
    assert not names.find("Lionel Messi")
    source = MemorySource([new_entity("Q615", "Lionel Messi", "La Pulga")], [("Q615", "sport", "", "football")])
    assert add_to_kb(folder, source, Problems()) == Changed(entities=1, triples=1)
    for name in ("Lionel Messi", "la pulga", "Messi", "Lionel Mesi", "Lioness Messi"):
        assert [entity.id for entity in kb.entities_at([match.row for match in names.find(name)])] == ["Q615"], name
    assert kb.triples("Q615")[0].tail == "football"
    assert names.find("Messi")[0].n_triples == 1


def test_a_removed_entity_is_found_by_no_name_and_its_triples_are_gone(make_kb: MakeKb, open_kb: OpenKb) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    assert ids_of(kb, "Jordan") == ["Q41421", "Q810", "Q1"]
    assert remove_from_kb(folder, ["Q41421", "Q1", "Q41421"]) == Changed(entities=2, triples=3)
    assert ids_of(kb, "Jordan") == ["Q810"]
    assert ids_of(kb, "Michael Jordan") == ["Q810"]
    assert not NameIndex(kb).find("Michael")
    with pytest.raises(BadInput):
        kb.triples("Q41421")
    assert kb.facts().triples == 4


def test_an_update_replaces_names_description_image_popularity_and_triples(make_kb: MakeKb, open_kb: OpenKb) -> None:
    old = new_entity("Q1", "Czech Republic", "Bohemia", popularity=0.5, description="old", image="old.jpg")
    gone = ("Q1", "anthem", "", "an old song")
    folder = make_kb([old, new_entity("Q2", "Other")], [gone, ("Q1", "capital", "Q1085", "Prague")])
    kb = open_kb(folder)
    new = new_entity("Q1", "Czechia", "CZ")
    assert add_to_kb(folder, MemorySource([old]), Problems(), update=True) == Changed(entities=1, triples=0)
    assert [triple.tail for triple in kb.triples("Q1")] == ["an old song", "Prague"]  # the import had no triples
    facts = [("Q1", "capital", "Q1085", "Prague"), ("Q1", "currency", "", "koruna")]
    assert add_to_kb(folder, MemorySource([new], facts), Problems(), update=True) == Changed(entities=1, triples=2)
    assert kb.entity("Q1") == new
    assert [triple.tail for triple in kb.triples("Q1")] == ["Prague", "koruna"]
    assert ids_of(kb, "Czechia") == ids_of(kb, "CZ") == ["Q1"]
    assert not NameIndex(kb).find("Bohemia")
    assert not NameIndex(kb).find("Czech Republic")
    assert NameIndex(kb).find("Czechia")[0].n_triples == 2


def test_triples_alone_may_be_added_to_entities_that_stand_there(make_kb: MakeKb, open_kb: OpenKb) -> None:
    folder = make_kb()
    before = exported(folder)
    added = add_to_kb(folder, MemorySource([], [("Q1", "mouth of the watercourse", "Q23883", "Dead Sea")]), Problems())
    assert added == Changed(entities=0, triples=1)
    assert open_kb(folder).triples("Q1")[0].tail == "Dead Sea"
    assert exported(folder) != before


def test_triples_that_stand_there_already_change_nothing(make_kb: MakeKb) -> None:
    folder = make_kb()
    before = exported(folder)
    again = MemorySource([], [("Q810", "capital", "Q3805", "Amman")])
    assert add_to_kb(folder, again, Problems()) == Changed(entities=0, triples=0)
    assert exported(folder) == before


def test_a_misspelt_name_that_was_removed_no_longer_hides_the_right_one(make_kb: MakeKb, open_kb: OpenKb) -> None:
    folder = make_kb()
    kb = open_kb(folder)
    assert ids_of(kb, "Pciasso") == ["Q5593"]
    add_to_kb(folder, MemorySource([new_entity("Q404", "Pciasso")]), Problems())
    assert ids_of(kb, "Pciasso") == ["Q404"]
    remove_from_kb(folder, ["Q404"])
    assert ids_of(kb, "Pciasso") == ["Q5593"]


# --- the fingerprint ---------------------------------------------------------------------------------------------


def test_every_change_moves_the_fingerprint_and_equal_histories_share_it(make_kb: MakeKb) -> None:
    def history(name: str) -> Iterator[str]:
        folder = make_kb(name=name)
        yield exported(folder)[2]
        add_to_kb(folder, MemorySource([new_entity("Q615", "Messi")]), Problems())
        yield exported(folder)[2]
        add_to_kb(folder, MemorySource([new_entity("Q615", "Messi", "Leo")]), Problems(), update=True)
        yield exported(folder)[2]
        add_to_kb(folder, MemorySource([], [("Q615", "sport", "", "football")]), Problems())
        yield exported(folder)[2]
        remove_from_kb(folder, ["Q615"])
        yield exported(folder)[2]

    one, other = list(history("one")), list(history("other"))
    assert len(set(one)) == 5
    assert one == other


def test_an_entity_left_out_and_one_replaced_do_not_share_a_fingerprint(make_kb: MakeKb) -> None:
    source = MemorySource([new_entity("Q90", "Paname"), new_entity("Q615", "Messi")])
    skipped, replaced = make_kb(name="skipped"), make_kb(name="replaced")
    add_to_kb(skipped, source, Problems(on_problem=lambda problem: None))
    add_to_kb(replaced, source, Problems(), update=True)
    assert exported(skipped)[2] != exported(replaced)[2]


# --- what cannot be imported -------------------------------------------------------------------------------------


def test_an_id_that_stands_twice_is_named_with_its_line_and_nothing_is_built(tmp_path: Path) -> None:
    source = MemorySource([new_entity("Q1", "one"), new_entity("Q2", "two"), new_entity("Q1", "again")])
    with pytest.raises(BadInput, match=r"entities:3: entity id 'Q1' repeats") as caught:
        build_kb(tmp_path / "kb", source, Problems())
    assert "--skip-bad" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_skipped_problems_are_counted_and_the_rest_is_imported(tmp_path: Path, open_kb: OpenKb) -> None:
    told: list[ImportProblem] = []
    source = MemorySource(
        [new_entity("Q1", "one"), new_entity("Q1", "again"), new_entity("Q3", "three\x00")],
        [
            ("Q404", "r", "", "t"),
            ("Q1", "r", "", "t"),
            ("Q1", "", "", "t"),
            ("Q1", "r", "", "\t"),
            ("Q1", "r\n", "", "t"),
        ],
    )
    changed = build_kb(tmp_path / "kb", source, Problems(on_problem=told.append))
    assert changed == Changed(entities=1, triples=1, problems=6)
    assert [(problem.source, problem.line) for problem in told] == [
        ("entities", 2), ("entities", 3), ("triples", 1), ("triples", 3), ("triples", 4), ("triples", 5),
    ]  # fmt: skip
    assert "head 'Q404' is not an entity of the KB" in told[2].fact
    assert "control character" in told[1].fact
    assert open_kb(tmp_path / "kb").entity("Q1").label == "one"


def test_an_id_that_the_kb_has_needs_update_and_one_twice_in_the_file_does_not_get_it(make_kb: MakeKb) -> None:
    folder = make_kb()
    before = exported(folder)
    with pytest.raises(BadInput, match=r"the KB already has 'Q90' \(add --update"):
        add_to_kb(folder, MemorySource([new_entity("Q90", "Paname")]), Problems())
    with pytest.raises(BadInput, match=r"entities:2: entity id 'Q500' repeats\n"):
        add_to_kb(folder, MemorySource([new_entity("Q500", "a"), new_entity("Q500", "b")]), Problems())
    twice = MemorySource([new_entity("Q90", "Paname"), new_entity("Q90", "Lutetia")])
    with pytest.raises(BadInput, match="'Q90' repeats"):
        add_to_kb(folder, twice, Problems(), update=True)
    assert exported(folder) == before


def test_an_import_of_nothing_is_refused(tmp_path: Path, make_kb: MakeKb) -> None:
    with pytest.raises(BadInput, match="no entities and no triples"):
        build_kb(tmp_path / "kb", MemorySource([]), Problems())
    assert list(tmp_path.iterdir()) == []
    folder = make_kb()
    before = exported(folder)
    with pytest.raises(BadInput, match="no entities and no triples"):
        add_to_kb(folder, MemorySource([]), Problems())
    with pytest.raises(BadInput, match="no entity to remove"):
        remove_from_kb(folder, [])
    assert exported(folder) == before


def test_one_unknown_id_among_those_to_remove_leaves_all_of_them(make_kb: MakeKb) -> None:
    folder = make_kb()
    before = exported(folder)
    with pytest.raises(BadInput, match="no entity 'Q404'; nothing was removed"):
        remove_from_kb(folder, ["Q90", "Q404"])
    assert exported(folder) == before


@pytest.mark.parametrize("text", ["half \udcff a character", "\ud800"])
def test_half_a_character_is_bad_input(make_kb: MakeKb, text: str) -> None:
    folder = make_kb()
    before = exported(folder)
    for source in (
        MemorySource([new_entity("Q500", text)]),
        MemorySource([new_entity("Q500", "a", text)]),
        MemorySource([], [("Q90", "r", "", text)]),
        MemorySource([], [(text, "r", "", "t")]),
    ):
        with pytest.raises(BadInput):
            add_to_kb(folder, source, Problems())
    with pytest.raises(BadInput):
        remove_from_kb(folder, [text])
    assert exported(folder) == before


def test_a_kb_that_is_absent_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(UnknownKb):
        add_to_kb(tmp_path / "absent", MemorySource([]), Problems())
    with pytest.raises(UnknownKb):
        remove_from_kb(tmp_path / "absent", ["Q1"])
    assert list(tmp_path.iterdir()) == []


# --- replacing ---------------------------------------------------------------------------------------------------


def test_a_kb_is_replaced_on_request_only_and_keeps_its_vectors(make_kb: MakeKb, open_kb: OpenKb) -> None:
    folder = make_kb()
    (folder / "vectors").mkdir()
    (folder / "vectors" / "kept").write_text("v")
    (folder / "packed").mkdir()
    before = exported(folder)
    other = MemorySource([new_entity("Q1", "one")])
    with pytest.raises(BadInput, match="already exists") as caught:
        build_kb(folder, other, Problems())
    assert "--replace" in caught.value.hint
    assert exported(folder) == before
    build_kb(folder, other, Problems(), replace=True)
    assert len(open_kb(folder)) == 1
    assert (folder / "vectors" / "kept").read_text() == "v"
    assert not (folder / "packed").exists()


def test_replace_never_touches_what_is_no_kb(tmp_path: Path) -> None:
    other = MemorySource([new_entity("Q1", "one")])
    (tmp_path / "Documents").mkdir()
    (tmp_path / "Documents" / "thesis.txt").write_text("years of work")
    (tmp_path / "notes.txt").write_text("notes")
    for name in ("Documents", "notes.txt"):
        with pytest.raises(BadInput, match="is not a KB"):
            build_kb(tmp_path / name, other, Problems(), replace=True)
    assert (tmp_path / "Documents" / "thesis.txt").read_text() == "years of work"
    assert (tmp_path / "notes.txt").read_text() == "notes"
    (tmp_path / "empty").mkdir()
    assert build_kb(tmp_path / "empty", other, Problems(), replace=True).entities == 1


def test_a_place_that_cannot_hold_a_kb_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "kb", tmp_path / ("x" * 250)):
        with pytest.raises(BadInput, match="cannot write"):
            build_kb(folder, MemorySource([new_entity("Q1", "one")]), Problems())


# --- half-way ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failing:
    """A source that gives many rows and then breaks."""

    error: BaseException
    while_reading: str
    total_bytes: int = 0
    given: list[Entity] = field(default_factory=lambda: [Entity(id=f"new:{i}", label=f"name {i}") for i in range(5000)])

    def entities(self) -> Iterator[EntityRow]:
        for line, entity in enumerate(self.given):
            yield EntityRow(entity=entity, source="e", line=line)
        if self.while_reading == "entities":
            raise self.error

    def triples(self) -> Iterator[TripleRow]:
        for line, entity in enumerate(self.given):
            yield TripleRow(entity.id, "P", "relation", "", f"tail {line}", "t", line)
        raise self.error


@pytest.mark.parametrize("error", [BadInput("a bad line"), RuntimeError("a bug"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("while_reading", ["entities", "triples"])
def test_an_exception_in_the_middle_leaves_the_kb_as_it_was(
    make_kb: MakeKb, error: BaseException, while_reading: str
) -> None:
    folder = make_kb()
    before = exported(folder)
    with pytest.raises(type(error)):
        add_to_kb(folder, Failing(error, while_reading), Problems())
    assert exported(folder) == before
    with pytest.raises(type(error)):
        build_kb(folder, Failing(error, while_reading), Problems(), replace=True)
    assert exported(folder) == before
    beside = [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    assert beside == []


HALF_WAY = """
import pathlib, signal, sys
from localmel.kb.importers import EntityRow, Problems, TripleRow
from localmel.kb.write import add_to_kb, build_kb
from localmel.records import Entity

class Endless:
    total_bytes = 0
    def entities(self):
        for i in range(20_000):
            yield EntityRow(entity=Entity(id=f"new:{i}", label=f"some name {i}"), source="e", line=i)
    def triples(self):
        for i in range(60_000):
            yield TripleRow(f"new:{i % 20_000}", "P", "relation", "", f"tail {i}", "t", i)
        print("half-way", flush=True)
        signal.pause()
        yield

folder = pathlib.Path(sys.argv[2])
if sys.argv[1] == "build":
    build_kb(folder, Endless(), Problems(), replace=True)
else:
    add_to_kb(folder, Endless(), Problems())
"""


def half_way(what: str, folder: Path, root: Path) -> subprocess.Popen[str]:
    """A process that has written a lot and not ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, what, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half-way\n"
    return process


@pytest.mark.parametrize("what", ["build", "add"])
def test_a_process_killed_half_way_leaves_the_kb_as_it_was_and_the_next_one_works(
    make_kb: MakeKb, root: Path, what: str
) -> None:
    folder = make_kb()
    before = exported(folder)
    with half_way(what, folder, root) as process:
        written = sum(path.stat().st_size for path in folder.parent.rglob("*kb.sqlite*"))
        assert written > 1_000_000
        process.send_signal(signal.SIGKILL)
    assert exported(folder) == before
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    source = MemorySource([new_entity("Q500", "Somebody")])
    if what == "build":
        build_kb(folder, source, Problems(), replace=True)
        assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    else:
        add_to_kb(folder, source, Problems())
    assert b"Somebody" in exported(folder)[0]


def test_a_new_kb_whose_build_is_killed_is_not_there_at_all(tmp_path: Path, root: Path) -> None:
    with half_way("build", tmp_path / "kb", root) as process:
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "kb").exists()
    with pytest.raises(UnknownKb):
        KnowledgeBase(tmp_path / "kb")


def test_while_another_process_writes_readers_read_and_writers_are_told_after_a_short_wait(
    make_kb: MakeKb, root: Path, in_proportion: Callable[[float], float]
) -> None:
    folder = make_kb()
    before = exported(folder)
    with half_way("add", folder, root) as process:
        assert exported(folder) == before
        start = time.monotonic()
        with pytest.raises(KbBusy, match="another process is writing") as caught:
            add_to_kb(folder, MemorySource([new_entity("Q500", "a")]), Problems(), busy_seconds=0.2)
        with pytest.raises(KbBusy):
            remove_from_kb(folder, ["Q90"], busy_seconds=0.2)
        assert 0.3 < time.monotonic() - start < in_proportion(4)
        assert caught.value.hint
        process.send_signal(signal.SIGKILL)
    assert remove_from_kb(folder, ["Q90"]).entities == 1


# --- a full disk -------------------------------------------------------------------------------------------------

FULL_DISK = """
import pathlib, shutil, sys
from localmel.errors import OutOfSpace
from localmel.kb.export import export_kb
from localmel.kb.importers import EntityRow, Problems, TripleRow
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import add_to_kb, build_kb
from localmel.records import Entity

class Many:
    total_bytes = 0
    def __init__(self, count): self.count = count
    def entities(self):
        for i in range(self.count):
            yield EntityRow(entity=Entity(id=f"{self.count}:{i}", label=f"some name {i}"), source="e", line=i)
    def triples(self):
        for i in range(self.count):
            yield TripleRow(f"{self.count}:{i}", "P", "relation", "", f"a tail with some words {i}", "t", i)

def content():
    kb = KnowledgeBase(folder)
    result = [(entity, kb.triples(entity.id)) for entity in kb.all_entities()], kb.fingerprint
    kb.close()
    return result

folder = pathlib.Path(sys.argv[1]) / "kb"
build_kb(folder, Many(50), Problems())
before = content()
LIMIT
for change in (
    lambda: add_to_kb(folder, Many(60_000), Problems()),
    lambda: build_kb(folder, Many(60_000), Problems(), replace=True),
    lambda: build_kb(folder.with_name("new"), Many(60_000), Problems()),
):
    try:
        change()
    except OutOfSpace as error:
        print(error.exit_code, content() == before, error.hint != "")
print(sorted(path.name for path in folder.parent.iterdir()))
"""
AS_IT_WAS = "3 True True\n" * 3 + "['kb']\n"


FILL = """
with open(folder.parent / 'fill', 'wb', buffering=0) as file:
  try:
    while file.write(bytes(512)): pass
  except OSError: pass
"""


@pytest.mark.parametrize(("first", "left"), [("", "['kb']"), (FILL, "['fill', 'kb']")], ids=["filling", "full"])
def test_a_disk_that_fills_up_or_is_full_leaves_the_kb_as_it_was(
    tmp_path: Path, root: Path, first: str, left: str
) -> None:
    mount = f'mount -t tmpfs -o size=3m none "{tmp_path}" && exec "$@"'
    done = in_mount_namespace(mount, FULL_DISK.replace("LIMIT", first), tmp_path, root)
    assert (done.stdout, done.stderr) == (AS_IT_WAS.replace("['kb']", left), "")


def test_a_limit_on_the_size_of_files_leaves_the_kb_as_it_was(tmp_path: Path, root: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"
    script = FULL_DISK.replace("LIMIT", limit)
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (AS_IT_WAS, "")


# --- any history -------------------------------------------------------------------------------------------------

words = st.sampled_from(["Jordan", "Michael", "Paris", "Air", "New York", "ジョーダン", "Ünder", "!!!", "a"])
entities = st.builds(
    Entity,
    id=st.sampled_from([f"Q{number}" for number in range(6)]),
    label=words,
    aliases=st.lists(words, max_size=3).map(tuple),
    popularity=st.none() | st.floats(0, 1),
    description=st.sampled_from(["", "a river"]),
    image=st.none() | st.just("a.jpg"),
)
steps = st.lists(st.tuples(entities, st.sampled_from(["add", "update", "remove"]), words), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(first=entities, steps=steps)
def test_after_any_history_names_and_counts_are_those_of_a_kb_built_from_its_export(
    first: Entity, steps: list[tuple[Entity, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history") / "kb"
    build_kb(folder, MemorySource([replace(first, id="Q99")]), Problems())
    for entity, what, tail in steps:
        try:
            if what == "remove":
                remove_from_kb(folder, [entity.id])
            else:
                source = MemorySource([entity], [(entity.id, "related to", "", tail), (entity.id, "is", "Q1", tail)])
                add_to_kb(folder, source, Problems(), update=what == "update")
        except BadInput:
            continue  # an id that is (not) there: the KB is as it was
    target = folder.with_name("export")
    with closing(KnowledgeBase(folder)) as lived:
        export_kb(lived, target)
        anew_folder = folder.with_name("anew")
        problems = Problems()
        files = {"entities": target / "entities.jsonl", "triples": target / "triples.tsv"}
        build_kb(anew_folder, TablesSource(**files, problems=problems), problems)
        with closing(KnowledgeBase(anew_folder)) as anew:
            assert list(lived.all_entities()) == list(anew.all_entities())
            for name in ("Jordan", "Jodran", "Air Jordan", "York", "ジョーダン", "!!!", "a", "Michael's"):
                found = [
                    sorted(
                        (kb.entities_at([match.row])[0].id, match.kind, match.similarity, match.n_triples)
                        for match in matches
                    )
                    for kb in (lived, anew)
                    for matches in [NameIndex(kb).find(name)]
                ]
                assert found[0] == found[1], name
            listed = [kb.select("SELECT word, backwards FROM words ORDER BY word") for kb in (lived, anew)]
            assert listed[0] == listed[1]


# --- the real KB -------------------------------------------------------------------------------------------------


def test_the_mel_kb_imports_in_bounded_memory(shared_data: Path, tmp_path: Path, root: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from localmel.kb.importers import Problems, TablesSource\n"
        "from localmel.kb.write import build_kb\n"
        "entities, triples, target = map(pathlib.Path, sys.argv[1:])\n"
        "problems = Problems()\n"
        "source = TablesSource(entities=entities, triples=triples, problems=problems)\n"
        "changed = build_kb(target, source, problems)\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"  # ru_maxrss counts the parent as well
        "peak = status.partition('VmHWM:')[2].split()[0]\n"
        "print(changed.entities, changed.triples, int(peak) // 1024)\n"
    )
    data = shared_data / "mel" / "kb"
    files = (data / "entities.jsonl.gz", data / "triples.tsv.gz", tmp_path / "mel")
    command = [sys.executable, "-c", script, *map(str, files)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    entities, triples, mebibytes = map(int, done.stdout.split())
    assert (entities, triples) == (146_175, 1_119_089)
    assert mebibytes < 600
    assert [path.name for path in tmp_path.iterdir()] == ["mel"]
