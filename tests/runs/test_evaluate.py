"""Evaluations on a small benchmark: against slow truth, in all their switches, and as runs on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localmel.benchmarks import read_benchmark
from localmel.captions import Caption
from localmel.encode.kb_vectors import load_vectors
from localmel.encode.registry import Encoders
from localmel.encode.space import Space
from localmel.errors import BadInput, CorruptArtifact, LocalmelError, UsageError
from localmel.kb.store import KnowledgeBase
from localmel.linker import Linker
from localmel.matchers.kgmel.folder import load_network
from localmel.matchers.kgmel.fused import load_fused
from localmel.matchers.kgmel.kb_triples import KbTriples
from localmel.matchers.kgmel.mention_vectors import mention_arrays
from localmel.runs.ablations import CHANGES, SYSTEMS
from localmel.runs.evaluate import Report
from localmel.runs.evaluate_systems import Plan, evaluate_systems
from localmel.runs.questions import questions_of

Make = Callable[..., Path]
Run = Callable[..., Report]


@pytest.fixture
def run(benchmark: Path, tiny: KnowledgeBase, words: Any, network: Make) -> Run:
    """`run(systems=("fused",), without=("text",), out=...)`; a network that was made for the words, unless given."""

    def evaluate(*, out: Path | None = None, **given: Any) -> Report:
        plan = Plan(**{"data": benchmark, "network": network(), **given})
        return evaluate_systems(plan, tiny, Encoders(text=words, image=None), out=out)

    return evaluate


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "evaluate" / "rankings.jsonl").read_text().splitlines()]


def metrics(report: Report, system: str, slice_name: str = "all") -> dict[str, Any]:
    found: dict[str, Any] = report.json["datasets"]["tiny"]["systems"][system]["slices"][slice_name]["metrics"]
    return found


# --- numbers -----------------------------------------------------------------------------------------------------


def slow_ranks(mentions: Any, entities: Any, gold: list[int]) -> list[float | None]:
    """By the definition, one score at a time."""
    ranks: list[float | None] = []
    for vector, right in zip(mentions, gold, strict=True):
        scores = [float((vector.astype(np.float64) * entity).sum()) for entity in entities]
        own = scores[right]
        equal = scores.count(own) - 1
        ranks.append(None if right < 0 else 1 + sum(score > own for score in scores) + equal / 2)
    return ranks


def test_fused_and_zero_shot_rank_the_whole_kb(
    run: Run, benchmark: Path, tiny: KnowledgeBase, words: Any, network: Make, tmp_path: Path
) -> None:
    folder = network()
    run(systems=("fused", "zero-shot"), network=folder, out=tmp_path / "run")
    asked = questions_of(read_benchmark(benchmark), "val", tiny, drop=False, outside="refuse").asked
    packed, vectors = load_vectors(tiny, words.space)
    made = load_network(folder)
    mentions = [one.mention for one in asked]
    text, triples = mention_arrays(mentions, [()] * len(asked), words.encode)
    gold = [-1 if one.gold_row is None else int(np.flatnonzero(packed.rows == one.gold_row)[0]) for one in asked]
    found = lines_of(tmp_path / "run")
    zero = [line for line in found if line["system"] == "zero-shot"]
    assert [line["rank"] for line in zero] == slow_ranks(text, vectors.entities, gold)
    fused = [line for line in found if line["system"] == "fused"]
    stated = [number for number, one in enumerate(asked) if one.mention.id != "4-0"]  # that one has an apposition
    expected = slow_ranks(made.network.fuse(text=text, triples=triples), load_fused(tiny, packed, made), gold)
    assert [fused[number]["rank"] for number in stated] == [expected[number] for number in stated]
    assert all(len(line["candidates"]) == len(packed.rows) for line in found)


def test_the_linker_is_asked_as_it_links(
    run: Run, benchmark: Path, tiny: KnowledgeBase, words: Any, network: Make, tmp_path: Path
) -> None:
    folder = network()
    run(network=folder, out=tmp_path / "run", k=2)
    linker = Linker(tiny, top_k=80, encoder=words, matcher=load_network(folder))
    for line, question in zip(
        lines_of(tmp_path / "run"),
        questions_of(read_benchmark(benchmark), "val", tiny, drop=False, outside="refuse").asked,
        strict=True,
    ):
        caption = Caption(text=question.mention.context, spans=(question.mention.span,))
        link = next(iter(linker.link_many([caption]))).mentions[0].link
        ranked = [one.entity_id for one in link.ranking.candidates]
        assert line["predicted"] == link.entity_id
        assert [one for one, _ in line["candidates"]] == ranked[:2]
        assert line["rank"] == (ranked.index(question.gold) + 1 if question.gold in ranked else None)
        nil = 1.0 - sum(one.score for one in link.ranking.candidates)
        assert line["nil_probability"] == pytest.approx(nil, abs=1e-5)


def test_names_rank_by_the_name_index_and_say_nil_where_no_name_fits(run: Run, tmp_path: Path) -> None:
    report = run(systems=("names",), network=None, out=tmp_path / "run")
    found = {line["id"]: line for line in lines_of(tmp_path / "run")}
    assert (found["1-1"]["rank"], found["1-1"]["predicted"]) == (1.0, "Q4")
    assert (found["2-1"]["rank"], found["1-0"]["rank"]) == (2.0, 1.0)  # Q1 is better known
    assert (found["3-0"]["predicted"], found["3-0"]["nil_probability"]) == (None, 1.0)
    assert metrics(report, "names")["ece"] is None
    assert metrics(report, "names")["nil_f1"]["value"] == 1.0


def test_slices_know_seen_golds_ambiguity_triples_and_pictures(benchmark: Path, tiny: KnowledgeBase) -> None:
    path = benchmark / "tiny-val.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["image"], rows[1]["image"] = "there.png", "gone.png"
    (benchmark / "there.png").write_bytes(b"")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = questions_of(read_benchmark(benchmark), "val", tiny, drop=False, outside="refuse").asked
    facts = {one.mention.id: one.facts for one in asked}
    assert [facts[name].gold_seen for name in ("1-0", "1-1", "1-2", "3-0")] == [True, False, True, None]
    assert [facts[name].ambiguous for name in ("1-0", "1-1", "3-0")] == [True, False, False]
    assert [facts[name].gold_has_triples for name in ("1-0", "1-2", "3-0")] == [True, False, None]
    assert [facts[name].has_image for name in ("1-0", "1-1", "1-2")] == [True, False, False]
    assert len({one.cluster for one in asked}) == 4


# --- switches ----------------------------------------------------------------------------------------------------


def rankings(run: Run, out: Path, **given: Any) -> list[Any]:
    run(out=out, **given)
    return [line["candidates"] for line in lines_of(out)]


def test_withheld_triples_and_text_are_never_seen_by_the_network(
    run: Run, tiny: KnowledgeBase, words: Any, network: Make, tmp_path: Path
) -> None:
    folder, scores = network(), {}
    for name, without in {"all": (), "triples": ("triples",), "text": ("text",), "image": ("image",)}.items():
        scores[name] = rankings(run, tmp_path / name, systems=("fused",), network=folder, without=without)
    assert scores["all"] == scores["image"] != scores["triples"]
    assert scores["all"] != scores["text"] != scores["triples"]
    packed, vectors = load_vectors(tiny, words.space)
    made = load_network(folder)
    none = KbTriples(packed, vectors).of(np.arange(len(packed.rows)), without=np.ones(len(packed.rows), bool))
    bare = made.network.fuse(text=vectors.entities.astype(np.float32), triples=none)
    mention = read_benchmark(tmp_path / "data").splits["val"].mentions[:1]
    text, triples = mention_arrays(mention, [()], words.encode)
    best = sorted((made.network.fuse(text=text, triples=triples) @ bare.T)[0], reverse=True)
    assert [score for _, score in scores["triples"][0]] == pytest.approx(best, abs=2e-3)


def test_the_linker_without_triples_wants_a_network_and_a_scorer_made_without(
    run: Run, network: Make, tmp_path: Path
) -> None:
    from localmel.settings.shipped import shipped

    with pytest.raises(BadInput, match="was trained with") as refused:
        run(without=("triples",))
    assert "localmel train DATA --kb KB --without triples" in refused.value.hint
    bare = network(without=["triples"])
    with pytest.raises(BadInput, match="needs a scorer that was fitted without"):
        run(without=("triples",), network=bare)
    with pytest.raises(BadInput, match="features made of triples: phrase cosine"):
        run(without=("triples",), network=bare, scorer=shipped("weights/evidence-scorer"))
    with pytest.raises(BadInput, match="was trained without triples, and would be shown it"):
        run(network=bare)
    scorer = tmp_path / "scorer"
    scorer_without(shipped("weights/evidence-scorer"), scorer, ("phrase", "tail"))
    report = run(without=("triples",), network=bare, scorer=scorer, out=tmp_path / "run")
    assert report.json["without"] == ["triples"]
    assert "Ablation: without triples." in report.markdown


def scorer_without(source: Path, target: Path, words: tuple[str, ...]) -> None:
    """The shipped scorer with the columns of some features cut out."""
    from safetensors.numpy import load_file, save_file

    card = json.loads((source / "scorer.json").read_text())
    weights = load_file(source / "weights.safetensors")
    names = card["features"]
    kept = np.array([not any(word in name for word in words) for name in names])
    for name, value in weights.items():  # one network, or several with their number in front
        if name in ("mean", "deviation"):
            weights[name] = value[kept]
        elif name.endswith(("candidate.0", "nil.0")):
            weights[name] = np.ascontiguousarray(value[:, np.tile(kept, value.shape[1] // len(kept))])
    target.mkdir()
    save_file(weights, target / "weights.safetensors")
    card["features"] = [name for name, keep in zip(names, kept, strict=True) if keep]
    (target / "scorer.json").write_text(json.dumps(card))


def test_without_names_candidates_come_from_vectors_and_without_counts_another_scorer_judges(
    run: Run, tmp_path: Path
) -> None:
    run(without=("names", "counts"), out=tmp_path / "run")
    profile = json.loads((tmp_path / "run" / "evaluate" / "manifest.json").read_text())["inputs"]["profile"]
    assert (profile["retrieve"]["by_name"], profile["retrieve"]["by_vector"]) == (0, 64)
    assert (profile["retrieve"]["use_counts"], profile["rerank"]["weights"]) == (False, "evidence-scorer-no-counts")


def test_a_network_with_a_gate_is_no_network_without(run: Run, network: Make) -> None:
    with pytest.raises(BadInput, match=r"was trained with a gate \(gate = true\)") as refused:
        run(systems=("fused",), without=("gate",))
    assert "--without gate" in refused.value.hint
    assert run(systems=("fused",), without=("gate",), network=network(gate=False)).made


@pytest.mark.parametrize("switch", list(CHANGES))
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_switch_that_changes_nothing_is_refused(system: str, switch: str, tmp_path: Path) -> None:
    if system in CHANGES[switch]:
        assert Plan(data=tmp_path, systems=(system,), without=(switch,)).without == (switch,)
        return
    with pytest.raises(UsageError, match=f"without {switch}"):
        Plan(data=tmp_path, systems=(system,), without=(switch,))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"k": 0}, "K must be at least 1, not 0"),
        ({"systems": ("oracle",)}, "there is no system 'oracle'"),
        ({"systems": ()}, "no system"),
        ({"systems": ("names", "names")}, "named twice"),
        ({"without": ("luck",)}, "there is no switch 'luck'"),
        ({"gold_outside": "maybe"}, "cannot be 'maybe'"),
    ],
)
def test_a_plan_that_does_not_fit_is_a_usage_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Plan(data=Path(), **given)


def test_a_network_of_another_space_or_width_is_refused(run: Run, network: Make) -> None:
    other = Space(name="other", width=16, weights_sha256="1" * 64)
    with pytest.raises(BadInput, match="trained on texts of other"):
        run(systems=("fused",), network=network(space=other))
    with pytest.raises(BadInput, match="fuses text of width 12 and triples of width 16"):
        run(systems=("fused",), network=network(text_width=12))


def test_golds_outside_the_kb_are_refused_or_counted_as_said(run: Run, benchmark: Path, tmp_path: Path) -> None:
    path = benchmark / "tiny-val.jsonl"
    path.write_text(path.read_text().replace('"Q5"', '"Q99"'))
    with pytest.raises(BadInput, match="the gold of 2 of 7 mentions is not in kb 'kb', for example 'Q99'") as no:
        run(systems=("names",))
    assert "--gold-outside miss" in no.value.hint
    assert "--gold-outside nil" in no.value.hint
    missed = run(systems=("names",), gold_outside="miss", out=tmp_path / "run")
    assert [line["rank"] for line in lines_of(tmp_path / "run") if line["gold"] == "Q99"] == [None, None]
    as_nil = run(systems=("names",), gold_outside="nil")
    counts = [one.json["datasets"]["tiny"]["systems"]["names"]["slices"]["all"]["n_nil"] for one in (missed, as_nil)]
    assert counts == [1, 3]
    assert "each counts as a miss" in missed.markdown
    assert "NIL counts as right for each" in as_nil.markdown


def test_leaks_are_refused_or_dropped_and_told(run: Run, benchmark: Path) -> None:
    with (benchmark / "tiny-train.jsonl").open("a") as file:
        file.write((benchmark / "tiny-val.jsonl").read_text().splitlines()[3] + "\n")
    with pytest.raises(BadInput, match="2 of 7 mentions of val are also in train"):
        run(systems=("names",))
    report = run(systems=("names",), drop_leaked=True)
    assert "Dropped because they are also in train: 2 of 7 mentions." in report.markdown
    assert run(systems=("names",), split="train").json["split"] == "train"


def test_a_kb_that_was_never_indexed_says_what_to_do(
    benchmark: Path, words: Any, network: Make, change_kb: Callable[..., Path]
) -> None:
    folder = change_kb([{"id": f"Q{number}", "label": "Jordan"} for number in range(1, 6)])
    with KnowledgeBase(folder) as kb, pytest.raises(BadInput, match="has no index") as refused:
        evaluate_systems(
            Plan(data=benchmark, systems=("fused",), network=network()), kb, Encoders(text=words, image=None)
        )
    assert "localmel index" in refused.value.hint


# --- reports and runs --------------------------------------------------------------------------------------------


def test_several_systems_share_a_table_and_are_compared_with_the_first(run: Run) -> None:
    report = run(systems=("names", "linker", "fused", "zero-shot"), paper=True)
    found = report.json["datasets"]["tiny"]
    assert [(one["first"], one["second"]) for one in found["comparisons"]] == [
        ("names", "linker"),
        ("names", "fused"),
        ("names", "zero-shot"),
    ]
    assert set(found["paper"]) == {"names", "linker", "fused", "zero-shot"}
    assert "paper protocol, not comparable" in report.markdown
    assert run(systems=("names",)).json["datasets"]["tiny"]["paper"] is None


def test_only_nil_mentions_give_a_report_without_comparisons(run: Run, benchmark: Path) -> None:
    path = benchmark / "tiny-val.jsonl"
    path.write_text(path.read_text().splitlines()[5] + "\n")
    report = run(systems=("names", "linker"), paper=True)
    assert report.json["datasets"]["tiny"]["comparisons"] == []
    assert metrics(report, "names")["nil_recall"]["value"] == 1.0
    json.dumps(report.json, allow_nan=False)


def test_datasets_are_evaluated_each_by_itself(run: Run, benchmark: Path) -> None:
    (benchmark / "other-val.jsonl").write_text((benchmark / "tiny-val.jsonl").read_text())
    with pytest.raises(BadInput, match="holds 2 datasets"):
        run(systems=("names",))
    report = run(systems=("names",), datasets=("tiny", "other"))
    assert list(report.json["datasets"]) == ["tiny", "other"]
    assert "There is no train split" in report.markdown


def test_the_same_inputs_give_the_same_bytes_and_are_not_evaluated_twice(
    run: Run, network: Make, tmp_path: Path
) -> None:
    folder = network()
    given: dict[str, Any] = {"systems": ("linker", "fused", "names"), "network": folder}
    first = run(out=tmp_path / "a", **given)
    run(out=tmp_path / "b", **given)
    files = [path.name for path in sorted((tmp_path / "a" / "evaluate").iterdir())]
    assert files == ["manifest.json", "rankings.jsonl", "report.json", "report.md"]
    for name in files[1:]:
        assert (tmp_path / "a" / "evaluate" / name).read_bytes() == (tmp_path / "b" / "evaluate" / name).read_bytes()
    again = run(out=tmp_path / "a", **given)
    assert (first.made, again.made) == (True, False)
    assert again.markdown == first.markdown
    assert json.dumps(again.json) == json.dumps(first.json)


def test_a_run_says_from_what_and_how_it_was_made(run: Run, tiny: KnowledgeBase, tmp_path: Path) -> None:
    run(out=tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "evaluate" / "manifest.json").read_text())
    assert manifest["inputs"]["kb_fingerprint"] == tiny.fingerprint
    assert len(manifest["inputs"]["network_sha256"]) == len(manifest["inputs"]["scorer_sha256"]) == 64
    assert set(manifest["inputs"]["questions"]) == {"tiny"}
    assert set(manifest["versions"]) == {"python", "localmel", "numpy", "torch"}
    assert manifest["seconds"] > 0


def test_another_evaluation_is_never_written_over(run: Run, tmp_path: Path) -> None:
    run(systems=("names",), out=tmp_path / "run")
    before = (tmp_path / "run" / "evaluate" / "report.json").read_bytes()
    with pytest.raises(BadInput, match=r"was made from something else: it differs in settings\.k"):
        run(systems=("names",), k=3, out=tmp_path / "run")
    assert (tmp_path / "run" / "evaluate" / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "report.json").write_text("{}"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "rankings.jsonl").unlink(),
    ],
    ids=["another report", "no manifest", "no manifest inside", "no rankings"],
)
def test_a_damaged_run_is_named_and_left_alone(run: Run, tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    run(systems=("names",), out=tmp_path / "run")
    damage(tmp_path / "run" / "evaluate")
    with pytest.raises(CorruptArtifact) as refused:
        run(systems=("names",), out=tmp_path / "run")
    assert "rm -r" in refused.value.hint


def test_what_ends_early_leaves_nothing_behind(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from localmel.runs import evaluate as evaluation

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "write_texts", stop)
    with pytest.raises(KeyboardInterrupt):
        run(systems=("names",), out=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_every_refusal_has_a_next_command(run: Run) -> None:
    for given in ({"split": "dev"}, {"datasets": ("none",)}):
        with pytest.raises(LocalmelError) as refused:
            run(**given)
        assert refused.value.hint
