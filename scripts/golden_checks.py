"""What `scripts/golden` asks of a tree: each check is some commands of localmel, and the files that they leave.

In: a half, which is a tree with folders of its own.  Out: a name and an answer for each command and folder, as JSON.
Uses the command line, the names that `localmel` exports and the files that users read; knows nothing of modules.

Every command runs in the half's folder with relative paths, so that both halves are asked in the same words."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.golden_data import SETS

COMPARED_AS_JSON = (".json", ".jsonl")
ONLY_THERE = (".md", ".html", ".svg", ".png", ".lock", ".sqlite", ".sqlite-shm", ".sqlite-wal")
"Prose, pictures of it, and databases, whose content `kb export` shows."
_OWN_VARIABLES = ("LOCALMEL_", "OMP_", "MKL_", "OPENBLAS_", "PYTHON")

FLAGS = """
import json, sys, typer.main
from localmel.cli.app import app
def told(one):
    kind = getattr(one, "type_descriptor", None) or getattr(one, "type", None)
    return {"kind": one.param_type_name, "name": one.name, "flags": one.opts, "off": one.secondary_opts,
            "default": repr(one.default), "of": str(getattr(kind, "annotation", kind)), "required": one.required,
            "nargs": one.nargs, "multiple": getattr(one, "multiple", False), "hidden": getattr(one, "hidden", False),
            "min": getattr(one, "min", None), "max": getattr(one, "max", None), "metavar": one.metavar}
def walk(command, name):
    order = lambda one: (one["kind"] != "argument", one["name"] if one["kind"] == "option" else "")
    yield name, sorted((told(one) for one in command.params), key=order)  # the order of flags in --help is wording
    for key, below in getattr(command, "commands", {}).items():
        yield from walk(below, f"{name} {key}")
print(json.dumps(dict(walk(typer.main.get_command(app), "localmel"))))
"""
LINK = """
import json, sys
from localmel import Linker, LocalmelError
opened = {}
for kb, image, text, mentions in json.load(sys.stdin):
    linker = opened[kb] = opened.get(kb) or Linker(kb)
    try:
        answer = linker.link(image, text, mentions)
    except LocalmelError as error:
        print(json.dumps({"refused": type(error).__name__}))
        continue
    found = answer.to_json(explain=True)
    for one, linked in zip(found["links"], answer.mentions, strict=True):
        one["exact"] = [linked.link.probability, *(candidate.score for candidate in linked.link.ranking.candidates)]
    print(json.dumps(found))
