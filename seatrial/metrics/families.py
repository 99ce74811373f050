"""Every metric by name: what it counts, in which unit, and by which labels it is told apart."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Category(StrEnum):
    """Whose question a metric answers."""

    RELEASE = "release"  #: how rollouts go, and how fast a bad one is out
    RUNTIME = "runtime"  #: latency and errors of each arm
    TRAFFIC = "traffic"  #: who gets which requests, against what was meant
    BEHAVIOUR = "behaviour"  #: how differently the challenger answers
    QUALITY = "quality"  #: whether its answers come true
    BUSINESS = "business"  #: what they cost


class Absence(StrEnum):
    """Why there is no number; none of them is a zero."""

    NOT_YET = "not_yet"  #: what it measures has not happened
    NEVER = "never"  #: it did not happen, and cannot any more
    NOT_DECLARED = "not_declared"  #: the plan or the settings ask for nothing of the kind
    NO_EVIDENCE = "no_evidence"  #: no look was kept, or its counts cannot be read
    STALE = "stale"  #: the last look is older than the plan lets evidence be
    NO_UNITS = "no_units"  #: nothing was counted that it could be of
    TOO_FEW_UNITS = "too_few_units"  #: not one unit is expected beyond the quantile
    NO_ANSWER = "no_answer"  #: so many calls were never answered that the quantile is one of them
    NO_REFERENCE = "no_reference"  #: the champion's counts from before the rollout are missing
    UNBOUNDED = "unbounded"  #: the data set no limit on this side
    NOT_A_NUMBER = "not_a_number"
    NO_ROUTER = "no_router"  #: no router has ever reported
    FAILED = "failed"  #: the counts are none that it can be computed of


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its series."""

    name: str
    category: Category
    unit: str  #: for people; the name carries it where Prometheus has a word for it
    labels: tuple[str, ...]
    meaning: str


_POINT = ("decision_point",)
_ROLLOUT = ("decision_point", "rollout")
_ARM = (*_ROLLOUT, "arm")
_GUARDRAIL = (*_ROLLOUT, "guardrail")

