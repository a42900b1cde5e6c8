"""What a profile lacks is named at once, so that nobody carries things over one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from localmel.errors import CorruptArtifact, MissingWeights
from localmel.settings import load_profile
from localmel.weights.folders import weights_home
from localmel.weights.needed import check_weights, weights_of
from tests.weights import small


def test_all_that_is_missing_is_named_in_one_error(own_home: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        check_weights(load_profile("paper"))
    assert caught.value.fact == (
        "profile 'paper' needs what is not on this machine: llava-v1.6-mistral-7b, llama-3.1-8b-instruct, "
        "clip-vit-b-32, kgmel-clip (trained on your own data)"
    )
    assert "localmel doctor --profile paper" in caught.value.hint


def test_one_that_is_missing_keeps_its_own_error_and_command(own_home: Path) -> None:
    profile = load_profile("embedded")
    check_weights(profile)
    lacking = replace(profile, retrieve=replace(profile.retrieve, network="no-such-network"))
    with pytest.raises(MissingWeights, match="fusion network 'no-such-network'") as caught:
        check_weights(lacking)
    assert caught.value.hint.startswith("localmel train")


def test_what_is_damaged_is_said_before_what_is_missing(own_home: Path, model: Path) -> None:
    shard = sorted(model.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    profile = load_profile("paper")
    damaged = replace(profile.rerank.model, weights=f"{model}/")
    with pytest.raises(CorruptArtifact, match=shard.name):
        check_weights(replace(profile, rerank=replace(profile.rerank, model=damaged)))


def test_models_that_are_not_loaded_here_are_not_looked_for(own_home: Path) -> None:
    profile = load_profile("qwen")
    assert weights_of(profile) == ("qwen2.5-vl-7b", "qwen2.5-7b-instruct", "all-MiniLM-L6-v2")
    server = replace(profile.generate.model, engine="server", weights="theirs")
    profile = replace(
        profile, generate=replace(profile.generate, model=server), rerank=replace(profile.rerank, model=server)
    )
    assert weights_of(profile) == ("all-MiniLM-L6-v2",)
    check_weights(profile)
    assert not weights_home().exists()


def test_what_is_there_is_not_named(own_home: Path) -> None:
    small.write(weights_home() / "kgmel-clip", {"anything": b"x"})
    with pytest.raises(MissingWeights) as caught:
        check_weights(load_profile("paper"))
    assert "kgmel-clip" not in caught.value.fact


def test_the_network_is_not_looked_for_where_another_matcher_finds(own_home: Path) -> None:
    profile = load_profile("embedded")
    check_weights(replace(profile, retrieve=replace(profile.retrieve, network="none", matcher="runs/x/network")))
