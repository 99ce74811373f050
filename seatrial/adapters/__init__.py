"""Adapters: ports connected to real systems, and their twins in memory."""
