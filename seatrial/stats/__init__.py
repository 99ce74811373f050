"""Estimators and tests on counts and arrays; each decision rule names its guarantee and its source."""
