"""Mentions a second, pictures a second, and how long whole commands take."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.mel_kb import benchmark_kb, shipped_network
from bench.run import ROOT, Figure
from localmel.benchmarks.json_lines import read_split
from localmel.captions import Caption
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.minilm import MiniLM
from localmel.examples import read_examples
from localmel.generate.embedded import stated_triples
from localmel.linker import Linker
from localmel.matchers.kgmel.fused import fuse_kb, fused_folder, load_fused
from localmel.matchers.kgmel.mention_vectors import mention_arrays
from localmel.runs.whole_kb import rank_in_kb

MENTIONS_EACH, REPEATS, RANKED = 1000, 5, 2000


def measure(shared: Path) -> list[Figure]:
    """Everything about speed."""
    return [*_mentions(shared), *_whole_kb(shared), _pictures(), *_commands()]


def _whole_kb(shared: Path) -> list[Figure]:
    """Fusing every entity with text vectors at hand, and ranking 2,000 mentions against all of them."""
    import numpy as np

    kb, encoder, network = benchmark_kb(shared), MiniLM(method="torch"), shipped_network()
    packed, vectors = load_vectors(kb, encoder.space)
    entities = np.array(load_fused(kb, packed, network))
    shutil.rmtree(fused_folder(kb, network))
    start = time.perf_counter()
    fuse_kb(kb, packed, vectors, network)
    fusing = time.perf_counter() - start
    split = read_split(shared / "data" / "mel" / "wikimel-val.jsonl")
    rows = dict(kb.select("SELECT id, row FROM entities"))
    mentions = [mention for mention in split.mentions if split.gold[mention.id]][:RANKED]
    gold = packed.positions(np.array([rows[split.gold[mention.id]] for mention in mentions]))
    text, triples = mention_arrays(mentions, [stated_triples(mention, ()) for mention in mentions], encoder.encode)
    fused = network.network.fuse(text=text, triples=triples)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        rank_in_kb(fused, entities, gold, [mention.id for mention in mentions], k=16)
        seconds.append(time.perf_counter() - start)
    return [
        Figure(
            section="speed", name=f"fusing {len(entities):,} entities, seconds", value=f"{fusing:.1f}",
            asked="at most 60", reached=fusing <= 60,
        ),
        Figure(
            section="speed", name=f"ranking {len(mentions):,} mentions against them, seconds",
            value=f"{min(seconds):.1f} (median {sorted(seconds)[REPEATS // 2]:.1f})",
            asked="at most 3", reached=min(seconds) <= 3,
        ),
    ]  # fmt: skip


def _mentions(shared: Path) -> list[Figure]:
    figures = []
    linker = Linker(benchmark_kb(shared), encoder=MiniLM(method="torch"))
    total, spent = 0, 0.0
    for name in ("richpediamel", "wikimel", "wikidiverse"):
        mentions = read_split(shared / "data" / "mel" / f"{name}-train.jsonl").mentions[-MENTIONS_EACH:]
        captions = [Caption(text=mention.context, spans=(mention.span,)) for mention in mentions]
        for _ in linker.link_many(captions[:64]):
            pass
        start = time.perf_counter()
        done = sum(len(answer.mentions) for answer in linker.link_many(captions))
        seconds = time.perf_counter() - start
        total, spent = total + done, spent + seconds
        figures.append(Figure(section="speed", name=f"mentions/s, {name}, text only", value=f"{done / seconds:.0f}"))
    rate = total / spent
    return [
        *figures,
        Figure(
            section="speed", name="mentions/s over all three", value=f"{rate:.0f}", asked="at least 150",
            reached=rate >= 150,
        ),
    ]  # fmt: skip


def _pictures() -> Figure:
    from localmel.engines.pictures import open_picture
    from localmel.generate.visible_text import visible_lines
    from localmel.settings import GenerateSettings

    settings = GenerateSettings()
    pictures = [example.picture for example in read_examples()]
    visible_lines(open_picture(pictures[0]), settings)
    start = time.perf_counter()
    for picture in pictures:
        visible_lines(open_picture(picture), settings)
    rate = len(pictures) / (time.perf_counter() - start)
    return Figure(section="speed", name="pictures read/s", value=f"{rate:.1f}", asked="at least 3", reached=rate >= 3)


def _commands() -> list[Figure]:
    picture = next(read_examples()).picture
    sentence = "Jordan dunks on Barkley"
    asked: list[tuple[str, Sequence[str], float]] = [
        ("localmel --help, seconds", ["--help"], 0.3),
        ("localmel link without picture, seconds", ["link", "-", sentence], 2.5),
        ("localmel link with picture, seconds", ["link", str(picture), sentence], 4.0),
    ]
    command = [str(Path(sys.executable).parent / "localmel")]
    subprocess.run([*command, *asked[1][1]], check=True, stdout=subprocess.DEVNULL)  # builds the starter KB
    figures = []
    for name, arguments, limit in asked:
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=os.environ)
            times.append(time.perf_counter() - start)
        value = f"{min(times):.2f} (median {sorted(times)[REPEATS // 2]:.2f})"
        figures.append(
            Figure(section="start", name=name, value=value, asked=f"at most {limit}", reached=min(times) <= limit)
        )
    return figures
