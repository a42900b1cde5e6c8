"""Which files an import reads: exactly one of the four forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from localmel.errors import UsageError

if TYPE_CHECKING:
    from localmel.kb.importers import KbSource, Problems


def source_from(
    entities: Path | None,
    triples: Path | None,
    wikidata: Path | None,
    ontology: Path | None,
    benchmark: Path | None,
    *,
    dataset: str | None,
    languages: list[str] | None,
    classes: list[str] | None,
    problems: Problems,
) -> KbSource:
    """The reader for the options that were given.  Raises UsageError where they do not go together."""
    from localmel.kb.importers import OntologySource, TablesSource, WikidataSource

    forms = [bool(entities or triples), bool(wikidata), bool(ontology), bool(benchmark)]
    if sum(forms) != 1:
        raise UsageError(
            f"{sum(forms)} sources were given; one is needed: "
            "--entities with --triples, --wikidata, --ontology, or --benchmark",
            hint="localmel kb build --help",
        )
    if not wikidata and (languages or classes):
        raise UsageError("--language and --class go with --wikidata")
    if dataset and not benchmark:
        raise UsageError("--dataset goes with --benchmark")
    if wikidata:
        chosen = tuple(languages or ("en",))
        return WikidataSource(wikidata, languages=chosen, classes=set(classes) if classes else None, problems=problems)
    if benchmark:
        from localmel.benchmarks import benchmark_kb

        return benchmark_kb(benchmark, dataset, problems=problems)
    if ontology:
        return OntologySource(ontology, problems=problems)
    return TablesSource(entities=entities, triples=triples, problems=problems)
