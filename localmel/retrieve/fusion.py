"""The fusion network: text, image and triples of one side -> one vector.  Mentions and entities share its weights.

In: vectors of a batch's texts, images and triples (packed, no padding).  Out: one vector for each row.
The method is KGMEL's (SIGIR 2025, section 3.2); the arithmetic is not: no matrix is multiplied with every triple.
A row's vector depends on that row alone: nothing is padded, so there is nothing to mask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.errors import BadInput, CorruptArtifact
from localmel.retrieve.attention import attend


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """The shape of the network and the constants of its attention."""

    text_width: int
    "Length of a text vector."
    triple_width: int
    "Length of the vector of a relation or of a tail."
    image_width: int = 0
    "Length of an image vector; 0 where no image space is used."
    width: int = 512
    "Length of the vectors that come out."
    image_share: float = 0.6
    "Weight of the image against the text when triples are attended to (beta); without an image space the text has 1."
    temperature: float = 0.1
    "Divides attention scores before the softmax; lower keeps fewer triples."
    kept_triples: int = 5
    "How many triples of the highest weight are summed (p)."
    dropout: float = 0.2
    "Share of the hidden values of each triple that training sets to zero, rounded to 1/256."
    gate: bool = True
    "Whether text and image pass a gate of their own; without, they are added as they are."

    def __post_init__(self) -> None:
        low = {name: getattr(self, name) for name in ("text_width", "triple_width", "width", "kept_triples")}
        if wrong := {name: value for name, value in low.items() if value < 1}:
            raise BadInput(f"a fusion network cannot have {wrong}; each is at least 1")
        if not (
            self.temperature > 0 and 0 <= self.image_share <= 1 and 0 <= self.dropout < 1 and self.image_width >= 0
        ):
            raise BadInput(
                f"temperature {self.temperature}, image_share {self.image_share}, dropout {self.dropout} or "
                f"image_width {self.image_width} is out of its range"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedTriples:
    """The triples of a batch, laid end to end (CSR).  What occurs more than once stands once.

    q tails, r relations, p pairs of one relation and one tail, t triples, b rows."""

    tails: Tensor  # (q, triple_width)
    relations: Tensor  # (r, triple_width)
    pair_tail: Tensor  # (p,) int64, row of `tails`
    pair_relation: Tensor  # (p,) int64, row of `relations`
    triples: Tensor  # (t,) int64, number of the pair
    starts: Tensor  # (b + 1,) int64: triples starts[i]:starts[i + 1] belong to row i

    def to(self, device: torch.device) -> PackedTriples:
        """The same on another device."""
        return PackedTriples(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class FusionNetwork(nn.Module):
    """Makes the vectors of mentions and entities comparable: their cosine is the retrieval score."""

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
        "What stands for the triples of a row that has none, with `no_triple_relation`: learnt."
        self.no_triple_relation = nn.Parameter(torch.zeros(triple))
        if settings.image_width:
            self.image_query = nn.Linear(settings.image_width, width)
            self.image_out = nn.Linear(settings.image_width, width)
            self.image_gate = nn.Linear(settings.image_width, width) if settings.gate else None
            self.no_image = nn.Parameter(torch.zeros(settings.image_width))
            "What stands for a missing image: learnt."

    def forward(
        self, *, text: Tensor, triples: PackedTriples, image: Tensor | None = None, has_image: Tensor | None = None
    ) -> Tensor:
        """Fuse one batch.  text: (batch, text_width), image: (batch, image_width), has_image: (batch,) bool.

        Returns (batch, width), not normalised.  `image` None: no row has one.  A row without an image or without
        triples is legal.  Source: KGMEL, section 3.2; the published code's order of operations."""
        image = self._filled(image, has_image, len(text))
        attended = self._attended(self._query(text, image), triples)
        fused = self.triples_out(attended) + self._gated(self.text_out(text), self.text_gate, text)
        if image is not None:
            fused = fused + self._gated(self.image_out(image), self.image_gate, image)
        return fused

    def _filled(self, image: Tensor | None, has_image: Tensor | None, batch: int) -> Tensor | None:
        if not self.settings.image_width:
            if image is not None:
                raise BadInput("this fusion network has no image space (image_width 0), and got images")
            return None
        if image is None:
            return self.no_image.expand(batch, -1)
        return image if has_image is None else torch.where(has_image[:, None], image, self.no_image)

    def _query(self, text: Tensor, image: Tensor | None) -> Tensor:
        if image is None:
            return self.text_query(text)
        share = self.settings.image_share
        return share * self.image_query(image) + (1.0 - share) * self.text_query(text)

    @staticmethod
    def _gated(values: Tensor, gate: nn.Linear | None, source: Tensor) -> Tensor:
        return values if gate is None else values * torch.sigmoid(gate(source))

    def _attended(self, query: Tensor, triples: PackedTriples) -> Tensor:
        """(batch, width): the weighted triples of each row.

        With x_t = o_t + W2 a_t + b2 and a_t = lrelu(Wa o_t + Wb r_t + b1), both the score of a triple and the sum over
        the kept ones are linear in o_t and a_t: products with W2, key and value are made once for each row, and
        Wa o and Wb r once for each tail and relation.  What is constant over a row's triples leaves the softmax."""
        tail_key = query @ self.key.weight / (math.sqrt(self.settings.width) * self.settings.temperature)
        pair_key = tail_key @ self.pair_out.weight
        summed = attend(
            tail_key.float(),
            pair_key.float(),
            triples.tails.float(),
            self._pairs(triples).float(),
            tail_of_pair=triples.pair_tail,
            triples=triples.triples,
            starts=triples.starts,
            kept=self.settings.kept_triples,
            dropout=self.settings.dropout if self.training else 0.0,
        )
        empty = (triples.starts.diff() == 0)[:, None]
        alone = F.leaky_relu(self.tail_in(self.no_triple_tail) + self.relation_in(self.no_triple_relation))
        alone = F.dropout(alone.expand(len(query), -1), self.settings.dropout, self.training)
        tails = torch.where(empty, self.no_triple_tail, summed.tails)
        pairs = torch.where(empty, alone, summed.pairs)
        weight = torch.where(empty, 1.0, summed.weight[:, None])
        mean = tails + pairs @ self.pair_out.weight.T + weight * self.pair_out.bias
        return self.mix(mean @ self.value.weight.T + weight * self.value.bias)

    def _pairs(self, triples: PackedTriples) -> Tensor:
        """(p, width): the hidden layer for each pair, a = lrelu(Wa o + Wb r + b1)."""
        tails, relations = self.tail_in(triples.tails), self.relation_in(triples.relations)
        return F.leaky_relu(tails[triples.pair_tail] + relations[triples.pair_relation])


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
"Adds the same to every score of a row, which the softmax takes away again."


