"""A matcher through the command line: trained, indexed, evaluated, and linked with; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localmel.cli.app import run

pytestmark = pytest.mark.usefixtures("one_processor")


def test_a_matcher_is_trained_indexed_evaluated_and_linked_with(
    data: Path,
    kb: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def localmel(*arguments: str | Path) -> Any:
        assert run([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    train = ("train", data, "--kb", kb, "--matcher", "m3el", "--out", tmp_path / "run", "--epochs", "1", "--batch", "8",
             "--width", "16", "--mentions", "20", "--validation-mentions", "8")  # fmt: skip
    trained = localmel(*train)
    assert trained["seeds"][0]["validation"]["all"]["hits_at_1"] > 0.5
    assert localmel(*train)["seeds"][0]["was_there"]
    network = Path(trained["seeds"][0]["network"])
    card = json.loads((network / "matcher.json").read_text())
    assert card["kind"] == "m3el"
    assert card["facts"]["mentions"]["train"] <= 20
    assert card["facts"]["mentions"]["validation"] <= 8
    assert card["facts"]["search"]["same_best"] == 1.0
    indexed = ("index", kb, "--matcher", network)
    assert localmel(*indexed)["encoded"] == 0  # training has encoded all that is looked at
    assert len([one for one in (kb / "matched").iterdir() if one.suffix != ".lock"]) == 1
    report = localmel("eval", data, "--kb", kb, "--system", "matcher", "--system", "linker", "--matcher", network,
                      "--gold-outside", "nil", "--protocol", "fuzzy100", "--out", tmp_path / "eval")  # fmt: skip
    found, given = report["datasets"]["one"]["systems"], report["datasets"]["one"]["fuzzy100"]["systems"]
    for system in ("matcher", "linker"):
        hits = found[system]["slices"]["all"]["metrics"]["hits@1"]["value"]
        assert hits > 0.5
        assert given[system]["top"]["T@1"]["value"] == pytest.approx(hits), "all entities are among the candidates"
    profile = tmp_path / "lab.toml"
    profile.write_text(f'name = "lab"\nextends = "embedded"\n[retrieve]\nmatcher = "{network}"\n')
    linked = localmel("link", "-", "[[Byron]], the chemist, went home.", "--kb", kb, "--profile", profile)
    assert linked["links"][0]["entity"]["id"] == "Byron-chemist"
    assert linked["links"][0]["decided_by"] == "evidence scorer"


TRAIN = ("train", "DATA", "--kb", "KB", "--out", "OUT", "--matcher")
EVAL = ("eval", "DATA", "--kb", "KB")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*TRAIN, "m4el"), 2, "there is no matcher 'm4el'; there are"),
        ((*TRAIN, "m3el", "--without", "triples"), 2, "only without image"),
        ((*TRAIN, "m3el", "--without", "image"), 2, "looks at none"),
        (("index", "KB", "--matcher", "nowhere"), 4, "nowhere: it is trained on your own mentions"),
        (("index", "KB", "--matcher", "DATA"), 6, "holds no matcher"),
        ((*EVAL, "--system", "matcher"), 2, "no matcher to evaluate"),
        ((*EVAL, "--system", "names", "--matcher", "x"), 2, "a matcher changes none of"),
        ((*EVAL, "--matcher", "x", "--network", "y"), 2, "cannot find candidates by both"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_what_does_not_fit_is_said_with_what_to_do(
    arguments: tuple[str, ...],
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
    assert run([str(places.get(one, one)) for one in arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "  try: " in error
