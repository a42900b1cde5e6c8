"""Texts and triples -> unit vectors, each with the space it lives in."""
