"""Encode texts, triples and pictures as unit vectors, each with its space."""
