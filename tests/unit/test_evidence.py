from dataclasses import replace

import numpy as np
import pytest
from builders import HOUR, T0, evidence_at

from seatrial.evidence import Arm, Cell, Epoch, Evidence, ShadowTally, Tally, merge

NOTHING = Evidence()


def test_evidence_of_nothing_counts_nothing():
    assert merge([]) == NOTHING
    assert NOTHING.series("wrong-decision").total("bad") == (0, 0)
    challenger, champion, rho = NOTHING.assigned_series()
    assert challenger.size == champion.size == rho.size == 0


def test_counts_of_the_same_place_add_up_and_the_newest_decision_wins():
    cell = Cell("g", None, None, 1, Arm.CHALLENGER)
    one = Evidence(T0, {1: Epoch(0.05, 2)}, {cell: Tally(5, 1, 4, 1, 3)}, {(1, Arm.CHALLENGER): 5}, ShadowTally(9, 1))
    other = Evidence(T0 + HOUR, {1: Epoch(0.05, 2)}, {cell: Tally(1, 1)}, {(1, Arm.CHALLENGER): 1}, ShadowTally(1))
    both = one + other
    assert both.newest == T0 + HOUR
    assert both.cells == {cell: Tally(6, 2, 4, 1, 3)}
    assert both.assigned == {(1, Arm.CHALLENGER): 6}
    assert both.shadow == ShadowTally(10, 1)


@pytest.mark.parametrize("epoch", [Epoch(0.2, 2), Epoch(0.05, 3)])
def test_two_looks_that_disagree_on_an_epoch_are_refused(epoch):
    one = Evidence(epochs={1: Epoch(0.05, 2), 2: Epoch(0.2, 3)})
    with pytest.raises(ValueError, match="snapshot 1: share or stage differ"):
        one + Evidence(epochs={1: epoch})


def test_a_series_has_its_epochs_in_the_order_of_time_whatever_the_order_of_the_looks():
    looks = [
        Evidence(
            epochs={n: Epoch(n / 10, n)},
            cells={Cell("g", None, None, n, arm): Tally(units=10 * n + at) for at, arm in enumerate(Arm)},
        )
        for n in (3, 1, 2)
    ]
    series = merge(looks).series("g")
    np.testing.assert_array_equal(series.rho, [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(series.stage, [1, 2, 3])
    np.testing.assert_array_equal(series.champion["units"], [10, 20, 30])
    np.testing.assert_array_equal(series.challenger["units"], [11, 21, 31])


def test_a_cell_that_was_never_seen_is_a_zero_in_its_epoch():
    evidence = Evidence(
        epochs={1: Epoch(0.1, 0), 2: Epoch(0.2, 0)}, cells={Cell("g", None, None, 2, Arm.CHAMPION): Tally(7)}
    )
    assert evidence.series("g").champion["units"].tolist() == [0, 7]


@pytest.mark.parametrize(
    "changes",
    [
        {"newest": T0 + HOUR},
        {"epochs": {2: Epoch(0.2001, 2)}},
        {"epochs": {2: Epoch(0.2, 9)}},
        {"cells": {}},
        {"assigned": {}},
        {"shadow": ShadowTally(1)},
    ],
)
def test_whatever_changes_evidence_changes_its_digest(changes):
    evidence = evidence_at(T0)
    assert replace(evidence, **changes).digest != evidence.digest
