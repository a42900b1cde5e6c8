"""How often the linker is right on val, how well it knows, and what the KB's own knowledge is worth.

The mention is given, the whole KB is searched.  HITS@1 is over mentions whose gold is in the KB: the candidate put
first, whether or not NIL was said.  Nothing here is fitted or chosen on what is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.mel_kb import benchmark_kb
from bench.run import Figure
from localmel.benchmarks.json_lines import read_split
from localmel.captions import Caption
from localmel.encode.minilm import MiniLM
from localmel.evaluate.metrics import area_under_roc, expected_calibration_error, f1_of
from localmel.evaluate.resamples import Resamples
from localmel.kb.names import NameIndex
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.records import Split
from localmel.settings import Profile, load_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASKED = {"richpediamel": 0.87, "wikimel": 0.86, "wikidiverse": 0.88}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What came out for one split, mention by mention."""

    first: list[str | None]  # the candidate put first, NIL or not
    answer: list[str | None]  # None: NIL
    probability: NDArray[Any]  # of the answer
    nil: NDArray[Any]  # 1 - probability of all candidates together


def without_counts(profile: Profile) -> Profile:
    """The same profile with nothing that counts how much the KB knows of an entity."""
    return replace(
        profile,
        retrieve=replace(profile.retrieve, use_counts=False),
        rerank=replace(profile.rerank, weights="evidence-scorer-no-counts"),
    )


def measure(shared: Path) -> list[Figure]:
    """All datasets, with counts and without."""
    import numpy as np

    kb = benchmark_kb(shared)
    encoder = MiniLM(method="torch")
    profile = load_profile("embedded")
    figures: list[Figure] = []
    probability, correct = [], []
    for name, asked in ASKED.items():
        split = read_split(shared / "data" / "mel" / f"{name}-val.jsonl")
        full = _answers(Linker(kb, profile, top_k=128, encoder=encoder), split)
        plain = _answers(Linker(kb, without_counts(profile), top_k=128, encoder=encoder), split)
        figures.append(_hits(name, "HITS@1 in-KB", split, full.first, asked=asked))
        figures.append(_hits(name, "HITS@1 in-KB, without counts", split, plain.first))
        by_name = "HITS@1 in-KB, by name alone"
        figures.append(
            _hits(name, f"{by_name}, equal names by popularity", split, _by_name(kb, split, use_counts=True))
        )
        figures.append(_hits(name, f"{by_name}, equal names shuffled", split, _by_name(kb, split, use_counts=False)))
        right = np.array([answer == split.gold[m.id] for answer, m in zip(full.answer, split.mentions, strict=True)])
        error = expected_calibration_error(full.probability, right)
        figures.append(
            Figure(
                section=name, name="calibration error", value=f"{error:.3f}", asked="at most .05", reached=error <= 0.05
            )
        )
        figures.append(Figure(section=name, name="right answers, NIL included", value=f"{right.mean():.3f}"))
        probability.append(full.probability)
        correct.append(right)
        if name == "wikidiverse":
            figures += _nil(name, split, full)
    error = expected_calibration_error(np.concatenate(probability), np.concatenate(correct))
    figures.append(
        Figure(
            section="all three",
            name="calibration error",
            value=f"{error:.3f}",
            asked="at most .05",
            reached=error <= 0.05,
        )
    )
    return figures


def _answers(linker: Linker, split: Split) -> Answers:
    import numpy as np

    captions = (Caption(text=mention.context, spans=(mention.span,)) for mention in split.mentions)
    linked = [answer.mentions[0] for answer in linker.link_many(captions)]
    ranked = [one.link.ranking.candidates for one in linked]
    return Answers(
        first=[candidates[0].entity_id if candidates else None for candidates in ranked],
        answer=[one.link.entity_id for one in linked],
        probability=np.array([one.link.probability for one in linked]),
        nil=1.0 - np.array([sum(candidate.score for candidate in candidates) for candidates in ranked]),
    )


def _by_name(kb: KnowledgeBase, split: Split, *, use_counts: bool) -> list[str | None]:
    """The first entity of the name index; with and without counts it tells what popularity alone is worth."""
    names = NameIndex(kb, use_counts=use_counts)
    ids = dict(kb.select("SELECT row, id FROM entities"))
    found = (names.find(mention.surface, limit=1) for mention in split.mentions)
    return [ids[matches[0].row] if matches else None for matches in found]


def _hits(section: str, name: str, split: Split, first: list[str | None], *, asked: float | None = None) -> Figure:
    inside = [
        (float(found == split.gold[mention.id]), mention.context)
        for found, mention in zip(first, split.mentions, strict=True)
        if split.gold[mention.id] is not None
    ]
    import numpy as np

    hits = np.array([hit for hit, _ in inside])
    share = Resamples([sentence for _, sentence in inside]).share(hits, np.ones(len(hits)), np.arange(len(hits)))
    return Figure(
        section=section,
        name=f"{name}, n = {share.n:,}",
        value=str(share),
        asked=f"at least {asked:.2f}" if asked else "",
        reached=share.value >= asked if asked else None,
    )


def _nil(section: str, split: Split, answers: Answers) -> list[Figure]:
    import numpy as np

    actual = np.array([split.gold[mention.id] is None for mention in split.mentions])
    predicted = np.array([answer is None for answer in answers.answer])
    precision, recall, f1 = f1_of(predicted, actual)
    area = area_under_roc(actual, answers.nil)
    value = f"{f1:.3f} (precision {precision:.3f}, recall {recall:.3f})"
    return [
        Figure(section=section, name="NIL AUROC", value=f"{area:.3f}", asked="printed"),
        Figure(section=section, name=f"NIL F1, {actual.mean():.0%} are NIL", value=value, asked="printed"),
    ]
