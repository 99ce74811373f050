"""The gate on what columns mean, and the estimator behind it."""

import math

import numpy as np
import pytest
from builders import a_release

from seatrial.gates.semantics import semantics
from seatrial.stats.meaning import FEWEST_ROWS, changed
from seatrial.verdict import Verdict

FEATURES = a_release().document()["features"]


def delays(seed, rows=2000, mean=40.0):
    return np.floor(np.random.default_rng(seed).exponential(mean, rows))


def with_column(**changes):
    (column,) = FEATURES["columns"]
    return a_release(features={**FEATURES, "columns": [{**column, "name": "delay", **changes}]})


def asked(candidate, reference, mine=None, theirs=None):
    (found,) = semantics(mine or with_column(), theirs or with_column(), {"delay": candidate}, {"delay": reference})
    return found


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda x: x * 0.83, "scale", "the reference times 0.83"),
        (lambda x: x / 60.0, "unit", "divided by 60"),
        (lambda x: x * 1.609344, "unit", "miles and kilometres"),
        (lambda x: -x, "sign", "the other sign"),
        (lambda x: x * 1.8 + 32.0, "affine", "in Fahrenheit instead of Celsius"),
        (lambda x: x * 0.0 + 7.0, "constant", "100.0% of the rows are 7"),
    ],
)
def test_a_change_of_meaning_is_named_in_words(change, kind, words):
    found = changed(delays(1), change(delays(2)))
    assert (found.kind, words in found.words) == (kind, True)


def test_a_clock_that_is_some_hours_off_is_named():
    hours = np.floor(np.random.default_rng(1).triangular(5, 8, 22, 4000))
    found = changed(hours[:2000], np.mod(hours[2000:] + 5, 24))
    assert (found.kind, found.offset) == ("clock", 5.0)


def test_missing_values_written_as_zero_are_named():
    ages = np.random.default_rng(1).integers(18, 90, 2000).astype(float)
    found = changed(ages, np.where(np.arange(2000) % 5 == 0, 0.0, ages[::-1]))
    assert found.kind == "zeros"


@pytest.mark.parametrize("mean", [30.0, 40.0, 55.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_worse_or_a_calmer_month_is_no_change_of_meaning(mean, seed):
    assert changed(delays(seed), delays(100 + seed, mean=mean)) is None


@pytest.mark.parametrize("numbers", [np.ones(FEWEST_ROWS - 1), np.full(FEWEST_ROWS, math.nan), np.ones((400, 2))])
def test_samples_that_say_nothing_are_refused(numbers):
    with pytest.raises(ValueError, match="changed"):
        changed(delays(1), numbers)


def test_an_undeclared_change_fails_and_a_declared_one_is_shown():
    hours = with_column(unit="h")
    undeclared, declared = asked(delays(2) / 60, delays(1)), asked(delays(2) / 60, delays(1), mine=hours)
    assert (undeclared.verdict, undeclared.subject) == (Verdict.FAIL, "semantics · delay")
    assert "looks like the reference divided by 60" in undeclared.reason
    assert (declared.verdict, "to h" in declared.reason) == (Verdict.PASS, True)


def test_a_declared_change_that_the_numbers_do_not_show_is_no_pass():
    assert asked(delays(2), delays(1), mine=with_column(unit="h")).verdict is Verdict.INCONCLUSIVE


def test_no_change_passes_and_so_do_the_same_rows():
    assert asked(delays(2), delays(1)).verdict is Verdict.PASS
    assert asked(delays(1), delays(1)).verdict is Verdict.PASS


def test_too_few_numbers_are_no_pass_and_no_column_is_an_error():
    few = np.append(delays(1, rows=FEWEST_ROWS - 1), [math.nan] * 500)
    assert asked(few, delays(1)).verdict is Verdict.INCONCLUSIVE
    (found,) = semantics(with_column(), with_column(), {}, {"delay": delays(1)})
    assert found.verdict is Verdict.ERROR


def test_a_column_that_stands_still_while_others_move_is_stale():
    (column,) = FEATURES["columns"]
    both = a_release(features={**FEATURES, "columns": [{**column, "name": name} for name in ("delay", "other")]})
    found = semantics(both, both, {"delay": delays(1), "other": delays(2)}, {"delay": delays(1), "other": delays(3)})
    assert [each.verdict for each in found] == [Verdict.FAIL, Verdict.PASS]
    assert "stale" in found[0].reason


def test_a_new_column_has_no_meaning_to_differ_from():
    (found,) = semantics(with_column(name="rain"), with_column(), {"rain": delays(1)}, {"delay": delays(1)})
    assert (found.verdict, "new" in found.reason) == (Verdict.PASS, True)
