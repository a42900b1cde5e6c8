"""What is drawn in a recovery world: mentions and their entities, with the answer in one place and noise elsewhere.

In: a source of chance, how many rows, how many distractors.  Out: both sides as every matcher may look at them.
No drawing comes twice, so nothing is learnt by heart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from localmel.matchers.kgmel.network import PackedTriples
from localmel.matchers.protocol import Features, Tokens

WIDTH = 24
"Length of every vector, and how many concepts there are."
N_KINDS = 12
"Of what a mention may name; kinds and what tells entities apart lie in different halves of a vector."
_NOISE = 0.1
"Length of what is added to a vector that two rows share."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One side of a drawing, as every matcher may look at it; row i of mentions belongs to row i of entities."""

    features: Features
    triples: PackedTriples
    more: Mapping[str, Tokens] = field(default_factory=dict)
    "What DWE+ sees besides: names, objects, faces, attributes, identities, written descriptions."


Drawing = tuple[Rows, Rows]
"Mentions and their entities."


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where the answer lies, and how one is drawn."""

    name: str
    draw: Callable[[Generator, int, int], Drawing]
    "(chance, n rows, n distractors) -> n mentions and their entities."
    distractors: int = 8
    "Beside what holds the answer, at its hardest; training also sees fewer."


def _units(chance: Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, WIDTH, generator=chance), dim=-1)


def _blurred(chance: Generator, vectors: Tensor) -> Tensor:
    return F.normalize(vectors + _NOISE * _units(chance, *vectors.shape[:-1]), dim=-1)


def _hidden(chance: Generator, keys: Tensor, n_distractors: int) -> Tensor:
    """(n, 1 + n_distractors, width): each row's key, blurred, in a random place among random vectors."""
    tokens = _units(chance, len(keys), 1 + n_distractors)
    places = torch.randint(1 + n_distractors, (len(keys),), generator=chance)
    tokens[torch.arange(len(keys)), places] = _blurred(chance, keys)
    return tokens


def _rows(
    chance: Generator,
    n: int,
    *,
    text: Tensor | None = None,
    words: Tensor | None = None,
    image: Tensor | None = None,
    patches: Tensor | None = None,
    triples: tuple[Tensor, Tensor] | None = None,
    more: Mapping[str, Tensor] | None = None,
    one_word: bool = False,
) -> Rows:
    """n rows.  Wholes that are not given are noise; tokens (n, length, width) that are not given are not there.

    one_word: the text is its only word, so that M3EL, for which a text has words, sees it."""
    text = _units(chance, n) if text is None else text
    words = text[:, None] if one_word else words
    values, there = {}, {}
    for name, tokens in (("words", words), ("patches", patches)):
        values[name] = torch.zeros(n, 1, WIDTH) if tokens is None else tokens
        there[name] = torch.full(values[name].shape[:2], tokens is not None)
    features = Features(
        text=text,
        words=values["words"],
        is_word=there["words"],
        image=_units(chance, n) if image is None else image,
        patches=values["patches"],
        is_patch=there["patches"],
    )
    return Rows(
        features=features,
        triples=packed_rows(n, *(triples or (torch.zeros(n, 0, WIDTH),) * 2)),
        more={name: _all_there(tokens) for name, tokens in (more or {}).items()},
    )


def _all_there(values: Tensor) -> Tokens:
    return Tokens(values=values, there=torch.ones(values.shape[:2], dtype=torch.bool))


def packed_rows(n: int, tails: Tensor, relations: Tensor) -> PackedTriples:
    """tails, relations: (n, t, width)."""
    each = torch.arange(tails.shape[0] * tails.shape[1])
    starts = torch.arange(n + 1) * tails.shape[1]
    return PackedTriples(
        tails=tails.reshape(-1, WIDTH), relations=relations.reshape(-1, WIDTH),
        pair_tail=each, pair_relation=each, triples=each, starts=starts,
    )  # fmt: skip


def _whole_text(chance: Generator, n: int, n_distractors: int) -> Drawing:
    keys, others = _units(chance, n), [_units(chance, n, 1 + n_distractors) for _ in range(2)]
    mention = _rows(chance, n, text=_blurred(chance, keys), words=others[0])
    return mention, _rows(chance, n, text=keys, words=others[1])


