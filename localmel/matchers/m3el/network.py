"""M3EL's network: scores how well text and picture of a mention and an entity fit: whole, by parts, and jointly.

In: features of both sides.  Out: a side for each (one vector for each row, and tokens for reranking), and scores.
A part of the score needs both sides: if the mention lacks its input, the part is 0 for every entity; if only the entity
does, a learnt vector replaces it.  Source: M3EL, section 3; differences and reasons: docs/matchers.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from localmel.errors import BadInput
from localmel.matchers.m3el.layers import CrossModal, LocalMatching
from localmel.matchers.protocol import Features, Side, Tokens

__all__ = ["M3el", "M3elSettings"]

_WEIGHTS_AT_ONCE = 1 << 24
"Token-pair weights kept in memory at once when many entities are scored; the loss of a batch keeps all."
_HALVES = {"text": ("text", "words"), "image": ("image", "patches")}
"Parts of the score that compare one modality, and their halves: the wholes, and the tokens."


class M3el(nn.Module):
    """A `Matcher` that takes Features."""

    def __init__(self, settings: M3elSettings) -> None:
        super().__init__()
        self.settings = settings
        own, width = settings, settings.width
        self.adapter = None if own.published or not own.adapter else _identity(own.text_width)
        self.text_norm, self.words_norm = nn.LayerNorm(own.text_width), nn.LayerNorm(own.word_width)
        self.words = LocalMatching(own.text_width, own.word_width, width)
        self.no_text = nn.Parameter(torch.zeros(own.text_width))
        "Learnt vector that replaces the text of an entity without one; `no_image` and `no_cross` work the same way."
        if own.image_width:
            self.image_in = None if own.published else nn.Linear(own.image_width, width)
            self.patch_in = None if own.published else nn.Linear(own.patch_width, width)
            self.image_norm, self.patches_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.patches = LocalMatching(width, width, width)
            self.no_image = nn.Parameter(torch.zeros(width))
            self.cross = nn.ModuleDict(
                {
                    name: CrossModal(
                        own.text_width, own.word_width, width, both_ways=name == "both", published=own.published
                    )
                    for name in (("one", "both") if own.published else (self._branch,))
                }
            )
            self.no_cross = nn.Parameter(torch.zeros(2, width))

    # --- Matcher interface ---

    @property
    def width(self) -> int:
        """Return the length of the vectors."""
        return sum(place.stop - place.start for _, place, _ in self._slices)

    @property
    def vectors_say_all(self) -> bool:
        """Return whether vectors alone give the score: neither words nor patches are used."""
        return not {"words", "patches"} & set(self.settings.used)

    def mentions(self, given: Features) -> Side:
        """Return vectors of wholes and cross-modal vectors, and the keys and values that entities attend to as tokens.

        With `estimate` the vectors also hold the result of uniform attention over all tokens: the inner product with an
        entity's vector then equals the score except for the effect of its attention.  Without it, the inner product is
        exactly the global and the cross-modal part."""
        seen = self._seen(given)
        vectors, tokens = self._wholes(seen), {}
        for name, layer in self._local().items():
            tokens[name] = layer.asked(seen[name])
            vectors[name] = layer.estimate(tokens[name])
            if not self.settings.estimate:
                vectors[name] = torch.zeros_like(vectors[name])
        return Side(vectors=self._joined(vectors), tokens=tokens)

    def entities(self, given: Features) -> Side:
        """Return vectors of wholes, cross-modal vectors and local-matching targets, and the queries as tokens."""
        seen = self._seen(given)
        vectors, tokens = self._wholes(seen, stand_ins=True), {}
        for name, layer in self._local().items():
            tokens[name] = layer.asking(seen[name])
            whole = seen["text" if name == "words" else "image"].values[:, 0]
            vectors[name] = layer.aim(whole) * seen[name].there.any(dim=1, keepdim=True)
        return Side(vectors=self._joined(vectors), tokens=tokens)

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """Return the mean of the parts, (m, n) or (m, k) as in `Matcher.scores`."""
        if entities.vectors.dim() == 3:
            return self._mean(self.parts(mentions, entities))
        per_entity = sum(
            len(mentions) * tokens.there.shape[1] * entities.tokens[name].there.shape[1]
            for name, tokens in mentions.tokens.items()
        )
        at_once = max(1, _WEIGHTS_AT_ONCE // max(per_entity, 1))
        pieces = torch.split(torch.arange(len(entities), device=mentions.vectors.device), at_once)
        made = [self._mean(self.parts(mentions, entities.rows(piece))) for piece in pieces]
        return torch.cat([mentions.vectors.new_empty(len(mentions), 0), *made], dim=1)

    # --- training ---

    def parts(self, mentions: Side, entities: Side) -> dict[str, Tensor]:
        """Return each part of the score by name: `text`, `image`, `cross.0` and `cross.1`, all with equal weight."""
        halves: dict[str, Tensor] = {}
        of = "nd" if entities.vectors.dim() == 2 else "mnd"
        for name, place, weight in self._slices:
            theirs = entities.vectors[..., place]
            if name in entities.tokens:
                aims, layer = theirs / math.sqrt(weight), self._local()[name]
                halves[name] = layer(mentions.tokens[name], entities.tokens[name], aims)
            else:
                halves[name] = torch.einsum(f"md,{of}->mn", mentions.vectors[:, place], theirs) / weight
        for part, names in _HALVES.items():
            if there := [halves.pop(name) for name in names if name in halves]:
                halves[part] = torch.stack(there).mean(dim=0)
        return halves

    def whole_vectors(self, given: Features) -> dict[str, tuple[Tensor, Tensor]]:
        """Return `text` and `image` before they are normalised: (b, width), and which rows have one (b,).

        The intra-modal contrastive loss uses these."""
        return self._whole(self._taken(given))

    # --- building a side ---

    def _whole(self, given: Features) -> dict[str, tuple[Tensor, Tensor]]:
        text = given.text if self.adapter is None else self.adapter(given.text)
        found = {"text": (text, self._marks(given.is_word).any(dim=1))}
        if self.settings.image_width:
            image, _, is_patch = given.pictures()
            found["image"] = (
                image if self.image_in is None else self.image_in(image),
                self._marks(is_patch).any(dim=1),
            )
        return found

    @property
    def _branch(self) -> str:
        """Return the name of the trained cross-modal network; a published one always uses `one` outside training."""
        if self.settings.published and not self.training:
            return "one"
        return "both" if self.settings.both_ways else "one"

    @property
    def _slices(self) -> list[tuple[str, slice, float]]:
        """Return the name, slice of the vectors, and weight in the score of each half or cross-modal vector."""
        own = self.settings
        n_cross = (2 if self._branch == "both" else 1) if "cross" in own.used else 0
        modalities = {part: [name for name in names if name in own.used] for part, names in _HALVES.items()}
        n_parts = sum(map(bool, modalities.values())) + n_cross
        weight = {name: 1 / n_parts / len(names) for names in modalities.values() for name in names}
        weight |= {f"cross.{number}": 1 / n_parts for number in range(n_cross)}
        order = sorted(weight, key=lambda name: name in ("words", "patches"))
        slices, first = [], 0
        for name in order:
            length = own.text_width if name == "text" else own.width
            slices.append((name, slice(first, first + length), weight[name]))
            first += length
        return slices

    def _local(self) -> dict[str, LocalMatching]:
        used = self.settings.used
        return {name: getattr(self, name) for name in ("words", "patches") if name in used}

    def _seen(self, given: Features) -> dict[str, Tokens]:
        """Return all inputs in use, normalised; a whole is a row of one token."""
        given = self._taken(given)
        wholes = self._whole(given)
        text, has_text = wholes["text"]
        seen = {
            "text": Tokens(values=self.text_norm(text)[:, None], there=has_text[:, None]),
            "words": Tokens(values=self.words_norm(given.words), there=self._marks(given.is_word)),
        }
        if self.settings.image_width:
            image, has_image = wholes["image"]
            _, patches, is_patch = given.pictures()
            patches = patches if self.patch_in is None else self.patch_in(patches)
            seen["image"] = Tokens(values=self.image_norm(image)[:, None], there=has_image[:, None])
            seen["patches"] = Tokens(values=self.patches_norm(patches), there=self._marks(is_patch))
        return seen

    def _wholes(self, seen: dict[str, Tokens], *, stand_ins: bool = False) -> dict[str, Tensor]:
        """Return wholes and cross-modal vectors (b, ...); zero, or a learnt vector, if the row lacks their input."""
        found: dict[str, Tensor] = {
            name: _or_else(seen[name].values[:, 0], seen[name].there[:, 0], getattr(self, f"no_{name}") * stand_ins)
            for name in ("text", "image")
            if name in seen
        }
        if "cross" in self.settings.used:
            both = (seen["text"].there & seen["image"].there)[:, 0]
            wholes = {name: seen[name].values[:, 0] for name in ("text", "image")}
            tokens = {name: seen[name] for name in ("words", "patches")}
            made = self.cross[self._branch](**wholes, **tokens, temperatures=self.settings.temperatures)
            for number, vectors in enumerate(made):
                found[f"cross.{number}"] = _or_else(vectors, both, self.no_cross[number] * stand_ins)
        return found

    def _joined(self, vectors: dict[str, Tensor]) -> Tensor:
        """Join vectors, weighted so that the inner product of mention and entity is the mean of the parts."""
        return torch.cat([vectors[name] * math.sqrt(weight) for name, _, weight in self._slices], dim=1)

    def _marks(self, there: Tensor) -> Tensor:
        """Return masks; the published form treats padding and missing pictures as tokens."""
        return torch.ones_like(there) if self.settings.published else there

    def _taken(self, given: Features) -> Features:
        """Return the features, checked and on the network's device."""
        own = self.settings
        given.check(text=own.text_width, word=own.word_width, image=own.image_width, patch=own.patch_width)
        return given.to(self.no_text.device)

    @staticmethod
    def _mean(parts: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(parts.values())).mean(dim=0)


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _or_else(vectors: Tensor, there: Tensor, otherwise: Tensor) -> Tensor:
    return torch.where(there[:, None], vectors, otherwise)


