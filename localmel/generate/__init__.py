"""A mention with its picture -> triples that say where they were read."""
