"""What DWE+ is to see, chosen on the command line: it reaches the network, stands in the card, or is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.cli.app import run
from tests.cli.test_train import FAMILIES, TRADES

pytestmark = pytest.mark.usefixtures("one_processor")


@pytest.fixture
def kb(change_kb: Callable[..., Path]) -> Path:
    """Namesakes of whom the KB itself says nothing that would tell them apart."""
    names = [f"{family}-{trade}" for family in FAMILIES for trade in TRADES]
    return change_kb([{"id": name, "label": name.partition("-")[0]} for name in names])


def abstracts(folder: Path, lines: dict[str, str]) -> Path:
    path = folder / "abstracts.jsonl"
    path.write_text("".join(json.dumps({"id": name, "abstract": text}) + "\n" for name, text in lines.items()))
    return path


@pytest.mark.slow  # a dozen commands, each of which loads MiniLM: over 20 seconds on a busy machine
def test_texts_beside_descriptions_are_what_tells_namesakes_apart(
    data: Path, kb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery through the command: with them the right one is first, without them one of six is."""

    def localmel(*arguments: str | Path) -> Any:
        assert run([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    def refused(*arguments: str | Path) -> str:
        assert run([*map(str, arguments)]) != 0
        return capsys.readouterr().err

    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    said = {f"{family}-{trade}": f"{family} is a {trade}." for family in FAMILIES for trade in TRADES}
    localmel("kb", "abstracts", kb, abstracts(tmp_path, said))
    train = ("train", data, "--kb", kb, "--matcher", "dwe", "--epochs", "2", "--batch", "16")
    without = localmel(*train, "--out", tmp_path / "without")["seeds"][0]
    chosen = localmel(*train, "--out", tmp_path / "with", "--written", "abstract")["seeds"][0]
    assert without["validation"]["all"]["hits_at_1"] < 0.3
    assert chosen["validation"]["all"]["hits_at_1"] >= 0.95
    network = Path(chosen["network"])
    card = json.loads((network / "matcher.json").read_text())
    assert card["facts"]["sees"]["choice"]["written"] == ["abstract"]
    assert "written" not in card["settings"]["without"]
    assert localmel(*train, "--out", tmp_path / "with", "--written", "abstract")["seeds"][0]["was_there"]
    assert "written" in refused(*train, "--out", tmp_path / "with")  # another choice is another run

    localmel("index", kb, "--matcher", network)
    ask = ("eval", data, "--kb", kb, "--system", "matcher", "--matcher", network, "--gold-outside", "nil",
           "--out", tmp_path / "eval")  # fmt: skip

    def first() -> float:
        systems = localmel(*ask)["datasets"]["one"]["systems"]
        return float(systems["matcher"]["slices"]["all"]["metrics"]["hits@1"]["value"])

    assert first() >= 0.95
    profile = tmp_path / "lab.toml"
    profile.write_text(f'name = "lab"\nextends = "embedded"\n[retrieve]\nmatcher = "{network}"\n')
    link = ("link", "-", "[[Byron]], the chemist, went home.", "--kb", kb, "--profile", profile)
    linked = localmel(*link)["links"][0]
    assert linked["candidates"][0]["id"] == "Byron-chemist"
    assert "alike" not in linked

    localmel("kb", "abstracts", kb, abstracts(tmp_path, {"Byron-chemist": "Byron is a baker."}))
    stale = refused(*link)
    assert "has changed since it was made ready" in stale
    assert f"localmel index {kb} --matcher {network}" in stale
    assert run([*map(str, ask)]) != 0  # what is kept was counted over other texts
    assert str(tmp_path / "eval") in capsys.readouterr().err
    localmel("index", kb, "--matcher", network)
    assert localmel(*link)["links"][0]["candidates"][0]["id"] != "Byron-chemist"

    path = network / "matcher.json"
    path.write_text(path.read_text().replace('"abstract"', '"written"'))
    assert "it was changed after training" in refused(*link)
    assert "it was changed after training" in refused("index", kb, "--matcher", network)


TRAIN = ("train", "DATA", "--kb", "KB", "--out", "OUT", "--matcher")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (
            ("m3el", "--faces", "faces", "--ask", "age group"),
            2,
            "cannot train m3el with --faces faces, --ask 'age group': only dwe",
        ),
        (("kgmel", "--identity"), 2, "cannot train kgmel with --identity: only dwe"),
        (("dwe", "--faces", "faces"), 2, "--faces: no pictures are seen in this training"),
        (("dwe", "--detector", "tiles"), 2, "which encodes with all-MiniLM-L6-v2"),
        (("dwe", "--attributes", "clip", "--identity"), 2, "--attributes, --identity: no pictures"),
        (("dwe", "--attributes", "vlm"), 2, "has no vision-language model"),
        (("dwe", "--attributes", "painter"), 2, "clip and vlm do"),
        (("dwe", "--ask", "setting"), 2, "nobody is asked for setting"),
        (("dwe", "--attributes", "clip", "--ask", "shoe size"), 2, "no attribute shoe size; there are subject"),
        (("dwe", "--attributes", "clip", "--ask", "number"), 2, "CLIP cannot say number"),
        (("dwe", "--identity-threshold", "0.4"), 2, "no portraits are looked for"),
        (("dwe", "--identity", "--identity-threshold", "7"), 2, "cosines lie between -1 and 1"),
        (("dwe", "--faces", ""), 2, "--faces names nothing"),
        (("dwe", "--written", "novel"), 2, "no texts novel; there are abstract and written"),
        (("dwe", "--written", "abstract"), 3, "has no abstracts"),
        (("dwe", "--written", "written", "--written-by", "somebody"), 2, "model 'somebody' wrote no text in kb 'kb'"),
        (("dwe", "--written-by", "somebody"), 2, "texts of 'somebody' are not looked at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_said_with_what_to_do(
    options: tuple[str, ...],
    code: int,
    said: str,
    data: Path,
    kb: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    places = {"DATA": data, "KB": kb, "OUT": tmp_path / "run"}
    assert run([str(places.get(one, one)) for one in (*TRAIN, *options)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "  try: " in error
    assert not list(tmp_path.glob("run/seed-*"))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--detector", "nothing-such"), 4, "no detector 'nothing-such'"),
        (("--detector", "./nowhere"), 4, "there is no folder"),
        (("--detector", "tiles+"), 3, "is not a detector"),
        (("--detector", "none+tiles"), 2, "finds nothing"),
        (("--without", "image", "--detector", "tiles"), 2, "--detector: no pictures are seen"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_detector_that_cannot_be_used_is_said_before_anything_is_read(
    options: tuple[str, ...],
    code: int,
    said: str,
    data: Path,
    kb: Path,
    tmp_path: Path,
    tiny_models: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With an encoder that sees pictures; it is not loaded for this."""
    pytest.importorskip("open_clip", reason="CLIP needs the extra `clip`: pip install open_clip_torch")
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    profile = tmp_path / "clip.toml"
    profile.write_text(f'name = "clip"\nextends = "embedded"\n[encode]\nmodel = "{tiny_models("tiny-clip")}"\n')
    places = {"DATA": data, "KB": kb, "OUT": tmp_path / "run"}
    command = [str(places.get(one, one)) for one in (*TRAIN, "dwe", "--profile", str(profile), *options)]
    assert run(command) == code
    error = capsys.readouterr().err
    assert said in error
    assert "  try: " in error
    assert not (tmp_path / "run" / "encode").exists()
