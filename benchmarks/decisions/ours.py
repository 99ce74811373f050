"""The rule of seatrial, over all replicates at once: harm, warnings, exposure, promotion and assignment.

The gates judge one rollout at a time. Here the same questions are put to hundreds, with the error budgets of a real
plan; the unit tests compare every verdict with that of the gates and the state machine on the same counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import yaml

from benchmarks.decisions import mixture
from benchmarks.decisions.rules import Act
from benchmarks.decisions.streams import CHALLENGER, CHAMPION, SLICE_SHARES
from seatrial.documents import check, parse_yaml
from seatrial.gates.assignment import DOUBTED
from seatrial.gates.counted import COMMON
from seatrial.plan import Canary, Labels, Plan

if TYPE_CHECKING:
    from benchmarks.decisions.mixture import Flags, Floats, Integers
    from benchmarks.decisions.rules import Look
    from benchmarks.decisions.streams import Counts, Stream

#: Relative worsening that must be ruled out before promotion.
MARGIN = 0.15
#: A share is served three times its soak at most, then a person is asked.
DEADLINE_SOAKS = 3


def plan_for(stream: Stream, *, declares_rate: bool = False) -> Plan:
    """Return the plan under which `stream` is rolled out; one tick is one hour."""
    names = [f"guardrail-{number}" for number in range(stream.guardrails)]
    values = [f"v{number:02d}" for number in range(SLICE_SHARES.size)] if stream.has_slices else []
    soak = stream.ramp.ticks
    window = stream.delay.window if stream.delay else 1
    document = {
        "plan": {"name": "benchmark", "version": "1", "decision_point": "benchmark"},
        "unit": "unit_key",
        "stages": [
            {"stage": "gates", "bounds": [{"metric": "auc", "at_least": 0.5}], "probe_max_age": "1 d"},
            {"stage": "shadow", "soak": "1 d", "deadline": "7 d", "min_units": 500, "max_flip_rate": "40 %"},
            *(
                {
                    "stage": "canary",
                    "share": f"{100 * share:g} %",
                    "soak": f"{soak} h",
                    "deadline": f"{DEADLINE_SOAKS * soak} h",
                    "rule_out": "100 % relative",
                }
                for share in stream.ramp.shares
            ),
            {"stage": "labels", "deadline": f"{DEADLINE_SOAKS * soak} h"},
            {"stage": "approval", "expires": "3 d"},
            {"stage": "promotion", "holdback": "5 %", "watch": "14 d"},
        ],
        "guardrails": [
            {
                "name": name,
                "source": "label",
                "label": name,
                "maturity": f"{window} h",
                "bad_when": [{"label": 1}],
                "margin": f"{100 * MARGIN:g} % relative",
                "slices": ["slice"] if values else [],
                "consequence": "roll_back",
                **({"expected": {"rate": f"{100 * rate:g} %"}} if declares_rate else {}),
            }
            for name, rate in zip(names, stream.base, strict=True)
        ],
        "slices": {"slice": values} if values else {},
        "budgets": {"rollback": "5 %", "hold": "20 %", "promote": "5 %", "srm": "0.5 %"},
        "label_coverage": {"at_least": "80 %"},
        "evidence": {"max_age": "6 h"},
        "lease": "12 h",
        "on_deadline": "ask",
        "approvers": {"roles": ["risk-owner"]},
    }
    return check(parse_yaml(yaml.safe_dump(document), "benchmark.yaml"), Plan)


def first_canary(plan: Plan) -> int:
    """Return the index of the plan's first canary."""
    return next(at for at, stage in enumerate(plan.stages) if isinstance(stage, Canary))


