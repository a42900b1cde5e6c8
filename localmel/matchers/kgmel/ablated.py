"""Ablate a trained fusion network: hide triples, texts or pictures that it was trained with.

In: a network, a KB's vectors, the parts to leave out.  Out: both without these parts, for mentions and entities.
The network gets its own hash, so that its fused vectors are stored separately from those of the full network."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_vectors import KbVectors
from localmel.errors import BadInput
from localmel.matchers.kgmel.folder import KgmelMatcher
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.matchers.kgmel.settings import FusionSettings


def check_ablation(matcher: KgmelMatcher, without: Collection[str], *, linking: bool) -> None:
    """Raise BadInput if the ablation does not fit how the network was trained.

    linking: whether the evidence scorer weighs the cosines; the network must then be trained with the same ablation."""
    train = "localmel train DATA --kb KB --without {} --out runs/NAME   # then give its network with --network"
    if "gate" in without and matcher.network.settings.gate:
        raise BadInput(f"{matcher.folder} was trained with a gate (gate = true)", hint=train.format("gate"))
    trained_without = set(matcher.card.get("without") or ())
    if unseen := sorted(trained_without & {"triples", "text"} - set(without)):
        raise BadInput(
            f"{matcher.folder} was trained without {', '.join(unseen)}, and would be shown it",
            hint=" ".join(f"--without {switch}" for switch in unseen),
        )
    for switch in _switches(matcher):
        if linking and switch in without and switch not in trained_without:
            raise BadInput(
                f"the linker without {switch} needs a network and a scorer that were made without; {matcher.folder} "
                "was trained with",
                hint=f"{train.format(switch)}, and a scorer of scripts/fit_evidence_scorer.py with --scorer",
            )


def ablated(matcher: KgmelMatcher, vectors: KbVectors, without: Collection[str]) -> tuple[KgmelMatcher, KbVectors]:
    """Return the network and a KB's vectors without the ablated parts."""
    hidden = tuple(switch for switch in _switches(matcher) if switch in without)
    if not hidden:
        return matcher, vectors
    if "triples" in hidden:  # phrases with a zero vector are not used
        vectors = replace(vectors, phrases=np.broadcast_to(np.float16(0), vectors.phrases.shape))
    if "text" in hidden:
        vectors = replace(vectors, entities=np.broadcast_to(np.float16(0), vectors.entities.shape))
    name = hashlib.sha256(f"{matcher.sha256} without {' '.join(hidden)}".encode()).hexdigest()
    encoder = _AblatedEncoder(matcher.network.weights, matcher.network.settings, hidden)
    seen = None if "image" in hidden else matcher.image_space  # both sides then use the learnt substitute
    return replace(matcher, sha256=name, network=encoder, image_space=seen), vectors


def _switches(matcher: KgmelMatcher) -> tuple[str, ...]:
    return ("triples", "text", *(("image",) if matcher.image_space else ()))


class _AblatedEncoder(FusedEncoder):
    """A fusion encoder that hides some of its inputs from the network."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], settings: FusionSettings, hidden: Sequence[str]) -> None:
        super().__init__(weights, settings)
        self._hidden = hidden

    def fuse(self, *, text: NDArray[Any], triples: TripleArrays, **more: Any) -> NDArray[Any]:
        if "triples" in self._hidden:
            triples = triples.emptied()
        if "text" in self._hidden:
            text = np.zeros_like(text)
        return super().fuse(text=text, triples=triples, **more)
