"""Engines that score: one module for each, which imports its library when a release asks for it."""
