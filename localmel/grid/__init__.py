"""Run every pairing of several models over the same mentions, and compare them."""
