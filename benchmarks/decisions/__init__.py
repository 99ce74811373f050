"""How well rollouts are decided: one stream of units, many decision rules, one scoring.

Each cell is a stream (a ramp, a base rate, a fault or none) that every rule watches tick by tick, on its own draws
from one seed. `python -m benchmarks.decisions --help` says how to run it.
"""
