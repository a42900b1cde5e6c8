"""The paper's own counting, as a labelled extra: never mixed with the strict numbers, never used for selection.

In: the rank of the gold in a full order, and an LLM's free answer.  Out: HITS and MRR as the published KGMEL code
counts them.  It differs from the strict protocol in four ways: mentions of one sentence with the same gold count once
in retrieval; equal scores keep the order in which entities are stored; an answer is right when it merely contains the
gold's label; and it may be right although the gold was not among the candidates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localmel.errors import BadInput
from localmel.records import EntityId, MentionId

LABEL = "paper protocol, not comparable"
"Accompanies every number computed here."

RETRIEVAL_AT = (1, 3, 5, 10, 16, 100)
RERANKED_AT = (1, 3, 5, 10, 16)

_INDEXED = re.compile(r"(?P<item>.+)-(?P<index>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperMention:
    """One mention with its gold in the KB."""

    mention_id: MentionId
    gold: EntityId
    rank: float
    "Rank of the gold in a stable sort of all scores, from 1; infinity where it has none."
    answered: bool | None = None
    "Whether `lenient_hit` accepts the answer; None where none was requested.  For all mentions or for none."

    def __post_init__(self) -> None:
        if not self.rank >= 1.0:
            raise ValueError(f"mention {self.mention_id!r} has rank {self.rank}; ranks start at 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCounts:
    """HITS@k and MRR by the paper's protocol, without intervals, as published."""

    n_mentions: int
    n_keys: int
    "Mentions left after merging those of one sentence with the same gold."
    retrieval: Mapping[str, float]
    "`hits@k` and `mrr`, over the keys."
    reranked: Mapping[str, float] | None
    "`hits@k` and `mrr`, over all mentions; None where no answers were requested."


def paper_key(mention_id: MentionId, gold: EntityId) -> str:
    """Turn `ITEM-INDEX` into `ITEM-gold`, the key that merges mentions of one sentence with the same gold.

    An id that does not end in a dash and digits is an item with one mention."""
    return f"{_item_and_index(mention_id)[0]}-{gold}"


def lenient_hit(response: str, gold: EntityId, gold_label: str = "") -> bool:
    """Accept a response whose first Q-number is the gold, or that contains the gold's label, in any case.

    By this rule a response that only repeats the mention is often right; a blank label is ignored.
    Source: published code of KGMEL, module/rerank.py."""
    first = re.search(r"Q\d+", response)
    if first and first.group() == gold:
        return True
    return bool(gold_label.strip()) and gold_label.lower() in response.lower()


def paper_counts(mentions: Sequence[PaperMention]) -> PaperCounts:
    """Count retrieval once per key (the last mention of a sentence decides), and reranking over all mentions.

    After reranking an accepted answer has rank 1, any other one rank below retrieval.  The order of `mentions` does
    not matter.  Raises BadInput for no mentions, a repeated mention, or answers for only some."""
    if not mentions:
        raise BadInput("no mentions with a gold in the KB to count")
    if len({one.mention_id for one in mentions}) < len(mentions):
        raise BadInput(f"{len(mentions)} mentions, but only {len({one.mention_id for one in mentions})} ids")
    ordered = sorted(mentions, key=lambda one: _item_and_index(one.mention_id))
    by_key = {paper_key(one.mention_id, one.gold): one.rank for one in ordered}
    answers = [one for one in ordered if one.answered is not None]
    if answers and len(answers) < len(ordered):
        raise BadInput(f"{len(answers)} of {len(ordered)} mentions have an answer; all must, or none")
    after = [1.0 if one.answered else one.rank + 1.0 for one in answers]
    return PaperCounts(
        n_mentions=len(ordered),
        n_keys=len(by_key),
        retrieval=_hits_and_mrr(list(by_key.values()), RETRIEVAL_AT),
        reranked=_hits_and_mrr(after, RERANKED_AT) if after else None,
    )


def _hits_and_mrr(ranks: Sequence[float], at: Sequence[int]) -> dict[str, float]:
    hits = {f"hits@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in at}
    return {**hits, "mrr": sum(1.0 / rank for rank in ranks) / len(ranks)}


def _item_and_index(mention_id: MentionId) -> tuple[str, int]:
    found = _INDEXED.fullmatch(mention_id)
    return (found["item"], int(found["index"])) if found else (mention_id, 0)
