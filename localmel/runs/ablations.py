"""Runs in which something is withheld: names, counts, triples, text, pictures, the gate.

In: what is withheld, and the parts of a system.  Out: the same parts, without it.  A switch changes what a part is
given; no part has two forms.  A switch that would change nothing, or that a trained part contradicts, is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact, UnknownChoice, UsageError
from localmel.matchers.kgmel.fused import Network
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.kb_triples import TripleArrays
from localmel.rerank.features import features_in
from localmel.settings import Profile

if TYPE_CHECKING:
    from localmel.encode.kb_vectors import KbVectors

SYSTEMS = ("linker", "fused", "matcher", "zero-shot", "names")
CHANGES = {
    "names": ("linker",),
    "counts": ("linker", "names"),
    "triples": ("linker", "fused"),
    "text": ("linker", "fused"),
    "gate": ("linker", "fused"),
    "image": ("linker", "fused"),
}
"What can be withheld, and which systems then answer otherwise."
_REFUSED = {("names", "names"), ("text", "zero-shot")}
"Nothing would be left of the system."


def check_switches(without: Sequence[str], systems: Sequence[str]) -> None:
    """Raise UsageError for what is unknown, has no effect on any of the systems, or leaves nothing of one."""
    for kind, option, given, known in (
        ("system", "--system", systems, SYSTEMS),
        ("switch", "--without", without, tuple(CHANGES)),
    ):
        if unknown := [one for one in given if one not in known]:
            raise UnknownChoice(kind, unknown[0], known, option=option)
    for switch in without:
        for system in systems:
            if (switch, system) in _REFUSED:
                raise UsageError(f"nothing is left of system {system!r} without {switch}")
        if not set(CHANGES[switch]) & set(systems):
            raise UsageError(
                f"--without {switch} changes none of the systems {', '.join(systems)}",
                hint=f"--system {CHANGES[switch][0]}",
            )


def check_trained(without: Collection[str], systems: Collection[str], network: Network, scorer: Path | None) -> None:
    """Raise where a network or a scorer was trained with what is withheld, or a network without what is not.

    The scorer weighs what the network says, so the linker needs both of a run without; the cosine of the fused vectors
    alone may be looked at without.  scorer: the one that was given beside the profile's."""
    train = "localmel train DATA --kb KB --without {} --out runs/NAME   # then give its network with --network"
    if "gate" in without and network.settings.gate:
        raise BadInput(f"{network.folder} was trained with a gate (gate = true)", hint=train.format("gate"))
    trained_without = set(network.card.get("without") or ())
    if unseen := sorted(trained_without & {"triples", "text"} - set(without)):
        raise BadInput(
            f"{network.folder} was trained without {', '.join(unseen)}, and would be shown it",
            hint=" ".join(f"--without {switch}" for switch in unseen),
        )
    if "linker" not in systems:
        return
    for switch in ("triples", "text", *(["image"] if network.settings.image_width else [])):
        if switch in without and switch not in trained_without:
            raise BadInput(
                f"the linker without {switch} needs a network and a scorer that were made without; {network.folder} "
                "was trained with",
                hint=f"{train.format(switch)}, and a scorer of scripts/fit_evidence_scorer.py with --scorer",
            )
        if switch in without and scorer is None:
            raise BadInput(
                f"the linker without {switch} needs a scorer that was fitted without, beside {network.folder}",
                hint="python scripts/fit_evidence_scorer.py --help   # then give its folder with --scorer",
            )
        used = (
            [name for name in _features(scorer) if name in features_in(switch)] if switch in without and scorer else []
        )
        if used:
            raise BadInput(
                f"{scorer} weighs {len(used)} features made of {switch}: {', '.join(used)}",
                hint="python scripts/fit_evidence_scorer.py --help   # fit one without them",
            )


def check_matcher(without: Collection[str], systems: Collection[str], matcher: Path) -> None:
    """Raise where something is withheld that a matcher, or a linker that finds by it, would still be shown."""
    unheard = sorted(set(without) - {"names", "counts"})
    if unheard and {"linker", "matcher"} & set(systems):
        raise UsageError(
            f"{unheard[0]} cannot be withheld from the matcher {matcher}",
            hint="localmel train DATA --kb KB --matcher KIND --without image --out runs/NAME",
        )


def profile_without(profile: Profile, without: Collection[str], *, scorer_given: bool) -> Profile:
    """The profile with names or counts withheld."""
    retrieve, rerank = profile.retrieve, profile.rerank
    if "names" in without:
        retrieve = replace(retrieve, by_name=0, by_vector=64)
    if "counts" in without:
        retrieve = replace(retrieve, use_counts=False)
        if not scorer_given:
            rerank = replace(rerank, weights="evidence-scorer-no-counts")
    return replace(profile, retrieve=retrieve, rerank=rerank)


def parts_without(network: Network, vectors: KbVectors, without: Collection[str]) -> tuple[Network, KbVectors]:
    """A network and a KB's vectors from which triples or text are withheld, on the side of mentions and of entities.

    The network gets a name of its own, so that the fused vectors made with it stand beside the others."""
    switches = ("triples", "text", *(("image",) if network.image_space else ()))
    withheld = tuple(switch for switch in switches if switch in without)
    if not withheld:
        return network, vectors
    if "triples" in withheld:  # what has no vector is handed out to no network
        nothing = np.broadcast_to(np.float16(0), vectors.phrases.shape)
        given = replace(vectors, phrases=nothing)
    else:
        given = vectors
    if "text" in withheld:
        given = replace(given, entities=np.broadcast_to(np.float16(0), vectors.entities.shape))
    name = hashlib.sha256(f"{network.sha256} without {' '.join(withheld)}".encode()).hexdigest()
    encoder = _Withholding(network.weights, network.settings, withheld)
    seen = None if "image" in withheld else network.image_space  # both sides then take the learnt stand-in
    return replace(network, sha256=name, encoder=encoder, image_space=seen), given


class _Withholding(FusedEncoder):
    """The encoder of a network that is shown less than it is given."""

    def __init__(self, weights: dict[str, NDArray[Any]], settings: Any, withheld: Sequence[str]) -> None:
        super().__init__(weights, settings)
        self._withheld = withheld

    def fuse(self, *, text: NDArray[Any], triples: TripleArrays, **more: Any) -> NDArray[Any]:
        if "triples" in self._withheld:
            none = np.zeros(0, np.int64)
            triples = TripleArrays(
                tails=triples.tails[:0],
                relations=triples.relations[:0],
                pair_tail=none,
                pair_relation=none,
                triples=none,
                starts=np.zeros(len(text) + 1, np.int64),
            )
        if "text" in self._withheld:
            text = np.zeros_like(text)
        return super().fuse(text=text, triples=triples, **more)


def _features(scorer: Path) -> list[str]:
    try:
        return list(json.loads((scorer / "scorer.json").read_text(encoding="utf-8"))["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"cannot load an evidence scorer from {scorer}: {error}") from None
