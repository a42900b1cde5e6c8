"""What finds the candidates of a profile: names and the fusion network, or names and a trained matcher.

In: a KB that is ready for them, and the profile's models.  Out: a finder, and what it is to be shown of mentions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kb_search import MatcherSearch
from localmel.matchers.kgmel.entity_index import load_entity_index
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.kgmel.mention_vectors import mention_arrays, mention_pictures
from localmel.records import Mention, Triple
from localmel.retrieve.candidates import CandidateFinder, Finder
from localmel.retrieve.matcher_finder import MatcherFinder
from localmel.retrieve.profile_models import ProfileModels
from localmel.settings import RetrieveSettings


def open_finder(kb: KnowledgeBase, packed: PackedKb, models: ProfileModels, settings: RetrieveSettings) -> Finder:
    """Raises BadInput, with the command, where the KB was not made ready for these models."""
    if models.matcher and models.tokens:
        search = MatcherSearch(kb, models.matcher, models.tokens, settings.index)
        return MatcherFinder(kb, packed, search, models.matcher, settings)
    network, image = models.network, models.encoders.image
    assert network is not None
    network.check_space(models.encoders.text.space, image.image_space if image else None)
    index = load_entity_index(kb, packed, network, settings.index)
    return CandidateFinder(kb, packed, load_fused(kb, packed, network), settings, index=index)


def shown_to(
    finder: Finder,
    models: ProfileModels,
    mentions: Sequence[Mention],
    stated: Sequence[Sequence[Triple]],
    encode: Callable[[Sequence[str]], NDArray[Any]],
) -> Any:
    """What `find` takes beside the surfaces: fused vectors (m, width), or the features of a matcher.

    `encode` gives the vectors of the texts that `mention_texts` names."""
    if isinstance(finder, MatcherFinder):
        return finder.given(mentions)
    assert models.network is not None
    text, triples = mention_arrays(mentions, stated, encode)
    pictures = mention_pictures(mentions, models.encoders.image if models.network.image_space else None)
    return models.network.encoder.fuse(text=text, triples=triples, **pictures)
