"""Measure the data plane: how fast it answers, and how fast it obeys."""
