"""Mentions that share a sentence or a picture are drawn together, however long the chain between them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from localmel.records import Mention, Span
from localmel.runs.questions import MOST_SENTENCES, clusters_of

PICTURES = {Path(f"{number}.png"): f"hash-{number % 4}" for number in range(6)}
"Six files, of which 0 and 4, and 1 and 5, hold the same picture."


def mention(sentence: str, picture: int | None = None, *, number: int = 0) -> Mention:
    image = None if picture is None else Path(f"{picture}.png")
    return Mention(
        id=f"m{number}", surface=sentence, context=sentence, span=Span(start=0, end=len(sentence)), image=image
    )


def found(*pairs: tuple[str, int | None]) -> list[str]:
    return clusters_of([mention(*pair) for pair in pairs], PICTURES)[0]


def test_without_shared_pictures_a_cluster_is_its_sentence() -> None:
    assert found(("b", 0), ("a", 1), ("b", 0), ("c", None), ("c", None)) == ["b", "a", "b", "c", "c"]


def test_sentences_beside_one_picture_are_one_cluster_whatever_the_file_is_called() -> None:
    assert found(("b", 0), ("a", 0), ("c", 1)) == ["a", "a", "c"]
    assert found(("b", 0), ("a", 4), ("c", 2)) == ["a", "a", "c"]


def test_a_sentence_with_two_pictures_joins_what_stands_beside_either() -> None:
    assert found(("d", 0), ("c", 0), ("c", 1), ("b", 1), ("a", 2)) == ["b", "b", "b", "b", "a"]


def test_a_picture_that_is_not_there_joins_nobody() -> None:
    assert clusters_of([mention("a", 9), mention("b", 9)], PICTURES) == (["a", "b"], 0)


def test_a_stand_in_for_missing_pictures_joins_nobody_and_is_counted() -> None:
    many = [mention(f"sentence {number:02}", 0) for number in range(MOST_SENTENCES + 1)]
    clusters, joining_none = clusters_of(many, PICTURES)
    assert (len(set(clusters)), joining_none) == (MOST_SENTENCES + 1, 1)
    clusters, joining_none = clusters_of(many[:-1], PICTURES)
    assert (set(clusters), joining_none) == ({"sentence 00"}, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 5))), max_size=14))
def test_clusters_are_connected_components(pairs: list[tuple[str, int | None]]) -> None:
    """Against the definition: together are two between which a chain of shared sentences and pictures leads."""
    mentions = [mention(*pair) for pair in pairs]
    clusters, _ = clusters_of(mentions, PICTURES)
    hashes = [None if picture is None else PICTURES[Path(f"{picture}.png")] for _, picture in pairs]
    together = [
        [
            one == other
            or pairs[one][0] == pairs[other][0]
            or (hashes[one] is not None and hashes[one] == hashes[other])
            for other in range(len(pairs))
        ]
        for one in range(len(pairs))
    ]
    for middle in range(len(pairs)):
        for one in range(len(pairs)):
            for other in range(len(pairs)):
                together[one][other] |= together[one][middle] and together[middle][other]
    for one in range(len(pairs)):
        assert clusters[one] == min(pairs[other][0] for other in range(len(pairs)) if together[one][other])
        for other in range(len(pairs)):
            assert (clusters[one] == clusters[other]) == together[one][other]
