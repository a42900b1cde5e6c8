"""The probability of a choice is the product over its tokens, whatever way it is asked for."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localmel.engines.answers import chosen, normalised
from localmel.engines.choices import choice_tokens
from localmel.engines.protocol import Message, Request
from localmel.errors import BadInput

END = 99
WORDS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def made_up(beginning: tuple[int, ...], token: int) -> float:
    """A model: the probability of a token after a beginning, over a, b, c and the end."""
    weights = {one: 1 + (hash((beginning, one)) % 17) for one in (*letters("abc"), END)}
    return weights[token] / sum(weights.values())


def probability(tokens: tuple[int, ...]) -> float:
    return math.prod(made_up(tokens[:place], token) for place, token in enumerate(tokens))


@given(WORDS)
def test_logprobs_are_those_of_the_whole_choice(words: list[str]) -> None:
    its = choice_tokens(words, letters, END)
    told = {
        beginning: {token: math.log(made_up(beginning, token)) for token in tokens}
        for beginning, tokens in its.asked_after().items()
    }
    starts_another = any(one != other and other.startswith(one) for one, other in product(words, words))
    wanted = {word: (*letters(word), END) if starts_another else tuple(letters(word)) for word in words}
    assert its.logprobs(told) == pytest.approx({word: math.log(probability(its)) for word, its in wanted.items()})
    assert its.lengths == {word: len(tokens) for word, tokens in wanted.items()}
    assert next(iter(its.asked_after())) == ()


@given(WORDS)
def test_each_beginning_is_asked_about_once_and_only_where_a_choice_goes_on(words: list[str]) -> None:
    its = choice_tokens(words, letters, END)
    edges = [(beginning, token) for beginning, tokens in its.asked_after().items() for token in tokens]
    wanted = {(tokens[:place], token) for tokens in its.tokens.values() for place, token in enumerate(tokens)}
    assert set(edges) == wanted
    assert len(edges) == len(wanted)


def test_single_tokens_are_one_question() -> None:
    its = choice_tokens(("a", "b", "c"), letters, END)
    assert its.asked_after() == {(): (97, 98, 99)}
    assert its.longest == 1


def test_choices_that_are_the_same_to_the_model_are_refused() -> None:
    with pytest.raises(BadInput, match="choices 'a' and 'A' have the same tokens"):
        choice_tokens(("a", "A"), lambda text: letters(text.lower()), END)
    with pytest.raises(BadInput, match="choice '…' has no tokens"):
        choice_tokens(("a", "…"), lambda text: [] if text == "…" else letters(text), END)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-2000, 50), min_size=1, max_size=9))
def test_normalised_logprobs_sum_to_one_and_keep_their_order(logprobs: dict[str, float]) -> None:
    shares = normalised(logprobs)
    assert math.fsum(math.exp(value) for value in shares.values()) == pytest.approx(1)
    assert shares[max(logprobs, key=lambda one: logprobs[one])] == max(shares.values())


def test_where_nothing_is_told_nothing_is_normalised() -> None:
    with pytest.raises(BadInput, match="no probability for any of the 2 choices"):
        normalised({"a": -math.inf, "b": -math.inf})
    assert normalised({"a": 0.0, "b": -math.inf}) == {"a": 0.0, "b": -10_000.0}


def test_a_temperature_draws_as_often_as_the_probabilities_say() -> None:
    shares = {"a": math.log(0.7), "b": math.log(0.2), "c": math.log(0.1)}
    messages = (Message(role="user", parts=("?",)),)
    drawn = [
        chosen(Request(id="1", messages=messages, choices=("a", "b", "c"), temperature=1.0, seed=seed), shares)
        for seed in range(3000)
    ]
    assert [drawn.count(one) / 3000 for one in "abc"] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    cold = Request(id="1", messages=messages, choices=("c", "b", "a"))
    assert chosen(cold, shares) == "a"
