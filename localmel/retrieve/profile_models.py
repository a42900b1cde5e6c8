"""The encoders that a profile names, and what finds candidates in it: the fusion network, or a trained matcher.

In: a profile.  Out: what makes vectors of texts and pictures, and what compares them, found and fitting each other; a
KB that is ready for them.  Loads no encoder yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.encode.registry import Encoders, open_encoder
from localmel.kb.locate import STARTER, open_kb, prepare_starter
from localmel.kb.store import KnowledgeBase
from localmel.matchers.folder import MatcherFolder
from localmel.matchers.kb_search import ensure_for_matcher, index_for_kind, index_for_matcher
from localmel.matchers.kgmel.fused import Network, load_network
from localmel.matchers.registry import KGMEL, MATCHERS, load_matcher, matcher_kind
from localmel.retrieve.indexing import ready_kb
from localmel.settings import Profile
from localmel.weights.folders import is_name, weights_home
from localmel.weights.network import network_folder

if TYPE_CHECKING:
    from localmel.encode.space import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileModels:
    """What makes the vectors of one profile, and what finds by them: `network`, or `matcher` with its `tokens`."""

    encoders: Encoders
    network: Network | None
    matcher: MatcherFolder[Any] | None = None
    tokens: Encoders | None = None

    @property
    def sha256(self) -> str:
        """Of the weights of whatever finds candidates."""
        found = self.matcher or self.network
        assert found is not None
        return found.sha256


def open_models(profile: Profile, *, method: Method | None = None) -> ProfileModels:
    """Find them and hold them against each other.  `method` is MiniLM's.

    Raises MissingWeights with the command that brings or trains them, BadInput for a network of other vectors."""
    if profile.retrieve.matcher == KGMEL:
        encoders, network = open_network(profile, method=method)
        return ProfileModels(encoders=encoders, network=network)
    return matcher_models(matcher_folder(profile.retrieve.matcher), profile, method=method)


def open_network(profile: Profile, *, method: Method | None = None) -> tuple[Encoders, Network]:
    """The encoders and the fusion network of a profile, whatever it finds candidates by."""
    encoders = open_encoder(profile.encode, method=method)
    network = load_network(network_folder(profile))
    network.check_space(encoders.text.space, encoders.image.image_space if encoders.image else None)
    return encoders, network


def matcher_models(folder: Path, profile: Profile, *, method: Method | None = None) -> ProfileModels:
    """A trained matcher, with the profile's encoders.  Raises BadInput where it was trained for others."""
    matcher, tokens = load_matcher(folder), open_encoder(profile.encode, method=method)
    matcher.check_spaces(tokens.text.space, tokens.image_space)
    return ProfileModels(encoders=tokens, network=None, matcher=matcher, tokens=tokens)


def matcher_folder(wanted: str) -> Path:
    """Of a name under the user's weights, or a path."""
    named = weights_home() / wanted
    return named if is_name(wanted) and named.is_dir() else Path(wanted)


def index_named(
    kb: KnowledgeBase,
    wanted: str,
    profile: Profile,
    index: str,
) -> int:
    """Make a KB ready for a kind of matchers, or for the trained one in a folder.  Returns what was encoded."""
    if wanted in MATCHERS:
        return index_for_kind(kb, matcher_kind(wanted), open_encoder(profile.encode))
    models = matcher_models(matcher_folder(wanted), profile)
    assert models.matcher is not None
    assert models.tokens is not None
    return index_for_matcher(kb, models.matcher, models.tokens, index)


def ready_for(
    name: str,
    models: ProfileModels,
    profile: Profile,
) -> KnowledgeBase:
    """Open a KB by name or path; the starter KB is built and indexed for these models on first use."""
    text, image = models.encoders.text, models.encoders.image
    if models.network:
        return ready_kb(name, text, models.network, images=image)
    if name != STARTER:
        return open_kb(name)
    matcher, tokens, index = models.matcher, models.tokens, profile.retrieve.index
    assert matcher is not None
    assert tokens is not None

    def make(kb: KnowledgeBase) -> None:
        ensure_for_matcher(kb, matcher, tokens, index)

    prepare_starter(make)
    kb = open_kb(STARTER)
    make(kb)  # it may have been built for something else
    return kb
