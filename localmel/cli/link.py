"""`localmel link` and `localmel demo`: link the names in a captioned picture and show the evidence."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localmel.cli.options import AsJson, Kb
from localmel.cli.output import print_json, print_table, printable, progress_bar

if TYPE_CHECKING:
    from localmel.captions import LinkedCaption, LinkedMention
    from localmel.linker import Linker
    from localmel.records import Triple

ProfileName = Annotated[str, typer.Option("--profile", help="Profile: which models are used.")]
Explain = Annotated[bool, typer.Option("--explain", help="Show the triples, the candidates and the evidence.")]


def link_command(
    image: Annotated[str, typer.Argument(help="A picture file, or - for none.")],
    text: Annotated[str, typer.Argument(help="The sentence; [[Name]] marks a mention.")],
    mention: Annotated[list[str] | None, typer.Option("--mention", help="A name in the text (repeatable).")] = None,
    kb: Kb = "starter",
    profile: ProfileName = "embedded",
    top_k: Annotated[int, typer.Option("--top-k", min=1, max=64, help="How many candidates to list.")] = 16,
    as_json: AsJson = False,
    explain: Explain = False,
) -> None:
    """Link the names in one captioned picture."""
    linker = make_linker(kb, profile, top_k=top_k)
    answer = linker.link(None if image == "-" else Path(image), text, mention)
    if as_json:
        print_json(answer.to_json(explain=explain))
    else:
        print_answer(answer, explain=explain)


def demo_command(profile: ProfileName = "embedded", as_json: AsJson = False, explain: Explain = False) -> None:
    """Link the shipped examples with and without their pictures."""
    from localmel.examples import link_examples

    results = link_examples(make_linker("starter", profile, top_k=5))
    if as_json:
        print_json([result.to_json() for result in results])
        return
    rows = []
    for result in results:
        rows.append(
            (
                result.example.picture.name,
                result.example.text,
                _entity_words(result.with_picture),
                f"{result.with_picture.link.probability:.2f}",
                _reason(result.with_picture),
                _entity_words(result.without_picture),
            )
        )
    headings = ("picture", "sentence", "linked to", "prob.", "because", "without the picture")
    print_table(headings, rows)
    right = sum(result.is_right for result in results)
    fooled = sum(not result.is_right_without for result in results)
    print(f"{right} of {len(results)} as expected; {fooled} of them come out differently when the picture is withheld")
    if explain:
        for result in results:
            print()
            print_explanation(result.with_picture)


def make_linker(kb: str, profile: str, *, top_k: int = 16) -> Linker:
    """Open the KB, building the starter KB on first use, and load the models of the profile."""
    from localmel.linker import Linker
    from localmel.retrieve.profile_models import open_models, ready_for
    from localmel.settings import load_profile
    from localmel.weights.needed import check_weights

    chosen = load_profile(profile)
    check_weights(chosen)
    models = open_models(chosen)
    with progress_bar():
        base = ready_for(kb, models, chosen)
    return Linker(base, chosen, top_k=top_k, models=models)


def print_answer(answer: LinkedCaption, *, explain: bool) -> None:
    """Print the table of links and, with `explain`, everything that led to them."""
    rows = []
    for linked in answer.mentions:
        entity = linked.entity
        rows.append(
            (
                linked.mention.surface,
                entity.label if entity else "NIL (not in the KB)",
                entity.id if entity else "",
                entity.description if entity else "",
                f"{linked.link.probability:.2f}",
            )
        )
    if not rows:
        print(f"no name of kb {answer.kb} was found in the text; mark one with [[ ]] or --mention")
        return
    print_table(("mention", "entity", "id", "description", "probability"), rows)
    for linked in answer.mentions:
        for one in linked.alike:
            like = f"resembles the KB's picture of {one.label} ({one.entity_id}), similarity {one.similarity:.2f}"
            print(printable(f"{linked.mention.surface}: {like}; a resemblance proves nothing"))
    for note in answer.notes:
        print(f"picture: {printable(note)}")
    if explain:
        for linked in answer.mentions:
            print()
            print_explanation(linked)
    print(printable(f"profile {answer.profile}, kb {answer.kb}"))


def print_explanation(linked: LinkedMention) -> None:
    """Print the generated triples with their sources, the candidates with scores, and the pairs that decided."""
    print(f"{printable(linked.mention.surface)}: decided by {linked.link.decided_by}")
    triples = [(_origin(t), t.head, t.relation, t.tail) for t in linked.description.triples]
    if triples:
        print_table(("from", "mention", "relation", "tail"), triples, title="generated triples")
    ranked = zip(linked.link.ranking.candidates, linked.candidates, strict=True)
    rows = [(f"{candidate.score:.4f}", entity.id, entity.label, entity.description) for candidate, entity in ranked]
    print_table(("score", "id", "candidate", "description"), rows, title="candidates")
    pairs = [
        (
            f"{pair.similarity:.2f}",
            _origin(pair.mention_triple),
            f"{pair.mention_triple.relation}: {pair.mention_triple.tail}",
            f"{pair.entity_triple.relation}: {pair.entity_triple.tail}",
        )
        for pair in linked.link.evidence
    ]
    if pairs:
        print_table(
            ("similarity", "from", "triple of the mention", "triple of the entity"), pairs, title="what decided"
        )


_SOURCES = {"text": "text", "ocr": "picture", "image": "picture", "kb": "kb"}


def _origin(triple: Triple) -> str:
    """Return where a triple was read; a triple that the context only suggests is marked."""
    from localmel.generate.embedded import RELATION, VISIBLE

    source = _SOURCES[triple.source]
    return source if triple.relation in (RELATION, VISIBLE) else f"{source} (suggested)"


def _entity_words(linked: LinkedMention) -> str:
    return f"{linked.entity.label} ({linked.entity.id})" if linked.entity else "NIL"


def _reason(linked: LinkedMention) -> str:
    pairs: list[Any] = [pair for pair in linked.link.evidence if pair.mention_triple.source == "ocr"]
    if not pairs:
        return ""
    return f"{shorten(pairs[0].mention_triple.tail, 30, placeholder='...')} ~ {pairs[0].entity_triple.tail}"
