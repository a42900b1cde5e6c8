"""scripts/fetch_weights.py against a hub on loopback, as a process of its own with the real client library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localmel.errors import BadInput
from localmel.weights.find import find_model
from localmel.weights.install import install_bundle
from localmel.weights.manifest import read_record
from tests.weights import hub, small

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLIP = "timm/vit_base_patch32_clip_224.openai"
UNWANTED = {
    "pytorch_model.bin": b"\x80" * 3000,
    "modeling_small.py": b"import os\n",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "original/consolidated.00.pth": b"\x80" * 3000,
    "figure.png": b"\x89PNG",
}
FILES = small.language_model(shards=2, rows=512)


@pytest.fixture
def server() -> Iterator[hub.Hub]:
    with hub.running("lab/small", COMMIT, FILES | UNWANTED) as running:
        yield running


def fetch(server: hub.Hub, output: Path, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the script with the hub of the test; the caller's own settings for hubs do not count."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    cache = output.parent / "hf-home"
    environment = {
        **kept, "HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT),
        "HF_HUB_DOWNLOAD_TIMEOUT": "5", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, str(ROOT / "scripts" / "fetch_weights.py"), *arguments, "--output", str(output)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_repository_is_fetched_without_pickles_and_code_and_recorded(server: hub.Hub, tmp_path: Path) -> None:
    done = fetch(server, tmp_path / "out", "--repository", "lab/small", "--revision", "v1.0")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "small"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert found == {*FILES, "manifest.json"}
    assert {name for name, _ in server.downloads} == set(FILES)
    record = read_record(folder)
    assert (record.name, record.repository, record.revision) == ("small", "lab/small", COMMIT)
    assert {name: file.sha256 for name, file in record.files.items()} == {
        name: small.sha256(data) for name, data in FILES.items()
    }
    assert find_model(str(folder)).path == folder


def test_the_bundle_of_a_catalog_model_installs_on_the_other_side(
    own_home: Path, tmp_path: Path, stands_for: Callable[..., None]
) -> None:
    files = small.clip() | {"README.md": b"# CLIP\n"}
    both = files | UNWANTED | {"config.json": b'{"architecture": "vit"}', "model.safetensors": files["README.md"]}
    with hub.running(CLIP, COMMIT, both) as server:
        done = fetch(server, tmp_path / "out", "clip-vit-b-32", "--pack")
        assert done.returncode == 0, done.stderr
        assert {name for name, _ in server.downloads} == set(files)
    assert "no licence text" in done.stderr
    with pytest.raises(BadInput, match=r"is not clip-vit-b-32: its tensors hold 16 numbers, the catalog says"):
        install_bundle(tmp_path / "out" / "clip-vit-b-32.tar")
    assert not (own_home / "weights" / "clip-vit-b-32").exists()
    stands_for("clip-vit-b-32", parameters=16)
    (installed,) = install_bundle(tmp_path / "out" / "clip-vit-b-32.tar")
    record = installed.record
    assert (record.name, record.licence, record.purpose) == ("clip-vit-b-32", "apache-2.0", "clip")
    assert (record.repository, record.revision) == (CLIP, COMMIT)
    assert find_model("clip-vit-b-32").path == installed.folder


def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The client writes pieces of ten MiB; what it had written is not sent again, nor is any finished file."""
    shard, piece = "model-00002-of-00002.safetensors", 10 * 1024 * 1024
    with hub.running("lab/small", COMMIT, small.language_model(shards=2, rows=800_000)) as server:
        server.break_after[shard] = piece + 100_000
        done = fetch(server, tmp_path / "out", "--repository", "lab/small")
        if done.returncode:
            assert done.returncode == 4
            assert "what was finished is kept" in done.stderr
            done = fetch(server, tmp_path / "out", "--repository", "lab/small")
        assert done.returncode == 0, done.stderr
        assert [start for name, start in server.downloads if name == shard] == [0, piece]
        assert [name for name, _ in server.downloads].count("config.json") == 1


def test_a_second_run_fetches_nothing_and_checks_all(server: hub.Hub, tmp_path: Path) -> None:
    assert fetch(server, tmp_path / "out", "--repository", "lab/small").returncode == 0
    server.downloads.clear()
    done = fetch(server, tmp_path / "out", "--repository", "lab/small")
    assert done.returncode == 0, done.stderr
    assert "already" in done.stderr
    assert server.downloads == []
    (tmp_path / "out" / "small" / "config.json").write_bytes(FILES["config.json"].replace(b"64", b"65"))
    done = fetch(server, tmp_path / "out", "--repository", "lab/small")
    assert done.returncode == 6
    assert "config.json is not what the hub names" in done.stderr


@pytest.mark.parametrize("name", ["config.json", "model-00001-of-00002.safetensors"])
def test_other_bytes_than_the_hub_names_are_refused(server: hub.Hub, tmp_path: Path, name: str) -> None:
    """Of a small file by git's own hash, of a large one by sha256."""
    data = bytearray(FILES[name])
    data[-2] ^= 1
    server.sent_instead[name] = bytes(data)
    done = fetch(server, tmp_path / "out", "--repository", "lab/small", "--pack")
    assert done.returncode in (4, 6), done.stderr
    assert "Traceback" not in done.stderr
    assert name in done.stderr
    assert not (tmp_path / "out" / "small" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize(("status", "said"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "404"), (500, "500")])
def test_a_hub_that_refuses_is_quoted(server: hub.Hub, tmp_path: Path, status: int, said: str) -> None:
    server.status = status
    done = fetch(server, tmp_path / "out", "--repository", "lab/small")
    assert done.returncode == 4, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_hub_at_all_is_said(tmp_path: Path) -> None:
    with hub.running("lab/small", COMMIT, FILES) as server:
        pass
    done = fetch(server, tmp_path / "out", "--repository", "lab/small")
    assert done.returncode == 4, done.stderr
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_of_pickles_or_of_remote_code_is_refused(tmp_path: Path) -> None:
    pickles = {"config.json": b"{}", "pytorch_model.bin": b"\x80" * 3000}
    with hub.running("lab/small", COMMIT, pickles) as server:
        done = fetch(server, tmp_path / "out", "--repository", "lab/small")
        assert done.returncode == 4
        assert "has no safetensors" in done.stderr
        assert server.downloads == []
    code = FILES | {"config.json": json.dumps({"auto_map": {"AutoModel": "modeling.M"}}).encode()}
    with hub.running("lab/small", COMMIT, code) as server:
        done = fetch(server, tmp_path / "out", "--repository", "lab/small")
        assert done.returncode == 3
        assert "auto_map" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["clip-vit-b-32", "--repository", "a/b"], ["no-such-model"]])
def test_what_is_asked_wrongly_names_what_there_is(server: hub.Hub, tmp_path: Path, arguments: list[str]) -> None:
    done = fetch(server, tmp_path / "out", *arguments)
    assert done.returncode in (2, 3)
    assert "localmel weights list" in done.stderr
