"""Check the weights that a profile names: present, complete, of the right kind, and on request every byte.

In: a profile.  Out: one check for each model, for the fusion network and for the scorer.  Reads headers and sizes;
`thorough` reads everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from localmel.doctor.check import Check, fail, from_error, guarded, ok, skip
from localmel.doctor.needs import ModelNeed, models_of
from localmel.encode.registry import encoder_kind, open_encoder
from localmel.engines.memory import gib
from localmel.errors import BadInput, MissingWeights, UsageError
from localmel.settings import Profile
from localmel.settings.shipped import weights_folder
from localmel.weights.catalog import MINILM, catalog
from localmel.weights.find import find_model
from localmel.weights.needed import network_folder, training_line, uses_network
from localmel.weights.tuned import looks_tuned
from localmel.weights.verify import verify


def look_at_weights(profile: Profile, *, readable: bool = True, thorough: bool = False) -> Iterator[Check]:
    """Check everything the profile loads, in the order of the stages.

    `readable`: whether numpy and safetensors, which read the small ones, can be imported."""
    for need in models_of(profile):
        if need.is_local:
            name = check_name(need.engine.weights)
            yield from guarded(name, partial(large_model, name, need, thorough=thorough))
        else:
            yield skip(f"weights.{need.stage}", f"{need.engine.engine} has its own weights: {need.engine.weights}")
    name = check_name(profile.encode.model)
    yield from guarded(name, partial(encoder, name, profile, thorough=thorough))
    finder = (profile.retrieve.network, network) if uses_network(profile) else (profile.retrieve.matcher, matcher)
    for weights, look in (finder, (profile.rerank.weights, scorer)):
        name = check_name(weights)
        if readable:
            yield from guarded(name, partial(look, name, profile))
        else:
            yield skip(name, "numpy or safetensors, which read it, cannot be imported")


def check_name(weights: str) -> str:
    """Return the id of the check: the name of the weights, or the last part of their path."""
    return f"weights.{re.sub(r'[^A-Za-z0-9_.+-]', '-', Path(weights).name) or 'unnamed'}"


def large_model(name: str, need: ModelNeed, *, thorough: bool) -> Iterator[Check]:
    """Check a VLM or LLM by its configuration and the headers of its files."""
    weights, engine = need.engine.weights, need.engine
    try:
        model = find_model(weights)
    except MissingWeights as error:
        yield fail(name, error.fact, hint=_how_to_get(weights) or error.hint, exit_code=error.exit_code)
        return
    folder = model.folder
    if need.sees and not folder.takes_pictures:
        fact = f"[{need.stage}.model] weights {weights} is {folder.architecture or 'a model'} that sees no pictures"
        yield fail(name, fact, hint="localmel weights list", exit_code=UsageError.exit_code)
    elif engine.context and folder.context and engine.context > folder.context:
        fact = f"[{need.stage}.model] context is {engine.context:,}; {weights} was made for {folder.context:,}"
        yield fail(name, fact, hint=f"context = {folder.context}", exit_code=UsageError.exit_code)
    elif thorough and model.record and (damage := verify(weights).error()):
        yield from_error(name, damage, needed=True)
    else:
        said = "every byte as recorded" if thorough and model.record else "complete by sizes and headers"
        yield ok(name, f"{folder.architecture}, {gib(folder.weight_bytes)} in {folder.path}: {said}")


def _how_to_get(weights: str) -> str:
    if weights not in catalog():
        return ""
    return f"localmel weights install BUNDLE.tar   # on a connected machine: python scripts/fetch_weights.py {weights}"


def encoder(name: str, profile: Profile, *, thorough: bool) -> Iterator[Check]:
    """Check the model that makes vectors."""
    model = profile.encode.model
    try:
        open_encoder(profile.encode)  # hashes every byte
        found = find_model(model)
    except MissingWeights as error:
        yield fail(name, error.fact, hint=_how_to_get(model) or error.hint, exit_code=error.exit_code)
        return
    if thorough and found.record and (damage := verify(model).error()):
        yield from_error(name, damage, needed=True)
    else:
        tuned = ", tuned" if looks_tuned(found.path) else ""
        size = gib(found.folder.weight_bytes)
        yield ok(name, f"{encoder_kind(model).title}{tuned}, {size} in {found.path}")


def network(name: str, profile: Profile) -> Iterator[Check]:
    """Check the fusion network, which ships for MiniLM and is trained by the user for any other encoder."""
    from localmel.matchers.kgmel.folder import load_network

    folder = network_folder(profile)
    loaded = load_network(folder)
    if (loaded.text_space.name == MINILM.name) == (profile.encode.model == MINILM.name):
        yield ok(name, f"{folder}: for vectors of {loaded.text_space.name}, sha256 {loaded.sha256[:12]}")
        return
    fact = (
        f"{folder} was trained on vectors of {loaded.text_space.name}; the profile encodes with {profile.encode.model}"
    )
    yield fail(name, fact, hint=training_line(profile), exit_code=BadInput.exit_code)


def matcher(name: str, profile: Profile) -> Iterator[Check]:
    """Check a trained matcher in place of the fusion network, by its card; its weights are not read."""
    from localmel.matchers.dwe.sight import read_sight
    from localmel.matchers.registry import DWE
    from localmel.retrieve.profile_models import matcher_folder

    if (kind := matcher_kind_of(profile)) == DWE:
        read_sight(matcher_folder(profile))  # its picture models must be here too
    yield ok(name, f"{profile.retrieve.matcher}: a matcher of kind {kind}")


def matcher_kind_of(profile: Profile) -> str:
    """Return the kind of a profile's matcher.  Raises MissingWeights, BadInput or CorruptArtifact where it has none."""
    from localmel.matchers.registry import kind_in
    from localmel.retrieve.profile_models import matcher_folder

    return kind_in(matcher_folder(profile))


def scorer(name: str, profile: Profile) -> Iterator[Check]:
    """Check the evidence scorer."""
    from localmel.rerank.scorer import EvidenceScorer

    folder = weights_folder(profile.rerank.weights)
    EvidenceScorer(folder)
    yield ok(name, f"{folder}")
