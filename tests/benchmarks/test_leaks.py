"""What stands in two splits is counted, refused, or dropped from the later one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.benchmarks import drop_leaked, leak_between, refuse_leaks
from localmel.benchmarks.json_lines import place_mention
from localmel.errors import BadInput
from localmel.records import Split

Given = tuple[str, str, str]
"Id, surface, sentence."


def split(name: str, *mentions: Given) -> Split:
    return Split(
        name=name,
        mentions=tuple(place_mention(mention_id, surface, sentence) for mention_id, surface, sentence in mentions),
        gold={mention_id: "Q1" for mention_id, _, _ in mentions},
    )


TRAIN = split("train", ("1-0", "Ada", "Ada met Bob."), ("2-0", "Carl", "Carl sat."))


def test_a_sentence_or_an_id_in_common_is_a_leak() -> None:
    test = split(
        "test",
        ("9-0", "Bob", "Ada  met\u00a0Bob. "),
        ("2-0", "Carl", "Carl stood."),
        ("1-0", "Ada", "Ada met Bob."),
        ("8-0", "Dora", "Dora ran."),
    )
    leak = leak_between(TRAIN, test)
    assert leak.mention_ids == ("9-0", "2-0", "1-0")
    assert (leak.by_sentence, leak.by_id, leak.sentences, leak.of) == (2, 2, 2, 4)
    with pytest.raises(BadInput, match=r"3 of 4 mentions of test are also in train \(2 by their sentence, 2") as caught:
        refuse_leaks(TRAIN, test)
    assert "--drop-leaked" in caught.value.hint


def test_a_mention_that_was_put_in_front_of_its_sentence_leaks_all_the_same() -> None:
    test = split("test", ("9-0", "Adam", "Ada met Bob."))
    assert test.mentions[0].context == "Adam: Ada met Bob."
    assert leak_between(TRAIN, test).mention_ids == ("9-0",)
    assert leak_between(test, split("val", ("7", "Bert", "Ada met Bob."))).mention_ids == ("7",)


def test_mentions_without_a_sentence_are_not_all_the_same() -> None:
    assert leak_between(split("train", ("1", "Ada", "")), split("test", ("2", "Bob", ""))).mention_ids == ()
    assert leak_between(split("train", ("1", "Ada", "")), split("test", ("2", "Ada", ""))).mention_ids == ("2",)


def test_splits_with_nothing_in_common_pass() -> None:
    refuse_leaks(TRAIN, split("test", ("8-0", "Dora", "Dora ran.")))
    refuse_leaks(TRAIN, split("test"))


def test_the_later_split_loses_and_the_order_given_stays() -> None:
    val = split("wikimel-val", ("1-0", "Ada", "Ada met Bob."), ("3-0", "Eve", "Eve sang."))
    test = split("wikimel_test", ("5", "Eve", "Eve sang."), ("6", "Carl", "Carl sat."), ("7", "Fay", "Fay swam."))
    train = split("wikimel-train", *((one.id, one.surface, one.context) for one in TRAIN.mentions))
    dropped = drop_leaked([test, val, train])
    assert [(one.name, list(one.gold)) for one in dropped.splits] == [
        ("wikimel_test", ["7"]),
        ("wikimel-val", ["3-0"]),
        ("wikimel-train", ["1-0", "2-0"]),
    ]
    assert dict(dropped.counts) == {"wikimel_test": 2, "wikimel-val": 1, "wikimel-train": 0}
    assert dropped.total == 3
    assert dropped.splits[2] is train


NAMES = st.sampled_from(["Ada", "Bob", "x"])
MENTIONS = st.lists(
    st.tuples(st.sampled_from("abcdef"), NAMES, st.sampled_from(["Ada met Bob", "Bob", "", "Ada: Bob", "Carl"])),
    max_size=5,
    unique_by=lambda mention: mention[0],
)


@given(train=MENTIONS, val=MENTIONS, test=MENTIONS)
def test_after_dropping_nothing_is_left_to_refuse_and_nothing_else_is_gone(
    train: Sequence[Given], val: Sequence[Given], test: Sequence[Given]
) -> None:
    splits = [split("train", *train), split("val", *val), split("test", *test)]
    dropped = drop_leaked(splits)
    for index, later in enumerate(dropped.splits):
        for earlier in dropped.splits[:index]:
            refuse_leaks(earlier, later)
        gone = set(splits[index].gold) - set(later.gold)
        assert len(gone) == dropped.counts[later.name]
        leaked = {one for earlier in splits[:index] for one in leak_between(earlier, splits[index]).mention_ids}
        assert gone == leaked