"""


class Failed(Exception):
    """A command ended otherwise than a check expects."""


@dataclass(kw_only=True)
class Half:
    """A tree under test, where its commands run, and what they have answered in the check that is running."""

    tree: Path
    folder: Path
    earlier: Path
    "The folder of the base's half; for the base its own."
    shared: Path
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def is_base(self) -> bool:
        """Return whether this half makes what the other one opens."""
        return self.folder == self.earlier

    def run(self, *arguments: str | Path, code: int | None = 0, name: str = "") -> Any:
        """Run `localmel` and keep its exit status and output; `code` None takes any status.  Returns the output."""
        words = [str(one) for one in arguments]
        done = self._process([sys.executable, "-m", "localmel.cli", *words])
        line = " ".join(words).replace(str(self.tree), "TREE").replace(str(self.shared), "SHARED")
        if "Traceback" in done.stderr or code not in (None, done.returncode):
            raise Failed(f"{line} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        out = self._read_output(done.stdout)
        self._keep(name or line, {"exit": done.returncode, **out})
        return out.get("out")

    def script(self, code: str, name: str, given: Any = None) -> Any:
        """Run lines of Python over the tree with JSON on stdin, and keep the lines of JSON that they print."""
        done = self._process([sys.executable, "-c", code], stdin=json.dumps(given))
        if done.returncode:
            raise Failed(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        rows = [json.loads(self._without_places(line)) for line in done.stdout.splitlines()]
        self._keep(name, rows)
        return rows

    def files(self, *folders: str, without: Sequence[str] = ()) -> None:
        """Keep what stands in folders: JSON as it is, prose by its name, all else by its hash."""
        for folder in folders:
            found = {}
            for path in sorted((self.folder / folder).rglob("*")):
                name = path.relative_to(self.folder / folder).as_posix()
                if path.is_file() and not any(part in name for part in without):
                    found[name] = self._content(path)
            self._keep(f"files of {folder}", found)

    def _content(self, path: Path) -> Any:
        if path.name.endswith(ONLY_THERE):
            return "there"
        if path.suffix not in COMPARED_AS_JSON:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        text = self._without_places(path.read_text(encoding="utf-8"))
        return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)

    def _process(self, command: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)}
        own = {
            "PYTHONPATH": str(self.tree),
            "LOCALMEL_HOME": str(self.folder / "home"),
            "LOCALMEL_CONFIG": str(self.folder / "config"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        return subprocess.run(
            command, env=kept | own, cwd=self.folder, input=stdin, capture_output=True, text=True, check=False
        )

    def _read_output(self, text: str) -> dict[str, Any]:
        try:
            return {"out": json.loads(self._without_places(text))}
        except ValueError:
            return {"text_out": text}

    def _without_places(self, text: str) -> str:
        """Replace where this half stands by words, so that only relative paths are compared."""
        for place, word in ((self.folder, "HALF"), (self.tree, "TREE")):
            text = text.replace(str(place), word)
        return text

    def _keep(self, name: str, answer: Any) -> None:
        number = 2
        unique = name
        while unique in self.answers:
            unique, number = f"{name} ({number})", number + 1
        self.answers[unique] = answer


@dataclass(frozen=True, kw_only=True)
class Check:
    """Some questions to a tree, by the name that --only takes."""

    ask: Callable[[Half], None]
    needs: tuple[str, ...] = ()
    "Checks whose folders it uses."
    shared: bool = False
    "Whether it reads the shared data."


DATASETS = [word for name in SETS for word in ("--dataset", name)]
LARGE = ("eval", "data/mel", "--kb", "./kbs/mel", *DATASETS, "--gold-outside", "nil", "--json")
SMALL = ("--kb", "./kbs/small")
SCRIPTED = ("--engine", "scripted", "--engine-weights", "made-up")


def flags(half: Half) -> None:
    """Ask for every command with its flags and their defaults."""
    half.script(FLAGS, "flags")


def config(half: Half) -> None:
    """Ask for the profiles and for all settings of some."""
    half.run("config", "--list", "--json")
    for profile in ("embedded", "small", "paper", "qwen", "tiny"):
        half.run("config", "--profile", profile, "--json")


def doctor(half: Half) -> None:
    """Ask what is looked at, by id and status."""
    for profile in ("embedded", "paper"):
        half.run("doctor", "--profile", profile, "--json", code=None)


def starter(half: Half) -> None:
    """Build the starter KB on its first use, and look into it."""
    half.run("kb", "info", "starter", "--json")
    half.run("kb", "info", "--json")
    half.run("kb", "search", "Jordn", "--json")
    half.run("kb", "search", "Paris", "--limit", "25", "--json")
    half.run("kb", "show", "Q41421", "--json")
    half.run("kb", "export", "starter", "exported/starter", "--json")
    half.files("exported/starter")


def examples(half: Half) -> None:
    """Link all examples with the demo and through Python, and some of them by themselves."""
    half.run("demo", "--json", "--explain")
    pictures, link = half.tree / "examples", ("link", "--json", "--explain")
    rows = [json.loads(line) for line in (pictures / "examples.jsonl").read_text("utf-8").splitlines()]
    asked = [["starter", str(pictures / row["image"]), row["text"], [row["mention"]]] for row in rows]
    half.script(LINK, "links", asked)
    half.run(*link, pictures / "jersey.jpg", "Jordan, photographed last spring.")
    half.run(*link, pictures / "road-sign.jpg", "We stopped near [[Athens]].", "--top-k", "5")
    half.run(*link, "-", "Jordan met Barkley in Phoenix.", "--mention", "Jordan")
    half.run("link", "--json", "-", "Nobody is named here.")
    half.run("link", "-", "Jordan met Barkley in Phoenix.")


def captions(half: Half) -> None:
    """Link all captions of the shared cases, through Python; a few through the command line."""
    asked: list[list[Any]] = []
    for path in sorted((half.shared / "cases" / "captions").glob("*.tsv")):
        kb, own = "starter", path.with_suffix(".kb.jsonl")
        if own.exists():
            kb = f"cases-{path.stem}"
            half.run("kb", "build", kb, "--ontology", own, "--json")
        lines = [line.partition("\t")[0].replace("\\n", "\n") for line in path.read_text("utf-8").splitlines()]
        asked += [[kb, None, line, None] for line in lines]
    half.script(LINK, "links", asked)
    for kb, _, text, _ in asked[:: max(1, len(asked) // 4)]:
        half.run("link", "--json", "--explain", "-", text, "--kb", kb, code=None)


def files(half: Half) -> None:
    """Import the odd files of the shared cases and dumps of Wikidata, and export what came of them."""
    cases, dumps = half.shared / "cases" / "files", half.shared / "data" / "wikidata_json"
    asked = [("--ontology", path) for end in ("csv", "tsv") for path in sorted(cases.glob(f"c*/*.{end}"))]
    asked += [("--entities", path) for path in sorted(cases.glob("c*/*.json*"))]
    asked += [("--wikidata", path) for path in sorted(cases.glob("w*/dump.json"))]
    asked += [("--wikidata", dumps / name) for name in ("short_stream.json.bz2", "mock-dump-with-bugs.json")]
    for number, (option, path) in enumerate(asked):
        name = f"files-{number}"
        half.run("kb", "build", name, option, path, "--skip-bad", "--no-vectors", "--json", code=None)
        if (half.folder / "home" / "kb" / name).exists():
            half.run("kb", "export", name, f"exported/{name}", "--json")
            half.files(f"exported/{name}")
    for case in ("b1-own-jsonl", "b2-mimic/nulls", "b2-mimic/orig"):
        half.run("data", "check", cases / case, "--json", code=None)


def small_kb(half: Half) -> None:
    """Build a KB, change it, describe it, index it, and export it."""
    tables = ("--entities", "data/small/kb/entities.jsonl", "--triples", "data/small/kb/triples.tsv")
    half.run("kb", "build", "./kbs/small", *tables, "--json")
    half.run("kb", "info", "./kbs/small", "--json")
    half.files("kbs/small")
    half.run("data", "check", "data/small", *SMALL, "--json")
    more = ("--entities", "scripts/more.jsonl", "--triples", "scripts/more.tsv")
    half.run("kb", "build", "./kbs/changed", *tables, "--no-vectors", "--json")
    half.run("kb", "add", "./kbs/changed", *more, "--json", "--no-vectors")
    half.run("kb", "show", "own-1", "--kb", "./kbs/changed", "--json")
    half.run("kb", "remove", "./kbs/changed", "own-2", "--no-vectors", "--json")
    half.run("kb", "describe", "./kbs/changed", *SCRIPTED, "--limit", "5", "--json")
    half.run("kb", "texts", "./kbs/changed", "--json")
    half.run("kb", "search", "Golden", "--kb", "./kbs/changed", "--json")
    half.run("kb", "export", "./kbs/changed", "exported/changed", "--json")
    half.files("exported/changed")
    half.run("index", "./kbs/small", "--index", "int8", "--json")


def large_kb(half: Half) -> None:
    """Build the large KB in the base; in the working tree open the base's."""
    where = half.folder / "kbs" / "mel"
    if half.is_base:
        tables = ("--entities", "data/mel/kb/entities.jsonl", "--triples", "data/mel/kb/triples.tsv")
        half.run("kb", "build", "./kbs/mel", *tables)
        half.answers.clear()
    else:
        _copied(half.earlier / "kbs" / "mel", where)
    half.run("kb", "info", "./kbs/mel", "--json")
    half.run("kb", "search", "Washington", "--kb", "./kbs/mel", "--limit", "30", "--json")
    half.run("kb", "export", "./kbs/mel", "exported/mel", "--json")
    half.run("data", "check", "data/mel", "--dataset", "wikimel", "--kb", "./kbs/mel", "--json")
    half.files("exported/mel")


def evaluation(half: Half) -> None:
    """Evaluate all systems but the matcher, and count as published."""
    systems = ("--system", "linker", "--system", "names", "--system", "fused", "--system", "zero-shot")
    half.run(*LARGE, *systems, "--out", "runs/all")
    half.run(*LARGE, "--system", "names", "--out", "runs/names", "--protocol", "paper", "--k", "8")
    half.run(*LARGE, "--system", "names", "--protocol", "fuzzy100", "--drop-leaked")
    half.run(*LARGE, "--system", "names", "--out", "runs/names", "--protocol", "paper", "--k", "8")
    half.files("runs/all", "runs/names")


def without(half: Half) -> None:
    """Evaluate with each part withheld that a command may withhold from what is shipped."""
    half.run(*LARGE, "--system", "linker", "--without", "names", "--out", "runs/no-names")
    half.run(*LARGE, "--system", "linker", "--system", "names", "--without", "counts", "--out", "runs/no-counts")
    for part in ("triples", "text", "image"):
        half.run(*LARGE, "--system", "fused", "--without", part, "--out", f"runs/no-{part}", code=None)
    half.files("runs/no-names", "runs/no-counts")


def training(half: Half) -> None:
    """Train each matcher for an epoch, and evaluate it with what it has learnt."""
    train = ("train", "data/small", *SMALL, "--epochs", "1", "--batch", "16", "--json")
    for kind in ("kgmel", "m3el", "dwe"):
        half.run(*train, "--matcher", kind, "--out", f"trained/{kind}")
    half.run(*train, "--without", "gate", "--out", "trained/no-gate", "--mentions", "48")
    half.files(*(f"trained/{name}" for name in ("kgmel", "m3el", "dwe", "no-gate")))
    evaluate = ("eval", "data/small", *SMALL, "--json", "--gold-outside", "nil")
    for kind, systems in (("m3el", ("matcher",)), ("dwe", ("matcher", "linker"))):
        asked = [word for system in systems for word in ("--system", system)]
        half.run(*evaluate, *asked, "--matcher", f"trained/{kind}/seed-0/network", "--out", f"runs/{kind}")
    half.run(*evaluate, "--system", "fused", "--network", "trained/kgmel/seed-0/network", "--out", "runs/kgmel")
    no_gate = ("--network", "trained/no-gate/seed-0/network", "--without", "gate")
    half.run(*evaluate, "--system", "fused", *no_gate, "--out", "runs/no-gate")
    half.files("runs/m3el", "runs/dwe", "runs/kgmel", "runs/no-gate")


