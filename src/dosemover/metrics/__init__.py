"""Classical dose comparison metrics."""
