"""The bootstrap against mentions and clusters drawn one by one, and against its promise of 95%."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from localmel.evaluate.metrics import area_under_roc
from localmel.evaluate.resamples import Resamples, ratio

Bootstrap = Callable[..., tuple[float, float, float]]


def clusters_of(n: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"s{random.integers(n // 3 + 1)}" for _ in range(n)]


def drawn_mentions(resamples: Resamples, sample: int) -> list[int]:
    """The mentions of one resample, each as often as its cluster was drawn: the slow truth."""
    times = resamples.counts[sample]
    return [mention for mention, cluster in enumerate(resamples.cluster) for _ in range(times[cluster])]


def test_sums_are_those_of_the_mentions_drawn_one_by_one() -> None:
    random = np.random.default_rng(1)
    resamples = Resamples(clusters_of(40, 2), samples=30, seed=3)
    columns = random.random((40, 2))
    members = np.flatnonzero(random.random(40) < 0.6)
    totals = resamples.totals(columns[members], members)
    chosen = set(members.tolist())
    for sample in range(30):
        slow = sum((columns[one] for one in drawn_mentions(resamples, sample) if one in chosen), np.zeros(2))
        assert totals[sample] == pytest.approx(slow)


def test_areas_are_those_of_the_mentions_drawn_one_by_one() -> None:
    random = np.random.default_rng(4)
    resamples = Resamples(clusters_of(30, 5), samples=60, seed=6)
    members = np.flatnonzero(random.random(30) < 0.7)
    positive, score = random.random(30) < 0.2, random.integers(0, 4, 30) / 4
    areas = resamples.areas(positive[members], score[members], members)
    chosen = set(members.tolist())
    for sample in range(60):
        mentions = [one for one in drawn_mentions(resamples, sample) if one in chosen]
        slow = area_under_roc(positive[mentions], score[mentions])
        assert areas[sample] == pytest.approx(slow, nan_ok=True)


def test_large_sums_are_taken_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    resamples = Resamples(clusters_of(50, 7), samples=100)
    members, columns = np.arange(50), np.arange(100.0).reshape(50, 2)
    positive, score = columns[:, 0] % 3 == 0, columns[:, 1] % 7
    whole = resamples.totals(columns, members), resamples.areas(positive, score, members)
    monkeypatch.setattr("localmel.evaluate.resamples._CELLS", 300)
    parts = resamples.totals(columns, members), resamples.areas(positive, score, members)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_a_share_is_that_of_clusters_drawn_one_by_one(bootstrap: Bootstrap) -> None:
    clusters = clusters_of(90, 8)
    hits = (np.random.default_rng(9).random(90) < 0.6).astype(float)
    share = Resamples(clusters, samples=500, seed=10).share(hits, np.ones(90), np.arange(90))
    assert (share.value, share.low, share.high) == pytest.approx(bootstrap(hits, clusters, samples=500, seed=10))
    assert (share.n, str(share)) == (90, f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]")


def test_every_resample_draws_as_many_clusters_as_there_are() -> None:
    resamples = Resamples(clusters_of(60, 11), samples=20)
    assert (resamples.counts.sum(axis=1) == resamples.counts.shape[1]).all()
    again, other = Resamples(clusters_of(60, 11), samples=20), Resamples(clusters_of(60, 11), samples=20, seed=1)
    assert (resamples.counts == again.counts).all()
    assert (resamples.counts != other.counts).any()


def test_one_sentence_alone_has_no_interval() -> None:
    resamples = Resamples(["a", "a", "b"], samples=50)
    assert resamples.interval(np.ones(50), np.array([0, 1])) == (None, None)
    assert resamples.interval(np.ones(50), np.array([0, 2])) == (1.0, 1.0)
    assert resamples.interval(np.full(50, np.nan), np.array([0, 2])) == (None, None)


def test_no_mentions_can_be_resampled_and_no_resamples_cannot() -> None:
    assert Resamples([], samples=5).counts.shape == (5, 0)
    with pytest.raises(ValueError, match="0 resamples"):
        Resamples(["a"], samples=0)


def test_nothing_to_divide_by_is_no_number_and_no_warning() -> None:
    assert ratio(np.array([1.0, 3.0]), np.array([0.0, 2.0])).tolist() == pytest.approx([np.nan, 1.5], nan_ok=True)


def test_the_interval_of_clustered_mentions_covers_the_truth_95_times_in_100() -> None:
    """Sentences of 1 to 5 mentions that share how hard they are; drawing mentions alone would cover far less."""
    random = np.random.default_rng(12)
    covered, missed_alone, simulations, n_sentences = 0, 0, 1000, 150
    for seed in range(simulations):
        size = random.integers(1, 6, n_sentences)
        ease = np.repeat(random.beta(1.4, 0.6, n_sentences), size)  # mean .7
        hits = (random.random(len(ease)) < ease).astype(float)
        columns = np.stack([hits, np.ones(len(hits))], axis=1)
        sentence = np.repeat(np.arange(n_sentences), size)
        bounds = []
        for clusters in (sentence, np.arange(len(hits))) if seed < 200 else (sentence,):
            resamples = Resamples([f"{one}" for one in clusters], samples=300, seed=seed)
            sums = resamples.totals(columns, np.arange(len(hits)))
            low, high = resamples.interval(sums[:, 0] / sums[:, 1], np.arange(len(hits)))
            assert low is not None
            assert high is not None
            bounds.append(low <= 0.7 <= high)
        covered += bounds[0]
        missed_alone += not bounds[-1] if seed < 200 else 0
    assert 0.93 <= covered / simulations <= 0.97
    assert missed_alone / 200 > 0.1  # so often the interval that takes mentions alone misses
