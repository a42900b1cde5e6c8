"""A comparison in sentences: which system leads, which differences are significant, and how the numbers were computed.

In: what was compared.  Out: plain text for the terminal, Markdown and the page alike.  "Not significant" comes with the
smallest difference that so many mentions could have detected; it never means "equal"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from localmel.evaluate.comparison import Compared, ComparedDataset, SystemAnswer
from localmel.evaluate.protocol import EvaluationSettings
from localmel.evaluate.resamples import Estimate
from localmel.evaluate.significance import FEW_SENTENCES, LEVEL, POWER, PairedTest

_NAMED = 4
"Up to this many items are listed by name; of more only the first ones."


def summary_of(compared: Compared) -> list[str]:
    """Summarise each dataset in a sentence or two, after one sentence about all of them where there are several."""
    each = [_summary_of_dataset(one) for one in compared.datasets]
    return each if len(each) == 1 else [_summary_of_all(compared.datasets), *each]


def _summary_of_all(datasets: Sequence[ComparedDataset]) -> str:
    leaders = {one.leader: [other.dataset for other in datasets if other.leader == one.leader] for one in datasets}
    if len(leaders) > 1:
        led = [f"{name} on {_listed(on)}" for name, on in leaders.items()]
        return f"No system leads everywhere: {_listed(led)} has the highest HITS@1."
    ((leader, _),) = leaders.items()
    others = [name for name in datasets[0].systems if name != leader]
    beaten = [name for name in others if all(one.pair(leader, name).better == leader for one in datasets)]
    said = f"{leader} has the highest HITS@1 on all {len(datasets)} datasets"
    if not beaten:
        return f"{said}, but is not significantly better than any other system on all of them."
    who = "every other system" if len(beaten) == len(others) else _listed(beaten)
    return f"{said}, and is significantly better than {who} on all of them."


def _summary_of_dataset(one: ComparedDataset) -> str:
    leader = one.leader
    tests = [one.pair(leader, other) for other in one.systems if other != leader]
    better = [_better(test, leader) for test in tests if test.significant]
    level = [_not_significant(test, leader) for test in tests if not test.significant]
    said = [f"{one.dataset}: {leader} has the highest HITS@1, {one.metrics[leader]['hits@1']}."]
    said += [f"It is significantly better than {_listed(better)}."] if better else []
    said += [f"It is not significantly better than {_listed(level)}."] if level else []
    return " ".join(said)


def _better(test: PairedTest, leader: str) -> str:
    return f"{_other(test, leader)} (by {_seen_from(test, leader)})"


def _not_significant(test: PairedTest, leader: str) -> str:
    smallest = "too few mentions to detect any" if test.smallest is None else f"{test.smallest:.3f} would be detectable"
    return f"{_other(test, leader)} ({signed(_seen_from(test, leader))}; {smallest})"


def _other(test: PairedTest, one: str) -> str:
    return test.second if test.first == one else test.first


def _seen_from(test: PairedTest, one: str) -> Estimate:
    """Return the difference in HITS@1 as `one` minus the other system."""
    return test.hits_at_1 if test.first == one else test.hits_at_1.negated()


def _listed(parts: Sequence[str]) -> str:
    if len(parts) > _NAMED:
        parts = [*parts[: _NAMED - 1], f"{len(parts) - _NAMED + 1} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def verdict_of(test: PairedTest) -> str:
    """Return `A is better` or `not significant`, for a table."""
    return f"{test.better} is better" if test.better else "not significant"


def signed(one: Estimate) -> str:
    """Format a difference as `+0.098 [+0.083, +0.112]`."""
    if one.low is None or one.high is None:
        return plus(one.value)
    return f"{plus(one.value)} [{plus(one.low)}, {plus(one.high)}]"


def plus(value: float) -> str:
    """Format a number with its sign; what rounds to zero has none."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("-0.000", "+0.000") else text


def p_value(value: float) -> str:
    """Format a p-value with three decimals, or as smaller than that."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def smallest_p(compared: Compared) -> float:
    """Return the smallest corrected p-value that the bootstrap can give."""
    return min(1.0, 2.0 / (compared.settings.samples + 1) * max(compared.tests, 1))


def method_in_words(compared: Compared) -> list[str]:
    """Explain how the numbers were computed, one or two sentences per line."""
    return [*_metrics_in_words(compared.settings), *_tests_in_words(compared)]


def warnings_of(compared: Compared) -> list[str]:
    """Say what makes the numbers less certain than they look."""
    few = [one.dataset for one in compared.datasets if one.n_sentences < FEW_SENTENCES]
    if not few:
        return []
    return [
        f"{', '.join(few)}: fewer than {FEW_SENTENCES} sentences. Bootstrap intervals are too narrow there, and have "
        "no width at all where a system is always right."
    ]


def failed_open_notes(answers: Mapping[str, Mapping[str, Sequence[SystemAnswer]]]) -> list[str]:
    """Say where the counted answers are not those of the reranking model, because it gave none.

    answers: dataset -> system -> one answer per mention."""
    failed: dict[str, list[bool]] = {}
    for systems in answers.values():
        for name, ones in systems.items():
            failed.setdefault(name, []).extend(bool(one.details.failed_open) for one in ones)
    return [
        f"{name}: the model gave no usable answer for {sum(found):,} of {len(found):,} mentions; their retrieval order "
        "is counted instead."
        for name, found in failed.items()
        if any(found)
    ]


def _metrics_in_words(settings: EvaluationSettings) -> list[str]:
    return [
        "HITS@k and MRR are over mentions whose gold is in the KB; accuracy and ECE are over all mentions, NIL "
        f"included. An answer is one of the K = {settings.k} candidates, or NIL; a gold outside the K is a miss. "
        "Among equal scores the gold gets their mean rank.",
        f"[low, high]: 95% percentile bootstrap, {settings.samples:,} resamples of whole sentences, seed "
        f"{settings.seed}; all systems, metrics and slices of a dataset share the same resamples.",
    ]


def _tests_in_words(compared: Compared) -> list[str]:
    return [
        f"A difference in HITS@1 is significant where two tests both give p < {LEVEL:.2f} after Holm's correction for "
        f"all {compared.tests} pairs of this report: McNemar's exact test, which is valid for few mentions but treats "
        "them as independent; and the paired bootstrap, which keeps the mentions of a sentence together but is rough "
        f"for few. The smallest corrected p of the bootstrap is {smallest_p(compared):.3f}.",
        "Smallest detectable difference: the smallest true difference in HITS@1 that these tests would find in "
        f"{POWER:.0%} of such samples, given how often the two systems differ and how strongly mentions are clustered "
        "in sentences. \u201cNot significant\u201d means that no difference was shown; it does not mean that there is "
        "none.",
        "MRR, accuracy and the slices have intervals but no tests: they are for exploration and not corrected for "
        "multiple comparisons.",
    ]