_RELEASE = (
    (
        "rollout_info",
        "1",
        (*_ROLLOUT, "champion", "challenger", "state", "stage"),
        "an open or recently ended rollout, and where it stands",
    ),
    ("rollouts", "rollouts", (*_POINT, "outcome"), "rollouts so far: open, promoted, rolled_back or rejected"),
    (
        "rollback_ratio",
        "0 to 1",
        _POINT,
        "of the rollouts that have an outcome, those that were rolled back, after a promotion too",
    ),
    (
        "gate_fail_cause_info",
        "1",
        (*_ROLLOUT, "outcome", "cause", "subject"),
        "what ended the rollout: the question that failed and its subject, or answer, deadline or request",
    ),
    ("lead_time_seconds", "s", _ROLLOUT, "from the registration of the challenger to its promotion"),
    (
        "time_to_detect_seconds",
        "s",
        _ROLLOUT,
        "from the first share that routers were seen to serve to the decision that found harm",
    ),
    ("rollback_seconds", "s", _ROLLOUT, "from the decision to roll back to the champion seen on every live router"),
    ("rollback_pending_seconds", "s", _ROLLOUT, "how long a decided rollback has waited to be seen"),
    ("approval_age_seconds", "s", _ROLLOUT, "how long a person has been asked and has not answered"),
    ("watch_age_seconds", "s", (), "since the watch last finished a round"),
    ("evidence_age_seconds", "s", _ROLLOUT, "since the last kept look, whose counts all metrics of evidence show"),
    ("newest_decision_age_seconds", "s", _ROLLOUT, "since the newest decision that this look saw in the log"),
    (
        "findings",
        "findings",
        (*_ROLLOUT, "question", "verdict"),
        "binding findings of the last look on each question that was asked",
    ),
)
_RUNTIME = (
    (
        "latency_seconds",
        "s",
        (*_ARM, "quantile", "source"),
        "latency quantile, by the decision log (within 1 %) or by Prometheus",
    ),
    (
        "error_ratio",
        "0 to 1",
        (*_ARM, "source"),
        "part of the calls that failed: of shadowed requests by the log, or by Prometheus",
    ),
)
_TRAFFIC = (
    ("share_intended_ratio", "0 to 1", _ROLLOUT, "challenger's share in the routing snapshot in force"),
    (
        "share_expected_ratio",
        "0 to 1",
        _ROLLOUT,
        "challenger's part of the assigned units as the recorded shares would have it",
    ),
    ("share_observed_ratio", "0 to 1", _ROLLOUT, "challenger's part of the units that were assigned"),
    ("assigned_units", "units", _ARM, "units assigned in periods of comparison"),
    ("srm_log_e", "log E", _ROLLOUT, "natural logarithm of the evidence that units were not assigned as recorded"),
    ("srm_p_value", "0 to 1", _ROLLOUT, "p-value of the same that holds at all looks"),
    ("crossed_units", "units", _ROLLOUT, "units seen in both arms of one snapshot, which sticky assignment never does"),
    ("shadow_units", "units", _ROLLOUT, "units that both releases answered, the challenger in shadow"),
    ("routers", "routers", (*_POINT, "on"), "routers seen on the present snapshot, or on an older one"),
    ("lease_remaining_seconds", "s", _ROLLOUT, "until a challenger's share ends by itself; negative when it has"),
)
_BEHAVIOUR = (
    (
        "score_distance",
        "by measure",
        (*_ROLLOUT, "measure"),
        "how far the scores are apart: mean_difference, wasserstein, psi, psi_by_chance, jensen_shannon",
    ),
    ("no_score_ratio", "0 to 1", _ARM, "part of the units without a score"),
    ("flip_ratio", "0 to 1", _ROLLOUT, "part of the shadowed units for which the challenger recommends another action"),
)
_QUALITY = (
    (
        "guardrail_bad_ratio",
        "0 to 1",
        (*_GUARDRAIL, "source", "arm"),
        "part of the units that are bad; of a label guardrail, of its matured units",
    ),
    (
        "matured_label_ratio",
        "0 to 1",
        (*_GUARDRAIL, "arm"),
        "part of the matured units whose label came within the window",
    ),
    (
        "matured_rate_ratio",
        "ratio",
        (*_GUARDRAIL, "bound"),
        "challenger's rate of bad matured units over the champion's: estimate, and low and high at all looks",
    ),
    (
        "harm_log_e",
        "log E",
        (*_GUARDRAIL, "slice"),
        "natural logarithm of the evidence of harm: of all units, and of the worst slice",
    ),
    ("harm_log_e_needed", "log E", (*_GUARDRAIL, "slice"), "harm_log_e from which the rollout is rolled back"),
    (
        "expected_of_itself_estimate",
        "0 to 1",
        (*_ROLLOUT, "measure"),
        "an estimate without labels, by the challenger's own scores: accuracy, precision, recall at its cut-off",
    ),
)
_BUSINESS = (
    ("amount_mean", "as the amount", (*_GUARDRAIL, "arm"), "mean amount of a guardrail that averages"),
    ("amount_units", "units", (*_GUARDRAIL, "arm"), "units with an amount"),
)

#: Every metric of the control plane, in the order in which it is shown.
FAMILIES: Mapping[str, Family] = {
    name: Family(f"seatrial_{name}", category, unit, labels, meaning)
    for category, rows in (
        (Category.RELEASE, _RELEASE),
        (Category.RUNTIME, _RUNTIME),
        (Category.TRAFFIC, _TRAFFIC),
        (Category.BEHAVIOUR, _BEHAVIOUR),
        (Category.QUALITY, _QUALITY),
        (Category.BUSINESS, _BUSINESS),
    )
    for name, unit, labels, meaning in rows
}
#: Labels of `ABSENT`: those that the missing series would have, by which it can be told apart.
ABSENT_LABELS = ("metric", "reason", "decision_point", "rollout", "guardrail", "arm", "detail")
ABSENT = Family(
    "seatrial_metric_absent",
    Category.RELEASE,
    "1",
    ABSENT_LABELS,
    "a series of another metric that cannot be computed, and why; it is no zero",
)
UP = Family("seatrial_up", Category.RELEASE, "0 or 1", (), "1 when the store answered; with 0 there is no other metric")
