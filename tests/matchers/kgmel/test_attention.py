"""Attention over packed triples beside the obvious loop, its gradient beside differences, and what it never does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from localmel.matchers.kgmel import attention
from localmel.matchers.kgmel.attention import Summed, attend

TRIPLE_WIDTH, WIDTH, TAILS, RELATIONS = 3, 4, 5, 3
ROWS = {
    "some empty": [2, 0, 4, 1, 0],
    "all empty": [0, 0],
    "one row": [3],
    "one triple": [1],
    "no row": [],
    "in several pieces": [5, 9, 0, 2, 7, 1],
}


def problem(lengths: list[int], seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Few tails and relations, so that pairs occur more than once in a row."""
    chance = torch.Generator().manual_seed(seed)
    b, t = len(lengths), sum(lengths)
    sizes = {"tail_key": (b, TRIPLE_WIDTH), "hidden_key": (b, WIDTH), "tails": (TAILS, TRIPLE_WIDTH)}
    sizes |= {"tail_part": (TAILS, WIDTH), "relation_part": (RELATIONS, WIDTH)}
    made = {name: torch.randn(size, generator=chance, dtype=dtype, requires_grad=True) for name, size in sizes.items()}
    return made | {
        "tail_of": torch.randint(TAILS, (t,), generator=chance),
        "relation_of": torch.randint(RELATIONS, (t,), generator=chance),
        "starts": F.pad(torch.tensor(lengths, dtype=torch.int64).cumsum(0), (1, 0)),
    }


def run(given: dict[str, Tensor], *, kept: int = 2, dropout: float = 0.0, seed: int = 1) -> Summed:
    torch.manual_seed(seed)
    values = [given[name] for name in ("tail_key", "hidden_key", "tails", "tail_part", "relation_part")]
    return attend(
        *values,
        tail_of=given["tail_of"], relation_of=given["relation_of"], starts=given["starts"], kept=kept, dropout=dropout,
    )  # fmt: skip


def by_loop(given: dict[str, Tensor], kept: int) -> Summed:
    """The definition, row by row."""
    sums = []
    for row, (begin, end) in enumerate(zip(given["starts"][:-1].tolist(), given["starts"][1:].tolist(), strict=True)):
        tails = given["tails"][given["tail_of"][begin:end]]
        parts = (
            given["tail_part"][given["tail_of"][begin:end]] + given["relation_part"][given["relation_of"][begin:end]]
        )
        hidden = F.leaky_relu(parts, 0.01)
        weights = (tails @ given["tail_key"][row] + hidden @ given["hidden_key"][row]).softmax(dim=0)
        best = weights.topk(min(kept, end - begin))
        sums.append((best.values @ tails[best.indices], best.values @ hidden[best.indices], best.values.sum()))
    empty = given["tail_key"][:0], given["hidden_key"][:0], given["tail_key"][:0, 0]
    return Summed(*(torch.stack(part) for part in zip(*sums, strict=True))) if sums else Summed(*empty)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here; threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["sampled product", "without it"])
def _both_products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without it":
        monkeypatch.setattr(attention, "_has_sampled_product", lambda _device: False)


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "TRIPLES_AT_ONCE", 6)
    monkeypatch.setattr(attention, "ROWS_AT_ONCE", 3)


@pytest.mark.usefixtures("_both_products", "_small_pieces")
@pytest.mark.parametrize("kept", [1, 2, 20])
@pytest.mark.parametrize("lengths", ROWS.values(), ids=ROWS)
def test_sums_and_gradients_are_those_of_the_loop(lengths: list[int], kept: int) -> None:
    fast, slow = problem(lengths), problem(lengths)
    for found, expected in zip(run(fast, kept=kept), by_loop(slow, kept), strict=True):
        torch.testing.assert_close(found, expected)
    if not sum(lengths):
        return
    for sums in (run(fast, kept=kept), by_loop(slow, kept)):
        sum((part * (2 + part)).sum() for part in sums).backward()
    for name, value in slow.items():
        if value.is_floating_point():
            torch.testing.assert_close(fast[name].grad, value.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("lengths", ROWS.values(), ids=ROWS)
def test_the_gradient_is_that_of_differences(lengths: list[int], dropout: float) -> None:
    given = problem(lengths)
    names = ["tail_key", "hidden_key", "tails", "tail_part", "relation_part"]
    if not lengths:
        return
    assert torch.autograd.gradcheck(
        lambda *values: tuple(run({**given, **dict(zip(names, values, strict=True))}, dropout=dropout)),
        [given[name] for name in names],
        fast_mode=True,
    )


def test_a_row_of_5000_triples_beside_short_ones() -> None:
    given = problem([3, 5000, 0, 1])
    for found, expected in zip(run(given, kept=5), by_loop(given, 5), strict=True):
        torch.testing.assert_close(found, expected)
    run(given, dropout=0.2).hidden.sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in given.values() if value.requires_grad)  # type: ignore[arg-type]


def test_what_cuts_the_rows_into_pieces_does_not_change_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem([7, 0, 3, 11, 2, 5], dtype=torch.float32)
    whole = run(given)
    monkeypatch.setattr(attention, "TRIPLES_AT_ONCE", 4)
    for found, expected in zip(run(given), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_seed_of_torch_decides_what_is_dropped() -> None:
    given = problem([300, 200], dtype=torch.float32)
    first, again, other = (run(given, dropout=0.3, kept=500, seed=seed).hidden for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dropout_keeps_the_expectation_and_the_share() -> None:
    """With key zero every weight is the same, so the sum is the mean of the hidden layer."""
    n = 4000
    given = problem([n], dtype=torch.float32)
    given |= {"tail_key": torch.zeros(1, TRIPLE_WIDTH), "hidden_key": torch.zeros(1, WIDTH)}
    given |= {"tail_part": torch.ones(TAILS, WIDTH), "relation_part": torch.zeros(RELATIONS, WIDTH)}
    mean = run(given, dropout=0.25, kept=n).hidden
    torch.testing.assert_close(mean, torch.ones(1, WIDTH), atol=0.05, rtol=0)
    assert not torch.equal(mean, torch.ones(1, WIDTH))


@pytest.mark.parametrize("size", [0.0, 1e4, 1e18])
def test_zero_and_huge_values_never_give_nan(size: float) -> None:
    given = problem([3, 0, 2], dtype=torch.float32)
    given["tail_key"] = (given["tail_key"].detach() * size).requires_grad_()
    sums = run(given)
    sum(part.sum() for part in sums).backward()
    assert all(torch.isfinite(part).all() for part in sums)
    assert all(torch.isfinite(value.grad).all() for value in given.values() if value.requires_grad)  # type: ignore[arg-type]


def test_bfloat16_under_autocast_is_computed_in_float32() -> None:
    given = problem([3, 0, 2], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = {name: v.bfloat16() if v.is_floating_point() else v for name, v in given.items()}
        sums = run(rounded)
    assert {part.dtype for part in sums} == {torch.float32}
    for found, expected in zip(sums, run(given), strict=True):
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["tail_of", "relation_of"])
def test_a_number_beyond_the_table_is_an_error_and_no_stray_read(name: str) -> None:
    given = problem([2, 1])
    given[name] = given[name] + 100
    with pytest.raises(IndexError):
        run(given)
