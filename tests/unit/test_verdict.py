import itertools

import pytest

from seatrial.verdict import Verdict, worst


def test_pass_is_the_best_verdict_and_fail_the_worst():
    assert list(Verdict) == sorted(Verdict) == [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_is_never_true_or_false(verdict):
    with pytest.raises(TypeError, match=r"compare it with Verdict\.PASS"):
        bool(verdict)


def test_no_verdict_at_all_is_inconclusive():
    assert worst([]) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("verdicts", list(itertools.product(Verdict, repeat=3)))
def test_the_worst_is_a_pass_only_when_all_are(verdicts):
    assert (worst(verdicts) is Verdict.PASS) == all(verdict is Verdict.PASS for verdict in verdicts)
    assert worst(verdicts) is worst(reversed(verdicts))
