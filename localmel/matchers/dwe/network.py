"""DWE+'s network: compares a mention, refined by what its picture shows, with an entity's texts and pictures.

In: features of both sides.  Out: one unit vector for each row; scores are cosines, so an index suffices.  The mention
attends to its words, objects, faces, attributes and identities; gates sum the results.  A learnt vector replaces a part
that a row lacks.  Source: DWE+, equations 4-9; differences and reasons: docs/matchers-dwe.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from localmel.errors import BadInput
from localmel.matchers.dwe.features import DweFeatures
from localmel.matchers.m3el.layers import masked_softmax
from localmel.matchers.protocol import Side, Tokens

__all__ = ["Dwe", "DweSettings", "DweViews"]

_WHOLE, _ASKED = ("name", "text", "image"), ("words", "objects")
"Parts of a mention that are used as they are, and parts it attends to; together they are g_m of the paper."
_SHOWN = ("faces", "identity", "attributes")
"Parts that come from its picture: m_f, m_s, and the attributes of equation 9."
_ENTITY = ("text", "written", "image")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DweViews:
    """The intermediate vectors of a side that only the loss uses."""

    raw: Tensor  # (b, width) the vectors before normalisation
    parts: dict[str, tuple[Tensor, Tensor]]
    "By part: (b, width), and which rows have one (b,)."


class Dwe(nn.Module):
    """A `Matcher` that takes DweFeatures."""

    def __init__(self, settings: DweSettings) -> None:
        super().__init__()
        self.settings = own = settings
        self.text_in = Projection(own.text_width, own.width, own.dropout)
        self.word_in = Projection(own.word_width, own.width, own.dropout) if own.word_width else None
        self.image_in = Projection(own.image_width, own.width, own.dropout) if own.image_width else None
        mention, shown = self._used(_WHOLE + _ASKED), self._used(_SHOWN)
        self.attention = MentionAttention(own.width, own.heads, [*self._used(_ASKED), *shown])
        self.mention_sum = GatedSum(own.width, mention, asked=True)
        self.shown_sum = GatedSum(own.width, shown, asked=True) if shown else None
        self.entity_sum = GatedSum(own.width, self._used(_ENTITY), asked=False)
        self.share = nn.Parameter(torch.zeros(()))
        "Its sigmoid is the epsilon of equation 9: the share of a mention that comes from its picture."
        self.fused = as_identity(nn.Linear(own.width, own.width))
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        "Logarithm of the factor of cosines in the published loss; not used elsewhere."
        self.no_mention = self._stand_ins([*mention, *shown])
        self.no_entity = self._stand_ins(self._used(_ENTITY))
        "Learnt vectors that replace a part that a row lacks."

    # --- Matcher interface ---

    @property
    def width(self) -> int:
        """Return the length of the vectors."""
        return self.settings.width

    @property
    def vectors_say_all(self) -> bool:
        """Return True: the score is the inner product."""
        return True

    def mentions(self, given: DweFeatures) -> Side:
        """Return unit vectors."""
        return self.mention_views(given)[0]

    def entities(self, given: DweFeatures) -> Side:
        """Return unit vectors."""
        return self.entity_views(given)[0]

    def scores(self, mentions: Side, entities: Side) -> Tensor:
        """Return cosines, (m, n) or (m, k) as in `Matcher.scores`."""
        of = "nd" if entities.vectors.dim() == 2 else "mnd"
        return torch.einsum(f"md,{of}->mn", mentions.vectors, entities.vectors)

    # --- training ---

    def mention_views(self, given: DweFeatures) -> tuple[Side, DweViews]:
        """Return the side of mentions, and each part as it enters the sum."""
        seen = self._seen(given, (*_WHOLE, *_ASKED, *_SHOWN))
        parts = {name: (masked_mean(seen[name]), _any(seen[name])) for name in self._used(_WHOLE)}
        asking = self._asking(parts)
        for name in (*self._used(_ASKED), *self._used(_SHOWN)):
            parts[name] = self.attention(name, asking, seen[name]), _any(seen[name])
        filled = _filled(parts, self.no_mention)
        made = self.mention_sum({name: filled[name] for name in self._used(_WHOLE + _ASKED)}, asking)
        if self.shown_sum is not None:
            share = torch.sigmoid(self.share)
            shown = self.shown_sum({name: filled[name] for name in self._used(_SHOWN)}, asking)
            made = (1 - share) * made + share * shown
        raw = self.fused(made)
        return Side(vectors=F.normalize(raw, dim=1)), DweViews(raw=raw, parts=parts)

    def entity_views(self, given: DweFeatures) -> tuple[Side, DweViews]:
        """Return the side of entities, and each part as it enters the sum.  Averages several pictures (or texts)."""
        seen = self._seen(given, _ENTITY)
        parts = {name: (masked_mean(seen[name]), _any(seen[name])) for name in self._used(_ENTITY)}
        raw = self.entity_sum(_filled(parts, self.no_entity))
        return Side(vectors=F.normalize(raw, dim=1)), DweViews(raw=raw, parts=parts)

    # --- building a side ---

    def _asking(self, parts: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Return the query (b, width): the mention's name; without a name its text; without either a learnt vector."""
        name, has_name = parts["name"]
        otherwise = self.no_mention["name"].expand_as(name)
        if "text" in parts:
            text, has_text = parts["text"]
            otherwise = torch.where(has_text[:, None], text, otherwise)
        return torch.where(has_name[:, None], name, otherwise)

    def _seen(self, given: DweFeatures, names: tuple[str, ...]) -> dict[str, Tokens]:
        """Return the projected parts; a part that is not given is one masked token."""
        own = self.settings
        given.check(own.width_of)
        device = self.share.device
        nothing = torch.zeros(given.n, 1, own.width, device=device)
        absent = Tokens(values=nothing, there=torch.zeros(given.n, 1, dtype=torch.bool, device=device))
        seen = {}
        for name in self._used(names):
            if (tokens := given.parts.get(name)) is None or not tokens.there.shape[1]:
                seen[name] = absent
                continue
            tokens = tokens.to(device)
            seen[name] = Tokens(values=self._projection(name)(tokens.values), there=tokens.there)
        return seen

    def _projection(self, part: str) -> Projection:
        made = self.word_in if part == "words" else self.image_in if part in OF_PICTURES else self.text_in
        assert made is not None
        return made

    def _used(self, names: tuple[str, ...]) -> list[str]:
        """Return the parts in use.  An entity keeps its static text and pictures whatever is switched off."""
        off = {"written"} if names == _ENTITY else {*SWITCHES}
        off &= {*self.settings.without}
        return [name for name in names if name not in off and self.settings.width_of(name)]

    def _stand_ins(self, names: list[str]) -> nn.ParameterDict:
        """Return learnt stand-in vectors, small but not zero, so that a row without any part still has a direction."""
        return nn.ParameterDict({name: nn.Parameter(0.02 * torch.randn(self.settings.width)) for name in names})


