"""Find KBs: a name means a folder under the user's home for localmel, a path means itself.

In: what the user typed.  Out: a folder or an open KB.  The starter KB ships as text and is built on first use."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from localmel.errors import BadInput, UnknownKb
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.schema import DATABASE
from localmel.kb.store import KnowledgeBase, is_kb
from localmel.kb.write import build_kb
from localmel.settings import HOME, home_folder
from localmel.store.artifacts import REFUSED

STARTER = "starter"
_STARTER_FILES = Path(__file__).parent / "starter"
_FILES = ("entities.jsonl", "triples.tsv")
_NAME = re.compile(r"[\w][\w.-]{0,99}")
_BUILT_STARTER = re.compile(rf"{STARTER}-[0-9a-f]{{10}}")


def kb_folder(name: str) -> Path:
    """Return the folder that a name or path means, whether or not it holds a KB."""
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{name!r} is not a path ({error})", hint="give the path from / on") from None
    if "/" in name:
        return path
    if name == STARTER:
        raise BadInput(
            f"the name {STARTER!r} is reserved for the KB that comes with localmel", hint="choose another name"
        )
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is not a name for a KB", hint="use letters, digits, '.', '_' and '-', or give a path")
    folder = home_folder() / "kb" / name
    return path if is_kb(path) and not is_kb(folder) else folder


def changeable_folder(name: str) -> Path:
    """Return the folder of a KB to make or change.  Refuses the starter KB, which is the same everywhere."""
    if name == STARTER or name.startswith(f"{STARTER}-"):
        raise BadInput(
            "cannot change the starter KB: it belongs to this version of localmel",
            hint="localmel kb export starter FOLDER   # then: localmel kb build MINE --entities ... --triples ...",
        )
    return kb_folder(name)


def open_kb(name: str = STARTER) -> KnowledgeBase:
    """Open a KB by name or path.  Raises UnknownKb with the names that exist."""
    if name == STARTER:
        return KnowledgeBase(starter_folder(), name=STARTER)
    folder = kb_folder(name)
    if not is_kb(folder):
        known = ", ".join(list_kbs())
        raise UnknownKb(f"there is no KB {name!r}; there are: {known}", hint="localmel kb build NAME --help")
    return KnowledgeBase(folder)


def list_kbs() -> list[str]:
    """Return the names of all KBs of this user, the starter KB first."""
    found = sorted(path.parent.name for path in (home_folder() / "kb").glob(f"*/{DATABASE}"))
    return [STARTER, *(name for name in found if not name.startswith(".") and not _BUILT_STARTER.fullmatch(name))]


def starter_folder() -> Path:
    """Return where this version builds its starter KB."""
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((_STARTER_FILES / name).read_bytes())
    return home_folder() / "kb" / f"{STARTER}-{digest.hexdigest()[:10]}"


def prepare_starter(index: Callable[[KnowledgeBase], object], *, again: bool = False) -> None:
    """Build and `index` the starter KB if it is missing; two processes at the same time build it once.

    `again` throws the existing one away first: it is damaged, and the package holds all that it is made from."""

    folder = starter_folder()
    ready = folder / "ready"
    if ready.is_file() and not again:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if ready.is_file() and not again:
                return
            shutil.rmtree(folder, ignore_errors=True)
            problems = Problems()
            entities, triples = (_STARTER_FILES / name for name in _FILES)
            source = TablesSource(entities=entities, triples=triples, problems=problems)
            build_kb(folder, source, problems, replace=True)
            with closing(KnowledgeBase(folder)) as kb:
                index(kb)
            ready.touch()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise BadInput(
            f"cannot write {folder.parent}: {error.strerror}", hint=f"export {HOME}=/a/folder/of/yours"
        ) from None
