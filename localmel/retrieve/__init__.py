"""Mentions -> candidates."""
