"""A report to show: systems with hostile names, captions that would run, turn and break a page; and a real browser."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.evaluate.answer_details import AnswerDetails, Costs
from localmel.evaluate.comparison import SystemAnswer, compare_systems, disagreements_of, sample_of
from localmel.evaluate.position_bias import Offer, position_bias
from localmel.evaluate.protocol import Outcome
from localmel.evaluate.triple_quality import triple_quality
from localmel.records import Candidate, Triple
from localmel.report.comparison import ComparedSystem, ComparisonReport, ShownEntity, ShownMention
from localmel.report.html.pages import comparison_page

HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>\"'&amp;\u202egnp.exe\u202c\x1b[31m\x00"
)
"Markup, quotes, an entity, a turn of direction, and control characters."
ARABIC = "\u200fالقاهرة\u200f في المساء"
SYSTEMS = ("linker", "$x_1$ </svg><script>window.owned = 1</script>")


def picture(seed: int, side: int = 320) -> str:
    """Noise, which JPEG cannot make small: the largest picture there can be."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def make_report(
    *,
    n: int = 60,
    systems: tuple[str, ...] = SYSTEMS,
    datasets: tuple[str, ...] = ("one <b>", "two"),
    examples: int = 40,
) -> ComparisonReport:
    """The first system is right on nine of ten mentions, every further one on fewer."""
    given = {name: {system: _given(n, place) for place, system in enumerate(systems)} for name in datasets}
    found = {name: disagreements_of(name, one) for name, one in given.items()}
    shown = tuple(one for each in found.values() for one in sample_of(each, examples // len(datasets)))
    half = frozenset(f"{number:04d}" for number in range(n // 2))
    slices = {name: {"type: <i>human</i>": half, "empty": frozenset[str]()} for name in datasets}
    compared = compare_systems(
        {name: {key: [x.outcome for x in ones] for key, ones in one.items()} for name, one in given.items()},
        k=16,
        calibrated=systems[:1],
        slices=slices,
    )
    return ComparisonReport(
        compared=compared,
        systems={name: _system(name, place, given[datasets[0]][name]) for place, name in enumerate(systems)},
        differs={(systems[0], other): ("withheld nothing / <u>triples</u>",) for other in systems[1:]},
        inputs={"split": "val", "K": "16", "KB state": "a" * 64},
        notes=("A note with <em>markup</em>.",),
        n_disagreements={name: len(one) for name, one in found.items()},
        examples=shown,
        mentions={(one.dataset, one.mention_id): _mention(one.mention_id, half) for one in shown},
        entities={
            "Q1": ShownEntity(id="Q1", label="Right & proper", description=HOSTILE, triples=("team: <b>Bulls</b>",)),
            "Q9": ShownEntity(id="Q9", label=ARABIC, description="wrong"),
        },
    )


def _given(n: int, place: int) -> list[SystemAnswer]:
    ones = []
    for number in range(n):
        right = number % 10 != 0 if place == 0 else number % (3 + place) != 0
        outcome = Outcome(
            mention_id=f"{number:04d}",
            cluster=f"s{number // 2}",
            gold="Q1",
            rank=1.0 if right else 2.0,
            among_candidates=True,
            predicted="Q1" if right else f"Q9{'' if place < 2 else place}",
            probability=round(0.5 + (number % 50) / 100, 3),
        )
        best, other = ("Q1", "Q9") if right else ("Q9", "Q1")
        candidates = (Candidate(entity_id=best, score=0.7), Candidate(entity_id=other, score=0.2))
        triples = (Triple(head="x", relation="seen as", tail=HOSTILE, source="image"),)
        ones.append(
            SystemAnswer(
                outcome=outcome, candidates=candidates, details=AnswerDetails(triples=triples if place else None)
            )
        )
    return ones


def _mention(mention_id: str, half: frozenset[str]) -> ShownMention:
    number = int(mention_id)
    return ShownMention(
        before=f"{ARABIC} " if number % 4 == 0 else "A sentence with ",
        surface=f"Jordan {number}",
        after=f" and {HOSTILE}",
        picture=picture(number, 64) if number % 3 == 0 else "",
        picture_note="there is no picture '<i>gone</i>.jpg'" if number % 3 == 1 else "",
        slices=("type: <i>human</i>",) if mention_id in half else (),
    )


def _system(name: str, place: int, given: list[SystemAnswer]) -> ComparedSystem:
    offers = [
        Offer(cluster=x.outcome.cluster, offered=("Q1", "Q9"), chosen=x.outcome.predicted, gold="Q1") for x in given
    ]
    bias = position_bias(offers, samples=50)
    assert bias is not None
    said = {x.outcome.mention_id: x.details.triples or () for x in given}
    known = {mention: [Triple(head="x", relation="team", tail="Bulls", source="kb")] for mention in said}
    clusters = {x.outcome.mention_id: x.outcome.cluster for x in given}
    quality = triple_quality(said, known, clusters, lambda a, b: np.zeros((len(a), len(b))), samples=50)
    return ComparedSystem(
        name=name,
        run=f"run {place}",
        system="linker",
        command=f"localmel eval DATA --out '{HOSTILE}'",
        costs=Costs(mentions_per_second=10.0 / (place + 1), prompt_tokens=900.0, peak_memory_bytes=2**33),
        facts={"profile": "embedded", "withheld": "nothing"},
        position_bias={"one <b>": bias} if place else {},
        triples={"one <b>": quality} if place else {},
    )


@pytest.fixture(scope="session")
def make() -> Callable[..., ComparisonReport]:
    return make_report


@pytest.fixture(scope="session")
def report() -> ComparisonReport:
    return make_report()


@pytest.fixture(scope="session")
def page(report: ComparisonReport) -> str:
    """The report as HTML."""
    return comparison_page(report)


def _chromium() -> str | None:
    """A browser of this machine, or the one that playwright brought."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found:
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        own = started.chromium.executable_path
    return own if Path(own).is_file() else None


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skipped with the reason where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    path = _chromium()
    if path is None:
        pytest.skip("no Chromium here (apt-get install chromium, or playwright install chromium)")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
