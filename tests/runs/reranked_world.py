"""A KB of families whose members bear one name, mentions that only a fact tells apart, and a run up to retrieval."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localmel.encode.registry import Encoders
from localmel.encode.space import TextEncoder
from localmel.matchers.kgmel.folder import load_network
from localmel.records import EntityId, MentionId
from localmel.retrieve.profile_models import ProfileModels
from localmel.settings import Profile

FAMILIES, MEMBERS = 16, 6
JOBS = ("painter", "physicist", "footballer", "river", "city", "opera")

Facts = list[tuple[str, str, str, str]]


def entities_and_facts() -> tuple[list[dict[str, object]], Facts]:
    """Each family has one member for each job."""
    entities: list[dict[str, object]] = []
    facts: Facts = []
    for family in range(FAMILIES):
        for member, job in enumerate(JOBS):
            one = f"F{family}-{member}"
            row: dict[str, object] = {"id": one, "label": f"Orlo{family}", "description": f"{job} number {family}"}
            entities.append(row | {"popularity": float(MEMBERS - member)})
            facts += [(one, "occupation", "", job), (one, "known for", "", f"work {family} {member}")]
    return entities, facts


def mentions(*, n: int = 96, nil_every: int = 6) -> list[tuple[str, str, str, EntityId | None]]:
    """(id, sentence, mention, answer); two mentions stand in each sentence."""
    rows: list[tuple[str, str, str, EntityId | None]] = []
    for number in range(n):
        sentence_of = number // 2 * 2
        families = [sentence_of % FAMILIES, (sentence_of + 1) % FAMILIES]
        member = number * 7 % MEMBERS
        sentence = f"Orlo{families[0]} and Orlo{families[1]} came, picture {sentence_of}."
        gold = None if nil_every and number % nil_every == 0 else f"F{families[number % 2]}-{member}"
        rows.append((f"m/{number}", sentence, f"Orlo{families[number % 2]}", gold))
    return rows


def write_benchmark(folder: Path, write_split: Callable[..., None], **given: Any) -> Path:
    folder.mkdir()
    rows = mentions(**given)
    write_split(folder / "orlo-val.jsonl", rows)
    write_split(folder / "orlo-test.jsonl", [(f"t{one}", f"{sentence} Then.", *rest) for one, sentence, *rest in rows])
    return folder


def right_lines(rows: list[tuple[str, str, str, EntityId | None]]) -> dict[MentionId, str | None]:
    """Mention -> how the line of the right candidate begins."""
    right: dict[MentionId, str | None] = {}
    for one, _, surface, gold in rows:
        if gold is None:
            right[one] = None
            continue
        family, _, member = gold[1:].partition("-")
        right[one] = f'"{surface}" | "{JOBS[int(member)]} number {family}"'
    return right


def models_of(encoder: TextEncoder, profile: Profile) -> ProfileModels:
    """The profile's network, and an encoder that no profile names."""
    network = load_network(Path(profile.retrieve.network))
    return ProfileModels(encoders=Encoders(text=encoder, image=None), matcher=network)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
