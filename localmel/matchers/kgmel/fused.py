"""The fused vectors of a KB's entities: one for each, made by one fusion network.

In: an indexed KB and a trained network.  Out: `<kb>/fused/<network>/`, memory-mapped float16, tied to the state of the
KB, to its pictures where the network sees them, and to the network's bytes.  An interrupted run goes on behind the last
finished piece."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localmel.encode.kb_images import KbImages, load_images
from localmel.encode.kb_vectors import KbVectors, how_to_index
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, shell_line
from localmel.kb.packed import PackedKb
from localmel.kb.store import KnowledgeBase
from localmel.matchers.kgmel.inference import FusedEncoder
from localmel.matchers.kgmel.kb_triples import KbTriples, pieces_of
from localmel.matchers.kgmel.settings import FusionSettings
from localmel.store import progress
from localmel.store.artifacts import (
    create_arrays,
    flush_arrays,
    map_arrays,
    new_folder,
    read_manifest,
    replace_folder,
    sha256_of,
    temporary_folder,
    write_json,
)

KIND, VERSION = "fused vectors", 1
NETWORK_VERSION = 1
_FILE, _PROGRESS = "fused.safetensors", "progress.json"
_WEIGHTS, _CARD = "network.safetensors", "network.json"
_BY_TORCH = 20_000
"From this many entities on, importing torch pays."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A trained fusion network, as it stands on disk, and the spaces it fuses vectors of."""

    folder: Path
    settings: FusionSettings
    space: str
    "Name of the text space whose vectors go in."
    space_sha256: str
    sha256: str
    "Of the weights; names the vectors made with it."
    weights: dict[str, NDArray[Any]]
    encoder: FusedEncoder
    image_space: Space | None = None
    "Of the pictures that go in; None where the network sees none."
    card: dict[str, Any] = field(default_factory=dict)

    def check_space(self, space: Space, images: Space | None = None) -> None:
        """Raise BadInput where texts of `space`, or pictures of `images`, are not what this network was trained on.

        `images` None: pictures have no vectors.  A network without an image space takes any, and looks at none."""
        hint = "localmel train FOLDER --kb KB --out runs/NAME"
        if (space.name, space.weights_sha256) != (self.space, self.space_sha256):
            raise BadInput(
                f"{self.folder} was trained on vectors of {self.space} (weights {self.space_sha256[:12]}), "
                f"not of {space.name} ({space.weights_sha256[:12]})",
                hint=hint,
            )
        if (own := self.image_space) and images != own:
            given = (
                f"not of {images.name} ({images.weights_sha256[:12]})" if images else "which this encoder does not read"
            )
            raise BadInput(
                f"{self.folder} was trained on pictures of {own.name} (weights {own.weights_sha256[:12]}), {given}",
                hint=hint,
            )


def load_network(folder: Path) -> Network:
    """A network from a folder with network.safetensors and network.json.  Raises CorruptArtifact."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        if card["version"] != NETWORK_VERSION:
            raise ValueError(f"version {card['version']}; this localmel reads {NETWORK_VERSION}")
        settings = FusionSettings(**card["fusion"])
        weights = load_file(folder / _WEIGHTS)
        sha256 = sha256_of(folder / _WEIGHTS)
        if sha256 != card["weights_sha256"]:
            raise ValueError(f"its weights have sha256 {sha256}, its card says {card['weights_sha256']}")
        return Network(
            folder=folder,
            settings=settings,
            space=card["space"],
            space_sha256=card["space_sha256"],
            sha256=sha256,
            weights=weights,
            encoder=FusedEncoder(weights, settings),
            image_space=_image_space(card, settings),
            card=card,
        )
    except (OSError, ValueError, KeyError, TypeError, BadInput, CorruptArtifact, SafetensorError) as error:
        raise CorruptArtifact(f"{folder} holds no fusion network ({error})", hint=shell_line("ls", folder)) from None


def _image_space(card: dict[str, Any], settings: FusionSettings) -> Space | None:
    if not settings.image_width:
        return None
    named = card["image_space"]
    return Space(name=named["name"], width=settings.image_width, weights_sha256=named["sha256"])


def save_network(
    folder: Path,
    weights: dict[str, NDArray[Any]],
    settings: FusionSettings,
    space: Space,
    facts: dict[str, Any],
    *,
    images: Space | None = None,
) -> None:
    """Write a network's folder; `facts` (data, seed, numbers, command) go into its card.

    images: the space of the pictures it was trained on, for settings with an image_width."""
    from safetensors.numpy import save

    with temporary_folder(folder) as temporary:
        (temporary / _WEIGHTS).write_bytes(save(weights))
        card = {
            "version": NETWORK_VERSION,
            "fusion": asdict(settings),
            "space": space.name,
            "space_sha256": space.weights_sha256,
            "weights_sha256": sha256_of(temporary / _WEIGHTS),
            **({"image_space": {"name": images.name, "sha256": images.weights_sha256}} if images else {}),
            **facts,
        }
        write_json(temporary / _CARD, card)
        replace_folder(temporary, folder)


def load_fused(kb: KnowledgeBase, packed: PackedKb, network: Network) -> NDArray[Any]:
    """(n, width) float16 unit rows in position order.  Raises BadInput with the command where there are none."""
    folder = fused_folder(kb, network)
    try:
        manifest = read_manifest(folder, kind=KIND, version=VERSION)
    except FileNotFoundError:
        raise _not_fused(kb, packed, network, "never fused with this network") from None
    except CorruptArtifact as error:
        raise CorruptArtifact(error.fact, hint=how_to_index(kb, network.space)) from None
    state = fused_state(packed, _images_for(kb, packed, network))
    if manifest.get("made_from") != state or manifest.get("network_sha256") != network.sha256:
        raise _not_fused(kb, packed, network, "fused before it changed")
    return map_arrays(folder / _FILE)["entities"]


def fused_state(packed: PackedKb, images: KbImages | None) -> str:
    """What fused vectors are tied to: the KB, and its pictures where the network sees them."""
    if images is None:
        return packed.fingerprint
    return hashlib.sha256(f"{packed.fingerprint} {images.state}".encode()).hexdigest()


def _images_for(kb: KnowledgeBase, packed: PackedKb, network: Network) -> KbImages | None:
    return load_images(kb, packed, network.image_space) if network.image_space else None


def fuse_kb(
    kb: KnowledgeBase,
    packed: PackedKb,
    vectors: KbVectors,
    network: Network,
) -> NDArray[Any]:
    """Make the fused vectors of every entity, unless they stand there already, and load them.

    Raises BadInput where the network sees pictures and the KB's have no vectors in its space."""
    images = _images_for(kb, packed, network)
    network.check_space(vectors.space, images.space if images else None)
    try:
        return load_fused(kb, packed, network)
    except (BadInput, CorruptArtifact):
        pass
    triples = KbTriples(packed, vectors)
    n = len(packed.rows)
    fuse = _by_torch(network) if n >= _BY_TORCH else network.encoder.fuse
    made_from = fused_state(packed, images)
    facts = {"made_from": made_from, "network_sha256": network.sha256, "sampled": triples.n_sampled()}
    growing = _Growing(kb.folder / "fused" / f".{network.sha256[:16]}.growing", facts, (n, network.settings.width))
    progress.begin("fusing", n)
    for number, piece in enumerate(pieces_of(triples.counts())):
        if number >= growing.pieces:
            seen = {"image": images.vectors[piece], "has_image": images.there[piece]} if images else {}
            growing.add(piece, fuse(text=vectors.entities[piece], triples=triples.of(piece), **seen))
        progress.advance(len(piece))
    growing.seal(fused_folder(kb, network))
    return load_fused(kb, packed, network)


