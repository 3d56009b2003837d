"""Simulated dose maps."""
