"""Use cases: register, start, judge, move, watch, roll back. They decide purely and act through ports."""
