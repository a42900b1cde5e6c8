"""Which open weights there are, and whether the bytes here are those."""
