"""Texts, triples and pictures -> unit vectors, each with the space it lives in."""
