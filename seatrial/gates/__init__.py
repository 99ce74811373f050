"""Gates: (evidence, plan) in, findings out; one module for each question."""
