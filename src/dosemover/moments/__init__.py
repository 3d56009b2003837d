"""Distances from the moments of dose maps."""
