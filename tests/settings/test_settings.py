"""Profiles say exactly what they mean: an unknown key, a wrong type, an unknown backend is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localmel.errors import UsageError
from localmel.settings import (
    OFFLINE,
    EncodeSettings,
    EngineSettings,
    GenerateSettings,
    Profile,
    RerankSettings,
    RetrieveSettings,
    config_folder,
    go_offline,
    home_folder,
    load_profile,
    profile_from,
    profile_names,
    settings_in_force,
)
from localmel.weights.catalog import catalog

SHIPPED = ("embedded", "paper", "paper-13b", "qwen", "small", "tiny")


def refused(table: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        profile_from(table, where="my.toml")
    assert caught.value.exit_code == 2
    assert caught.value.fact.startswith("my.toml")
    return caught.value.fact


def test_the_shipped_profile_is_complete_and_equals_the_defaults_but_for_its_words() -> None:
    profile = load_profile("embedded")
    plain = Profile(name="embedded", summary=profile.summary)
    assert profile == plain
    assert profile.summary


def test_a_profile_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_profile("embedded").name = "other"  # type: ignore[misc]


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    fact = refused({"name": "x", "generate": {"most_line": 3}})
    assert "[generate]" in fact
    assert "'most_line'" in fact
    assert "most_lines" in fact
    assert "'colour'" in refused({"name": "x", "colour": "red"})


def test_an_unknown_table_is_an_unknown_key() -> None:
    assert "'evaluate'" in refused({"name": "x", "evaluate": {}})


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("generate", "most_lines", "three"),
        ("generate", "most_lines", 3.5),
        ("generate", "most_lines", True),
        ("generate", "least_confidence", "0.5"),
        ("generate", "least_confidence", False),
        ("retrieve", "use_counts", 1),
        ("retrieve", "by_name", [1]),
        ("rerank", "weights", 7),
        ("encode", "model", {"a": 1}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(stage: str, key: str, value: Any) -> None:
    fact = refused({"name": "x", stage: {key: value}})
    assert key in fact
    assert repr(value) in fact


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("generate", "most_lines", -1),
        ("generate", "most_induced", -2),
        ("retrieve", "by_name", -1),
        ("retrieve", "by_vector", -1),
        ("rerank", "most_evidence", -1),
        ("rerank", "nil_from", float("nan")),
        ("generate", "least_similarity", float("inf")),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(stage: str, key: str, value: float) -> None:
    assert key in refused({"name": "x", stage: {key: value}})


@pytest.mark.parametrize("stage", ["generate", "rerank"])
def test_an_unknown_backend_is_refused_with_the_known_ones(stage: str) -> None:
    fact = refused({"name": "x", stage: {"backend": "magic"}})
    assert "'magic'" in fact
    assert f"[{stage}]" in fact


@pytest.mark.parametrize("model", ["clip-vit-b-32", "/models/clip", "~/clip", "./clip"])
def test_an_encoder_is_named_or_given_by_a_path(model: str) -> None:
    assert profile_from({"name": "x", "encode": {"model": model}}, where="x").encode.model == model


@pytest.mark.parametrize(
    ("stage", "key"), [("encode", "model"), ("retrieve", "network"), ("rerank", "weights")], ids=lambda part: part
)
@pytest.mark.parametrize("name", ["", ".", "..", "a b", "-x", "\0", "x" * 200])
def test_what_could_be_no_folder_of_weights_is_refused(stage: str, key: str, name: str) -> None:
    assert f"[{stage}]: {key}" in refused({"name": "x", stage: {key: name}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("engine", "magic"), ("quantization", "3bit"), ("dtype", "int8"), ("device", "tpu"), ("tensor_parallel", 0)),
        *(("memory_share", 1.5), ("memory_share", 0), ("at_once", 0), ("longest_side", 0), ("timeout", 0)),
    ],
)
def test_a_setting_of_an_engine_that_makes_no_sense_is_refused(key: str, value: Any) -> None:
    assert key in refused({"name": "x", "generate": {"model": {key: value}}})


def test_a_stage_that_asks_a_model_needs_an_engine_and_weights() -> None:
    assert "has no engine" in refused({"name": "x", "rerank": {"backend": "llm"}})
    assert "has no weights" in refused({"name": "x", "rerank": {"backend": "llm", "model": {"engine": "vllm"}}})
    model = {"engine": "vllm", "weights": "llama-3.1-8b-instruct"}
    assert (
        profile_from({"name": "x", "rerank": {"backend": "llm", "model": model}}, where="x").rerank.model.at_once == 32
    )


def test_a_whole_number_is_a_float_too() -> None:
    assert profile_from({"name": "x", "generate": {"least_confidence": 1}}, where="x").generate.least_confidence == 1


def test_a_stage_that_is_no_table_and_a_profile_without_name_are_refused() -> None:
    assert "generate" in refused({"name": "x", "generate": 3})
    assert "name" in refused({"generate": {}})
    assert "name" in refused({"name": 3})


def test_an_unknown_profile_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match=r"no profile 'paper2'.*embedded") as caught:
        load_profile("paper2")
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "..", "a\0b", "x" * 5000, "no/such.toml", "none.toml", "/"])
def test_a_name_that_leads_nowhere_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        load_profile(name)


@pytest.mark.parametrize(
    "content", [b"name = ", b"\xff\xfe\0", b"[[[[", b"name = 'x'\nname = 'y'", b"a.b.c = 1" * 3, b"a = " + b"[" * 9000]
)
def test_a_file_that_is_no_toml_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"p\.toml"):
        load_profile(str(tmp_path / "p.toml"))


def test_a_profile_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\n[retrieve]\nby_vector = 0\n')
    profile = load_profile(str(tmp_path / "mine.toml"))
    assert (profile.name, profile.retrieve.by_vector, profile.retrieve.by_name) == ("mine", 0, 64)


def test_going_offline_sets_every_switch_over_what_stood_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in OFFLINE:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    go_offline()
    assert {key: os.environ[key] for key in OFFLINE} == OFFLINE
    assert {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"} <= OFFLINE.keys()


@pytest.mark.parametrize("code", ["import localmel.linker", "from localmel import Linker"])
def test_importing_the_linker_goes_offline(code: str) -> None:
    names = list(OFFLINE)
    environment = {key: value for key, value in os.environ.items() if key not in OFFLINE}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport os\nprint(*[os.environ.get(name) for name in {names}])"],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == list(OFFLINE.values())


def test_home_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALMEL_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    monkeypatch.setenv("LOCALMEL_HOME", "~/there")
    assert home_folder() == Path.home() / "there"
    monkeypatch.delenv("LOCALMEL_HOME")
    assert "localmel" in home_folder().name


# --- the profiles that ship --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["embedded", "paper", "paper-13b", "small", "qwen", "tiny"])
def test_a_shipped_profile_loads_bears_its_name_and_says_what_it_is(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert name in profile_names()
    assert 20 < len(profile.summary) < 120


def test_only_the_paper_profiles_encode_with_clip_and_need_a_network_of_ones_own() -> None:
    by_clip = {name for name in SHIPPED if load_profile(name).encode.model != "all-MiniLM-L6-v2"}
    own_network = {name for name in SHIPPED if load_profile(name).retrieve.network != "kgmel-minilm"}
    assert by_clip == own_network == {"paper", "paper-13b"}


def test_every_model_of_a_shipped_profile_is_in_the_catalog_and_made_for_its_context() -> None:
    for name in set(SHIPPED) - {"tiny"}:
        profile = load_profile(name)
        assert profile.encode.model in catalog()
        for model in (profile.generate.model, profile.rerank.model):
            if not model.engine:
                continue
            entry = catalog()[model.weights]
            assert 0 < model.context <= entry.context
            assert not model.quantization or model.quantization in entry.quantizations


def test_a_shipped_vlm_has_room_for_a_picture_and_an_answer() -> None:
    """What is left of the context is for the question; its fixed part and a sentence take about 1,000 tokens."""
    for name in set(SHIPPED) - {"embedded", "tiny"}:
        generate = load_profile(name).generate
        image_tokens = catalog()[generate.model.weights].image_tokens
        if generate.model.longest_side <= 336 and "llava" in generate.model.weights:
            image_tokens = 1752
        assert generate.model.context - image_tokens - generate.max_tokens > 1000, name


# --- one profile extends another, and where a value comes from ----------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """`own("lab", toml)` writes a profile of the user's own."""
    monkeypatch.setenv("LOCALMEL_CONFIG", str(tmp_path / "config"))

    def write(name: str, text: str) -> Path:
        path = tmp_path / "config" / "profiles" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


