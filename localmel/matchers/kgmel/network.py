"""Fuse text, image and triples of a mention or entity into one vector, with weights shared by both sides.

In: vectors of a batch's texts, images and triples (packed, no padding).  Out: one vector per row.
The method is KGMEL's (SIGIR 2025, section 3.2), with the arithmetic rearranged so that no matrix is multiplied with
every triple. A row's vector depends on that row alone; without padding there is nothing to mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.kgmel.attention import SLOPE, Summed, attend
from localmel.matchers.kgmel.folded import fold
from localmel.matchers.kgmel.settings import FusionSettings

__all__ = ["FusionNetwork", "FusionSettings", "PackedTriples", "from_published", "load_published"]

ROWS_AT_ONCE = 2048
"Number of rows embedded together."
BYTES_OF_TAILS = 1 << 30
"Memory limit for computing the first product of all tails of a KB at once; above it, per `ROWS_AT_ONCE` rows."
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedTriples:
    """The triples of a batch, laid end to end (CSR).  Repeated values are stored once.

    q tails, r relations, p pairs of one relation and one tail, t triples, b rows."""

    tails: Tensor  # (q, triple_width)
    relations: Tensor  # (r, triple_width)
    pair_tail: Tensor  # (p,) int64, row of `tails`
    pair_relation: Tensor  # (p,) int64, row of `relations`
    triples: Tensor  # (t,) int64, number of the pair
    starts: Tensor  # (b + 1,) int64: triples starts[i]:starts[i + 1] belong to row i

    def __post_init__(self) -> None:
        if len(self.pair_tail) != len(self.pair_relation):
            raise BadInput(f"{len(self.pair_tail)} tails of pairs, but {len(self.pair_relation)} relations of pairs")
        if self.starts.dim() != 1 or not len(self.starts):
            raise BadInput(f"starts of rows have the shape {tuple(self.starts.shape)}; it is (rows + 1,)")
        first, last, falls = int(self.starts[0]), int(self.starts[-1]), bool((self.starts.diff() < 0).any())
        if first or falls or last != len(self.triples):
            raise BadInput(
                f"starts of rows go from {first} to {last}{' and fall' if falls else ''}; there are "
                f"{len(self.triples)} triples"
            )

    def to(self, device: torch.device) -> PackedTriples:
        """Return a copy on another device."""
        return PackedTriples(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class FusionNetwork(nn.Module):
    """A network that makes mentions and entities comparable: the cosine of their vectors is the retrieval score."""

    def __init__(self, settings: FusionSettings) -> None:
        super().__init__()
        self.settings = settings
        text, triple, width = settings.text_width, settings.triple_width, settings.width
        self.tail_in = nn.Linear(triple, width, bias=False)
        self.relation_in = nn.Linear(triple, width)
        self.pair_out = nn.Linear(width, triple)
        self.key = nn.Linear(triple, width, bias=False)
        self.value = nn.Linear(triple, width)
        self.mix = nn.Linear(width, width)
        self.text_query = nn.Linear(text, width)
        self.text_out = nn.Linear(text, width)
        self.triples_out = nn.Linear(width, width)
        self.text_gate = nn.Linear(text, width) if settings.gate else None
        self.no_triple_tail = nn.Parameter(torch.zeros(triple))
        "Learnt substitute, together with `no_triple_relation`, for the triples of a row without any."
        self.no_triple_relation = nn.Parameter(torch.zeros(triple))
        if settings.image_width:
            self.image_query = nn.Linear(settings.image_width, width)
            self.image_out = nn.Linear(settings.image_width, width)
            self.image_gate = nn.Linear(settings.image_width, width) if settings.gate else None
            self.no_image = nn.Parameter(torch.zeros(settings.image_width))
            "Learnt substitute for a missing image."

    def forward(
        self, *, text: Tensor, triples: PackedTriples, image: Tensor | None = None, has_image: Tensor | None = None
    ) -> Tensor:
        """Return the fused vectors of one batch, not normalised, shape (batch, width).

        text: (batch, text_width), image: (batch, image_width), has_image: (batch,) bool. `image` None means that no row
        has an image. A row may lack an image or triples. Both sides of a batch may be passed in one call, which
        computes shared parts once. Raises BadInput if widths or numbers of rows differ.  Source: KGMEL, section 3.2;
        order of operations from the published code."""
        self._check(text, triples, image, has_image)
        image = self._filled(image, has_image, len(text))
        attended = self._attended(self._query(text, image), triples)
        fused: Tensor = self.triples_out(attended) + self._gated(self.text_out(text), self.text_gate, text)
        if image is not None:
            fused = fused + self._gated(self.image_out(image), self.image_gate, image)
        return fused

    @torch.no_grad()
    def embed(
        self,
        *,
        text: Tensor,
        triples: PackedTriples,
        image: Tensor | None = None,
        has_image: Tensor | None = None,
        precision: str = "float32",
    ) -> Tensor:
        """Return unit rows for any number of rows, without dropout or gradients, shape (rows, width).

        The arguments are those of `forward`. Results differ from it only in rounding, because matrices are multiplied
        together first. Working memory is limited to that of ROWS_AT_ONCE rows plus BYTES_OF_TAILS. With `precision`
        "bfloat16" the operands of products are rounded to it.  Raises BadInput."""
        self._check(text, triples, image, has_image)
        if precision not in PRECISIONS:
            raise BadInput(f"precision is {precision!r}; it is one of {', '.join(PRECISIONS)}")
        image = self._filled(image, has_image, len(text))
        product = _product(PRECISIONS[precision])
        folded = fold(dict(self.state_dict()), self.settings)
        relation_part = product(triples.relations, self.relation_in.weight.T) + self.relation_in.bias
        whole = self.settings.width * len(triples.tails) * 4 <= BYTES_OF_TAILS
        tail_part = product(triples.tails, self.tail_in.weight.T) if whole else None
        fused = torch.empty(len(text), self.settings.width, device=text.device)
        for first in range(0, len(text), ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, len(text)))
            inputs = (text[rows],) if image is None else (text[rows], image[rows])
            starts = triples.starts[rows.start : rows.stop + 1]
            pairs = triples.triples[int(starts[0]) : int(starts[-1])]
            tail_of, tails, part = triples.pair_tail[pairs], triples.tails, tail_part
            if part is None:
                used, tail_of = torch.unique(tail_of, return_inverse=True)
                tails = triples.tails[used]
                part = product(tails, self.tail_in.weight.T)
            summed = attend(
                *folded.keys(inputs, product),
                tails,
                part,
                relation_part,
                tail_of=tail_of,
                relation_of=triples.pair_relation[pairs],
                starts=starts - starts[0],
                kept=self.settings.kept_triples,
                dropout=0.0,
            )
            summed = self._with_stand_in(summed, starts, dropout=0.0)
            fused[rows] = folded.fuse(inputs, *summed, product, torch.sigmoid)
        return F.normalize(fused, dim=1, out=fused)

    def _check(self, text: Tensor, triples: PackedTriples, image: Tensor | None, has_image: Tensor | None) -> None:
        settings, n_rows = self.settings, len(triples.starts) - 1
        if image is not None and not settings.image_width:
            raise BadInput("this fusion network has no image space (image_width 0), and got images")
        expected = {
            "text vectors": (text, (n_rows, settings.text_width)),
            "image vectors": (image, (n_rows, settings.image_width)),
            "marks of rows with an image": (has_image, (n_rows,)),
            "vectors of tails": (triples.tails, (len(triples.tails), settings.triple_width)),
            "vectors of relations": (triples.relations, (len(triples.relations), settings.triple_width)),
        }
        for name, (values, shape) in expected.items():
            if values is not None and values.shape != shape:
                raise BadInput(
                    f"{name} have the shape {tuple(values.shape)}; the fusion network and these triples ask for {shape}"
                )

    def _filled(self, image: Tensor | None, has_image: Tensor | None, n_rows: int) -> Tensor | None:
        if not self.settings.image_width:
            return None
        if image is None:
            return self.no_image.expand(n_rows, -1)
        return image if has_image is None else torch.where(has_image[:, None], image, self.no_image)

    def _query(self, text: Tensor, image: Tensor | None) -> Tensor:
        query: Tensor = self.text_query(text)
        if image is not None:
            share = self.settings.image_share
            query = share * self.image_query(image) + (1.0 - share) * query
        return query

    @staticmethod
    def _gated(values: Tensor, gate: nn.Linear | None, source: Tensor) -> Tensor:
        if gate is None:
            return values
        gated: Tensor = values * torch.sigmoid(gate(source))
        return gated

    def _attended(self, query: Tensor, triples: PackedTriples) -> Tensor:
        """Return the weighted sum of each row's triples, shape (batch, width).

        With x_t = o_t + W2 a_t + b2 and a_t = drop(lrelu(Wa o_t + Wb r_t + b1)), both the score of a triple and the sum
        over the kept ones are linear in o_t and a_t. So products with W2, key and value are computed once per row, and
        Wa o and Wb r once per tail and relation. Terms that are constant over a row's triples cancel in the softmax."""
        tail_key = query @ self.key.weight / (math.sqrt(self.settings.width) * self.settings.temperature)
        dropout = self.settings.dropout if self.training else 0.0
        summed = attend(
            tail_key,
            tail_key @ self.pair_out.weight,
            triples.tails,
            self.tail_in(triples.tails),
            self.relation_in(triples.relations),
            tail_of=triples.pair_tail[triples.triples],
            relation_of=triples.pair_relation[triples.triples],
            starts=triples.starts,
            kept=self.settings.kept_triples,
            dropout=dropout,
        )
        tails, hidden, weight = self._with_stand_in(summed, triples.starts, dropout=dropout)
        mean = tails + hidden @ self.pair_out.weight.T + weight * self.pair_out.bias
        mixed: Tensor = self.mix(mean @ self.value.weight.T + weight * self.value.bias)
        return mixed

    def _with_stand_in(self, summed: Summed, starts: Tensor, *, dropout: float) -> Summed:
        """Return the sums with the learnt triple for rows without triples.  The weight becomes (b, 1)."""
        empty = (starts.diff() == 0).nonzero()[:, 0]
        hidden = F.leaky_relu(self.tail_in(self.no_triple_tail) + self.relation_in(self.no_triple_relation), SLOPE)
        hidden = F.dropout(hidden.to(summed.hidden.dtype).expand(len(empty), -1), dropout)
        return Summed(
            tails=summed.tails.index_copy(0, empty, self.no_triple_tail.expand(len(empty), -1)),
            hidden=summed.hidden.index_copy(0, empty, hidden),
            weight=summed.weight.index_fill(0, empty, 1.0)[:, None],
        )