def matcher(half: Half) -> None:
    """Evaluate a matcher of the base over the large KB, whose vectors for it the base has made."""
    if not (where := half.folder / "base-dwe").exists():
        _copied(half.earlier / "trained" / "dwe" / "seed-0" / "network", where)
    half.run("index", "./kbs/mel", "--matcher", "./base-dwe")
    half.run(*LARGE, "--system", "matcher", "--matcher", "./base-dwe", "--out", "runs/matcher")
    half.files("runs/matcher")


def models(half: Half) -> None:
    """Generate, retrieve, rerank, report on and evaluate, with a scripted model."""
    data, run = "data/small", ("--run", "models", "--json")
    half.run("generate", data, *run, *SCRIPTED, "--limit", "40")
    half.run("generate", data, "--run", "lines", "--json", *SCRIPTED, "--limit", "10", "--format", "line")
    half.run("retrieve", data, *run, *SMALL, "--profile", "embedded", "--limit", "40")
    rerank = ("rerank", data, *run, *SMALL, "--profile", "embedded", *SCRIPTED)
    half.run(*rerank, "--orders", "2")
    half.run("rerank", data, *run, "--report", "--route")
    half.run("rerank", data, *run, "--report", "--fit-calibration", "calibration.json", code=None)
    half.run("eval", data, *SMALL, *run, "--gold-outside", "nil")
    half.files("runs/models", "runs/lines", without=("journals/",))


def grid(half: Half) -> None:
    """Plan a grid of models, and run it with scripts in their places."""
    data = ("--data", "data/small", *SMALL, "--limit", "12", "--json")
    named = ("--vlm", "llava-v1.6-mistral-7b", "--vlm", "none", "--llm", "qwen3-8b", "--llm", "none")
    half.run("compare", *named, *data, "--out", "planned", "--dry-run", code=None)
    plays = ("--vlm", "./scripts/sees.jsonl", "--vlm", "./scripts/blind.jsonl", "--llm", "./scripts/first.jsonl")
    half.run("compare", *plays, "--engine", "scripted", *data, "--out", "grid", "--dry-run")
    half.run("compare", *plays, "--engine", "scripted", *data, "--out", "grid")
    half.files("grid", without=("journals/",))


def comparing(half: Half) -> None:
    """Compare and list runs."""
    both = ("--system", "linker", "--system", "names")
    half.run("compare", "./runs/all", "./runs/no-counts", *both, "--dataset", "wikimel", "--json", "--out", "compared")
    half.run("compare", "./runs/all", "./runs/no-names", "--system", "linker", "--dataset", "wikidiverse", "--json")
    half.run("compare", "./runs/all", "./runs/names", "--json", code=3)
    half.run("report", "runs", "--json", "--out", "reported")
    half.files("compared", "reported")


