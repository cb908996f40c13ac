"""Structured pruning without training: coupled groups, the order of their channels, narrowing, least squares."""