def _product(precision: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a matrix product with operands rounded to `precision`; its result has the precision of the first
    operand."""

    def product(values: Tensor, matrix: Tensor) -> Tensor:
        multiplied: Tensor = values.to(precision) @ matrix.to(precision)
        return multiplied.to(values.dtype)

    return product


# --- checkpoints of the published code --------------------------------------------------------------------------

_PUBLISHED = {
    "relation_in.bias": "reltail_feature_combine.fc1.bias",
    "pair_out": "reltail_feature_combine.fc2",
    "key.weight": "reltail_key.weight",
    "value": "reltail_value",
    "mix": "reltail_proj",
    "text_query": "head_query",
    "image_query": "img_query",
    "text_out": "final_proj.linear_text",
    "image_out": "final_proj.linear_img",
    "triples_out": "final_proj.linear_triple",
    "text_gate": "final_proj.gate_text.0",
    "image_gate": "final_proj.gate_img.0",
}
"Our names for the parts of the published model.  Its fc1 is one matrix over [tail ; relation]."
_FC1 = "reltail_feature_combine.fc1.weight"
_WITHOUT_EFFECT = "reltail_key.bias"
"Adds the same value to every score of a row, which cancels in the softmax."


def _ends(name: str) -> tuple[str, ...]:
    """Return the suffixes of a part's name; a part that is a single tensor has none."""
    return ("",) if name.endswith((".weight", ".bias")) else (".weight", ".bias")


def load_published(path: Path, **constants: Any) -> FusionNetwork:
    """Return the network in a checkpoint of the published code (`best_model.pt`), loaded without executing code from
    it.

    The weights may be under "state_dict" or "model_state_dict", and their names may begin with "module.". Raises
    BadInput if there is no such file, CorruptArtifact if it contains anything but tensors, and the errors of
    `from_published`."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # noqa: BLE001 - a damaged or hostile pickle may fail in any way
        reason = str(error).partition("\n")[0]
        raise CorruptArtifact(f"{path} is no file of weights alone, and nothing else is loaded ({reason})") from None
    for wrapper in ("state_dict", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CorruptArtifact(f"{path} holds no weights by name")
    return from_published({str(name).removeprefix("module."): value for name, value in found.items()}, **constants)


def from_published(weights: Mapping[str, Tensor], **constants: Any) -> FusionNetwork:
    """Return a network with the weights of the published code (`best_model.pt`, read with weights_only).

    `constants` are settings that the file does not contain (image_share, temperature, kept_triples, dropout). Raises
    CorruptArtifact if a tensor is missing, unexpected, of another shape or not finite."""
    try:
        fc1 = weights[_FC1]
        width = fc1.shape[0]
        settings = FusionSettings(
            text_width=weights["head_query.weight"].shape[1],
            image_width=weights["img_query.weight"].shape[1],
            triple_width=fc1.shape[1] // 2,
            width=width,
            **constants,
        )
        found = {"tail_in.weight": fc1[:, : fc1.shape[1] // 2], "relation_in.weight": fc1[:, fc1.shape[1] // 2 :]}
        taken = {_FC1, _WITHOUT_EFFECT}
        for ours, theirs in _PUBLISHED.items():
            for end in _ends(ours):
                found[ours + end] = weights[theirs + end]
                taken.add(theirs + end)
    except KeyError as error:
        raise CorruptArtifact(f"this is no checkpoint of the published KGMEL retriever: {error} is missing") from None
    except IndexError:
        raise CorruptArtifact("the checkpoint has a vector where the published KGMEL retriever has a matrix") from None
    if left := sorted(set(weights) - taken):
        raise CorruptArtifact(f"the checkpoint holds tensors that are not known: {', '.join(left)}")
    network = FusionNetwork(settings)
    zeros = ("no_triple_tail", "no_triple_relation", "no_image")  # the published code pads with zeros
    state = network.state_dict()
    found |= {name: torch.zeros_like(state[name]) for name in zeros}
    if wrong := [name for name, value in found.items() if state[name].shape != value.shape]:
        raise CorruptArtifact(f"the checkpoint's tensors have other shapes than each other: {', '.join(sorted(wrong))}")
    if wrong := [name for name, value in found.items() if not torch.isfinite(value).all()]:
        raise CorruptArtifact(f"the checkpoint's tensors hold values that are no numbers: {', '.join(sorted(wrong))}")
    network.load_state_dict(found)
    return network
