"""Figures that others published, to stand beside ours and never in one column with them.

In: nothing.  Out: rows with their source, and why they cannot be compared with what `localmel eval` prints.  HITS@1 in
percent, ranking over the whole KB, test splits, as the sources state them."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Published figures, not comparable with the rows above"
DATASETS = ("WikiMEL", "RichpediaMEL", "WikiDiverse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One method; None where the source gives no figure."""

    method: str
    hits_at_1: tuple[float | None, float | None, float | None]
    "In percent, in the order of DATASETS."
    source: str


_MIMIC = "table in the repository of MIMIC (KDD 2023)"
_KGMEL = "online page of KGMEL (SIGIR 2025), after reranking"

PUBLISHED = (
    Published(method="KGMEL, GPT-4o-mini triples, GPT-3.5 reranker", hits_at_1=(90.58, 85.21, 88.23), source=_KGMEL),
    Published(method="KGMEL, LLaVA-1.6-7B triples", hits_at_1=(86.22, 81.94, 86.43), source=_KGMEL),
    Published(method="KGMEL, LLaVA-1.6-13B triples", hits_at_1=(85.96, 83.26, 85.94), source=_KGMEL),
    Published(
        method="KGMEL, retrieval only",
        hits_at_1=(87.29, 76.40, 82.12),
        source="online page of KGMEL (SIGIR 2025), mean of three runs",
    ),
    Published(method="MMoE", hits_at_1=(90.77, 85.51, 77.57), source="training logs in its repository (KDD 2025)"),
    Published(method="M3EL", hits_at_1=(88.84, 82.82, 74.06), source="training logs in its repository"),
    Published(
        method="OT-MEL",
        hits_at_1=(88.97, 83.30, 66.07),
        source="a secondary page on arXiv 2406.01934; not checked against the paper",
    ),
    Published(method="MIMIC", hits_at_1=(87.98, 81.02, 63.51), source=_MIMIC),
    Published(method="CLIP", hits_at_1=(83.23, 67.78, 61.21), source=_MIMIC),
    Published(method="ALBEF", hits_at_1=(78.64, 65.17, 60.59), source=_MIMIC),
    Published(method="GHMFC", hits_at_1=(76.55, 72.92, 60.27), source=_MIMIC),
    Published(method="BLINK", hits_at_1=(74.66, 58.47, 57.14), source=_MIMIC),
    Published(method="BERT", hits_at_1=(74.82, 59.55, 55.77), source=_MIMIC),
)

REASONS = (
    "KB: theirs hold 109,976 (WikiMEL), 160,935 (RichpediaMEL) and 132,460 (WikiDiverse) entities; a row above was "
    "asked over the KB that its run names.",
    "Split and selection: theirs are test figures. The published KGMEL code chooses its epoch, and when to stop, on "
    "the test split; localmel chooses on val.",
    "Counting: the KGMEL code counts mentions of one sentence with the same gold once in retrieval; after reranking an "
    "answer is right there when it merely contains the gold's label, even where the gold was no candidate.",
    "Data: of 5,012 sentences of WikiMEL's test split 983 stand in its training split too; localmel refuses such a "
    "split or leaves them out. MMoE and M3EL replaced files of the datasets by their own.",
)
