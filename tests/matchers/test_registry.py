"""A matcher is chosen by its kind, or by a folder that says its kind; everything else is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from localmel.errors import BadInput, CorruptArtifact, MissingWeights, UsageError
from localmel.matchers.m3el.kind import M3elKind
from localmel.matchers.registry import KGMEL, MATCHERS, kind_in, load_matcher, matcher_kind
from localmel.settings.shipped import weights_folder
from tests.matchers.hashed_tokens import WIDTH, token_encoders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kind, encoders = M3elKind(), token_encoders()
    torch.manual_seed(0)
    kind.save(tmp_path / "m3el", kind.new(encoders, width=8), encoders.text.space, None, {"seed": 0})
    return tmp_path / "m3el"


def test_every_name_is_a_kind_of_that_name() -> None:
    assert MATCHERS[0] == KGMEL
    assert [matcher_kind(name).name for name in MATCHERS] == list(MATCHERS)
    with pytest.raises(UsageError, match="there is no matcher 'm4el'"):
        matcher_kind("m4el")


def test_a_folder_says_its_kind_and_comes_back_as_it_was(folder: Path) -> None:
    assert kind_in(folder) == "m3el"
    found = load_matcher(folder)
    assert (found.kind, found.image_space, dict(found.card)) == ("m3el", None, {"seed": 0})
    assert found.network.settings.width == 8
    assert found.network.settings.image_width == 0


def test_whole_texts_begin_as_cosines_over_a_temperature() -> None:
    network = M3elKind().new(token_encoders(), width=None)
    text = network.text_norm(torch.randn(400, WIDTH)).detach()
    assert float((text * text).sum(dim=1).mean()) == pytest.approx(2 / 0.05, rel=0.05)


def test_what_is_no_matcher_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="there is no matcher at") as missing:
        kind_in(tmp_path / "nowhere")
    assert "localmel train" in missing.value.hint
    (tmp_path / "run" / "seed-0" / "network").mkdir(parents=True)
    with pytest.raises(BadInput, match="is a training run") as run:
        kind_in(tmp_path / "run")
    assert run.value.hint == f"--matcher {tmp_path / 'run' / 'seed-0' / 'network'}"
    assert load_matcher(weights_folder("kgmel-minilm")).kind == KGMEL
    card = folder / "matcher.json"
    whole = json.loads(card.read_text())
    for text, said in (
        (json.dumps({**whole, "kind": "m5el"}), "a matcher of kind 'm5el'; this version has"),
        (json.dumps([]), "holds no matcher"),
        ("{", "holds no matcher"),
        (json.dumps({**whole, "settings": {**whole["settings"], "width": 9}}), "holds no M3EL network"),
        (json.dumps({**whole, "weights_sha256": "0"}), "its weights have sha256"),
    ):
        card.write_text(text)
        with pytest.raises(CorruptArtifact, match=said):
            load_matcher(folder)
    card.unlink()
    with pytest.raises(CorruptArtifact, match="holds no matcher"):
        load_matcher(folder)
