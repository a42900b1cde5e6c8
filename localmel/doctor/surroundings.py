"""What is around the program: its folder, disk, memory, and the switches that keep it offline.

In: a profile and the environment.  Out: checks.  Writes one empty file into the home folder and takes it away."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from localmel.doctor.check import Check, fail, from_error, ok, one_by_one, skip, warn
from localmel.doctor.memory import gib
from localmel.doctor.needs import models_of
from localmel.engines.loopback import checked_place
from localmel.errors import BadInput, LocalmelError, shell_line
from localmel.settings import HOME, OFFLINE, Profile, home_folder

_LITTLE = 2 << 30
"Bytes under which a KB of some hundred thousand entities may not fit."
_TELEMETRY = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS")


def look_at_surroundings(profile: Profile) -> Iterator[Check]:
    """Folder and disk, then the switches."""
    yield from one_by_one(
        {
            "home.writable": home_writable,
            "disk.space": disk_space,
            "offline.switches": partial(offline_switches, profile),
            "telemetry.off": partial(telemetry_off, profile),
        }
    )


def home_writable() -> Check:
    """Whether KBs and weights can be written where they are looked for."""
    name, home = "home.writable", home_folder()
    try:
        standing = _standing(home)
        with tempfile.TemporaryFile(dir=standing):
            pass
        return ok(name, f"{home}" + ("" if standing == home else " does not stand yet; it can be made"))
    except OSError as error:
        fact = f"{home} cannot be written ({error.strerror})"
        if os.access(home, os.R_OK | os.X_OK) and any((home / "kb").glob("*/kb.sqlite")):
            hint = f"export {HOME}=/a/folder/of/yours   # only to make or change KBs: reading works"
            return warn(name, fact, hint=hint)
        return fail(name, fact, hint=f"export {HOME}=/a/folder/of/yours", exit_code=BadInput.exit_code)


def _standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk_space() -> Check:
    """Room for KBs, runs and weights."""
    name, home = "disk.space", home_folder()
    try:
        free = shutil.disk_usage(_standing(home)).free
    except OSError as error:
        return skip(name, f"{home}: {error.strerror}")
    if free < _LITTLE:
        return warn(name, f"{gib(free)} are free where {home} is", hint=shell_line("df -h", _standing(home)))
    return ok(name, f"{gib(free)} are free where {home} is")


def offline_switches(profile: Profile) -> Check:
    """Whether hubs are off, and whether the profile itself sends anything away."""
    name = "offline.switches"
    for need in models_of(profile):
        if need.engine.engine != "server":
            continue
        try:
            checked_place(need.engine.url, allow_remote=False)
        except LocalmelError as error:
            if not need.engine.allow_remote:
                return from_error(name, error, needed=True)
            fact = f"[{need.stage}.model] sends pictures and texts to {need.engine.url}, as allow_remote permits"
            return warn(name, fact, hint="allow_remote = false")
    unset = [switch for switch, value in OFFLINE.items() if os.environ.get(switch) != value]
    if unset:
        hint = "from localmel.settings import go_offline; go_offline()   # before any other import"
        return warn(name, f"not set in this process: {', '.join(unset)}", hint=hint)
    return ok(name, f"{len(OFFLINE)} switches are set here and in every process that localmel starts")


def telemetry_off(profile: Profile) -> Check:
    """Usage reports of the libraries; those of a server that somebody else starts are its own."""
    name = "telemetry.off"
    if any(need.engine.engine == "server" for need in models_of(profile)):
        fact = "localmel does not start the server: whether that reports usage is settled where it is started"
        return warn(name, fact, hint="VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 vllm serve ...")
    unset = [switch for switch in _TELEMETRY if os.environ.get(switch) != OFFLINE[switch]]
    if unset:
        return warn(name, f"not set in this process: {', '.join(unset)}", hint="localmel doctor")
    return ok(name, "vLLM, Hugging Face and ONNX Runtime are told not to report")
