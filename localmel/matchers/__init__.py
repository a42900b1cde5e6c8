"""Matchers: what holds a mention's features against those of entities, each a way of its own behind one protocol."""
