"""The shape of the code: who imports whom, how files open, how long they are, what they never touch.

Read from the source with `ast`; nothing of the package is imported here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "localmel"
MODULES = sorted(PACKAGE.rglob("*.py"))
PROVIDERS = packages_distributions()
ABSENT = {"open_clip": "open_clip_torch"}
"What provides a module that may not be installed here, where its name does not say so."

LONG_FILES: dict[str, int] = {}
"A file that may be longer than 400 lines, and how long.  Each wants a sentence here on why."

HEAVY_AT_THE_TOP = {
    "torch": {
        "encode/minilm_torch.py",
        "bench/world_drawings.py",
        "bench/worlds.py",
        "matchers/kgmel/attention.py",
        "matchers/kgmel/network.py",
        "matchers/kgmel/inputs.py",
        "matchers/kgmel/losses.py",
        "matchers/dwe/network.py",
        "matchers/dwe/features.py",
        "matchers/dwe/kind.py",
        "matchers/dwe/losses.py",
        "matchers/protocol.py",
        "bench/fusion_matcher.py",
        "matchers/m3el/network.py",
        "matchers/m3el/kind.py",
        "matchers/m3el/layers.py",
        "matchers/m3el/losses.py",
        "matchers/m3el/published.py",
        "matchers/search_quality.py",
        "encode/clip_tunable.py",
        "encode/tunable.py",
        "matchers/prepared.py",
        "matchers/learner.py",
        "matchers/train/tuning_rows.py",
        "matchers/two_step.py",
        "matchers/kgmel/ranking.py",
        "matchers/train/loop.py",
    }
}
"A heavy package, and the modules that may import it at their top because nobody imports them without needing it."
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "open_clip",
    "hnswlib",
    "onnxruntime",
    "PIL",
    "sentence_transformers",
    "rapidocr",
}
NETWORK = {"requests", "urllib3", "httpx", "httpx2", "aiohttp", "ftplib", "smtplib", "telnetlib"}
ON_THE_NETWORK = {
    "engines/loopback.py": {"socket"},  # looks up where a server's name leads, and refuses what is not this machine
    "engines/server.py": {"httpx2"},  # speaks to a server that `loopback.py` let pass
}
"What may reach for the network, and by what."
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), filename=str(module))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Top-level names of the packages that these nodes import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from [other, *at_import(other)]
            continue
        yield child
        yield from at_import(child)


@pytest.fixture(params=MODULES, ids=name_of)
def module(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_a_layer_imports_only_what_stands_below_it() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    assert lint_imports.exists(), "import-linter is not installed here; run scripts/test"
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_is_a_package_so_that_the_layers_see_it() -> None:
    folders = {path.parent for path in MODULES}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_a_file_opens_with_its_contract(module: Path) -> None:
    assert ast.get_docstring(tree_of(module)), f"{name_of(module)} has no docstring at its top"


def test_a_file_stays_short_enough_to_read(module: Path) -> None:
    n_lines = len(module.read_text(encoding="utf-8").splitlines())
    assert n_lines <= LONG_FILES.get(name_of(module), 400), f"{name_of(module)} has {n_lines} lines"


def test_no_file_is_a_drawer_for_everything(module: Path) -> None:
    assert {part.removesuffix(".py") for part in module.parts}.isdisjoint(
        {"utils", "util", "helpers", "common", "misc"}
    )


def test_only_the_command_line_prints_and_exits(module: Path) -> None:
    if name_of(module).startswith("cli/"):
        return
    calls = [ast.unparse(node.func) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert {"print", "exit", "quit", "sys.exit", "os._exit"}.isdisjoint(calls)
    assert "SystemExit" not in [ast.unparse(node.exc) for node in raises(module)]


def raises(module: Path) -> Iterator[ast.Raise]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Raise) and node.exc:
            yield node


def test_heavy_packages_are_imported_where_they_are_used(module: Path) -> None:
    found = imported(at_import(tree_of(module))) & HEAVY
    allowed = {package for package, modules in HEAVY_AT_THE_TOP.items() if name_of(module) in modules}
    assert found <= allowed, f"{name_of(module)} imports {found - allowed} when it is imported"


def test_a_package_with_one_owner_is_imported_by_its_owner_only(module: Path) -> None:
    owners = {"vllm": "engines/", "typer": "cli/", "rich": "cli/"}
    found = imported(ast.walk(tree_of(module)))
    assert {
        package for package, owner in owners.items() if package in found and not name_of(module).startswith(owner)
    } == set()


def test_what_is_imported_is_what_pyproject_asks_for(module: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    asked_for = {normal(re.split(r"[^\w.-]", line)[0]) for line in lines}
    for name in imported(ast.walk(tree_of(module))) - sys.stdlib_module_names - {"localmel"}:
        providers = {normal(distribution) for distribution in PROVIDERS.get(name, [ABSENT.get(name, name)])}
        assert providers & asked_for, f"{name_of(module)} imports {name}, which pyproject.toml does not ask for"


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_nothing_reaches_for_the_network_or_for_pickles(module: Path) -> None:
    found = imported(ast.walk(tree_of(module)))
    assert found.isdisjoint(UNSAFE)
    assert found & (NETWORK | {"socket"}) <= ON_THE_NETWORK.get(name_of(module), set())
    assert "urllib.request" not in module.read_text(encoding="utf-8")
