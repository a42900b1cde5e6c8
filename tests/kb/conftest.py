"""Small knowledge bases for the tests of the KB layer, made by the real writer from an in-memory source."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from localmel.kb.importers import EntityRow, Problems, TripleRow
from localmel.kb.store import KnowledgeBase
from localmel.kb.write import build_kb
from localmel.records import Entity

ROOT = Path(__file__).resolve().parents[2]
Facts = Sequence[tuple[str, str, str, str]]
"Head, relation, tail id, tail."


@dataclass(frozen=True)
class MemorySource:
    """A source of the import that reads nothing; each row's line is its place."""

    given: Sequence[Entity]
    facts: Facts = ()
    total_bytes: int = 0

    def entities(self) -> Iterator[EntityRow]:
        for line, entity in enumerate(self.given, 1):
            yield EntityRow(entity=entity, source="entities", line=line)

    def triples(self) -> Iterator[TripleRow]:
        for line, (head, relation, tail_id, tail) in enumerate(self.facts, 1):
            yield TripleRow(head, f"P-{relation}", relation, tail_id, tail, "triples", line)


def new_entity(
    entity_id: str,
    label: str,
    *aliases: str,
    popularity: float | None = None,
    description: str = "",
    image: str | None = None,
) -> Entity:
    return Entity(
        id=entity_id, label=label, aliases=aliases, popularity=popularity, description=description, image=image
    )


PEOPLE = (
    new_entity("Q41421", "Michael Jordan", "Jordan", "MJ", popularity=0.9, description="American basketball player"),
    new_entity("Q810", "Jordan", "Hashemite Kingdom of Jordan", popularity=0.8, description="country in Western Asia"),
    new_entity("Q1", "Jordan", popularity=0.1, description="a river"),
    new_entity("Q892", "J. R. R. Tolkien", "Tolkien", "John Ronald Reuel Tolkien", popularity=0.7),
    new_entity("Q23", "George Washington", popularity=0.9),
    new_entity("Q1223", "Washington", popularity=0.5, description="state"),
    new_entity("Q224", "Croatia", popularity=0.6),
    new_entity("Q36153", "Beyoncé", "Beyoncé Knowles-Carter", popularity=0.8),
    new_entity("Q5593", "Pablo Picasso", popularity=0.8),
    new_entity("Q90", "Paris", "City of Light", "パリ", "巴黎", popularity=0.95),
    new_entity("Q956", "北京", "Beijing", popularity=0.8),
    new_entity("Q1490", "東京", "Tokyo", popularity=0.8),
    new_entity("Q219", "محمد صلاح", "Mohamed Salah", popularity=0.6),
    new_entity("Q30", "United States of America", "U.S.", "US", popularity=1.0),
    new_entity("Q7", 'The "Near" Society', popularity=0.1),
    new_entity("Q8", "Not And Or", popularity=0.1),
    new_entity("Q9", "1984", popularity=0.3),
    new_entity("Q11", "AT&T", popularity=0.3),
    new_entity("Q12", "!!!", popularity=0.1),
    new_entity("Q13", "apple", popularity=0.4, description="fruit"),
    new_entity("Q14", "The Who", popularity=0.4),
)
FACTS: Facts = (
    ("Q41421", "occupation", "Q3665646", "basketball player"),
    ("Q41421", "member of sports team", "Q128109", "Chicago Bulls"),
    ("Q41421", "occupation", "Q3665646", "basketball player"),
    ("Q810", "capital", "Q3805", "Amman"),
    ("Q23", "position held", "Q11696", "President of the United States"),
    ("Q90", "country", "Q142", "France"),
    ("Q892", "notable work", "", "The Hobbit"),
)

MakeKb = Callable[..., Path]
OpenKb = Callable[[Path], KnowledgeBase]


def in_mount_namespace(mount: str, script: str, folder: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python script on `folder` after the shell line `mount`, in a mount namespace of its own."""
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"mount namespaces are not permitted here: {done.stderr.strip()}")
    return done


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout; scripts started by a test run there."""
    return ROOT


@pytest.fixture
def make_kb(tmp_path: Path) -> MakeKb:
    """Build a KB of these entities and facts in a folder of the test."""

    def make(given: Sequence[Entity] = PEOPLE, facts: Facts = FACTS, name: str = "people") -> Path:
        build_kb(tmp_path / name, MemorySource(given, facts), Problems())
        return tmp_path / name

    return make


@pytest.fixture
def open_kb() -> Iterator[OpenKb]:
    """Open KBs; they are closed when the test ends."""
    with ExitStack() as stack:

        def open_one(folder: Path) -> KnowledgeBase:
            kb = KnowledgeBase(folder)
            stack.callback(kb.close)
            return kb

        yield open_one


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """One KB that tests only read."""
    folder = tmp_path_factory.mktemp("kb") / "people"
    build_kb(folder, MemorySource(PEOPLE, FACTS), Problems())
    kb = KnowledgeBase(folder)
    yield kb
    kb.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data of the project; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data"
    if not (folder / "mel" / "kb").is_dir():
        pytest.skip(f"no data in {folder}: set LOCALMEL_SHARED to the folder that has data/mel/kb")
    return folder
