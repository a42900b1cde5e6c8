"""The fusion network: beside the plain padded form, alone and in company, and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bench.published import PaddedBatch, PublishedRetriever
from localmel.errors import BadInput, CorruptArtifact
from localmel.matchers.kgmel import network as fusion
from localmel.matchers.kgmel.network import FusionNetwork, FusionSettings, PackedTriples, from_published, load_published

SHAPE: dict[str, Any] = {"text_width": 5, "triple_width": 6, "image_width": 4, "width": 8, "temperature": 0.3}


def network_of(**changes: Any) -> FusionNetwork:
    """Random weights; also those that start at zero."""
    torch.manual_seed(1)
    network = FusionNetwork(FusionSettings(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.3)
    return network


def batch_of(lengths: list[int], seed: int = 0, *, shape: dict[str, Any] = SHAPE) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(seed)
    b, t, n_tails, n_relations, n_pairs = len(lengths), sum(lengths), 7, 3, 9

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=chance)

    triples = PackedTriples(
        tails=normal(n_tails, shape["triple_width"]),
        relations=normal(n_relations, shape["triple_width"]),
        pair_tail=torch.randint(n_tails, (n_pairs,), generator=chance),
        pair_relation=torch.randint(n_relations, (n_pairs,), generator=chance),
        triples=torch.randint(n_pairs, (t,), generator=chance),
        starts=F.pad(torch.tensor(lengths, dtype=torch.int64).cumsum(0), (1, 0)),
    )
    image = normal(b, shape["image_width"])
    has_image = torch.rand(b, generator=chance) < 0.6
    return {"text": normal(b, shape["text_width"]), "image": image, "has_image": has_image, "triples": triples}


def some_rows(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """The same rows in another company and order."""
    whole: PackedTriples = batch["triples"]
    parts = [whole.triples[whole.starts[row] : whole.starts[row + 1]] for row in rows]
    lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
    triples = PackedTriples(
        tails=whole.tails, relations=whole.relations, pair_tail=whole.pair_tail, pair_relation=whole.pair_relation,
        triples=torch.cat(parts), starts=F.pad(lengths.cumsum(0), (1, 0)),
    )  # fmt: skip
    return {name: batch[name][rows] for name in ("text", "image", "has_image")} | {"triples": triples}


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=9), seed=st.integers(0, 99), data=st.data())
def test_a_vector_never_depends_on_its_neighbours(lengths: list[int], seed: int, data: st.DataObject) -> None:
    network, batch = network_of(), batch_of(lengths, seed)
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, max_size=6))
    with torch.no_grad():
        together = F.normalize(network(**batch), dim=1)[rows]
        torch.testing.assert_close(F.normalize(network(**some_rows(batch, rows)), dim=1), together, atol=1e-6, rtol=0)
        torch.testing.assert_close(network.embed(**some_rows(batch, rows)), together, atol=3e-6, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_it_gives_what_the_plain_padded_form_gives(seed: int) -> None:
    torch.manual_seed(seed)
    plain = PublishedRetriever(8, kept=3, dropout=0.0).eval()
    network = from_published(plain.state_dict(), kept_triples=3, dropout=0.0).eval()
    batch = batch_of([3, 1, 9, 4], seed, shape={"text_width": 8, "triple_width": 8, "image_width": 8})
    del batch["has_image"]
    whole: PackedTriples = batch["triples"]
    lengths = whole.starts.diff()
    mask = torch.arange(9) < lengths[:, None]
    tails, relations = torch.zeros(4, 9, 8), torch.zeros(4, 9, 8)
    tails[mask] = whole.tails[whole.pair_tail[whole.triples]]
    relations[mask] = whole.relations[whole.pair_relation[whole.triples]]
    padded = PaddedBatch(text=batch["text"], image=batch["image"], relations=relations, tails=tails, mask=mask)
    torch.testing.assert_close(network(**batch), plain(padded), atol=1e-5, rtol=0)


def by_definition(network: FusionNetwork, batch: dict[str, Any], row: int) -> Tensor:
    """One row with unequal widths, five products for each triple."""
    own, whole, constants = some_rows(batch, [row]), batch["triples"], network.settings
    pairs = own["triples"].triples
    tails, relations = whole.tails[whole.pair_tail[pairs]], whole.relations[whole.pair_relation[pairs]]
    if not len(pairs):
        tails, relations = network.no_triple_tail[None], network.no_triple_relation[None]
    x = tails + network.pair_out(F.leaky_relu(network.tail_in(tails) + network.relation_in(relations)))
    text, query = own["text"][0], network.text_query(own["text"][0])
    if constants.image_width:
        image = own["image"][0] if own["has_image"][0] else network.no_image
        query = constants.image_share * network.image_query(image) + (1 - constants.image_share) * query
    weights = (network.key(x) @ query / constants.width**0.5 / constants.temperature).softmax(dim=0)
    best = weights.topk(min(constants.kept_triples, len(weights)))
    fused = network.triples_out(network.mix(best.values @ network.value(x)[best.indices]))
    fused = fused + network.text_out(text) * (torch.sigmoid(network.text_gate(text)) if network.text_gate else 1.0)
    if constants.image_width:
        gate = torch.sigmoid(network.image_gate(image)) if network.image_gate else 1.0
        fused = fused + network.image_out(image) * gate
    return fused


@pytest.mark.parametrize("changes", [{}, {"gate": False}, {"image_width": 0}, {"kept_triples": 2}], ids=str)
@pytest.mark.parametrize("lengths", [[3, 0, 9, 1], [0, 0], [4], [1, 1]], ids=str)
def test_it_gives_what_the_definition_gives(lengths: list[int], changes: dict[str, Any]) -> None:
    network, batch = network_of(**changes), batch_of(lengths)
    if not network.settings.image_width:
        inputs = {name: batch[name] for name in ("text", "triples")}
    else:
        inputs = batch
    expected = torch.stack([by_definition(network, batch, row) for row in range(len(lengths))])
    torch.testing.assert_close(network(**inputs), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.embed(**inputs), F.normalize(expected, dim=1), atol=1e-5, rtol=0)


def test_embedding_in_small_parts_and_without_the_table_of_tails_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = network_of(), batch_of([3, 0, 9, 1, 2])
    whole = network.embed(**batch)
    monkeypatch.setattr(fusion, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(fusion, "BYTES_OF_TAILS", 0)
    torch.testing.assert_close(network.embed(**batch), whole, atol=1e-6, rtol=0)
    rounded = network.embed(**batch, precision="bfloat16")
    assert (rounded * whole).sum(dim=1).min() > 0.999
    with pytest.raises(BadInput, match="float16"):
        network.embed(**batch, precision="float16")


def test_every_parameter_gets_a_gradient_even_where_nothing_is_missing() -> None:
    """What distributed training asks for."""
    network, batch = network_of().train(), batch_of([2, 3])
    batch["has_image"] = torch.ones(2, dtype=torch.bool)
    network(**batch).sum().backward()
    assert all(value.grad is not None for value in network.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_zero_and_huge_inputs_never_give_nan(scale: float) -> None:
    network, batch = network_of(temperature=1e-3), batch_of([3, 0, 2])
    batch["text"], batch["image"] = batch["text"] * scale, batch["image"] * scale
    assert torch.isfinite(network(**batch)).all()
    assert torch.isfinite(network.embed(**batch)).all()


def test_training_under_bfloat16_autocast_runs() -> None:
    network, batch = network_of().train(), batch_of([3, 0, 2])
    with torch.autocast("cpu", torch.bfloat16):
        vectors = network(**batch)
    vectors.float().square().sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in network.parameters())  # type: ignore[arg-type]


def test_wrong_shapes_are_refused_with_both() -> None:
    network, batch = network_of(), batch_of([3, 1])
    for name, wrong, told in (
        ("text", torch.zeros(2, 3), r"\(2, 3\).*\(2, 5\)"),
        ("text", torch.zeros(3, 5), r"\(3, 5\).*\(2, 5\)"),
        ("image", torch.zeros(2, 9), r"\(2, 9\).*\(2, 4\)"),
        ("has_image", torch.ones(1, dtype=torch.bool), r"\(1,\).*\(2,\)"),
    ):
        with pytest.raises(BadInput, match=told):
            network(**{**batch, name: wrong})
    with pytest.raises(BadInput, match="no image space"):
        network_of(image_width=0)(**batch)
    with pytest.raises(BadInput, match=r"\(7, 6\).*\(7, 2\)"):
        network_of(triple_width=2)(**batch)


@pytest.mark.parametrize("starts", [[1, 2], [0, 3], [0, 2, 1, 2]])
def test_starts_that_do_not_fit_the_triples_are_refused(starts: list[int]) -> None:
    two = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(BadInput, match="2 triples"):
        PackedTriples(
            tails=torch.zeros(1, 3), relations=torch.zeros(1, 3), pair_tail=two, pair_relation=two, triples=two,
            starts=torch.tensor(starts),
        )  # fmt: skip


# --- checkpoints of the published code --------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_checkpoint_is_read_wrapped_or_not(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    weights = {prefix + name: value for name, value in PublishedRetriever(8).state_dict().items()}
    torch.save({wrapper: weights, "epoch": 3} if wrapper else weights, tmp_path / "best_model.pt")
    network = load_published(tmp_path / "best_model.pt", temperature=0.2)
    assert network.settings.temperature == 0.2
    assert torch.equal(network.mix.weight, weights[f"{prefix}reltail_proj.weight"])


class Harmful:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def test_a_file_that_asks_for_more_than_tensors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("harmful.pt", "noise.pt", "list.pt"):
        with pytest.raises(CorruptArtifact, match=name):
            load_published(tmp_path / name)
    assert capsys.readouterr().out == ""
    with pytest.raises(BadInput, match=r"missing\.pt"):
        load_published(tmp_path / "missing.pt")


def test_damaged_tensors_are_refused() -> None:
    good = PublishedRetriever(8).state_dict()
    bias = "reltail_proj.bias"
    for damage, told in (
        ({bias: None}, bias),
        ({"more": good[bias]}, "more"),
        ({bias: good[bias][:3]}, "shapes"),
        ({bias: good[bias] * float("nan")}, "no numbers"),
        ({"head_query.weight": good[bias]}, "vector"),
    ):
        weights = {name: value for name, value in {**good, **damage}.items() if value is not None}
        with pytest.raises(CorruptArtifact, match=told):
            from_published(weights)