Own = Callable[[str, str], Path]


def test_a_profile_of_ones_own_states_only_what_differs(own: Own) -> None:
    own("lab", 'extends = "paper"\n[generate.model]\nquantization = "4bit"\n[rerank]\norders = 3\n')
    base, lab = load_profile("paper"), load_profile("lab")
    assert lab.name == "lab"
    assert lab.summary == ""
    changed = replace(base, name="lab", summary="")
    changed = replace(changed, generate=replace(base.generate, model=replace(base.generate.model, quantization="4bit")))
    assert lab == replace(changed, rerank=replace(base.rerank, orders=3))


def test_every_value_names_the_file_that_says_it(own: Own) -> None:
    own("lab", 'extends = "paper-13b"\n[rerank.model]\nmemory_share = 0.5\n')
    found = {setting.key: setting for setting in settings_in_force("lab")}

    def place(key: str) -> tuple[str, str | None]:
        return found[key].origin, found[key].file.name if found[key].file else None

    assert place("rerank.model.memory_share") == ("own", "lab.toml")
    assert place("name") == ("own", "lab.toml")
    assert place("rerank.model.weights") == ("shipped", "paper-13b.toml")
    assert place("rerank.model.context") == ("shipped", "paper.toml")
    assert place("rerank.model.dtype") == ("default", None)
    assert found["rerank.model.memory_share"].value == 0.5