def fused_folder(kb: KnowledgeBase, network: Network) -> Path:
    """Where the vectors of a KB by this network stand."""
    return kb.folder / "fused" / network.sha256[:16]


def _not_fused(kb: KnowledgeBase, packed: PackedKb, network: Network, why: str) -> BadInput:
    return BadInput(
        f"kb {kb.name!r} has no fused vectors ({len(packed.rows):,} entities, {why})",
        hint=how_to_index(kb, network.space),
    )


def _by_torch(network: Network) -> Callable[..., NDArray[Any]]:
    """The same function on all cores, or on the GPU where there is one."""
    import torch

    from localmel.matchers.kgmel.inputs import packed_triples
    from localmel.matchers.kgmel.network import FusionNetwork
    from localmel.matchers.kgmel.ranking import unit_rows

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = FusionNetwork(network.settings)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in network.weights.items()})
    module.eval().to(device)

    def fuse(*, text: NDArray[Any], triples: Any, has_image: NDArray[Any] | None = None, **image: Any) -> NDArray[Any]:
        with torch.no_grad():
            dense = {"text": text, **image}
            given: dict[str, Any] = {
                name: torch.from_numpy(np.asarray(rows, np.float32)).to(device) for name, rows in dense.items()
            }
            if has_image is not None:
                given["has_image"] = torch.from_numpy(has_image).to(device)
            made = module.embed(triples=packed_triples(triples).to(device), **given)
            fused: NDArray[Any] = unit_rows(made, "row", np.arange(len(text))).cpu().numpy()
        return fused

    return fuse


class _Growing:
    """Vectors on their way: written in place, with a note of how many pieces are done."""

    def __init__(self, folder: Path, facts: dict[str, Any], shape: tuple[int, int]) -> None:
        self._folder, self._facts, self.pieces = folder, facts, 0
        try:
            progress = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
            self._arrays = map_arrays(folder / _FILE, writable=True)
            if progress["facts"] == facts and self._arrays["entities"].shape == shape:
                self.pieces = progress["pieces"]
                return
        except (OSError, ValueError, KeyError, TypeError, CorruptArtifact):
            pass
        folder.mkdir(parents=True, exist_ok=True)
        self._arrays = create_arrays(folder / _FILE, {"entities": ("<f2", shape)})

    def add(self, rows: NDArray[Any], vectors: NDArray[Any]) -> None:
        self._arrays["entities"][rows] = vectors
        flush_arrays(self._arrays)
        self.pieces += 1
        write_json(self._folder / _PROGRESS, {"facts": self._facts, "pieces": self.pieces})

    def seal(self, target: Path) -> None:
        """Move the finished file into its place."""
        import shutil

        with new_folder(target, kind=KIND, version=VERSION, facts=self._facts) as temporary:
            (self._folder / _FILE).replace(temporary / _FILE)
        shutil.rmtree(self._folder, ignore_errors=True)
