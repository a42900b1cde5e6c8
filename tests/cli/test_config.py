"""`localmel config`: what is in force, where it comes from, and which profiles there are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localmel.settings import profile_names, settings_in_force

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config folder with a profile of one's own and a broken one."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "lab.toml").write_text(
        'extends = "small"\nsummary = "ours \\u001b[31m"\n[rerank]\norders = 3\n'
    )
    (tmp_path / "profiles" / "broken.toml").write_text("[rerank\n")
    return tmp_path


def test_every_value_is_printed_with_its_file(localmel: Run, home: Path, config: Path) -> None:
    done = localmel("config", "--profile", "lab", "--json", more={"LOCALMEL_CONFIG": str(config)})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"profile", "files", "places", "settings"}
    assert told["profile"] == "lab"
    assert [Path(file).name for file in told["files"]] == ["lab.toml", "small.toml"]
    assert told["places"] == {"home": str(home), "config": str(config)}
    found = {setting["key"]: setting for setting in told["settings"]}
    assert found["rerank.orders"] == {
        "key": "rerank.orders",
        "value": 3,
        "origin": "own",
        "file": str(config / "profiles" / "lab.toml"),
    }
    assert found["generate.model.quantization"]["origin"] == "shipped"
    assert found["generate.seed"] == {"key": "generate.seed", "value": 0, "origin": "default", "file": None}
    assert list(found) == [setting.key for setting in settings_in_force("small")]


def test_the_table_leaves_out_settings_of_models_that_nobody_asks(localmel: Run, home: Path, config: Path) -> None:
    done = localmel("config")
    assert done.returncode == 0
    assert "generate.model.weights" not in done.stdout
    assert "generate.model.* is not used: generate.backend is embedded" in done.stdout
    assert "shipped: embedded.toml" in done.stdout
    done = localmel("config", "--profile", "lab", more={"LOCALMEL_CONFIG": str(config)})
    assert "llava-v1.6-mistral-7b" in done.stdout
    assert "own: lab.toml" in done.stdout
    assert "\x1b" not in done.stdout


def test_profiles_are_listed_with_what_they_lack_here(localmel: Run, home: Path, config: Path) -> None:
    done = localmel("config", "--list", "--json", more={"LOCALMEL_CONFIG": str(config)})
    assert done.returncode == 0, done.stderr
    found = {profile["name"]: profile for profile in json.loads(done.stdout)}
    assert list(found) == [*profile_names(), "broken", "lab"]
    assert found["embedded"]["lacks"] == []
    assert "llava-v1.6-mistral-7b (weights)" in found["paper"]["lacks"]
    assert "kgmel-clip (network, to be trained)" in found["paper"]["lacks"]
    assert "kgmel-clip (network, to be trained)" not in found["small"]["lacks"]
    assert found["lab"]["origin"] == "own"
    assert found["lab"]["lacks"] == found["small"]["lacks"]
    assert "broken.toml" in found["broken"]["error"]
    done = localmel("config", "--list", more={"LOCALMEL_CONFIG": str(config)})
    assert done.returncode == 0
    assert "broken" in [word for line in done.stdout.splitlines() for word in line.split()[:1]]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["none", "../paper", "/etc/passwd", "/dev/zero", "", "a" * 5000, "\udcff"])
def test_what_is_no_profile_is_typed_wrongly(localmel: Run, home: Path, name: str) -> None:
    done = localmel("config", "--profile", name, "--json")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert json.loads(done.stderr)["error"]


def test_a_profile_of_ones_own_links(localmel: Run, starter: object, config: Path) -> None:
    (config / "profiles" / "names-only.toml").write_text('extends = "embedded"\n[retrieve]\nby_vector = 0\n')
    done = localmel(
        *("link", "-", "Messi scored", "--mention", "Messi", "--profile", "names-only", "--json"),
        more={"LOCALMEL_CONFIG": str(config)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["profile"] == "names-only"
