"""The package stays small enough to know, and its docstrings are sentences."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "localmel"
MODULES = sorted(PACKAGE.rglob("*.py"))

MOST_FILES, MOST_MODULES_IN_A_FOLDER, MOST_LINES_OF_A_FUNCTION = 275, 22, 60
STUMBLING = re.compile(r"^(Of|What|As|They|That|Those|Whether|How|Where|Likewise|See|The same[.,:]?$)\b")
"How a docstring begins that says no sentence of its own."


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def places() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Every definition of the package with where it stands."""
    for module in MODULES:
        for node in definitions(ast.parse(module.read_text(encoding="utf-8"))):
            yield f"{module.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_the_package_has_no_more_files_than_a_person_can_know() -> None:
    assert len(MODULES) <= MOST_FILES


def test_no_folder_is_too_full() -> None:
    folders = Counter(module.parent.relative_to(ROOT).as_posix() for module in MODULES)
    assert {folder: n for folder, n in folders.items() if n > MOST_MODULES_IN_A_FOLDER} == {}


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        place: lines
        for place, node in places()
        if not isinstance(node, ast.ClassDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_a_docstring_is_a_sentence_that_says_what_the_caller_gets() -> None:
    stumbling = [
        f"{place}: {said}"
        for place, node in places()
        if (said := (ast.get_docstring(node) or "").split("\n")[0]) and STUMBLING.match(said)
    ]
    assert stumbling == []
