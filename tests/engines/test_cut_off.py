"""Without any network, models answer: in a namespace of their own, with nothing in it but loopback."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow(reason="loads a model in a process of its own")
Models = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
ASK = """
import sys
from pathlib import Path
from localmel.engines.open import open_engine
from localmel.engines.protocol import Message, Request
from localmel.settings import EngineSettings
folder, picture = Path(sys.argv[2]), Path(sys.argv[3])
settings = EngineSettings(engine=sys.argv[1], weights=folder.name, context=4096, at_once=2, longest_side=336)
messages = (Message(role="user", parts=(picture, "Which?")),)
with open_engine(settings, folder) as engine:
    for response in engine.generate([Request(id="1", messages=messages, choices=("A", "B"))]):
        print(response.finish, response.text, response.problem)
"""


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_model_answers_in_a_namespace_without_network(engine: str, tiny_models: Models, picture: Path) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed here")
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    begin = [unshare, "-n", "sh", "-c", f'{ip} link set lo up && exec "$@"', "sh"] if unshare and ip else None
    if begin is None or subprocess.run([*begin, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system permits no network namespaces with a loopback (unshare -n, ip link set lo up)")
    seen = subprocess.run([*begin, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in seen.splitlines()[2:]] == ["lo"]
    command = [*begin, sys.executable, "-c", ASK, engine, str(tiny_models("tiny-llava-mistral")), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.startswith("stop "), done.stdout + done.stderr
