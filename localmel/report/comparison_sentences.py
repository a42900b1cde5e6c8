"""A comparison in sentences: who leads, what is beyond chance, what cannot be told apart, and how it was counted.

In: what was compared.  Out: plain text for the terminal, Markdown and the page alike.  "Not distinguishable" is said in
words, with the smallest difference that so many mentions could have shown; it never means "equal"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localmel.evaluate.comparison import Compared, ComparedDataset, SystemAnswer
from localmel.evaluate.protocol import EvaluationSettings
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import FEW_SENTENCES, LEVEL, POWER, PairedTest

_NAMED = 4
"Of so many others each is named; of more only the first ones."


def summary_of(compared: Compared) -> list[str]:
    """The whole in one sentence where there are several datasets, then a sentence or two for each."""
    each = [_of_dataset(one) for one in compared.datasets]
    return each if len(each) == 1 else [_of_all(compared.datasets), *each]


def _of_all(datasets: Sequence[ComparedDataset]) -> str:
    leaders = {one.leader: [other.dataset for other in datasets if other.leader == one.leader] for one in datasets}
    if len(leaders) > 1:
        led = [f"{name} on {_listed(on)}" for name, on in leaders.items()]
        return f"No system leads everywhere: {_listed(led)} has the highest HITS@1."
    ((leader, _),) = leaders.items()
    others = [name for name in datasets[0].systems if name != leader]
    beaten = [name for name in others if all(one.pair(leader, name).better == leader for one in datasets)]
    said = f"{leader} has the highest HITS@1 on all {len(datasets)} datasets"
    if not beaten:
        return f"{said}, but is not beyond chance better than any other on all of them."
    who = "every other" if len(beaten) == len(others) else _listed(beaten)
    return f"{said}, and on all of them is better than {who} beyond chance."


def _of_dataset(one: ComparedDataset) -> str:
    leader = one.leader
    hits = one.metrics[leader]["hits@1"]
    tests = [one.pair(leader, other) for other in one.systems if other != leader]
    better = [test for test in tests if test.significant]
    level = [test for test in tests if not test.significant]
    head = f"{one.dataset}: {leader} has the highest HITS@1, {hits}."
    if not better:
        return f"{head} It is not distinguishable from {_listed([_level(test, leader) for test in level])}."
    said = f"{head} It is better than {_listed([_better(test, leader) for test in better])}"
    if not level:
        return f"{said}; every difference is beyond chance." if len(better) > 1 else f"{said}, beyond chance."
    return f"{said}, beyond chance; not distinguishable from {_listed([_level(test, leader) for test in level])}."


def _better(test: PairedTest, leader: str) -> str:
    return f"{_other(test, leader)} (by {_seen_from(test, leader)})"


def _level(test: PairedTest, leader: str) -> str:
    return f"{_other(test, leader)} ({signed(_seen_from(test, leader))}, {_could_show(test)})"


def _could_show(test: PairedTest) -> str:
    if test.smallest is None:
        return "where so few mentions can show nothing"
    return f"where {test.smallest:.3f} would show"


def _other(test: PairedTest, one: str) -> str:
    return test.second if test.first == one else test.first


def _seen_from(test: PairedTest, one: str) -> Estimate:
    """The difference in HITS@1 as `one` minus the other."""
    return test.hits_at_1 if test.first == one else test.hits_at_1.negated()


def _listed(parts: Sequence[str]) -> str:
    if len(parts) > _NAMED:
        parts = [*parts[: _NAMED - 1], f"{len(parts) - _NAMED + 1} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def verdict_of(test: PairedTest) -> str:
    """`A is better` or `not distinguishable`, for a table."""
    return f"{test.better} is better" if test.better else "not distinguishable"


def signed(one: Estimate) -> str:
    """`+0.098 [+0.083, +0.112]`."""
    if one.low is None or one.high is None:
        return f"{plus(one.value)}"
    return f"{plus(one.value)} [{plus(one.low)}, {plus(one.high)}]"


def plus(value: float) -> str:
    """With its sign, and none for what rounds to nothing."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("-0.000", "+0.000") else text


def p_value(value: float) -> str:
    """Three decimals, or that it is less."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def smallest_p(compared: Compared) -> float:
    """Below this the resamples cannot tell p-values apart."""
    return min(1.0, 2.0 / (compared.settings.samples + 1) * max(compared.tests, 1))


def method_in_words(compared: Compared) -> list[str]:
    """How the numbers came about, one sentence or two per line."""
    return [*_counting(compared.settings), *_testing(compared)]


def warnings_of(compared: Compared) -> list[str]:
    """What makes the numbers less sure than they look."""
    few = [one.dataset for one in compared.datasets if one.n_sentences < FEW_SENTENCES]
    if not few:
        return []
    return [
        f"{', '.join(few)}: fewer than {FEW_SENTENCES} sentences. Resampled intervals are too narrow there, and "
        "where a system is right every time they say nothing at all."
    ]


def failed_open_notes(given: Mapping[str, Mapping[str, Sequence[SystemAnswer]]]) -> list[str]:
    """Where the answers counted are not those of the model that was to choose.

    given: dataset -> system -> one answer per mention."""
    told: dict[str, list[bool]] = {}
    for systems in given.values():
        for name, answers in systems.items():
            told.setdefault(name, []).extend(bool(one.details.failed_open) for one in answers)
    return [
        f"{name}: the model gave no usable answer for {sum(failed):,} of {len(failed):,} mentions; retrieval's order "
        "is counted there."
        for name, failed in told.items()
        if any(failed)
    ]


def _counting(settings: EvaluationSettings) -> list[str]:
    return [
        "HITS@k and MRR are over mentions whose gold is in the KB; accuracy and ECE over all, NIL included. "
        f"An answer is one of the K = {settings.k} candidates, or NIL; a gold outside the K is a miss. "
        "Among equal scores the gold takes the mean of the places it shares with them.",
        f"[low, high]: 95% percentile bootstrap, {settings.samples:,} resamples of whole sentences, seed "
        f"{settings.seed}, the same resamples for all systems, metrics and slices of a dataset.",
    ]


def _testing(compared: Compared) -> list[str]:
    return [
        f"Two systems are told apart by HITS@1 where both of two tests, corrected by Holm for all {compared.tests} "
        f"pairs of this report, give p < {LEVEL:.2f}: McNemar's exact test, which holds for few mentions but takes "
        "them as independent; and the resampled difference, which keeps the mentions of a sentence together but is "
        f"rough for few. The latter cannot give a corrected p below {smallest_p(compared):.3f}.",
        f"\u201cWould show\u201d: the smallest true difference in HITS@1 that these tests would find in {POWER:.0%} of "
        "such samples, given how often these two systems differ and how far sentences hold mentions together. "
        "\u201cNot distinguishable\u201d means that no difference was shown; it does not mean that there is none.",
        "MRR, accuracy and the slices have intervals and no test: they are there to look at, and are not corrected for "
        "being many.",
    ]
