"""Quantizer parameters, ranges and dialects."""
