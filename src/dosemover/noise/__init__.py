"""Noise floors and significance of every metric."""
