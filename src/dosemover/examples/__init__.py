"""The embedded example pair."""
