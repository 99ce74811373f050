"""Markdown for people: the living page of a rollout, the question to an approver, the report of one stage."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from seatrial.errors import RefusedError
from seatrial.gates.finding import Question
from seatrial.plan import Promotion
from seatrial.report.findings import assigned_units, findings_table
from seatrial.report.moves import asked_look, moves
from seatrial.report.plots import evidence_plot, image, promotion_plot, share_plot, share_steps
from seatrial.report.quality import quality
from seatrial.report.waivers import waivers
from seatrial.report.wording import (
    distance,
    headline,
    is_waiting,
    is_watched,
    moment,
    name_of,
    next_step,
    percent,
    plain,
    requests,
    rule_text,
    serving_share,
    situation,
    stage_text,
    table,
)
from seatrial.rollout import State, limit_of, share_of, state_of
from seatrial.units import format_duration, short
from seatrial.waiver import waived_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from seatrial.evidence import Evidence
    from seatrial.ledger import Entry
    from seatrial.plan import Plan
    from seatrial.ports import Look
    from seatrial.report.moves import Move
    from seatrial.rollout import Rollout
    from seatrial.waiver import Waived


def page(
    rollout: Rollout,
    plan: Plan,
    looks: Sequence[Look],
    entries: Sequence[Entry],
    names: Mapping[str, str],
    *,
    now: datetime,
) -> str:
    """Return the living page of `rollout`, as Markdown.

    Parameters
    ----------
    looks, entries
        Those of this rollout, oldest first; either may be empty.
    names
        "name version" by release id; a release that is not in it goes by the beginning of its id.
    """
    challenger = plain(name_of(names, rollout.challenger))
    made = moves(entries)
    parts = [
        f"# {challenger} on {plain(rollout.decision_point)}",
        f"## {headline(rollout.state)}",
        plain(situation(rollout, plan, names)),
        f"**Why it is here:** {plain(rollout.reason)}",
        f"**To do:** {plain(next_step(rollout, plan, looks[-1].findings if looks else ()))}",
        _facts(rollout, plan, looks, now=now),
        *waivers(waived_of(entries), now=now),
        "## Stages",
        _stages(rollout, plan, made, now=now),
        *_plots(looks, entries),
        *_last_findings(looks, now=now),
        "## Decided so far",
        _timeline(made),
        _identity(rollout, plan),
    ]
    return "\n\n".join(parts)


def question(
    rollout: Rollout,
    plan: Plan,
    looks: Sequence[Look],
    names: Mapping[str, str],
    *,
    evidence: Evidence | None = None,
    waived: Sequence[Waived] = (),
    now: datetime,
) -> str:
    """Return what a person is asked in state AWAITING_APPROVAL or AWAITING_DECISION, as Markdown of at most 400 kB.

    The findings shown are those of the evidence that the answer will name, not of a later look; what later looks
    said stands below them. `evidence` is that same evidence, None when it cannot be read, which is said; `waived` are
    the waivers of the rollout. Raises
    RefusedError in any other state, in which nothing is asked.
    """
    if not is_waiting(rollout):
        raise RefusedError(
            f"rollout {rollout.id}: it is in state {rollout.state}; a person is asked in {State.AWAITING_APPROVAL} or"
            f" {State.AWAITING_DECISION}; show its page instead"
        )
    asked = asked_look(rollout, looks)
    parts = [
        f"# {plain(_asked(rollout, plan, names))}",
        plain(situation(rollout, plan, names)),
        f"**Why you are asked:** {plain(rollout.reason)}",
        _answers(rollout, plan, names, now=now),
        _validity(rollout, plan),
        *waivers(waived, now=now),
        "## Findings",
    ]
    if asked is None:
        parts.append("The look that led here is not stored: **there is nothing to say yes to; reject, or ask why.**")
    else:
        parts += [f"From the look at {moment(asked.at)}:", findings_table(asked.findings), *_since(asked, looks)]
    parts += [*_plots(looks, ()), quality(evidence, plan)]
    parts.append(f"Rollout `{rollout.id}`, version {rollout.version}.")
    return "\n\n".join(parts)


def stage_report(
    rollout: Rollout,
    plan: Plan,
    looks: Sequence[Look],
    entries: Sequence[Entry] = (),
    *,
    evidence: Evidence | None = None,
    now: datetime,
) -> str:
    """Return findings and plots of the stage that `rollout` is in and what `evidence` measured, as Markdown.

    Only looks since the stage began count, and for a question to a person the look that led to it. Without `entries`
    the beginning of the present state is taken for that of the stage, which is wrong once a rollout has ended. Without
    `evidence` it says that the counts could not be read.
    """
    began = next((move.at for move in moves(entries) if move.stage == rollout.stage), rollout.entered_at)
    within = [look for look in looks if look.at > began or rollout.stage == 0]
    if is_waiting(rollout) and (led := asked_look(rollout, looks)) is not None and led not in within:
        within = [led, *within]
    stage = plan.stages[rollout.stage]
    counted = f"{len(within)} {'look' if len(within) == 1 else 'looks'}"
    parts = [
        f"# {plain(rollout.decision_point)}: {stage_text(stage)}, stage {rollout.stage + 1} of {len(plan.stages)}",
        f"**{headline(rollout.state)}**: {plain(rollout.reason)}",
        f"Since {moment(began)} ({distance(began, now=now)}), {counted}; {rule_text(stage)}.",
        *waivers(waived_of(entries), now=now),
        *_last_findings(within, now=now),
        *_plots(within, ()),
        quality(evidence, plan),
        f"Rollout `{rollout.id}`, version {rollout.version}.",
    ]
    return "\n\n".join(parts)


def _facts(rollout: Rollout, plan: Plan, looks: Sequence[Look], *, now: datetime) -> str:
    rows = [
        ["stage", f"{rollout.stage + 1} of {len(plan.stages)}: {stage_text(plan.stages[rollout.stage])}"],
        ["challenger's share", f"**{percent(serving_share(rollout, plan))}** of {plain(requests(rollout, plan))}"],
        ["since", f"{moment(rollout.entered_at)} ({distance(rollout.entered_at, now=now)})"],
    ]
    if rollout.deadline is not None:
        rows.append(["until", f"{moment(rollout.deadline)} ({distance(rollout.deadline, now=now)})"])
    if units := next((n for look in reversed(looks) if (n := assigned_units(look.findings)) is not None), None):
        rows.append(["exposure", f"{units:,.0f} units were assigned to the challenger so far"])
    if looks:
        is_late = is_watched(rollout) and now - looks[-1].at > plan.evidence.max_age
        allowed = format_duration(plan.evidence.max_age)
        warning = (
            f" **too long ago: after {allowed} the plan calls evidence stale; is the watch alive?**" if is_late else ""
        )
        rows.append(["last look", f"{moment(looks[-1].at)} ({distance(looks[-1].at, now=now)}){warning}"])
        rows.append(["it said", f"{looks[-1].action.upper()}: {plain(looks[-1].reason)}"])
    else:
        rows.append(["last look", "none yet"])
    return table(["now", ""], rows)


def _stages(rollout: Rollout, plan: Plan, made: Sequence[Move], *, now: datetime) -> str:
    spans = _spans(made, now=now)
    rows = [
        [
            _mark(at, rollout),
            f"{at + 1}",
            f"**{stage_text(stage)}**" if at == rollout.stage else stage_text(stage),
            rule_text(stage),
            moment(spans[at][0]) if at in spans else "",
            format_duration(spans[at][1] - spans[at][0]) if at in spans else "",
        ]
        for at, stage in enumerate(plan.stages)
    ]
    return table(["", "#", "stage", "rule", "began", "lasted"], rows)


def _spans(made: Sequence[Move], *, now: datetime) -> dict[int, tuple[datetime, datetime]]:
    """Return beginning and end of each stage that was entered; the present one lasts until `now`."""
    spans: dict[int, tuple[datetime, datetime]] = {}
    for move, then in zip_longest(made, made[1:]):
        if move.after in (State.REJECTED, State.ROLLING_BACK) or move.before is State.CHAMPION:
            break
        began = spans[move.stage][0] if move.stage in spans else move.at
        spans[move.stage] = (began, now if then is None else then.at)
    return spans


def _mark(at: int, rollout: Rollout) -> str:
    if at < rollout.stage:
        return "✓ done"
    if at > rollout.stage:
        return ""
    match rollout.state:
        case State.REJECTED | State.ROLLING_BACK | State.ROLLED_BACK | State.ROLLBACK_INCOMPLETE:
            return "**✗ ended here**"
        case State.CHAMPION | State.SUPERSEDED | State.RETIRED:
            return "✓ done"
        case _:
            return "**▶ here**"


def _plots(looks: Sequence[Look], entries: Sequence[Entry]) -> list[str]:
    """Return the plots for which there is something to plot."""
    asked = {finding.question for look in looks for finding in look.findings}
    plots = []
    if any(share > 0.0 for _, share in share_steps(looks, entries)):
        plots.append(image(share_plot(looks, entries), "share of the challenger over time"))
    if Question.HARM in asked:
        plots.append(image(evidence_plot(looks), "evidence of harm over time, with thresholds"))
    if asked & {Question.PROMOTION, Question.EXPOSURE}:
        plots.append(image(promotion_plot(looks), "evidence that harm is ruled out over time, with thresholds"))
    return plots


def _last_findings(looks: Sequence[Look], *, now: datetime) -> list[str]:
    if not looks:
        return ["## Findings", findings_table(())]
    last = looks[-1]
    said = f"Look at {moment(last.at)} ({distance(last.at, now=now)}), evidence `{short(last.evidence_digest)}`:"
    return ["## Findings of the last look", said, findings_table(last.findings)]


def _timeline(made: Sequence[Move]) -> str:
    if not made:
        return "Nothing is recorded yet."
    rows = [
        [
            moment(move.at),
            f"{'' if move.before is None else f'{move.before} '}→ {move.after}",
            plain(move.who),
            plain(move.reason),
        ]
        for move in made
    ]
    return table(["time", "from → to", "who", "reason"], rows)


def _identity(rollout: Rollout, plan: Plan) -> str:
    rows = [
        ["rollout", f"`{rollout.id}`, version {rollout.version}, requested by {plain(rollout.requested_by)}"],
        ["challenger", f"`{rollout.challenger}`"],
        ["champion", f"`{rollout.champion}`"],
        ["plan", f"{plain(plan.name)} {plain(plan.version)}, `{plan.id}`"],
        ["evidence", f"`{rollout.evidence_digest or 'none'}`"],
    ]
    return table(["name", "identity"], rows)


def _asked(rollout: Rollout, plan: Plan, names: Mapping[str, str]) -> str:
    challenger = name_of(names, rollout.challenger)
    if rollout.state is State.AWAITING_DECISION:
        return f"{challenger} is undecided at its deadline: continue, or end it?"
    following = plan.stages[rollout.stage + 1]
    if isinstance(following, Promotion):
        return f"May {challenger} become champion of {rollout.decision_point}?"
    return f"May {challenger} answer {percent(_share_after_yes(rollout, plan))} of {requests(rollout, plan)}?"


def _share_after_yes(rollout: Rollout, plan: Plan) -> float:
    at = rollout.stage if rollout.state is State.AWAITING_DECISION else rollout.stage + 1
    return share_of(replace(rollout, state=state_of(plan.stages[at]), stage=at), plan)


def _answers(rollout: Rollout, plan: Plan, names: Mapping[str, str], *, now: datetime) -> str:
    champion = plain(name_of(names, rollout.champion))
    change = f"share {percent(serving_share(rollout, plan))} → **{percent(_share_after_yes(rollout, plan))}**"
    rejected = f"{champion} answers everything and the rollout ends for good"
    if rollout.state is State.AWAITING_DECISION:
        again = plan.stages[rollout.stage]
        yes = f"{change}: {stage_text(again)} once more, for {format_duration(limit_of(again))} at most"
        silence = f"nothing changes: {champion} answers everything until somebody answers"
        rows = [["**continue**", yes], ["**reject**", rejected], ["no answer", silence]]
    else:
        following = plan.stages[rollout.stage + 1]
        yes = f"{change}: {stage_text(following)}, {rule_text(following)}"
        silence = f"{champion} answers everything; a time-out is not a yes"
        until = "" if rollout.deadline is None else _expiry(rollout.deadline, now=now)
        rows = [["**approve**", yes], ["**reject**", rejected], [f"no answer{until}", silence]]
    return table(["your answer", "what it does"], rows)


def _validity(rollout: Rollout, plan: Plan) -> str:
    return (
        f"Your answer counts for this evidence only: `{rollout.evidence_digest or 'none'}`. A yes needs the role"
        f" {plain(' or '.join(plan.approvers.roles))} and cannot come from {plain(rollout.requested_by)}, who asked"
        " for the rollout, or from whoever made the release."
    )


def _expiry(deadline: datetime, *, now: datetime) -> str:
    return f" until {moment(deadline)} ({distance(deadline, now=now)})"


def _since(asked: Look, looks: Sequence[Look]) -> list[str]:
    """Return what looks after the one that is asked about said, when there are any."""
    later = [look for look in looks if look.at > asked.at]
    if not later:
        return []
    noun = "look" if len(later) == 1 else "looks"
    said = f"at {moment(later[-1].at)}, said {later[-1].action.upper()}: {plain(later[-1].reason)}"
    return [f"{len(later)} {noun} since then, on newer evidence; the last, {said}"]
