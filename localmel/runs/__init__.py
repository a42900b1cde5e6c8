"""Many mentions at once, on disk: training and evaluation as runs that can be repeated."""
