"""`localmel doctor` as a person or a script meets it: on a machine that is fine, and on machines that are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localmel.kb.schema import DATABASE

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]

ALWAYS = [
    *("python.version", "packages.base", "packages.profile", "torch.build", "torchvision.version"),
    *("transformers.version", "vllm.version", "vllm.plugins", "vllm.kernels", "vllm.compiler", "gpu.driver"),
    *(f"gpu.memory.{name}" for name in ("embedded", "paper", "paper-13b", "qwen", "small", "tiny")),
    *("weights.all-MiniLM-L6-v2", "weights.kgmel-minilm", "weights.evidence-scorer"),
    *("home.writable", "disk.space", "offline.switches", "telemetry.off", "kb.starter.readable", "kb.starter.index"),
]
"The ids for the default profile, in their order.  Programs hang on them: what is taken away or renamed is a break."


def examined(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The report, after what must hold of every one."""
    assert "Traceback" not in done.stderr, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert set(report) == {"format", "localmel", "profile", "ok", "exit_code", "seconds", "checks"}
    assert report["format"] == 1
    assert report["exit_code"] == done.returncode
    assert report["ok"] == (not done.returncode)
    ids = [check["id"] for check in report["checks"]]
    assert len(set(ids)) == len(ids)
    for check in report["checks"]:
        assert set(check) == {"id", "status", "fact", "hint"}
        assert check["status"] in ("ok", "warn", "fail", "skip")
        assert check["fact"]
        assert check["hint"] or check["status"] in ("ok", "skip")
    assert report["ok"] == all(check["status"] != "fail" for check in report["checks"])
    return report


def by_id(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["id"]: check for check in report["checks"]}


def test_a_machine_that_runs_the_default_profile_is_told_so(localmel: Run, starter: object) -> None:
    report = examined(localmel("doctor", "--kb", "starter", "--json"))
    assert (report["ok"], report["profile"]) == (True, "embedded")
    assert [check["id"] for check in report["checks"]] == ALWAYS
    found = by_id(report)
    assert found["kb.starter.index"]["status"] == "ok"
    assert found["packages.base"]["status"] == "ok"


def test_the_table_for_people_ends_with_a_verdict(localmel: Run, home: Path) -> None:
    done = localmel("doctor")
    assert done.returncode == 0, done.stdout
    assert all(name in done.stdout for name in ALWAYS[:-2])
    assert "profile embedded can run here" in done.stdout.splitlines()[-1]
    done = localmel("doctor", "--profile", "paper")
    assert "profile paper cannot run here" in done.stdout.splitlines()[-1]
    assert "FAIL weights.llava-v1.6-mistral-7b: localmel weights install" in done.stdout
    assert done.stderr == ""


def test_it_is_quick_and_imports_nothing_heavy_itself(environment: dict[str, str], home: Path) -> None:
    code = (
        "import sys; sys.argv = ['localmel', 'doctor', '--json']\n"
        "from localmel.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'vllm', 'onnxruntime', 'PIL', 'rapidocr', 'cv2'} & set(sys.modules)\n"
        "print(*heavy, file=sys.stderr)"
    )

    def seconds(*command: str) -> tuple[float, str]:
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return time.perf_counter() - started, done.stderr.strip()

    bare = min(seconds(sys.executable, "-c", "import json, sqlite3")[0] for _ in range(3))
    spent, imported = min(seconds(sys.executable, "-c", code) for _ in range(2))
    assert imported == ""
    assert spent < max(5.0, 60 * bare), f"{spent:.1f} s; Python alone starts in {bare:.2f} s"


def test_what_a_profile_lacks_decides_the_exit_code(localmel: Run, home: Path, tmp_path: Path) -> None:
    report = examined(localmel("doctor", "--profile", "paper", "--json"))
    found = by_id(report)
    assert found["weights.clip-vit-b-32"]["status"] == "fail"
    assert found["weights.kgmel-clip"]["hint"].startswith("localmel train")
    first = next(check for check in report["checks"] if check["status"] == "fail")
    assert report["exit_code"] == (4 if first["id"].startswith("weights.") else 5 if "." in first["id"] else 3)
    own = tmp_path / "own.toml"
    own.write_text('[retrieve]\nnetwork = "/no/such/network"\n')
    assert examined(localmel("doctor", "--profile", own, "--json"))["exit_code"] == 4
    own.write_text(
        '[rerank]\nbackend = "llm"\n[rerank.model]\nengine = "server"\nweights = "x"\nurl = "http://10.0.0.1"\n'
    )
    assert examined(localmel("doctor", "--profile", own, "--json"))["exit_code"] in (2, 5)