@dataclass
class Seatrial:
    """Harm by the kernel at every look; the share grows, and a release is promoted, on evidence only."""

    name: str = "seatrial"
    declares_rate: bool = False
    counts_units: bool = True
    asks_approval: bool = True
    settings: str = ""
    _in_labels: Flags = field(init=False)
    _label_ticks: Integers = field(init=False)

    def begin(self, stream: Stream, replicates: int) -> None:
        """Read the budgets of the plan for `stream`."""
        self.plan = plan_for(stream, declares_rate=self.declares_rate)
        self._in_labels = np.zeros(replicates, dtype=np.bool_)
        self._label_ticks = np.zeros(replicates, dtype=np.int64)
        shares = np.array(stream.ramp.shares)
        first = first_canary(self.plan)
        self._stage = np.arange(first, first + shares.size)
        self._harm = mixture.harm(shares, stage=self._stage, stages=len(self.plan.stages))
        self._harm_of_all = {
            at: mixture.harm_of_all(shares, rate=rate, stage=self._stage, stages=len(self.plan.stages))
            for at, rate in enumerate(stream.base)
            if self.declares_rate and rate >= COMMON
        }
        canary = self.plan.stages[first]
        labels = next(stage for stage in self.plan.stages if isinstance(stage, Labels))
        if not isinstance(canary, Canary):
            raise TypeError(f"plan: stage {first} is {canary.stage}; expected a canary")
        self._exposure = mixture.noninferiority(shares, margin=canary.rule_out.value)
        self._promotion = mixture.noninferiority(shares, margin=MARGIN)
        self._tilt = mixture.tilt(shares)
        self._canary_ticks = round(canary.deadline.total_seconds() / 3600)
        self._labels_ticks = round(labels.deadline.total_seconds() / 3600)
        needed = [math.log(1.0 / each.alpha) for each in self.plan.hypotheses()]
        self._needed = np.array(needed[: stream.guardrails])
        self._needed_in_slices = np.array(needed[stream.guardrails :]).reshape(stream.guardrails, -1)
        budgets = self.plan.budgets
        self.settings = (
            f"rollback {budgets.rollback:.0%} over all hypotheses, hold {budgets.hold:.0%}, promotion"
            f" {budgets.promote:.0%} at a margin of {MARGIN:.0%}, exposure rules out {canary.rule_out},"
            f" assignment {budgets.srm:.1%}, label coverage {self.plan.label_coverage.at_least:.0%}, late onset at"
            " planned stages; undecided after three times the soak: a person is asked"
        )
        if self.declares_rate:
            self.settings = (
                f"as seatrial, with the champion's rate in the plan: from {COMMON:.0%} on, good units count too"
            )

    def look(self, look: Look) -> Integers:
        """Return the acts of `seatrial.rollout.decide` on the findings of the gates, and approve at once."""
        acts = np.full(look.active.size, Act.STAY, dtype=np.int64)
        rows = np.flatnonzero(look.active)
        is_in_labels = self._in_labels[rows]
        self._label_ticks[rows] += is_in_labels
        counts = _rows(look.counts, rows)
        log_e = self._harm_log_e(counts)
        is_harmed = (log_e >= self._needed).any(axis=1) | self._is_slice_harmed(counts)
        is_soaked, is_last = look.is_soaked[rows], look.stage[rows] == look.shares.size - 1
        is_over = np.where(
            is_in_labels, self._label_ticks[rows] >= self._labels_ticks, look.since[rows] >= self._canary_ticks
        )
        due = np.flatnonzero(~is_harmed & (is_in_labels | is_soaked))
        is_open, is_broken = self._open_questions(_rows(counts, due), log_e[due], is_in_labels=is_in_labels[due])
        passed, waits = due[~is_open], due[is_open]
        moves = np.where(is_in_labels, Act.PROMOTE, np.where(is_last, Act.STAY, Act.ADVANCE))
        acts[rows[passed]] = moves[passed]
        late = is_over[waits]
        acts[rows[waits[late]]] = np.where(is_broken[is_open][late], Act.INVALID, Act.ASK)
        acts[rows[is_harmed]] = Act.ROLL_BACK
        self._in_labels[rows[passed]] |= is_last[passed]
        return acts

    def _harm_log_e(self, counts: Counts) -> Floats:
        """Return log E of each guardrail, shape (rows, guardrails)."""
        log_e = self._harm.log_e(counts.bad[:, :, CHALLENGER], counts.bad[:, :, CHAMPION])
        for at, of_all in self._harm_of_all.items():
            both = np.concatenate([counts.bad[:, at], counts.labelled - counts.matured_bad[:, at]], axis=-1)
            log_e[:, at] = of_all.log_e(both[:, CHALLENGER], both[:, CHAMPION])
        return log_e

    def _is_slice_harmed(self, counts: Counts) -> Flags:
        if not counts.slice_bad.shape[2]:
            return np.zeros(counts.bad.shape[0], dtype=np.bool_)
        bad = counts.slice_bad
        log_e = self._harm.log_e(
            bad[:, :, :, CHALLENGER], bad[:, :, :, CHAMPION], floor=float(self._needed_in_slices.min())
        )
        return np.asarray((log_e >= self._needed_in_slices).any(axis=(1, 2)))

    def _open_questions(self, counts: Counts, harm_log_e: Floats, *, is_in_labels: Flags) -> tuple[Flags, Flags]:
        """Return where a question keeps the stage open, and where it is the assignment."""
        budgets = self.plan.budgets
        is_broken, is_doubted = self._is_assignment_broken(counts)
        is_warned = (harm_log_e >= math.log(1.0 / budgets.hold)).any(axis=1)
        needed = math.log(1.0 / budgets.promote)
        exposed = self._exposure.log_e(counts.bad[:, :, CHALLENGER], counts.bad[:, :, CHAMPION])
        matured_bad = counts.matured_bad
        promoted = self._promotion.log_e(matured_bad[:, :, CHALLENGER], matured_bad[:, :, CHAMPION])
        matured = counts.matured.sum(axis=-1)
        coverage = np.divide(counts.labelled.sum(axis=-1), matured, out=np.zeros(matured.shape), where=matured > 0)
        is_covered = coverage.min(axis=1) >= self.plan.label_coverage.at_least
        may_promote = (promoted >= needed).all(axis=1) & is_covered
        is_answered = np.where(is_in_labels, may_promote, (exposed >= needed).all(axis=1))
        return np.asarray(is_doubted | is_warned | ~is_answered), is_broken

    def _is_assignment_broken(self, counts: Counts) -> tuple[Flags, Flags]:
        """Return where units, labels or units of a slice are not as assigned, and where that is in doubt.

        Half of the budget is for units.
        """
        half = self.plan.budgets.srm / 2
        units = mixture.tilt_log_e(self._tilt, counts.units[:, CHALLENGER], counts.units[:, CHAMPION])
        asked = counts.bad.shape[1] * (1 + counts.slice_units.shape[1])
        parts = np.concatenate([counts.labelled[:, None], counts.slice_units], axis=1)
        lost = mixture.tilt_log_e(self._tilt, parts[:, :, CHALLENGER], parts[:, :, CHAMPION])
        worst = np.maximum(units, lost.max(axis=1, initial=-math.inf) - math.log(asked))
        return worst >= math.log(1.0 / half), worst >= math.log(DOUBTED)


def _rows(counts: Counts, rows: Integers) -> Counts:
    return type(counts)(*(getattr(counts, name)[rows] for name in counts.__dataclass_fields__))