def weights(half: Half) -> None:
    """Pack a tiny model and a trained network, install one, and look at it."""
    half.run("weights", "list", "--json")
    half.run("weights", "pack", "./scripts/tiny-model", "--name", "tiny-golden", "-o", "bundles/tiny.tar", "--json")
    half.run("weights", "pack", "./trained/m3el/seed-0/network", "-o", "bundles/m3el.tar", "--json", code=None)
    half.run("weights", "install", "bundles/tiny.tar", "--json")
    half.run("weights", "install", "--adopt", "./scripts/tiny-model", "--name", "adopted", "--json")
    half.run("weights", "list", "--here", "--json")
    half.run("weights", "show", "tiny-golden", "--json")
    half.run("weights", "show", "tiny-golden", "--sbom")
    half.run("weights", "verify", "--json")
    half.run("weights", "pack", "tiny-golden", "-o", "bundles/again.tar", "--json")
    half.run("weights", "rm", "adopted", "--yes", "--json")
    half.files("bundles")


def before(half: Half) -> None:
    """Open the KBs, networks, runs and bundles that the base made, and go on where it stopped."""
    for name in ("kbs/small", "trained", "runs", "grid", "bundles"):
        _copied(half.earlier / name, half.folder / "before" / name)
    kb, data, networks = ("--kb", "./before/kbs/small"), "data/small", "before/trained"
    half.run("kb", "info", "./before/kbs/small", "--json")
    half.run("link", "--json", "--explain", "-", "[[Washington]] spoke.", *kb)
    half.run("report", "before/runs", "--json")
    half.run("compare", "./before/runs/all", "./before/runs/no-names", "--system", "linker", "--json")
    half.run("eval", data, *kb, "--run", "./before/runs/models", "--gold-outside", "nil", "--json")
    half.run("rerank", data, "--run", "./before/runs/models", "--report", "--json")
    evaluate = ("eval", data, *kb, "--gold-outside", "nil", "--json")
    half.run(*evaluate, "--system", "fused", "--network", f"{networks}/kgmel/seed-0/network")
    half.run(*evaluate, "--system", "matcher", "--matcher", f"{networks}/m3el/seed-0/network")
    train = ("train", data, *kb, "--batch", "16", "--json", "--epochs", "1")
    half.run(*train, "--matcher", "kgmel", "--out", f"{networks}/kgmel")
    half.run(*train, "--matcher", "dwe", "--out", f"{networks}/dwe")
    half.run("weights", "install", "before/bundles/tiny.tar", "--replace", "--json")


def refusals(half: Half) -> None:
    """Ask for what there is not: what counts is the exit status."""
    for words in (
        ("link", "no-such.jpg", "Jordan"),
        ("link", "-", "Jordan", "--kb", "no-such-kb"),
        ("link", "-", "Jordan", "--profile", "no-such-profile"),
        ("link", "-", "Jordan", "--no-such-flag"),
        ("link", "-", "Jordan", "--profile", "paper"),
        ("kb", "info", "no-such-kb"),
        ("kb", "show", "no-such-entity"),
        ("eval", "no-such-folder", "--kb", "starter"),
        ("eval", ".", "--kb", "starter", "--system", "none"),
        ("compare", "./no-such-run"),
        ("report", "no-such-folder"),
        ("weights", "install", "no-such.tar"),
        ("weights", "rm", "no-such-model"),
        ("no-such-command",),
    ):
        half.run(*words, code=None)


CHECKS = {
    "flags": Check(ask=flags),
    "config": Check(ask=config),
    "doctor": Check(ask=doctor),
    "starter": Check(ask=starter),
    "refusals": Check(ask=refusals, needs=("starter",)),
    "examples": Check(ask=examples, needs=("starter",)),
    "captions": Check(ask=captions, needs=("starter",), shared=True),
    "files": Check(ask=files, shared=True),
    "small-kb": Check(ask=small_kb, shared=True),
    "training": Check(ask=training, needs=("small-kb",), shared=True),
    "models": Check(ask=models, needs=("small-kb",), shared=True),
    "grid": Check(ask=grid, needs=("small-kb",), shared=True),
    "large-kb": Check(ask=large_kb, shared=True),
    "eval": Check(ask=evaluation, needs=("large-kb",), shared=True),
    "without": Check(ask=without, needs=("large-kb",), shared=True),
    "matcher": Check(ask=matcher, needs=("large-kb", "training"), shared=True),
    "compare": Check(ask=comparing, needs=("eval", "without", "models", "training", "matcher"), shared=True),
    "weights": Check(ask=weights, needs=("training",), shared=True),
    "before": Check(ask=before, needs=("eval", "models", "grid", "weights", "compare"), shared=True),
}
"In the order in which they run: a check stands behind those that it needs."


def _copied(source: Path, target: Path) -> None:
    """Copy a folder of the base as it stands; what is there already is left."""
    if not target.exists():
        shutil.copytree(source, target)