def test_extending_by_a_path_starts_from_the_folder_of_the_file(own: Own, tmp_path: Path) -> None:
    base = own("base", "[retrieve]\nby_name = 5\n")
    (base.parent / "deeper").mkdir()
    (base.parent / "deeper" / "x.toml").write_text('extends = "../base.toml"\n')
    assert load_profile(str(base.parent / "deeper" / "x.toml")).retrieve.by_name == 5


@pytest.mark.parametrize("links", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
def test_a_profile_that_extends_itself_is_refused_with_the_circle(own: Own, links: list[str]) -> None:
    for name, base in zip(links, [*links[1:], links[0]], strict=True):
        own(name, f'extends = "{base}"\n')
    with pytest.raises(UsageError, match=" -> ".join(f"{name}.toml" for name in [*links, links[0]])):
        load_profile(links[0])


def test_a_circle_through_a_link_is_found_too(own: Own) -> None:
    path = own("a", 'extends = "b"\n')
    path.with_name("b.toml").symlink_to(path)
    with pytest.raises(UsageError, match="extends itself"):
        load_profile("a")


@pytest.mark.parametrize("extends", ["nobody", "./nobody.toml", "~nobody/x.toml"])
def test_a_profile_that_extends_what_is_not_there_is_named(own: Own, extends: str) -> None:
    path = own("lab", f'extends = "{extends}"\n')
    with pytest.raises(UsageError, match=r"no profile|no path") as caught:
        load_profile("lab")
    assert str(path) in caught.value.fact
    assert caught.value.hint


@pytest.mark.parametrize("extends", ["3", "['paper']", '"nobody"', '""', '"../../etc/passwd"', '"/dev/zero"', '"."'])
def test_what_cannot_be_extended_is_a_usage_error(own: Own, extends: str) -> None:
    own("lab", f"extends = {extends}\n")
    with pytest.raises(UsageError):
        load_profile("lab")


def test_a_wrong_key_is_reported_with_the_file_it_stands_in(own: Own) -> None:
    own("base", "[rerank]\nbackends = 'llm'\n")
    own("lab", 'extends = "base"\n')
    with pytest.raises(UsageError, match=r"base\.toml: \[rerank\] has an unknown key 'backends'"):
        load_profile("lab")


@pytest.mark.parametrize("text", ['name = "paper"\n', "", 'name = "other"\n'])
def test_a_profile_of_ones_own_cannot_stand_in_for_one_that_ships(own: Own, text: str) -> None:
    path = own("paper", text)
    with pytest.raises(UsageError, match="the shipped profile") as caught:
        load_profile("paper")
    assert str(path) in caught.value.hint
    assert load_profile("embedded").name == "embedded"


def test_a_profile_by_path_cannot_take_the_name_of_one_that_ships(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('name = "embedded"\n')
    with pytest.raises(UsageError, match="the shipped profile"):
        load_profile(str(tmp_path / "x.toml"))


def test_profiles_of_ones_own_are_listed_behind_those_that_ship(own: Own) -> None:
    own("zebra", "")
    own("ant", "")
    own("not a name", "")
    own("paper", "")
    assert profile_names() == (*SHIPPED, "ant", "zebra")


@pytest.mark.parametrize("place", ["/dev/null", "/proc/self/mem", "~nobody-of-that-name/x"])
def test_a_config_folder_that_is_none_leaves_the_shipped_profiles(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALMEL_CONFIG", place)
    if place.startswith("~"):
        with pytest.raises(UsageError, match="LOCALMEL_CONFIG"):
            load_profile("embedded")
        return
    assert profile_names() == SHIPPED
    assert load_profile("embedded").name == "embedded"


def test_no_folder_pipe_device_or_heap_of_bytes_is_read_as_a_profile(own: Own, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_text("# " + "x" * 2_000_000)
    for path in (tmp_path / "pipe.toml", tmp_path / "large.toml", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match="as a profile"):
            load_profile(f"{path}/" if path.is_dir() else str(path))


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- for any input ------------------------------------------------------------------------------------------------

KINDS: dict[str, st.SearchStrategy[Any]] = {
    "str": st.sampled_from(["", "x", "vllm", "json", "4bit", "a/b", "auto", "vlm", "../x"])
    | st.text("ab/.- é\0", max_size=5),
    "int": st.integers(-2, 10**20),
    "float": st.floats() | st.integers(-2, 9),
    "bool": st.booleans(),
}
STAGES = {
    "generate": GenerateSettings,
    "encode": EncodeSettings,
    "retrieve": RetrieveSettings,
    "rerank": RerankSettings,
}


def tables_of(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with known keys and values of the right types, which need not make sense."""
    inner = {
        field.name: tables_of(EngineSettings) if field.type == "EngineSettings" else KINDS[str(field.type)]
        for field in fields(kind)
    }
    return st.fixed_dictionaries({}, optional=inner)


PROFILES = st.fixed_dictionaries(
    {"name": st.just("x")}, optional={name: tables_of(kind) for name, kind in STAGES.items()}
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab/é", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*STAGES, "model", "name", "q"]), inner)
    ),
    max_leaves=8,
)


def leaves(table: dict[str, Any], at: str = "") -> dict[str, Any]:
    found = {}
    for key, value in table.items():
        found |= leaves(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def taken_or_refused(make: Callable[[], Profile]) -> Profile | str:
    """The profile, or the fact with which it was refused; anything else that is raised fails the test."""
    try:
        return make()
    except UsageError as error:
        return error.fact


@given(table=PROFILES)
@UNHURRIED
def test_a_table_of_known_keys_is_taken_as_it_is_or_refused(table: dict[str, Any]) -> None:
    profile = taken_or_refused(lambda: profile_from(table, where="my.toml"))
    if isinstance(profile, str):
        assert profile.startswith("my.toml")
        return
    taken = leaves(asdict(profile))
    assert {key: taken[key] for key in leaves(table)} == leaves(table)
    for model in (profile.generate.model, profile.rerank.model):
        assert 0 < model.memory_share <= 1
        assert model.at_once >= 1


@given(table=st.dictionaries(st.sampled_from([*STAGES, "name", "summary", "extends", "x"]), ANYTHING))
@UNHURRIED
def test_any_table_gives_a_profile_or_a_usage_error(table: dict[str, Any]) -> None:
    profile = taken_or_refused(lambda: profile_from(table, where="my.toml"))
    assert profile.startswith("my.toml") if isinstance(profile, str) else profile.name == table["name"]


ODD = "ab.-_/\\\0\n\x1bé\ud800 ~$*"


@given(name=st.text(ODD, max_size=9) | st.sampled_from(["..", "embedded/..", "embedded\n", "EMBEDDED", *SHIPPED]))
@UNHURRIED
def test_a_name_opens_a_profile_or_is_a_usage_error(name: str) -> None:
    profile = taken_or_refused(lambda: load_profile(name))
    assert isinstance(profile, str) or (profile.name == name and name in SHIPPED)


@given(content=st.binary(max_size=60) | st.text("[]=\"\n'#ab.1{},x-", max_size=60).map(str.encode))
@settings(UNHURRIED, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_bytes_in_a_file_give_a_profile_or_a_usage_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "any.toml").write_bytes(content)
    profile = taken_or_refused(lambda: load_profile(str(tmp_path / "any.toml")))
    assert "any.toml" in profile if isinstance(profile, str) else profile.name == "any"


@pytest.mark.parametrize("variable", ["LOCALMEL_HOME", "LOCALMEL_CONFIG"])
def test_a_folder_in_the_home_of_nobody_is_a_usage_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "~nobody-of-that-name/x")
    with pytest.raises(UsageError, match=variable) as caught:
        home_folder() if variable == "LOCALMEL_HOME" else config_folder()
    assert caught.value.hint == f"export {variable}=/a/folder/of/yours"
