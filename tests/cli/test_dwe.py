"""DWE+ from the command line: trained, indexed, evaluated, and refused where it does not fit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.errors import MissingExtra
from localmel.kb.importers import Problems, TablesSource
from localmel.kb.write import build_kb
from localmel.see.detectors import CascadeFaces
from tests.cli.test_train import FAMILIES, ROOT, TRADES, rows, write
from tests.in_process import run_in_process

PORTRAITS = Path(os.environ.get("LOCALMEL_SHARED", ROOT.parent / "shared")) / "data" / "images" / "presidents"
NIL = ("--gold-outside", "nil")
pytestmark = pytest.mark.slow  # six processes, each of which loads torch: over 30 seconds on a busy machine


def localmel(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Without the starter KB, which nothing here needs."""
    own = {**os.environ, "LOCALMEL_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return run_in_process([*map(str, arguments)], environment=own, seconds=300)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "one-train.jsonl", rows("morning", 48))
    write(folder / "one-val.jsonl", rows("evening", 12))
    return folder


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    people = [(f"{family}-{trade}", family, trade) for family in FAMILIES for trade in TRADES]
    return change_kb([{"id": person, "label": family, "description": f"a {trade}"} for person, family, trade in people])


def test_dwe_is_trained_indexed_evaluated_and_links(data: Path, kb: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> str:
        done = localmel(*arguments, home=tmp_path / "home")
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", data, "--kb", kb, "--matcher", "dwe", "--out", tmp_path / "run", "--epochs", "1")
    network = tmp_path / "run" / "seed-0" / "network"
    assert json.loads((network / "matcher.json").read_text())["kind"] == "dwe"
    run("index", kb, "--matcher", network)
    assert "dwe" in run("eval", data, "--kb", kb, "--system", "matcher", "--matcher", network, *NIL)
    (tmp_path / "dwe.toml").write_text(f'extends = "embedded"\n[retrieve]\nmatcher = "{network}"\n')
    said = f"{FAMILIES[0]}, the {TRADES[0]}, came again."
    linked = run("link", "-", said, "--kb", kb, "--profile", tmp_path / "dwe.toml", "--json")
    assert f"{FAMILIES[0]}-{TRADES[0]}" in linked


def test_a_folder_of_something_else_and_an_unknown_kind_are_refused(data: Path, kb: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    wrong = localmel("eval", data, "--kb", kb, "--system", "matcher", "--matcher", data, home=home)
    assert wrong.returncode == 6
    assert "holds no matcher" in wrong.stderr
    unknown = localmel("train", data, "--kb", kb, "--matcher", "dwe3", "--out", tmp_path / "run", home=home)
    assert unknown.returncode == 2
    assert "dwe" in unknown.stderr


# --- what is seen -----------------------------------------------------------------------------------------------

N = 8
"Signs that are all called the same; the last one has no picture in the KB, and one of the mentions has none either."


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Files of a KB and a benchmark with pictures, and the commands over them."""

    folder: Path

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = localmel(*arguments, home=self.folder / "home")
        assert done.returncode == code, done.stderr
        return done

    def train(self, out: str, *options: str | Path, profile: str = "clip", epochs: int = 1, code: int = 0) -> Any:
        return self.run(
            "train", self.folder / "data", "--kb", self.folder / "kb", "--matcher", "dwe", "--out", self.folder / out,
            "--epochs", str(epochs), "--batch", "8", "--rate", "3e-3", "--hard-negatives", "0",
            "--profile", self.folder / f"{profile}.toml", *options, code=code,
        )  # fmt: skip

    def network(self, out: str) -> Path:
        return self.folder / out / "seed-0" / "network"

    def profile(self, name: str, extends: str, *lines: str) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join([f'name = "{name}"', f'extends = "{extends}"', *lines]) + "\n")
        return path

    def linking(self, out: str) -> Path:
        return self.profile(f"with-{out}", "clip.toml", "[retrieve]", f'matcher = "{self.network(out)}"')

    def link(self, out: str, image: str | Path, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        profile = self.linking(out)
        return self.run(
            "link", image, "[[Sign]] was seen.", "--kb", self.folder / "kb", "--profile", profile, *options, code=code
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_models: Callable[[str], Path], tables: Any) -> World:
    from tests.training.test_pictures import paint

    pytest.importorskip("open_clip", reason="CLIP needs the extra `clip`: pip install open_clip_torch")
    made = World(folder=tmp_path_factory.mktemp("world"))
    pictures = made.folder / "kb.images"
    (made.folder / "data" / "pictures").mkdir(parents=True)
    pictures.mkdir()
    entities: list[dict[str, object]] = [{"id": f"Q{n}", "label": "Sign", "image": f"{n}.jpg"} for n in range(N - 1)]
    for n in range(N - 1):
        paint(pictures / f"{n}.jpg", n, 0)
    options = tables(made.folder / "tables", [*entities, {"id": f"Q{N - 1}", "label": "Sign"}])
    build_kb(made.folder / "kb", TablesSource(entities=options[1], triples=options[3], problems=Problems()), Problems())
    for part, views in (("train", (1, 2)), ("val", (3,))):
        lines: list[dict[str, object]] = []
        for number, (n, view) in enumerate((n, view) for view in views for n in range(N)):
            paint(made.folder / "data" / "pictures" / f"{n}-{view}.jpg", n, view)
            line = {"id": f"{part}-{number}", "sentence": f"Sign, {part} {number}.", "mention": "Sign"}
            image = {"image": f"pictures/{n}-{view}.jpg"} if number else {}
            lines.append({**line, "answer": f"Q{n}", **image})
        write(made.folder / "data" / f"signs-{part}.jsonl", lines)
    written = [{"id": f"Q{n}", "abstract": f"Sign number {n}."} for n in range(N)]
    write(made.folder / "abstracts.jsonl", written)
    made.run("kb", "abstracts", made.folder / "kb", made.folder / "abstracts.jsonl")
    made.profile("clip", "embedded", "[encode]", f'model = "{tiny_models("tiny-clip")}"')
    return made


ALL = ("--detector", "tiles+tiles", "--faces", "tiles", "--attributes", "clip", "--ask", "setting", "--ask", "subject",
       "--identity", "--identity-threshold", "0.3", "--written", "abstract")  # fmt: skip


@pytest.fixture(scope="module")
def seeing(world: World) -> World:
    """With a matcher in `all` that sees all there is, and the KB made ready for it."""
    world.train("all", *ALL, epochs=3)
    world.run("index", world.folder / "kb", "--profile", world.folder / "clip.toml", "--matcher", world.network("all"))
    return world


def test_every_chosen_part_is_learnt_and_taking_it_away_changes_the_mention(seeing: World) -> None:
    """Gates begin at zero: where one is not zero any more, a gradient has come through the part behind it."""
    import torch

    from localmel.encode.registry import open_encoder
    from localmel.matchers.protocol import Tokens
    from localmel.matchers.registry import kind_of, load_matcher
    from localmel.records import Mention, Span
    from localmel.settings import load_profile

    matcher = load_matcher(seeing.network("all"))
    weights = matcher.network.state_dict()
    for gate in ("mention_sum.gates.objects", "shown_sum.gates.faces", "shown_sum.gates.attributes",
                 "shown_sum.gates.identity", "entity_sum.gates.written"):  # fmt: skip
        assert weights[f"{gate}.weight"].abs().max() > 1e-5, gate
    assert matcher.card["sees"]["choice"]["asked"] == ["setting", "subject"]
    assert matcher.network.settings.without == ()

    from localmel.kb.store import KnowledgeBase
    from localmel.matchers.registry import open_search

    encoders = open_encoder(load_profile(str(seeing.folder / "clip.toml")).encode)
    image = seeing.folder / "data" / "pictures" / "3-3.jpg"
    one = Mention(id="m", surface="Sign", context="Sign", span=Span(start=0, end=4), image=image)
    assert type(kind_of(matcher)).__name__ == "DweKind"
    with KnowledgeBase(seeing.folder / "kb") as kb:
        given = open_search(kb, matcher, encoders, "auto").shown([one], [()], encoders.text.encode)
    with torch.no_grad():
        whole = matcher.network.mentions(given).vectors
        for part in ("objects", "faces", "attributes", "identity"):
            assert given.parts[part].there.any(), part
            gone = Tokens(values=given.parts[part].values, there=torch.zeros_like(given.parts[part].there))
            rest = type(given)(n=1, parts={**given.parts, part: gone})
            assert (matcher.network.mentions(rest).vectors - whole).abs().max() > 1e-5, part


def test_it_is_evaluated_and_linked_with_and_nobody_repeats_the_options(seeing: World) -> None:
    network = seeing.network("all")
    shown = seeing.run("eval", seeing.folder / "data", "--kb", seeing.folder / "kb", "--profile",
                       seeing.folder / "clip.toml", "--system", "matcher", "--matcher", network, *NIL)  # fmt: skip
    assert "dwe" in shown.stdout
    image = seeing.folder / "data" / "pictures" / "3-3.jpg"
    answer = json.loads(seeing.link("all", image, "--json").stdout)["links"][0]
    assert answer["alike"][0]["id"] == "Q3"
    assert 0.3 < answer["alike"][0]["similarity"] <= 1.0
    assert len(answer["alike"]) <= 3
    words = seeing.link("all", image).stdout
    assert "resembles the KB's picture of Sign (Q3), similarity" in words
    assert "a resemblance proves nothing" in words
    unseen = json.loads(seeing.link("all", "-", "--json").stdout)["links"][0]
    assert "alike" not in unseen


def test_a_detector_from_weights_is_frozen_by_its_bytes(world: World) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed here: scripts/test")
    import torch

    from tests.see.test_detectors import save_detr

    torch.manual_seed(0)
    folder = world.folder / "detector"
    folder.mkdir()
    save_detr(folder)
    world.train("detr", "--detector", f"{folder}")
    card = json.loads((world.network("detr") / "matcher.json").read_text())["facts"]["sees"]
    assert card["choice"]["detector"] == str(folder)
    assert card["choice"]["identity"] is False
    index = ("index", world.folder / "kb", "--profile", world.folder / "clip.toml", "--matcher", world.network("detr"))
    world.run(*index)
    image = world.folder / "data" / "pictures" / "3-3.jpg"
    assert "alike" not in json.loads(world.link("detr", image, "--json").stdout)["links"][0]
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    other = world.link("detr", image, code=3)
    assert "was trained with other bytes of" in other.stderr
    (folder / "model.safetensors").rename(folder / "elsewhere")
    gone = world.link("detr", image, code=4)
    assert "looks at pictures by what is not here" in gone.stderr
    assert "  try: " in gone.stderr


def test_attributes_by_a_model_are_asked_once_and_kept(world: World) -> None:
    script = world.folder / "script.jsonl"
    write(script, [{"answer": {"subject": "person", "role": "athlete", "number": "23"}}])
    world.profile("vlm", "clip.toml", "[generate.model]", 'engine = "scripted"', f'weights = "{script}"')
    asked = ("--attributes", "vlm", "--ask", "role", "--ask", "number")
    world.train("vlm", *asked, profile="vlm")
    (answers,) = (world.folder / "vlm").rglob("answers.jsonl")
    assert answers.read_text().count("athlete") == 3 * N - 2  # each picture once
    index = ("index", world.folder / "kb", "--profile", world.folder / "clip.toml", "--matcher", world.network("vlm"))
    world.run(*index)
    image = world.folder / "data" / "pictures" / "3-3.jpg"
    world.link("vlm", image)
    write(script, [{"answer": {"subject": "place", "role": "athlete", "number": "23"}}])
    other = world.link("vlm", image, code=3)
    assert "was trained with what another model said of pictures" in other.stderr


def has_cascade() -> bool:
    try:
        CascadeFaces()
    except MissingExtra:
        return False
    return True


@pytest.mark.skipif(not has_cascade(), reason="no OpenCV 4 with its cascade of faces is installed")
@pytest.mark.skipif(not PORTRAITS.is_dir(), reason=f"no pictures at {PORTRAITS}; set LOCALMEL_SHARED")
def test_real_faces_are_found_and_held_against_the_kbs_own(world: World, tables: Any) -> None:
    own = World(folder=world.folder / "presidents")
    views = [{path.stem: path for path in (PORTRAITS / view).iterdir()} for view in ("kb_view", "mention_view")]
    names = sorted(views[0].keys() & views[1].keys())[:10]
    (own.folder / "data").mkdir(parents=True)
    entities = [{"id": name, "label": "President", "image": str(views[0][name])} for name in names]
    options = tables(own.folder / "tables", entities)
    build_kb(own.folder / "kb", TablesSource(entities=options[1], triples=options[3], problems=Problems()), Problems())
    for part in ("train", "val"):
        lines = []
        for name in names:
            (own.folder / "data" / f"{name}.jpg").write_bytes(views[1][name].read_bytes())
            line = {"id": f"{part}-{name}", "sentence": f"President, {part} {name}.", "mention": "President"}
            lines.append({**line, "answer": name, "image": f"{name}.jpg"})
        write(own.folder / "data" / f"presidents-{part}.jsonl", lines)
    (own.folder / "clip.toml").write_bytes((world.folder / "clip.toml").read_bytes())
    own.train("faces", "--detector", "faces+tiles", "--faces", "faces", "--identity", "--identity-threshold", "-1")
    from localmel.store.artifacts import map_arrays

    (portraits,) = (own.folder / "kb" / "vectors").glob("[!.]*.faces.*/portraits.safetensors")
    assert len(np.unique(map_arrays(portraits)["entities"])) >= 7
    index = ("index", own.folder / "kb", "--profile", own.folder / "clip.toml", "--matcher", own.network("faces"))
    own.run(*index)
    linked = [json.loads(own.link("faces", own.folder / "data" / f"{name}.jpg", "--json").stdout) for name in names[:2]]
    assert sum("alike" in link for one in linked for link in one["links"]) >= 1


@pytest.mark.skipif(has_cascade(), reason="OpenCV has its cascade here")
def test_without_opencvs_cascade_faces_are_refused_with_what_to_install(world: World) -> None:
    refused = world.train("never", "--faces", "faces", code=5)
    assert "opencv-python-headless<5" in refused.stderr
    assert not (world.folder / "never" / "seed-0").exists()
