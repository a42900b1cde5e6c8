"""Check the surroundings: home folder, disk, and the switches that keep localmel offline.

In: a profile and the environment.  Out: checks.  Writes one empty file into the home folder and removes it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from localmel.doctor.check import Check, fail, from_error, ok, one_by_one, skip, warn
from localmel.doctor.needs import models_of
from localmel.engines.loopback import checked_place
from localmel.engines.memory import gib
from localmel.errors import BadInput, LocalmelError, shell_line
from localmel.settings import HOME, OFFLINE, Profile, home_folder

_LITTLE = 2 << 30
"Bytes: with less, a KB of some hundred thousand entities may not fit."
_TELEMETRY = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS")


def look_at_surroundings(profile: Profile) -> Iterator[Check]:
    """Check folder and disk, then the switches."""
    yield from one_by_one(
        {
            "home.writable": home_writable,
            "disk.space": disk_space,
            "offline.switches": partial(offline_switches, profile),
            "telemetry.off": partial(telemetry_off, profile),
        }
    )


def home_writable() -> Check:
    """Check that KBs and weights can be written to their folder."""
    name, home = "home.writable", home_folder()
    try:
        existing = _existing(home)
        with tempfile.TemporaryFile(dir=existing):
            pass
        return ok(name, f"{home}" + ("" if existing == home else " does not exist yet; it can be created"))
    except OSError as error:
        fact = f"cannot write {home}: {error.strerror}"
        if os.access(home, os.R_OK | os.X_OK) and any((home / "kb").glob("*/kb.sqlite")):
            hint = f"export {HOME}=/a/folder/of/yours   # only to create or change KBs: reading works"
            return warn(name, fact, hint=hint)
        return fail(name, fact, hint=f"export {HOME}=/a/folder/of/yours", exit_code=BadInput.exit_code)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def disk_space() -> Check:
    """Check for space for KBs, runs and weights."""
    name, home = "disk.space", home_folder()
    try:
        free = shutil.disk_usage(_existing(home)).free
    except OSError as error:
        return skip(name, f"{home}: {error.strerror}")
    if free < _LITTLE:
        return warn(name, f"{gib(free)} are free on the disk of {home}", hint=shell_line("df -h", _existing(home)))
    return ok(name, f"{gib(free)} are free on the disk of {home}")


def offline_switches(profile: Profile) -> Check:
    """Check that hubs are switched off, and that the profile itself sends nothing away."""
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
    """Check that the libraries send no usage reports; a server that somebody else starts decides for itself."""
    name = "telemetry.off"
    if any(need.engine.engine == "server" for need in models_of(profile)):
        fact = "localmel does not start the server: whoever starts it decides whether it reports usage"
        return warn(name, fact, hint="VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 vllm serve ...")
    unset = [switch for switch in _TELEMETRY if os.environ.get(switch) != OFFLINE[switch]]
    if unset:
        return warn(name, f"not set in this process: {', '.join(unset)}", hint="localmel doctor")
    return ok(name, "usage reports of vLLM, Hugging Face and ONNX Runtime are switched off")
