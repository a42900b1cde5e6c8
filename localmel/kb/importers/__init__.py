"""Readers of what a KB is made from; each yields entities and triples with the place where they were read."""

from localmel.kb.importers.ontology import OntologySource
from localmel.kb.importers.reading import EntityRow, KbSource, Problems, TripleRow
from localmel.kb.importers.tables import TablesSource
from localmel.kb.importers.wikidata import WikidataSource

__all__ = ["EntityRow", "KbSource", "OntologySource", "Problems", "TablesSource", "TripleRow", "WikidataSource"]
