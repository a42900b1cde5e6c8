"""M3EL: score the wholes, parts and both modalities of a mention against those of an entity."""
