"""Nothing leaves the machine: proved in a network namespace without interfaces, and by watching every socket call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localmel.settings import OFFLINE
from localmel.settings.shipped import shipped

JERSEY = shipped("examples/jersey.jpg")
LINK = ["-m", "localmel.cli", "link", str(JERSEY), "Jordan, photographed last spring.", "--json"]


def cut_off() -> list[str] | None:
    """The beginning of a command line that runs the rest without network, where this system permits it."""
    unshare = shutil.which("unshare")
    for options in (["-n"], ["-r", "-n"]):
        if unshare and subprocess.run([unshare, *options, "true"], capture_output=True, check=False).returncode == 0:
            return [unshare, *options]
    return None


def test_a_picture_is_linked_in_a_namespace_without_network(environment: dict[str, str], home: Path) -> None:
    begin = cut_off()
    if begin is None:
        pytest.skip("this system permits no network namespaces (unshare -n, unshare -r -n)")
    seen = subprocess.run([*begin, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    assert subprocess.run([*begin, sys.executable, "-c", probe], capture_output=True, check=False).returncode != 0
    done = subprocess.run([*begin, sys.executable, *LINK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["links"][0]["entity"]["id"] == "Q41421"


WATCHED = """
import os, socket, sys
HEAVY = ("torch", "transformers", "tokenizers", "onnxruntime", "rapidocr", "PIL", "cv2", "huggingface_hub", "vllm")
wanted = dict(pair.split("=") for pair in sys.argv[1].split(","))
touched = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        # urllib3, which rapidocr imports, asks whether there is IPv6 by binding no port of ::1; nothing is sent by that
        asks_for_ipv6 = event == "socket.bind" and arguments[1][:2] == ("::1", 0)
        if arguments[0].family != socket.AF_UNIX and not asks_for_ipv6:
            touched.append((event, repr(arguments[1:])))
            raise RuntimeError(f"network: {event} {arguments[1:]}")
    elif event.startswith(("socket.getaddrinfo", "socket.gethostby", "urllib.", "http.", "ftplib.", "smtplib.")):
        touched.append((event, repr(arguments)))
        raise RuntimeError(f"network: {event} {arguments}")
    elif event == "import" and arguments[0].partition(".")[0] in HEAVY:
        unset = [name for name, value in wanted.items() if os.environ.get(name) != value]
        if unset:
            touched.append(("import", f"{arguments[0]} before {unset}"))

sys.addaudithook(watch)
sys.argv = ["localmel", *sys.argv[2:]]
from localmel.cli import main
try:
    main()
finally:
    assert not touched, touched
    imported = [name for name in HEAVY if name in sys.modules]
    assert {"onnxruntime", "tokenizers", "rapidocr", "PIL"} <= set(imported), imported
"""


def watched(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    wanted = ",".join(f"{name}={value}" for name, value in OFFLINE.items())
    return subprocess.run(
        [sys.executable, "-c", WATCHED, wanted, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_socket_is_opened_and_the_switches_are_set_before_any_heavy_import(
    environment: dict[str, str], home: Path
) -> None:
    assert not set(environment) & set(OFFLINE), "the caller's own switches must not make this pass"
    done = watched(*LINK[2:], environment=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["links"][0]["entity"]["id"] == "Q41421"


def test_the_watcher_sees_a_look_up_and_an_early_import(environment: dict[str, str]) -> None:
    """The test above can fail: both things it forbids are noticed."""
    begin = WATCHED.partition("sys.argv = ")[0]
    for misdeed in ("socket.getaddrinfo('localhost', 80)", "socket.create_connection(('127.0.0.1', 9))"):
        done = subprocess.run(
            [sys.executable, "-c", f"{begin}\n{misdeed}", "A=1"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "RuntimeError: network: socket." in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}\nimport tokenizers\nprint(touched)", "A=1"],
        env={name: value for name, value in environment.items() if name != "A"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tokenizers before ['A']" in done.stdout


def test_the_switches_reach_the_processes_a_worker_starts() -> None:
    code = (
        "from localmel.settings import go_offline; go_offline()\n"
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import os, json; print(json.dumps(dict(os.environ)))'], check=True)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, cwd=folder, capture_output=True, text=True, check=True
    )
    assert OFFLINE.items() <= json.loads(done.stdout).items()
