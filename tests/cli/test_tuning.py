"""An encoder tuned through the command line: trained with its matcher, named by a profile, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.cli.app import run

pytestmark = pytest.mark.usefixtures("one_processor")


QUICK = ("--matcher", "m3el", "--epochs", "1", "--batch", "8", "--width", "16", "--mentions", "16",
         "--validation-mentions", "8", "--hard-negatives", "0", "--tune-encoder")  # fmt: skip


@pytest.mark.parametrize("model", ["minilm", "clip"])
@pytest.mark.slow(reason="trains, keeps and opens an encoder of 90 MB")
def test_an_encoder_is_tuned_named_by_a_profile_indexed_evaluated_and_linked_with(
    model: str,
    data: Path,
    kb: Path,
    tmp_path: Path,
    tiny_models: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def localmel(*arguments: str | Path) -> Any:
        assert run([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    def refused(*arguments: str | Path) -> str:
        assert run([*map(str, arguments)]) != 0
        return capsys.readouterr().err

    def profile(name: str, **stages: str) -> Path:
        path = tmp_path / f"{name}.toml"
        lines = [line for stage, setting in stages.items() for line in (f"[{stage}]", setting)]
        path.write_text("\n".join([f'name = "{name}"', 'extends = "embedded"', *lines]) + "\n")
        return path

    if model == "clip":
        pytest.importorskip("open_clip", reason="CLIP needs the extra `clip`: pip install open_clip_torch")
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    before = profile("before", **({} if model == "minilm" else {"encode": f'model = "{tiny_models("tiny-clip")}"'}))
    train = ("train", data, "--kb", kb, "--out", tmp_path / "run", *QUICK, "--profile", before)
    trained = localmel(*train)
    network, encoder = Path(trained["seeds"][0]["network"]), tmp_path / "run" / "seed-0" / "encoder"
    assert not (kb / "vectors").exists()  # nothing of the KB was encoded for good
    assert localmel(*train)["seeds"][0]["was_there"]
    card = json.loads((network / "matcher.json").read_text())
    assert card["facts"]["run"]["tuning"]["rate"] == 1e-5
    assert card["facts"]["tuned_encoder"]["folder"] == "encoder"
    told = json.loads((encoder / "encoder.json").read_text())
    assert told["tuned_from"]["weights_sha256"] == card["facts"]["tuned_encoder"]["from_sha256"]
    assert told["sha256"] == card["text_space"]["weights_sha256"] != told["tuned_from"]["weights_sha256"]
    assert (card["image_space"] is None) == (model == "minilm")

    error = refused("index", kb, "--matcher", network, "--profile", before)
    assert "was trained on texts of" in error
    assert f'try: [encode] model = "{encoder}"' in error
    lab = profile("lab", encode=f'model = "{encoder}"', retrieve=f'matcher = "{network}"')
    assert localmel("index", kb, "--matcher", network, "--profile", lab)["encoded"] > 0
    report = localmel("eval", data, "--kb", kb, "--system", "matcher", "--matcher", network, "--profile", lab,
                      "--gold-outside", "nil", "--out", tmp_path / "eval")  # fmt: skip
    assert 0 <= report["datasets"]["one"]["systems"]["matcher"]["slices"]["all"]["metrics"]["hits@1"]["value"] <= 1
    linked = localmel("link", "-", "[[Byron]], the chemist, went home.", "--kb", kb, "--profile", lab)
    assert linked["links"][0]["entity"]["label"] == "Byron"
    if model == "minilm":
        assert linked["links"][0]["entity"]["id"] == "Byron-chemist"
        assert run(["doctor", "--profile", str(lab)]) == 0
        assert "MiniLM, tuned" in capsys.readouterr().out

    shutil.rmtree(encoder)
    assert "cannot use the encoder of" in refused(*train)
    shutil.rmtree(network)
    again = localmel(*train)
    assert not again["seeds"][0]["was_there"]
    assert json.loads((encoder / "encoder.json").read_text())["sha256"] == told["sha256"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--matcher", "kgmel", "--tune-encoder"), 2, "cannot train kgmel with --tune-encoder: only m3el"),
        (("--matcher", "dwe", "--tune-encoder"), 2, "cannot train dwe with --tune-encoder: only m3el"),
        (("--matcher", "m3el", "--tune-encoder", "--encoder-rate", "0"), 2, "rate 0.0; it is a number above 0"),
        (("--matcher", "m3el", "--tune-encoder", "--encoder-rate", "nan"), 2, "rate nan; it is a number above 0"),
        (("--matcher", "m3el", "--tune-encoder", "--without", "image"), 2, "looks at none"),
        (("--matcher", "m3el", "--encoder-rate", "1e-5"), 2, "--encoder-rate says how the encoder is tuned"),
        (("--matcher", "m3el", "--gradient-checkpointing"), 2, "--gradient-checkpointing says how"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_tuned_is_said_with_what_to_do(
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
    assert run(["train", str(data), "--kb", str(kb), "--out", str(tmp_path / "run"), *options]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "  try: " in error
    assert not (tmp_path / "run" / "seed-0").exists()