def test_an_unknown_profile_is_typed_wrongly(localmel: Run, home: Path) -> None:
    done = localmel("doctor", "--profile", "none", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no profile 'none'" in json.loads(done.stderr)["error"]


# --- machines that are not fine ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/proc/none", "/etc/passwd", "~nobody-of-that-name"])
def test_a_home_that_is_none_is_a_finding(localmel: Run, home: Path, place: str) -> None:
    report = examined(localmel("doctor", "--json", more={"LOCALMEL_HOME": place}))
    assert any(check["status"] in ("warn", "fail") for check in report["checks"])
    assert by_id(report)["weights.kgmel-minilm"]["status"] == "ok"


def test_a_home_that_may_not_be_entered_is_a_finding(environment: dict[str, str], home: Path, tmp_path: Path) -> None:
    """Root, who may enter every folder, gives that right away first."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        pytest.skip("root may enter every folder, and there is no setpriv to change that")
    begin = [str(setpriv), "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    closed = tmp_path / "closed"
    (closed / "kb").mkdir(parents=True)
    closed.chmod(0)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*begin, sys.executable, "-m", "localmel.cli", *arguments, "--json"]
        places = {"LOCALMEL_HOME": str(closed), "LOCALMEL_CONFIG": str(closed)}
        return subprocess.run(command, env=environment | places, capture_output=True, text=True, check=False)

    try:
        found, listed = by_id(examined(run("doctor", "--profile", "tiny"))), run("config", "--list")
    finally:
        closed.chmod(0o700)
    assert found["home.writable"]["status"] == found["doctor.kbs"]["status"] == "fail"
    assert "Permission denied" in found["doctor.kbs"]["fact"]
    assert found["weights.tiny-llama"]["status"] == "fail"
    assert "doctor.gpus" not in found
    assert listed.returncode == 0, listed.stderr
    assert "tiny-llama (weights)" in str(json.loads(listed.stdout)[-1]["lacks"])


def test_a_damaged_kb_fails_only_where_it_is_needed(localmel: Run, own_kb: str, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home")
    (tmp_path / "home" / "kb" / own_kb / DATABASE).write_bytes(b"\xff" * 9000)
    more = {"LOCALMEL_HOME": str(tmp_path / "home")}
    report = examined(localmel("doctor", "--json", more=more))
    assert report["ok"]
    assert by_id(report)[f"kb.{own_kb}.readable"]["status"] == "warn"
    report = examined(localmel("doctor", "--kb", own_kb, "--json", more=more))
    assert report["exit_code"] == 6
    assert examined(localmel("doctor", "--kb", "nowhere", "--json", more=more))["exit_code"] == 3


def test_weights_that_are_half_there_fail(localmel: Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "tiny-llama"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"kind": "weights", "version": 1, "na')
    (tmp_path / "weights" / "tiny-llava-mistral").mkdir()
    (tmp_path / "weights" / "tiny-llava-mistral" / "model.safetensors").write_bytes(b"\0" * 20)
    report = examined(localmel("doctor", "--profile", "tiny", "--json", more={"LOCALMEL_HOME": str(tmp_path)}))
    found = by_id(report)
    assert found["weights.tiny-llama"]["status"] == found["weights.tiny-llava-mistral"]["status"] == "fail"
    assert "manifest.json" in found["weights.tiny-llama"]["fact"]
    done = localmel("config", "--list", "--json", more={"LOCALMEL_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "body"),
    [
        ("tokenizers", "import os\nos.abort()"),
        ("numpy", "def broken(:"),
        ("safetensors", "import os\nos._exit(9)"),
    ],
)
def test_a_broken_package_is_named_with_the_command_that_mends_it(
    localmel_process: Run, home: Path, tmp_path: Path, module: str, body: str
) -> None:
    (tmp_path / f"{module}.py").write_text(body)
    report = examined(localmel_process("doctor", "--json", more={"PYTHONPATH": f"{tmp_path}:{ROOT}"}))
    assert report["exit_code"] == 5
    check = by_id(report)["packages.base"]
    assert f"{module} does not import: " in check["fact"]
    assert module in check["hint"].removeprefix("pip install --force-reinstall --no-deps ").split()


def test_without_any_program_on_the_path_it_still_answers(localmel: Run, home: Path, tmp_path: Path) -> None:
    report = examined(localmel("doctor", "--profile", "qwen", "--json", more={"PATH": str(tmp_path)}))
    assert by_id(report)["gpu.driver"]["status"] == "fail"


def test_a_machine_with_everything_is_told_so(localmel_process: Run, home: Path, tmp_path: Path) -> None:
    """Packages and driver of another machine, written down as pip and nvidia-smi would; no weights."""
    versions = {"vllm": "0.33.0", "torch": "2.14.0", "transformers": "5.20.0", "xgrammar": "0.2.8"}
    versions |= {"flashinfer-python": "0.7.2.post1", "flashinfer-cubin": "0.7.2.post1"}
    versions |= {"flashinfer-jit-cache": "0.7.2.post1", "torchvision": "0.29.0"}
    for name, version in versions.items():
        notes = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        notes.mkdir()
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        package = tmp_path / name.replace("-", "_")
        package.mkdir()
        (package / "__init__.py").write_text("")
    (tmp_path / "torch" / "version.py").write_text("cuda = '13.0'\n")
    facts = "Facts(name='NVIDIA L4', major=8, minor=9)"
    (tmp_path / "torch" / "__init__.py").write_text(
        "from types import SimpleNamespace as Facts\nversion = Facts(cuda='13.0')\n"
        "cuda = Facts(init=lambda: None, device_count=lambda: 1, mem_get_info=lambda number: (23 << 30, 24 << 30),\n"
        f"    get_device_properties=lambda number: {facts})\n"
        # where torchvision had to be repaired, a hook declares operators before it is imported
        "library = Facts(Library=lambda *_: None)\nops = Facts(torchvision=Facts(nms=0, qnms=0))\n"
    )
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA L4, 23552, 24576, 8.9, 580.95.05'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    more = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    report = examined(localmel_process("doctor", "--profile", "qwen", "--json", more=more))
    found = by_id(report)
    failed = {check["id"] for check in report["checks"] if check["status"] == "fail"}
    assert failed == {"weights.qwen2.5-vl-7b", "weights.qwen2.5-7b-instruct"}
    assert report["exit_code"] == 4
    assert "NVIDIA L4 (24.0 GiB), driver 580.95.05, CUDA 13.0" in found["gpu.driver"]["fact"]
    assert found["gpu.memory.qwen"]["status"] == "ok"
    assert found["gpu.memory.paper-13b"]["status"] == "skip"
    assert found["vllm.kernels"]["status"] == "ok"
