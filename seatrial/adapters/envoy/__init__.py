"""Envoy as a data plane: snapshots become its routes, and what it says of itself becomes a report."""