def _any(tokens: Tokens) -> Tensor:
    return tokens.there.any(dim=1)


def _filled(parts: dict[str, tuple[Tensor, Tensor]], otherwise: nn.ParameterDict) -> dict[str, Tensor]:
    return {name: torch.where(there[:, None], values, otherwise[name]) for name, (values, there) in parts.items()}


class Projection(nn.Module):
    """LN(S x + O relu(I x)): a non-linear projection, initialised to pass its input through before the norm.

    Source: DWE+, non-linear map of each modality.  S starts as identity, O as zero; the published code has no S."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.straight = as_identity(nn.Linear(width_in, width))
        self.inner, self.outer = nn.Linear(width_in, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """Project vectors, (..., width in) -> (..., width)."""
        made: Tensor = self.dropout(self.norm(self.straight(values) + self.outer(F.relu(self.inner(values)))))
        return made


class MentionAttention(nn.Module):
    """Attention from the mention to the vectors of one part.

    Source: DWE+, CrossAtt, shared by all parts.  Here each part adds its own query, which does not depend on the
    mention's name ("which attribute is the role?"), and padding is masked."""

    def __init__(self, width: int, heads: int, parts: Sequence[str]) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = (as_identity(nn.Linear(width, width)) for _ in range(2))
        self.asks = nn.ParameterDict({part: nn.Parameter(torch.zeros(width)) for part in parts})

    def forward(self, part: str, mention: Tensor, tokens: Tokens) -> Tensor:
        """Attend to a part.  mention: (b, width), tokens: (b, length, width).

        Returns (b, width), meaningless for a row without tokens."""
        b, length, width = tokens.values.shape
        query = (self.query(mention) + self.asks[part]).view(b, self.heads, -1)
        keys, values = (layer(tokens.values).view(b, length, self.heads, -1) for layer in (self.key, self.value))
        logits = torch.einsum("bhd,blhd->bhl", query, keys) / math.sqrt(width // self.heads)
        weights = masked_softmax(logits, tokens.there[:, None, :])
        heard: Tensor = self.out(torch.einsum("bhl,blhd->bhd", weights, values).reshape(b, width))
        return heard


class GatedSum(nn.Module):
    """A sum of parts, each scaled by a gate that depends on the part and, if given, on the mention."""

    def __init__(self, width: int, parts: Sequence[str], *, asked: bool) -> None:
        super().__init__()
        self.gates = nn.ModuleDict({part: nn.Linear(width, width) for part in parts})
        for gate in self.gates.values():
            nn.init.zeros_(gate.weight)  # type: ignore[arg-type]
            nn.init.zeros_(gate.bias)  # type: ignore[arg-type]
        self.hears = nn.Linear(width, width, bias=False) if asked else None

    def forward(self, parts: Mapping[str, Tensor], mention: Tensor | None = None) -> Tensor:
        """Return the gated sum, (b, width).  parts: each (b, width), at least one; mention: (b, width)."""
        heard = 0.0 if self.hears is None or mention is None else self.hears(mention)
        gated = [torch.sigmoid(self.gates[name](values) + heard) * values for name, values in parts.items()]
        return torch.stack(gated).sum(dim=0)


def masked_mean(tokens: Tokens) -> Tensor:
    """Return the mean over the unmasked tokens, (b, length, width) -> (b, width); zero if there are none."""
    total = (tokens.values * tokens.there[..., None]).sum(dim=1)
    return total / tokens.there.sum(dim=1, keepdim=True).clamp(min=1)


def as_identity(linear: nn.Linear) -> nn.Linear:
    """Initialise a projection as the identity if both widths are equal; otherwise leave it random."""
    if linear.in_features == linear.out_features:
        nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


OF_TEXTS = ("name", "text", "attributes", "identity", "written")
"Parts whose vectors come from texts."
OF_PICTURES = ("image", "objects", "faces")
"Parts whose vectors come from pictures; `words` are vectors of single words."
SWITCHES = ("text", "words", "image", "objects", "faces", "attributes", "identity", "written")
"Parts that can be switched off: of a mention, and an entity's written text.  Its static text and pictures stay."


@dataclass(frozen=True, slots=True, kw_only=True)
class DweSettings:
    """The shape of the network."""

    text_width: int
    "Length of a text's vector: of names, sentences, descriptions, attributes and identities."
    word_width: int = 0
    "Length of the vector of one word within its text; 0 if words are not used."
    image_width: int = 0
    "Length of the vector of a picture, of an object and of a face; 0 without pictures."
    width: int = 384
    "Length of the compared vectors.  If equal to that of texts, the network starts as their cosine."
    heads: int = 8
    "Number of attention heads."
    dropout: float = 0.4
    "Share of the projected values that are dropped in training."
    without: tuple[str, ...] = ()
    "Parts from `SWITCHES` that are switched off."

    def __post_init__(self) -> None:
        low = {name: value for name in ("text_width", "width", "heads") if (value := getattr(self, name)) < 1}
        low |= {name: value for name in ("word_width", "image_width") if (value := getattr(self, name)) < 0}
        if low:
            raise BadInput(f"DWE+ cannot have {low}; texts, width and heads are at least 1, the others at least 0")
        if self.width % self.heads:
            raise BadInput(f"DWE+ cannot split a width of {self.width} into {self.heads} heads")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"DWE+ leaves out a share of {self.dropout}; it is at least 0 and below 1")
        if unknown := sorted(set(self.without) - set(SWITCHES)):
            raise BadInput(f"DWE+ has no part {', '.join(unknown)}; its parts are {', '.join(SWITCHES)}")

    def width_of(self, part: str) -> int:
        """Return the length of this part's input vectors; 0 if it is not used.  Raises BadInput for an unknown part."""
        if part not in (*OF_TEXTS, *OF_PICTURES, "words"):
            known = ", ".join((*OF_TEXTS, "words", *OF_PICTURES))
            raise BadInput(f"DWE+ has no part {part!r}; it takes {known}")
        if part == "words":
            return self.word_width
        return self.image_width if part in OF_PICTURES else self.text_width
