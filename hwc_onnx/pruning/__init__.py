"""Pruning algorithms: scores and masks."""