def _whole_picture(chance: Generator, n: int, n_distractors: int) -> Drawing:
    keys, others = _units(chance, n), [_units(chance, n, 1 + n_distractors) for _ in range(2)]
    mention = _rows(chance, n, image=_blurred(chance, keys), patches=others[0])
    return mention, _rows(chance, n, image=keys, patches=others[1])


def _one_word(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """The mention's text as a whole says nothing; one of its words is the entity's name."""
    keys = _units(chance, n)
    mention = _rows(chance, n, words=_hidden(chance, keys, n_distractors))
    return mention, _rows(chance, n, text=keys, words=_blurred(chance, keys)[:, None])


def _one_patch(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """The mention's picture as a whole says nothing; one of its patches shows the entity, as its portrait does."""
    keys = _units(chance, n)
    mention = _rows(chance, n, patches=_hidden(chance, keys, n_distractors))
    return mention, _rows(chance, n, image=keys, patches=_blurred(chance, keys)[:, None])


def _word_and_patch(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """Every row names some concepts and shows some; exactly one is both named and shown, and it is the entity's.

    A mention shares as many words with its entity as with any other one, and as many patches: neither alone says
    anything, nor do both without their agreement (see `_alike`)."""
    size = 1 + n_distractors
    own = F.one_hot(torch.randperm(WIDTH, generator=chance)[:n], WIDTH).bool()
    named = own | _picked(chance, ~own, torch.full((n,), size - 1))
    shown = own | _picked(chance, ~named, torch.full((n,), size - 1))
    also_named = _alike(chance, named, own, ~own, size)
    also_shown = _alike(chance, shown, own, ~also_named, size)
    rows = [
        _rows(chance, n, words=_blurred(chance, _concepts(words)), patches=_blurred(chance, _concepts(patches)))
        for words, patches in ((also_named, also_shown), (named, shown))
    ]
    return rows[0], rows[1]


def _one_triple(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """One triple of each row has the relation that tells entities apart, and the mention's has its entity's tail."""
    keys = _units(chance, n)
    relations = torch.eye(WIDTH)
    rows = []
    for tails in (_blurred(chance, keys), keys):
        others = torch.randint(1, WIDTH, (n, n_distractors), generator=chance)
        numbers = torch.cat([torch.zeros(n, 1, dtype=torch.int64), others], dim=1)
        triples = torch.cat([tails[:, None], _units(chance, n, n_distractors)], dim=1), relations[numbers]
        rows.append(_rows(chance, n, triples=triples))
    return rows[0], rows[1]


def _picked(chance: Generator, allowed: Tensor, counts: Tensor) -> Tensor:
    """allowed: (n, concepts) bool, counts: (n,).  As many of each row at random, or all that are allowed."""
    drawn = torch.rand(allowed.shape, generator=chance).masked_fill(~allowed, -1.0)
    places = drawn.argsort(dim=1, descending=True).argsort(dim=1)
    return (places < counts[:, None]) & allowed


def _alike(chance: Generator, other: Tensor, own: Tensor, allowed: Tensor, size: int) -> Tensor:
    """(n, concepts) sets of `size` with the own concept, which share as much with `other` as unrelated sets do.

    How much two unrelated sets share is drawn by drawing one."""
    unrelated = _picked(chance, torch.ones_like(own), torch.full((len(own),), size))
    in_common = (unrelated & other).sum(dim=1).clamp(min=1)
    chosen = own | _picked(chance, allowed & ~own & other, in_common - 1)
    chosen = chosen | _picked(chance, allowed & ~own & ~other, size - chosen.sum(dim=1))
    return chosen | _picked(chance, allowed & ~chosen, size - chosen.sum(dim=1))


def _concepts(sets: Tensor) -> Tensor:
    """(n, concepts) bool, equally many in each row -> (n, size, width) their vectors."""
    return torch.eye(WIDTH)[sets.nonzero()[:, 1].view(len(sets), -1)]


# --- what DWE+ looks at -----------------------------------------------------------------------------------------


def _of_a_kind(kinds: Tensor, contents: Tensor) -> Tensor:
    """Unit vectors (..., width): a kind (...), and what tells entities apart (..., width - N_KINDS)."""
    return F.normalize(torch.cat([torch.eye(N_KINDS)[kinds], F.normalize(contents, dim=-1)], dim=-1), dim=-1)


def _among_kinds(chance: Generator, n: int, n_distractors: int, first: Tensor | None = None) -> tuple[Tensor, ...]:
    """Each row has vectors of different kinds, one of which holds the answer; each (n, ..., width).

    Returns the kinds that are named (or `first`, (n,), as they are given), the vectors in random order, and what the
    entity shows: the answer's content and no kind."""
    drawn = torch.rand(n, N_KINDS, generator=chance)
    if first is not None:
        drawn = drawn.scatter(1, first[:, None], -1.0)
    kinds = drawn.argsort(dim=1)[:, : 1 + n_distractors]
    contents = torch.randn(n, 1 + n_distractors, WIDTH - N_KINDS, generator=chance)
    vectors = _blurred(chance, _of_a_kind(kinds, contents))
    order = torch.rand(n, 1 + n_distractors, generator=chance).argsort(dim=1)
    shuffled = vectors.gather(1, order[:, :, None].expand(-1, -1, WIDTH))
    shown = torch.cat([torch.zeros(n, N_KINDS), F.normalize(contents[:, 0], dim=1)], dim=1)
    return torch.eye(WIDTH)[kinds[:, :1]], shuffled, shown


def _one_of_the_named_kind(part: str) -> Callable[[Generator, int, int], Drawing]:
    """The mention names a kind; of its many words, objects or faces the one of that kind is its entity's.

    What an entity shows says nothing of its kind, and a mention's name nothing of its entity."""

    def draw(chance: Generator, n: int, n_distractors: int) -> Drawing:
        names, vectors, shown = _among_kinds(chance, n, n_distractors)
        if part == "words":
            return _rows(chance, n, words=vectors, more={"name": names}), _rows(chance, n, text=shown, one_word=True)
        more = {"name": names, part: vectors}
        seen = _units(chance, n, 1 + n_distractors), _units(chance, n, 1)
        mention = _rows(chance, n, patches=seen[0], more=more)
        return mention, _rows(chance, n, image=shown, patches=seen[1])

    return draw


def _one_attribute(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """Of the attributes that a picture shows, the first kind stands in the entity's text, whatever the mention is."""
    _, vectors, shown = _among_kinds(chance, n, n_distractors, first=torch.zeros(n, dtype=torch.int64))
    mention = _rows(chance, n, more={"name": _units(chance, n, 1), "attributes": vectors})
    return mention, _rows(chance, n, text=shown, one_word=True)


def _one_identity(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """Of the portraits that a face is like, the one that bears the mention's name is its entity."""
    names, vectors, shown = _among_kinds(chance, n, n_distractors)
    mention = _rows(chance, n, more={"name": names, "identity": vectors})
    return mention, _rows(chance, n, text=shown, one_word=True)


def _written(chance: Generator, n: int, n_distractors: int) -> Drawing:
    """What a model wrote of an entity says it; its own text does not."""
    keys = _units(chance, n)
    mention = _rows(chance, n, text=_blurred(chance, keys), words=_units(chance, n, 1 + n_distractors))
    return mention, _rows(chance, n, more={"written": keys[:, None]}, one_word=True)


WORLDS = (
    World(name="whole text", draw=_whole_text),
    World(name="one word", draw=_one_word),
    World(name="whole picture", draw=_whole_picture),
    World(name="one patch", draw=_one_patch),
    World(name="word and patch", draw=_word_and_patch, distractors=5),
    World(name="one triple", draw=_one_triple),
    World(name="word of the named kind", draw=_one_of_the_named_kind("words")),
    World(name="one object", draw=_one_of_the_named_kind("objects")),
    World(name="one face", draw=_one_of_the_named_kind("faces")),
    World(name="an attribute", draw=_one_attribute),
    World(name="an identity", draw=_one_identity),
    World(name="written text", draw=_written),
)
