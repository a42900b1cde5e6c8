"""Run the fusion network in NumPy, for a few mentions at a time, where loading torch would cost more than the work.

In: weights by name and settings; text, image and triples of some rows.  Out: one unit vector per row, equal to
`FusionNetwork.embed` up to rounding.  Uses neither torch nor dropout; for large KBs there is `network.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.kgmel.folded import fold
from localmel.matchers.kgmel.settings import FusionSettings

if TYPE_CHECKING:
    from localmel.matchers.kgmel.kb_triples import TripleArrays

SLOPE = 0.01
"Slope of the hidden layer's leaky ReLU below zero, as in attention.py."
TRIPLES_AT_ONCE = 1024
"Maximum number of hidden-layer rows in memory at once."


class FusedEncoder:
    """A fusion network for small batches.  Its weights are those of `FusionNetwork.state_dict()`."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], settings: FusionSettings) -> None:
        """Raise CorruptArtifact if a weight is missing, unexpected, misshapen or not finite."""
        expected = _shapes(settings)
        if missing := sorted(expected.keys() - weights.keys()):
            raise CorruptArtifact(f"the fusion network lacks {', '.join(missing)}")
        if unknown := sorted(weights.keys() - expected.keys()):
            raise CorruptArtifact(f"the fusion network holds weights that are not known: {', '.join(unknown)}")
        for name, shape in expected.items():
            if weights[name].shape != shape:
                raise CorruptArtifact(f"{name} has the shape {weights[name].shape}; its settings ask for {shape}")
            if not np.isfinite(weights[name]).all():
                raise CorruptArtifact(f"{name} holds values that are no numbers")
        self.settings = settings
        self.weights = {name: np.asarray(value, np.float32) for name, value in weights.items()}
        self._folded = fold(self.weights, settings)

    def fuse(
        self,
        *,
        text: NDArray[Any],
        triples: TripleArrays,
        image: NDArray[Any] | None = None,
        has_image: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return the fused unit rows, (b, width) float32.

        text: (b, text_width), image: (b, image_width), has_image: (b,) bool. `image` None means that no row has an
        image. A row may lack an image or triples. Raises BadInput if widths or numbers of rows differ or a value is not
        finite.  Source: KGMEL, section 3.2."""
        inputs = self._inputs(text, triples, image, has_image)
        tail_key, hidden_key = self._folded.keys(inputs, np.matmul)
        summed = self._attend(tail_key, hidden_key, triples)
        fused = self._folded.fuse(inputs, *summed, np.matmul, _sigmoid)
        length = np.linalg.norm(fused, axis=1, keepdims=True)
        return np.asarray(fused / np.maximum(length, 1e-12), np.float32)

    def _inputs(
        self, text: NDArray[Any], triples: TripleArrays, image: NDArray[Any] | None, has_image: NDArray[Any] | None
    ) -> tuple[NDArray[Any], ...]:
        """Return the text, and the image if the network has an image space; checked, missing images filled in."""
        settings, n_rows = self.settings, len(triples.starts) - 1
        if image is not None and not settings.image_width:
            raise BadInput("this fusion network has no image space (image_width 0), and got images")
        text = _checked("text vectors", text, (n_rows, settings.text_width))
        for name, values in (("vectors of tails", triples.tails), ("vectors of relations", triples.relations)):
            _checked(name, values, (len(values), settings.triple_width))
        if not settings.image_width:
            return (text,)
        stand_in = np.broadcast_to(self.weights["no_image"], (n_rows, settings.image_width))
        if image is None:
            return text, stand_in
        if has_image is not None:
            if has_image.shape != (n_rows,):
                raise BadInput(f"marks of rows with an image have the shape {has_image.shape}; there are {n_rows} rows")
            if image.shape == stand_in.shape:
                image = np.where(has_image[:, None], image, stand_in)
        return text, _checked("image vectors", image, stand_in.shape)

    def _attend(
        self, tail_key: NDArray[Any], hidden_key: NDArray[Any], triples: TripleArrays
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return the weighted sums of tails (b, triple width) and of hidden layers (b, width), and of weights (b,
        1)."""
        weights = self.weights
        tail_of, relation_of = triples.pair_tail[triples.triples], triples.pair_relation[triples.triples]
        tail_part = triples.tails @ weights["tail_in.weight"].T
        relation_part = triples.relations @ weights["relation_in.weight"].T + weights["relation_in.bias"]
        lengths = np.diff(triples.starts)
        row = np.repeat(np.arange(len(lengths)), lengths)

        def hidden(chosen: NDArray[Any]) -> NDArray[Any]:
            layer = tail_part[tail_of[chosen]]
            layer += relation_part[relation_of[chosen]]
            np.maximum(layer, SLOPE * layer, out=layer)
            return np.asarray(layer)

        scores = np.empty(len(row), np.float32)
        for first in range(0, len(row), TRIPLES_AT_ONCE):
            here = np.arange(first, min(first + TRIPLES_AT_ONCE, len(row)))
            scores[here] = np.einsum("tw,tw->t", tail_key[row[here]], triples.tails[tail_of[here]])
            scores[here] += np.einsum("tw,tw->t", hidden_key[row[here]], hidden(here))
        weight = _softmax(scores, row, lengths)
        kept = _best(weight, row, triples.starts, self.settings.kept_triples)
        sums = np.ones((len(lengths), 1), np.float32)
        tails, layers = np.zeros_like(tail_key), np.zeros_like(hidden_key)
        if len(kept):
            share, full = weight[kept, None], lengths > 0
            begins = np.searchsorted(row[kept], np.flatnonzero(full))
            sums[full] = np.add.reduceat(share, begins)
            tails[full] = np.add.reduceat(share * triples.tails[tail_of[kept]], begins)
            layers[full] = np.add.reduceat(share * hidden(kept), begins)
        alone = weights["tail_in.weight"] @ weights["no_triple_tail"] + weights["relation_in.bias"]
        alone = alone + weights["relation_in.weight"] @ weights["no_triple_relation"]
        empty = lengths == 0
        tails[empty], layers[empty] = weights["no_triple_tail"], np.maximum(alone, SLOPE * alone)
        return tails, layers, sums


def _softmax(scores: NDArray[Any], row: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Return the softmax over the triples of each row, which are adjacent, shape (t,)."""
    full = lengths[lengths > 0]
    if not len(full):
        return scores
    begins = np.cumsum(full) - full
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, begins), full))
    softmaxed: NDArray[Any] = powers / np.repeat(np.add.reduceat(powers, begins), full)
    return softmaxed


def _best(weight: NDArray[Any], row: NDArray[Any], starts: NDArray[Any], kept: int) -> NDArray[Any]:
    """Return the indices of the `kept` triples of highest weight per row, in row order."""
    order = np.lexsort((-weight, row))
    place = np.arange(len(order)) - starts[row]  # sorting does not move rows
    best: NDArray[Any] = order[place < kept]
    return best


def _sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sigmoid without overflow for large values."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)


def _checked(name: str, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.shape != shape:
        raise BadInput(f"{name} have the shape {values.shape}; the fusion network and these triples ask for {shape}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=-1))[0])
        raise BadInput(f"{name} hold a value that is no number, in row {row}")
    return np.asarray(values, np.float32)


def _shapes(settings: FusionSettings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its name in `FusionNetwork.state_dict()`."""
    text, image, triple, width = settings.text_width, settings.image_width, settings.triple_width, settings.width
    layers = {
        "relation_in": (width, triple), "pair_out": (triple, width), "value": (width, triple), "mix": (width, width),
        "text_query": (width, text), "text_out": (width, text), "triples_out": (width, width),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"tail_in.weight": (width, triple), "key.weight": (width, triple)}
    shapes |= {"no_triple_tail": (triple,), "no_triple_relation": (triple,)}
    if settings.gate:
        layers["text_gate"] = (width, text)
    if image:
        shapes["no_image"] = (image,)
        layers |= {"image_query": (width, image), "image_out": (width, image)}
        if settings.gate:
            layers["image_gate"] = (width, image)
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes
