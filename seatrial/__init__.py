"""Rollout control plane for machine-learned decision systems."""
