"""Candidates -> one link or NIL, with its evidence and a probability."""
