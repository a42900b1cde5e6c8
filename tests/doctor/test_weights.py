"""Weights of a profile: here and whole, or named with what lacks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.doctor import lacks
from localmel.doctor.check import Check, each_once
from localmel.doctor.needs import packages_of
from localmel.doctor.weights import check_name, look_at_weights
from localmel.matchers.dwe.choice import DweChoice
from localmel.matchers.dwe.sight import open_sight
from localmel.matchers.trained import CARD
from localmel.settings import Profile, load_profile
from localmel.settings.shipped import shipped
from localmel.weights.sources import adopt
from tests.weights.tuned_folders import small_tuned_minilm

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("tiny-llava-mistral", "tiny-llama", "tiny-clip")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny models, as the script makes them."""
    folder = tmp_path_factory.mktemp("models")
    script = ROOT / "scripts" / "make_tiny_models.py"
    subprocess.run([sys.executable, str(script), str(folder), "--only", *MODELS], check=True, capture_output=True)
    return folder


@pytest.fixture
def models(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the tiny models adopted from a folder that the test may change; returns that folder."""
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    shutil.copytree(built, tmp_path / "models")
    for name in MODELS:
        adopt(tmp_path / "models" / name)
    return tmp_path / "models"


def looked(profile: str | Profile, *, thorough: bool = False) -> dict[str, Check]:
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return {check.id: check for check in each_once(look_at_weights(profile, thorough=thorough))}


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.usefixtures("models")
def test_what_is_here_and_whole_is_ok(thorough: bool) -> None:
    found = looked("tiny", thorough=thorough)
    assert {check.status for check in found.values()} == {"ok"}
    assert set(found) == {
        *("weights.tiny-llava-mistral", "weights.tiny-llama", "weights.all-MiniLM-L6-v2"),
        *("weights.kgmel-minilm", "weights.evidence-scorer"),
    }
    assert lacks(load_profile("tiny"))[1:] == () or "vllm" not in lacks(load_profile("tiny"))[0]


def test_what_is_not_here_fails_with_4_and_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path))
    check = looked("paper")["weights.llava-v1.6-mistral-7b"]
    assert (check.status, check.exit_code) == ("fail", 4)
    assert "localmel weights install" in check.hint
    assert "fetch_weights.py llava-v1.6-mistral-7b" in check.hint
    assert looked("tiny")["weights.tiny-llama"].exit_code == 4
    assert "llava-v1.6-mistral-7b (weights)" in lacks(load_profile("paper"))
    assert "clip-vit-b-32 (weights)" in lacks(load_profile("paper"))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "damage", "code"),
    [
        ("config.json", Path.unlink, 4),
        ("tokenizer.json", Path.unlink, 4),
        ("model.safetensors", Path.unlink, 4),
        ("model.safetensors", halve, 6),
        ("config.json", halve, 6),
    ],
)
def test_half_a_model_is_named_with_the_file(
    models: Path, file: str, damage: Callable[[Path], None], code: int
) -> None:
    places = sorted((models / "tiny-llama").glob(file.replace("model.", "model*.")))
    damage(places[0])
    check = looked("tiny")["weights.tiny-llama"]
    assert (check.status, check.exit_code) == ("fail", code), check
    assert places[0].name in check.fact
    assert check.hint
    assert looked("tiny")["weights.tiny-llava-mistral"].status == "ok"
    assert "tiny-llama (weights)" in lacks(load_profile("tiny"))


def test_a_changed_byte_is_found_when_everything_is_read(models: Path) -> None:
    path = sorted((models / "tiny-llama").glob("model*.safetensors"))[0]
    stood, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    import os

    os.utime(path, ns=(stood.st_atime_ns, stood.st_mtime_ns))
    check = looked("tiny", thorough=True)["weights.tiny-llama"]
    assert (check.status, check.exit_code) == ("fail", 6)
    assert path.name in check.fact


@pytest.mark.usefixtures("models")
def test_a_model_that_sees_no_pictures_cannot_describe_them(profile: Callable[[str], Profile]) -> None:
    own = profile('extends = "tiny"\n[generate.model]\nweights = "tiny-llama"')
    assert "sees no pictures" in looked(own)["weights.tiny-llama"].fact
    assert looked(own)["weights.tiny-llama"].exit_code == 2


@pytest.mark.usefixtures("models")
def test_a_longer_context_than_the_model_was_made_for_is_told(profile: Callable[[str], Profile]) -> None:
    own = profile('extends = "tiny"\n[rerank.model]\ncontext = 9000000')
    assert "9,000,000" in looked(own)["weights.tiny-llama"].fact


def test_weights_by_path_are_looked_at_there(models: Path, profile: Callable[[str], Profile]) -> None:
    own = profile(f'extends = "tiny"\n[rerank.model]\nweights = "{models}/tiny-llama"')
    assert looked(own)["weights.tiny-llama"].status == "ok"


@pytest.mark.usefixtures("models")
def test_clip_is_looked_at_as_open_clip_will_read_it(profile: Callable[[str], Profile]) -> None:
    own = profile('extends = "tiny"\n[encode]\nmodel = "tiny-clip"')
    found = looked(own)
    assert found["weights.tiny-clip"].status == "ok"
    assert (found["weights.kgmel-minilm"].status, found["weights.kgmel-minilm"].exit_code) == ("fail", 3)
    assert "was trained on vectors of all-MiniLM-L6-v2" in found["weights.kgmel-minilm"].fact


def test_a_tuned_minilm_is_looked_at_by_path_and_by_name(
    tmp_path: Path, profile: Callable[[str], Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    place = small_tuned_minilm(tmp_path / "encoder")
    adopt(place)
    for model in (str(place), "encoder"):
        own = profile(f'[encode]\nmodel = "{model}"\n')
        check = looked(own)["weights.encoder"]
        assert (check.status, check.fact.startswith("MiniLM, ")) == ("ok", True)
        assert not packages_of(own)  # none of CLIP's
    (place / "model.safetensors").write_bytes(b"")
    by_path, by_name = (looked(profile(f'[encode]\nmodel = "{one}"\n')) for one in (str(place), "encoder"))
    assert by_path["weights.encoder"].hint.startswith("localmel train DATA --kb KB --matcher m3el --tune-encoder")
    assert by_name["weights.encoder"].hint.startswith("localmel weights install --replace")
    assert {by_path["weights.encoder"].exit_code, by_name["weights.encoder"].exit_code} == {6}


def test_a_network_of_the_name_that_a_profile_wants_is_found_where_its_hint_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    assert looked("paper")["weights.kgmel-clip"].hint.endswith(f"{tmp_path}/home/weights/kgmel-clip")
    shutil.copytree(shipped("weights/kgmel-minilm"), tmp_path / "home" / "weights" / "kgmel-clip")
    check = looked("paper")["weights.kgmel-clip"]
    assert (check.status, check.exit_code) == ("fail", 3)  # there, but for the vectors of another encoder
    assert "was trained on vectors of all-MiniLM-L6-v2" in check.fact


def test_a_network_that_is_to_be_trained_says_how(
    tmp_path: Path, profile: Callable[[str], Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path / "home"))
    check = looked("paper")["weights.kgmel-clip"]
    assert (check.status, check.exit_code) == ("fail", 4)
    assert check.hint.startswith("localmel train FOLDER --kb KB --profile paper")
    own = profile(f'[retrieve]\nnetwork = "{tmp_path}/none"')
    assert looked(own)["weights.none"].exit_code == 4
    (tmp_path / "empty").mkdir()
    own = profile(f'[retrieve]\nnetwork = "{tmp_path}/empty"\n[rerank]\nweights = "{tmp_path}/empty"')
    assert looked(own)["weights.empty"].exit_code == 6


def test_a_server_holds_its_own_weights(profile: Callable[[str], Profile]) -> None:
    own = profile('[rerank]\nbackend = "llm"\n[rerank.model]\nengine = "server"\nweights = "llama3.1:8b"')
    assert looked(own)["weights.rerank"].status == "skip"


@pytest.mark.parametrize(("weights", "name"), [("/a/b c", "weights.b-c"), ("x", "weights.x"), ("/", "weights.unnamed")])
def test_ids_are_plain_whatever_the_path(weights: str, name: str) -> None:
    assert check_name(weights) == name
    assert json.dumps(name).isascii()


def test_a_matcher_in_place_of_the_network_is_looked_for_instead(
    tmp_path: Path, profile: Callable[[str], Profile]
) -> None:
    own = profile(f'[retrieve]\nnetwork = "none"\nmatcher = "{tmp_path}/matcher"\n')
    check = looked(own)["weights.matcher"]
    assert (check.status, check.exit_code) == ("fail", 4)
    assert check.hint.startswith("localmel train")
    assert f"{tmp_path}/matcher (network, to be trained)" in lacks(own)
    (tmp_path / "matcher").mkdir()
    (tmp_path / "matcher" / CARD).write_text('{"kind": "m3el"}', encoding="utf-8")
    assert "kind m3el" in looked(own)["weights.matcher"].fact
    assert lacks(own) == ()


def test_what_a_matcher_looks_at_pictures_by_is_looked_for_too(
    tmp_path: Path, profile: Callable[[str], Profile]
) -> None:
    own = profile(f'[retrieve]\nnetwork = "none"\nmatcher = "{tmp_path}/matcher"\n')
    (tmp_path / "matcher").mkdir()
    card = {"kind": "dwe", "facts": {"sees": open_sight(DweChoice(faces="tiles")).for_card()}}
    (tmp_path / "matcher" / CARD).write_text(json.dumps(card), encoding="utf-8")
    assert looked(own)["weights.matcher"].status == "ok"
    card["facts"]["sees"]["choice"]["faces"] = "faces"  # type: ignore[index]
    (tmp_path / "matcher" / CARD).write_text(json.dumps(card), encoding="utf-8")
    check = looked(own)["weights.matcher"]
    assert (check.status, check.exit_code) == ("fail", 6)
    assert "it was changed after training" in check.fact