def _ends(name: str) -> tuple[str, ...]:
    """What is to be added to the name of a part: nothing where it names one tensor."""
    return ("",) if name.endswith((".weight", ".bias")) else (".weight", ".bias")


def from_published(weights: Mapping[str, Tensor], **constants: Any) -> FusionNetwork:
    """A network with the weights of the published code (`best_model.pt`, read with weights_only).

    `constants` are settings that the file does not hold (image_share, temperature, kept_triples, dropout).
    Raises CorruptArtifact where a tensor is missing, left over or of another shape."""
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
    except (KeyError, IndexError, AttributeError) as error:
        raise CorruptArtifact(f"this is no checkpoint of the published KGMEL retriever: {error} is missing") from None
    if left := sorted(set(weights) - taken):
        raise CorruptArtifact(f"the checkpoint holds tensors that are not known: {', '.join(left)}")
    network = FusionNetwork(settings)
    zeros = ("no_triple_tail", "no_triple_relation", "no_image")  # the published code pads with zeros
    state = network.state_dict()
    found |= {name: torch.zeros_like(state[name]) for name in zeros}
    if wrong := [name for name, value in found.items() if state[name].shape != value.shape]:
        raise CorruptArtifact(f"the checkpoint's tensors have other shapes than each other: {', '.join(sorted(wrong))}")
    network.load_state_dict(found)
    return network
