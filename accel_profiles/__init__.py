"""Accelerator profiles, read through importlib.resources."""
