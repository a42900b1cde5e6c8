"""Random small KBs with random vectors: few words, so that names, tails and scores are often equal."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.encode.kb_vectors import KbVectors
from localmel.encode.space import Space
from localmel.kb.names import NameIndex, NameMatch
from localmel.kb.packed import PackedKb, pack
from localmel.kb.store import KnowledgeBase

WIDTH = 6
WORDS = (
    "jordan jordans river rivers team the of kingdom king basketball basket amman 23 x chicago bulls sea dead".split()
)
RELATIONS = ["sport", "country", "described by"]


@dataclass(frozen=True)
class World:
    """A KB with everything that a mention is weighed by."""

    kb: KnowledgeBase
    packed: PackedKb
    vectors: KbVectors
    chance: random.Random

    def phrase_texts(self) -> list[str]:
        from localmel.kb.packed import phrase_texts

        return list(phrase_texts(self.kb, self.packed))

    def some_words(self, least: int, most: int) -> list[str]:
        return self.chance.choices(WORDS, k=self.chance.randint(least, most))

    def units(self, n: int) -> Any:
        values = np.random.default_rng(self.chance.randrange(1 << 30)).standard_normal((n, WIDTH)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    def candidates(self, surface: str) -> tuple[Any, list[NameMatch | None]]:
        """Positions and matches: those by name, then some others."""
        matches: list[NameMatch | None] = list(NameIndex(self.kb).find(surface, limit=12))
        named = [int(self.packed.positions(np.array([match.row]))[0]) for match in matches if match]
        others = [place for place in range(len(self.packed.rows)) if place not in named]
        extra = self.chance.sample(others, min(len(others), self.chance.randint(0, 4)))
        return np.array([*named, *extra], np.int64), [*matches, *[None] * len(extra)]


@pytest.fixture
def new_world(tmp_path: Path, change_kb: Callable[..., Path]) -> Iterator[Callable[..., World]]:
    opened = []

    def make(seed: int, *, phrases_of_first: int = 0) -> World:
        chance = random.Random(seed)
        entities: list[dict[str, object]] = []
        facts = []
        for number in range(chance.randint(3, 25)):
            row: dict[str, object] = {
                "id": f"Q{number}",
                "label": " ".join(chance.choices(WORDS, k=chance.randint(1, 3))),
            }
            if chance.random() < 0.7:
                row["description"] = " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))
            if chance.random() < 0.6:
                row["popularity"] = chance.choice([0.0, 0.25, 0.5, 0.5, 1.0])
            if chance.random() < 0.5:
                row["aliases"] = [" ".join(chance.choices(WORDS, k=chance.randint(1, 2)))]
            entities.append(row)
            for _ in range(chance.choice([0, 0, 1, 3, 6])):
                tail = " ".join(chance.choices(WORDS, k=chance.randint(1, 4)))
                facts.append((f"Q{number}", chance.choice(RELATIONS), "", tail))
        facts += [("Q0", "numbered", "", f"town {number}") for number in range(phrases_of_first)]
        kb = KnowledgeBase(change_kb(entities, facts, name=f"world{seed}"))
        opened.append(kb)
        packed = pack(kb)
        world = World(
            kb,
            packed,
            KbVectors(
                space=Space(name="random", width=WIDTH, weights_sha256=""), entities=[], phrases=[], relations=[]
            ),
            chance,
        )
        vectors = KbVectors(
            space=world.vectors.space,
            entities=world.units(len(packed.rows)).astype(np.float16),
            phrases=world.units(len(packed.phrase_triple)).astype(np.float16).reshape(-1, WIDTH),
            relations=world.units(len(RELATIONS)).astype(np.float16),
        )
        return World(kb, packed, vectors, chance)

    yield make
    for kb in opened:
        kb.close()