PARTS = ("text", "words", "image", "patches", "cross")
"Parts that can be switched off: whole texts, words, whole pictures, patches, and cross-modal vectors."


@dataclass(frozen=True, slots=True, kw_only=True)
class M3elSettings:
    """The shape of the network."""

    text_width: int
    "Length of a text's vector."
    word_width: int
    "Length of the vector of one word within its text."
    image_width: int = 0
    "Length of a picture's vector; 0 without pictures."
    patch_width: int = 0
    "Length of the vector of one patch of a picture."
    width: int = 96
    "Length of the compared vectors, except that of a whole text."
    both_ways: bool = True
    "Two cross-modal vectors, one starting from the text and one from the picture; otherwise one, from the text."
    temperatures: tuple[float, ...] = (2.0, 2.5, 3.5, 4.5)
    "Each gives one weighted mean over tokens, and these are averaged; higher is closer to the maximum."
    adapter: bool = True
    "A learnt matrix applied to whole texts, initialised as identity, in place of training the encoder."
    estimate: bool = True
    "Add an estimate of the local scores to the vectors used for retrieval (see `M3el.mentions`)."
    without: tuple[str, ...] = ()
    "Parts from `PARTS` that are switched off."
    published: bool = False
    "The published arithmetic with its defects (docs/matchers.md): for comparison, not for use."

    def __post_init__(self) -> None:
        least = {"text_width": self.text_width, "word_width": self.word_width, "width": self.width}
        if self.image_width or self.patch_width:
            least |= {"image_width": self.image_width, "patch_width": self.patch_width}
        if low := {name: value for name, value in least.items() if value < 1}:
            raise BadInput(f"M3EL cannot have {low}; each is at least 1, and pictures need both widths or none")
        if unknown := sorted(set(self.without) - set(PARTS)):
            raise BadInput(f"M3EL has no part {', '.join(unknown)}; its parts are {', '.join(PARTS)}")
        if not self.temperatures or min(self.temperatures) <= 0:
            raise BadInput(f"temperatures are {self.temperatures}; at least one, and each above 0")
        if not self.used:
            raise BadInput(f"nothing is left of M3EL without {', '.join(self.without)}")

    @property
    def used(self) -> tuple[str, ...]:
        """Return the parts in use."""
        there = PARTS if self.image_width else PARTS[:2]
        return tuple(part for part in there if part not in self.without)
