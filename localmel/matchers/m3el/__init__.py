"""M3EL: wholes, parts and both modalities of a mention scored against those of an entity."""
