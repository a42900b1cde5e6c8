"""How good answers are: pure functions over predictions and gold."""
