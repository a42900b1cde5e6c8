"""The indexes against each other: recall, speed, memory, building, loading, over a million vectors.

The vectors are drawn, with a fixed seed, from a mixture with one centre for every 25 of them.  Centres and the noise
around them have the spectrum measured on the vectors of the benchmark KB (variance of the i-th axis falls as i to the
power -0.87); the share of the noise (0.35) is such that the cosines of the first and the sixteenth neighbour are those
of that KB (0.74, 0.62); everything is turned by a random rotation, so that no coordinate is worth more than another.
Queries are fresh points of the same mixture.  LOCALMEL_BENCH_VECTORS draws fewer than a million;
LOCALMEL_BENCH_KINDS=int8,hnsw-axes measures these alone (float32, which they are held against, is always there).
Needs 6 GB of disk and of memory, and half an hour on two free cores, most of it for the graphs."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.run import Figure
from localmel.index import KINDS, ExactSettings, IndexFacts, VectorIndex, build_index, choose, load_index, recall_of
from localmel.index.axes import AxesIndex
from localmel.index.hnsw import HnswIndex

Made = TypeVar("Made")
N, WIDTH, K = int(os.environ.get("LOCALMEL_BENCH_VECTORS", "1000000")), 512, 16
POINTS_PER_CENTRE, NOISE, DECAY, SEED = 25, 0.35, 0.87, 20261121
BATCH, ROUNDS, SINGLES = 128, 5, 15
MEASURED = os.environ.get("LOCALMEL_BENCH_KINDS", ",".join(KINDS)).split(",")
EFS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)
TUNED_FOR = 0.983
"Recall that ef is raised to on the tuning queries; what is reported is the recall on others."


class Mixture:
    """Where vectors and queries are drawn from."""

    def __init__(self, n: int) -> None:
        self._random = np.random.default_rng(SEED)
        self._deviations = (np.arange(1, WIDTH + 1) ** (-DECAY / 2)).astype(np.float32)
        self._rotation = np.linalg.qr(self._random.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
        self._centres = self._spread(max(1, n // POINTS_PER_CENTRE))

    def _spread(self, n: int) -> NDArray[Any]:
        return self._random.standard_normal((n, WIDTH), dtype=np.float32) * self._deviations

    def draw(self, n: int) -> NDArray[Any]:
        """(n, width) unit rows."""
        centres = self._centres[self._random.integers(len(self._centres), size=n)]
        points = np.float32((1 - NOISE) ** 0.5) * centres + np.float32(NOISE**0.5) * self._spread(n)
        points = points @ self._rotation
        return points / np.linalg.norm(points, axis=1, keepdims=True)


def measure(shared: Path) -> list[Figure]:
    """Every kind of index over the same vectors; the vectors stand in a temporary folder that goes afterwards."""
    del shared
    folder = Path(tempfile.mkdtemp(prefix="localmel-index-"))
    try:
        return measured(folder, N)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measured(folder: Path, n: int) -> list[Figure]:
    """The figures for n vectors."""
    mixture = Mixture(n)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, WIDTH))
    for start in range(0, n, 50_000):
        vectors[start : start + 50_000] = mixture.draw(min(50_000, n - start))
    tuning, queries = mixture.draw(500), mixture.draw(1000)
    bench = _Bench(folder, vectors, queries)
    figures = bench.about("float32", bench.exact, bench.exact_seconds)
    for kind in KINDS[1:]:
        if kind in MEASURED:
            figures += bench.graph(kind, tuning) if kind.startswith("hnsw") else bench.against_float32(kind)
    return figures


class _Bench:
    def __init__(self, folder: Path, vectors: NDArray[Any], queries: NDArray[Any]) -> None:
        self._folder = folder
        self._vectors = vectors
        self._queries = queries
        self.exact, self.exact_seconds = timed(lambda: build_index(vectors, ExactSettings()))
        self._truth = self.exact.search(queries, K)[1]

    def about(self, kind: str, index: VectorIndex, build_seconds: float) -> list[Figure]:
        """Recall, build, memory, load."""
        facts = IndexFacts(space="drawn", width=WIDTH, made_from=str(SEED))
        _, saving = timed(lambda: index.save(self._folder / kind, facts))
        load_index(self._folder / kind, facts)
        _, loading = timed(lambda: load_index(self._folder / kind, facts).search(self._queries[:1], K))
        shutil.rmtree(self._folder / kind)
        recall = recall_of(index.search(self._queries, K)[1], self._truth)
        goal = {"int8": 0.99, "hnsw": 0.98, "hnsw-axes": 0.98}.get(kind)
        return [
            figure(f"{kind}: {recall}", f"{recall.share:.4f}", goal, recall.share, "at least"),
            figure(f"{kind}: bytes per entity", f"{index.n_bytes / len(index):,.0f}"),
            figure(f"{kind}: build / save / load and first answer, seconds",
                   f"{build_seconds:.1f} / {saving:.1f} / {loading:.2f}"),
        ]  # fmt: skip

    def against_float32(self, kind: str) -> list[Figure]:
        """One more exact kind, its speed as a ratio of runs that alternate with those of float32."""
        index, seconds = timed(lambda: build_index(self._vectors, ExactSettings(kind=kind)))
        figures = self.about(kind, index, seconds)
        if kind == "int8":
            share = index.n_bytes / self.exact.n_bytes
            figures.append(figure("int8: memory as a share of float32", f"{share:.3f}", 0.26, share, "at most"))
        goal = 2.0 if kind == "int8" else None
        with one_thread():
            figures.append(self._faster(kind, index, BATCH, "one thread", goal))
            figures.append(self._faster(kind, index, 1, "one thread", None))
        figures.append(self._faster(kind, index, BATCH, "all threads", None))
        figures.append(self._faster(kind, index, 1, "all threads", None))
        return figures

    def graph(self, kind: str, tuning: NDArray[Any]) -> list[Figure]:
        """A graph, built by every core."""
        index, seconds = timed(lambda: build_index(self._vectors, choose(kind, len(self._vectors))))
        assert isinstance(index, HnswIndex | AxesIndex)
        return self.built_graph(kind, index, seconds, tuning)

    def built_graph(
        self, kind: str, index: HnswIndex | AxesIndex, seconds: float, tuning: NDArray[Any]
    ) -> list[Figure]:
        """The figures of a graph, its ef found on other queries than those it is measured on."""
        truth = self.exact.search(tuning, K)[1]
        shares: dict[int, float] = {}
        least = index.settings.rescored if isinstance(index, AxesIndex) else 0
        for ef in (ef for ef in EFS if ef >= least):
            index.set_ef_search(ef)
            shares[ef] = recall_of(index.search(tuning, K)[1], truth).share
            if shares[ef] >= TUNED_FOR:
                break
        tried = ", ".join(f"{ef}: {share:.4f}" for ef, share in shares.items())
        shape = f"M {index.settings.neighbours}, ef_construction {index.settings.ef_construction}"
        if isinstance(index, AxesIndex):
            shape += f", {index.settings.axes} axes, {index.settings.rescored} rescored"
        figures = [figure(f"{kind} ({shape}): ef chosen, and recall on tuning queries", f"{ef} ({tried})")]
        figures += self.about(kind, index, seconds)
        with one_thread():  # hnswlib takes one thread for one query anyway
            figures.append(self._faster(kind, index, 1, "one thread", 20))
        figures.append(self._faster(kind, index, BATCH, "all threads", None))
        return figures

    def _faster(self, kind: str, index: VectorIndex, batch: int, threads: str, goal: float | None) -> Figure:
        def some(i: int) -> NDArray[Any]:
            return self._queries[i * batch % 512 :][:batch]

        ratio, times = alternated(
            lambda i: self.exact.search(some(i), K),
            lambda i: index.search(some(i), K),
            ROUNDS if batch > 1 else SINGLES,
        )
        at_once = "one query" if batch == 1 else f"{batch} queries"
        name = f"{kind}: times as fast as float32, {at_once} at a time, {threads}"
        ours, theirs = times[1] / batch * 1e3, times[0] / batch * 1e3
        return figure(name, f"{ratio:.1f} ({ours:.2f} against {theirs:.2f} ms/query)", goal, ratio, "at least")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch take one thread: a ratio that a busy machine disturbs less."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def timed(make: Callable[[], Made]) -> tuple[Made, float]:
    """What was made, and the seconds it took."""
    start = time.perf_counter()
    made = make()
    return made, time.perf_counter() - start


def alternated(
    one: Callable[[int], object], other: Callable[[int], object], rounds: int
) -> tuple[float, tuple[float, float]]:
    """Run both in turn.  -> the median of the ratios one / other, and the median seconds of each."""
    one(0), other(0)
    pairs = [(timed(lambda i=i: one(i))[1], timed(lambda i=i: other(i))[1]) for i in range(1, rounds + 1)]
    ratio = statistics.median(first / second for first, second in pairs)
    return ratio, (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))


def figure(name: str, value: str, goal: float | None = None, found: float = 0.0, side: str = "") -> Figure:
    """A row; with a goal, whether it was reached."""
    if goal is None:
        return Figure(section="index", name=name, value=value)
    reached = found <= goal if side == "at most" else found >= goal
    return Figure(section="index", name=name, value=value, asked=f"{side} {goal:g}", reached=reached)
