"""Candidates -> one link or NIL, with the evidence and a probability."""
