"""Optimal transport between dose maps."""
