"""Open the encoders and the matcher that a profile names.

In: a profile.  Out: the encoders of texts and pictures and the trained matcher that compares their vectors, checked to
fit each other; a KB that is ready for them.  Does not load any encoder yet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localmel.encode.registry import Encoders, open_encoder
from localmel.errors import BadInput, CorruptArtifact
from localmel.kb.locate import STARTER, open_kb, prepare_starter
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kind import Indexed, KbSearch
from localmel.matchers.registry import KGMEL, MATCHERS, index_matcher, load_matcher, matcher_kind, open_search
from localmel.matchers.trained import TrainedMatcher
from localmel.settings import Profile
from localmel.weights.folders import is_name, weights_home
from localmel.weights.needed import network_folder

if TYPE_CHECKING:
    from localmel.encode.space import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileModels:
    """The encoders of a profile, and the matcher that compares their vectors."""

    encoders: Encoders
    matcher: TrainedMatcher[Any]

    def search(self, kb: KnowledgeBase, index: str) -> KbSearch:
        """Open the search of a KB.  Raises BadInput, with the command to run, if it is not ready for these models."""
        return open_search(kb, self.matcher, self.encoders, index)

    def index(self, kb: KnowledgeBase, index: str) -> Indexed:
        """Prepare a KB for these models and build an index of the given kind."""
        return index_matcher(kb, self.matcher, self.encoders, index)


def open_models(profile: Profile, *, matcher: str = "", method: Method | None = None) -> ProfileModels:
    """Open the encoders of a profile and its matcher, or the matcher named instead.  `method` applies to MiniLM.

    Raises MissingWeights with the command that installs or trains them, and BadInput for a matcher trained on the
    vectors of other encoders."""
    found = load_matcher(matcher_folder(profile, matcher))
    encoders = open_encoder(profile.encode, method=method)
    found.check_spaces(encoders.text.space, encoders.image_space)
    return ProfileModels(encoders=encoders, matcher=found)


def matcher_folder(profile: Profile, wanted: str = "") -> Path:
    """Return the folder of a profile's matcher, or of the one requested: a name under weights/, or a path.

    `kgmel` means the profile's fusion network.  Raises MissingWeights or CorruptArtifact if that is not there."""
    wanted = wanted or profile.retrieve.matcher
    if wanted == KGMEL:
        return network_folder(profile)
    named = weights_home() / wanted
    return named if is_name(wanted) and named.is_dir() else Path(wanted)


def index_for(kb: KnowledgeBase, profile: Profile, wanted: str, index: str) -> Indexed:
    """Prepare a KB for a profile's matcher, for a trained one in a folder, or for any matcher of a kind."""
    if wanted in MATCHERS and wanted != KGMEL:
        return Indexed(encoded=matcher_kind(wanted).index_features(kb, open_encoder(profile.encode)))
    return open_models(profile, matcher=wanted).index(kb, index)


def ready_for(name: str, models: ProfileModels, profile: Profile) -> KnowledgeBase:
    """Open a KB by name or path, building and indexing the starter KB on first use."""
    if name != STARTER:
        return open_kb(name)
    kind = profile.retrieve.index

    def make(kb: KnowledgeBase) -> None:
        models.index(kb, kind)

    def opened() -> KnowledgeBase:
        kb = open_kb(STARTER)
        models.search(kb, kind)
        return kb

    def complete() -> None:
        make(open_kb(STARTER))

    def make_again() -> None:
        prepare_starter(make, again=True)

    prepare_starter(make)
    # Made for another matcher or by an earlier version: add what is missing.  Damaged: rebuild it, since it ships.
    for mend in (complete, make_again):
        try:
            return opened()
        except (BadInput, CorruptArtifact):
            with suppress(BadInput, CorruptArtifact):
                mend()
    return opened()
