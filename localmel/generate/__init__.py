"""A mention with its picture -> triples that name their source."""
