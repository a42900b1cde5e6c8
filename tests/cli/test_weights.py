"""`localmel weights` as people run it: its exit code, what it prints where; a process where it is asked or killed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.settings import OFFLINE
from localmel.weights.pack import pack as pack_bundle
from tests.in_process import run_in_process
from tests.weights import small

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables for a process with an empty home of the test's own."""
    kept = {key: value for key, value in os.environ.items() if key not in (*OFFLINE, "NO_COLOR", "FORCE_COLOR")}
    return {**kept, "LOCALMEL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def weights(environment: dict[str, str]) -> Run:
    """`weights("list", "--json")` -> as the finished process."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return run_in_process(["weights", *map(str, arguments)], environment=environment)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small.write(tmp_path / "small", small.language_model(shards=2))


@pytest.fixture
def bundle(model: Path, tmp_path: Path) -> Path:
    return pack_bundle([f"{model}/"], tmp_path / "b.tar").path


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failed(done: subprocess.CompletedProcess[str], code: int, *said: str) -> str:
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr
    return done.stderr


def test_a_model_is_packed_carried_over_installed_verified_and_removed(
    weights: Run, model: Path, tmp_path: Path
) -> None:
    bundle = Path(answer(weights("pack", model, "--output", tmp_path / "b.tar", "--json"))["path"])
    (installed,) = answer(weights("install", bundle, "--json"))
    folder = tmp_path / "home" / "weights" / "small"
    assert installed == {
        "name": "small", "folder": str(folder), "already": False, "damage": "", "files": 8, "bytes": installed["bytes"],
        "signed_by": "", "unchecked_signature": False,
    }  # fmt: skip
    assert answer(weights("install", bundle, "--json"))[0]["already"] is True
    verified = {one["name"]: one for one in answer(weights("verify", "--json"))}
    assert set(verified) == {"all-MiniLM-L6-v2", "small"}
    assert verified["small"]["findings"] == []
    here = answer(weights("list", "--here", "--json"))
    assert [(one["name"], one["state"]) for one in here["weights"]] == [
        ("all-MiniLM-L6-v2", "packaged"),
        ("small", "installed"),
    ]
    assert answer(weights("rm", "small", "--yes", "--json"))[0]["bytes"] > 0
    assert not folder.exists()


def test_the_same_for_people(weights: Run, model: Path, bundle: Path) -> None:
    assert re.search(r"^installed: small, 8 files, \d", weights("install", bundle).stdout)
    assert "already installed: small" in weights("install", bundle).stdout
    assert re.search(r"^small +installed", weights("list", "--here").stdout.replace("\n ", "\n"), re.M)
    assert "small: 8 files" in weights("verify", "small").stdout
    assert "LlamaForCausalLM" in weights("show", "small").stdout
    assert weights("rm", "small", "--yes").stdout.startswith("removed: small, ")


def test_the_list_shows_the_whole_catalog_with_its_estimates(weights: Run) -> None:
    listed = {one["name"]: one for one in answer(weights("list", "--json"))["weights"]}
    assert listed["llava-v1.6-mistral-7b"]["state"] == "not here"
    assert listed["llava-v1.6-mistral-7b"]["catalog_verified"] is False
    assert listed["llama-3.1-8b-instruct"]["estimated_memory_bytes"]["4bit"] < 10**10
    table = weights("list").stdout
    assert "memory (estimate)" in table
    assert all(name in table for name in listed)


def test_what_is_known_of_one_model_is_shown(weights: Run, bundle: Path) -> None:
    shown = answer(weights("show", "qwen2.5-vl-3b", "--json"))
    assert (shown["licence"], shown["image_tokens"], shown["parameters"]) == ("qwen-research", 2304, 3_754_622_976)
    assert "permits no commercial use" in weights("show", "qwen2.5-vl-3b").stdout
    weights("install", bundle)
    shown = answer(weights("show", "small", "--json"))
    assert shown["files"]["LICENSE"]["sha256"] == small.sha256(small.LICENCE.encode())
    assert answer(weights("show", "small", "--sbom"))["bomFormat"] == "CycloneDX"
    failed(weights("show", "nothing"), 2, "'nothing' is not in the catalog")
    failed(weights("show", "qwen2.5-vl-3b", "--sbom"), 4, "no weights are installed")


def test_verify_ends_with_4_for_a_missing_file_and_6_for_another_one(
    weights: Run, bundle: Path, tmp_path: Path
) -> None:
    weights("install", bundle)
    folder = tmp_path / "home" / "weights" / "small"
    shard = folder / "model-00001-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    done = weights("verify", "small", "--json")
    failed(done, 6, "model-00001-of-00002.safetensors has sha256")
    assert [one["kind"] for one in json.loads(done.stdout)[0]["findings"]] == ["changed"]
    shard.unlink()
    failed(weights("verify"), 4, "cannot read", "model-00001-of-00002.safetensors")
    failed(weights("verify", "none"), 4, "no weights are installed as 'none'")
    assert weights("verify", "all-MiniLM-L6-v2").returncode == 0


def test_what_verify_advises_puts_damaged_weights_right_and_says_so(weights: Run, bundle: Path, tmp_path: Path) -> None:
    weights("install", bundle)
    shard = tmp_path / "home" / "weights" / "small" / "model-00001-of-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    failed(weights("verify", "small"), 6, "localmel weights install --replace BUNDLE.tar")
    done = weights("install", "--replace", bundle)
    assert done.stdout.startswith("repaired: small, 8 files, ")
    assert f"; it was damaged: {shard} has sha256" in done.stdout
    assert weights("verify", "small").returncode == 0
    assert weights("install", "--replace", bundle).stdout.startswith("already installed: small")


def test_a_bundle_and_a_folder_at_once_are_one_too_many(weights: Run, bundle: Path, model: Path) -> None:
    failed(weights("install", bundle, "--adopt", model), 2, f"both a bundle ({bundle}) and --adopt {model} were given")


def test_a_signed_bundle_is_checked_with_a_key(weights: Run, model: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    made = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this system makes no SSH keys (package openssh-client)")
    packed = answer(weights("pack", model, "-o", tmp_path / "b.tar", "--sign", key, "--json"))
    assert packed["signed"] is True
    assert "not checked" in weights("install", tmp_path / "b.tar").stderr
    weights("rm", "small", "-y")
    done = weights("install", tmp_path / "b.tar", "--key", f"{key}.pub")
    assert "signed by SHA256:" in done.stdout
    failed(weights("install", tmp_path / "b.tar", "--key", key), 3, "private key")


def test_a_folder_is_adopted_and_forgotten(weights: Run, model: Path) -> None:
    record = answer(weights("install", "--adopt", model, "--name", "mine", "--json"))
    assert (record["name"], record["adopted"]) == ("mine", str(model))
    (model / "config.json").write_bytes((model / "config.json").read_bytes() + b" ")
    failed(weights("verify", "mine"), 6, "config.json has")
    done = weights("rm", "mine", "--yes")
    assert f"{model} was not touched" in done.stdout
    assert (model / "model.safetensors.index.json").exists()


def test_half_a_model_is_named(weights: Run, model: Path, tmp_path: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    failed(weights("pack", model, "-o", tmp_path / "b.tar"), 4, "shard model-00002-of-00002.safetensors")
    failed(weights("install", "--adopt", model), 4, "shard model-00002-of-00002.safetensors")
    assert not (tmp_path / "b.tar").exists()


def test_what_is_left_out_of_a_bundle_is_said_on_stderr(weights: Run, model: Path, tmp_path: Path) -> None:
    small.write(model, {"pytorch_model.bin": b"\x80"})
    (model / "LICENSE").unlink()
    done = weights("pack", model, "-o", tmp_path / "b.tar")
    assert done.stdout.startswith("packed: ")
    assert "left out: pytorch_model.bin may hold a pickle" in done.stderr
    assert "the folder of small has no licence text" in done.stderr


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"modeling.py": b"import os"}, 3, "modeling.py"),
        ({"config.json": b'{"auto_map": {}}'}, 3, "small/config.json"),
        ({"extra.bin": b"\x80\x04"}, 3, "extra.bin"),
        ({"../../../escape.json": b"{}"}, 3, "escape.json"),
        ({"model.safetensors": small.tensors({"a": (2,)})[:-1]}, 6, "small/model.safetensors"),
    ],
)
def test_a_bundle_of_evil_is_refused_by_name(
    weights: Run, tmp_path: Path, files: dict[str, bytes], code: int, said: str
) -> None:
    bundle = small.forge(tmp_path / "evil.tar", small.language_model() | files)
    assert failed(weights("install", bundle), code, said, "evil.tar").startswith("error: ")
    assert not list(tmp_path.rglob("escape*"))
    assert not (tmp_path / "home" / "weights" / "small").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" * 300])
def test_what_is_no_bundle_ends_with_6(weights: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    done = weights("install", tmp_path / "x.tar", "--json")
    failed(done, 6, "x.tar")
    assert set(json.loads(done.stderr)) == {"error", "hint"}


def test_a_bundle_or_a_key_that_is_not_there_ends_with_3(weights: Run, bundle: Path, tmp_path: Path) -> None:
    failed(weights("install", tmp_path / "none.tar"), 3, "there is no bundle", "none.tar")
    failed(
        weights("install", bundle, "--key", tmp_path / "lab.pub"), 3, "there is no file of public keys", "ssh-keygen"
    )
    failed(weights("install", tmp_path), 3, "is a folder, not a bundle", f"localmel weights install --adopt {tmp_path}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"], ["install"], ["install", "b.tar", "--adopt", "folder"], ["install", "b.tar", "--name", "x"],
        ["install", "--adopt", "folder", "--key", "k"], ["pack", "a"], ["pack", "a", "b", "-o", "x", "--name", "y"],
        ["rm"], ["rm", "x", "--unfinished"], ["rm", "../x", "--yes"], ["show"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_typed_wrongly_ends_with_2(weights: Run, arguments: list[str]) -> None:
    done = weights(*arguments)
    failed(done, 2)
    assert done.stdout == ""


def test_nothing_is_removed_when_nobody_can_be_asked(weights: Run, bundle: Path, tmp_path: Path) -> None:
    weights("install", bundle)
    failed(weights("rm", "small"), 2, "there is no terminal", "--yes")
    assert (tmp_path / "home" / "weights" / "small" / "config.json").exists()
    assert "nothing to remove" in weights("rm", "--unfinished").stdout


@pytest.mark.parametrize(("typed", "removed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(
    weights: Run, environment: dict[str, str], bundle: Path, tmp_path: Path, typed: str, removed: bool
) -> None:
    weights("install", bundle)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "localmel.cli", "weights", "rm", "small"],
        env=environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        seen, deadline = b"", time.monotonic() + 60
        while b"[y/N]" not in seen and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 4096)
        assert b"remove small" in seen
        os.write(ours, typed.encode())
        running.communicate(timeout=60)
    os.close(ours)
    assert (tmp_path / "home" / "weights" / "small").exists() is not removed


def test_ctrl_c_leaves_no_half_install_and_the_next_one_goes_on(
    weights: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = small.write(tmp_path / "big", small.language_model(shards=4, rows=4_000_000))
    pack_bundle([f"{folder}/"], tmp_path / "b.tar")
    place = tmp_path / "home" / "weights"
    with subprocess.Popen(
        [sys.executable, "-m", "localmel.cli", "weights", "install", str(tmp_path / "b.tar")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as running:
        deadline = time.monotonic() + 60
        while not list(place.glob(".incoming-*/big/model-00001-of-00004.safetensors")):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not (place / "big").exists()
    assert "interrupted installs take up" in weights("list", "--here").stderr
    assert weights("install", tmp_path / "b.tar").returncode == 0
    assert weights("verify", "big").returncode == 0
    assert sorted(path.name for path in place.iterdir()) == [".lock", "big"]
