"""The words of every report: states, stages, figures, times, and text that is safe inside Markdown."""

from __future__ import annotations

import html
import math
import re
from typing import TYPE_CHECKING, assert_never

from seatrial.gates.finding import Question, gate_of
from seatrial.plan import Approval, Canary, Gates, Labels, Promotion, Shadow
from seatrial.rollout import SERVING, State, limit_of, share_of, soak_of
from seatrial.units import format_duration, require_aware, short
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from seatrial.gates.finding import Finding
    from seatrial.plan import Plan, Stage
    from seatrial.rollout import Rollout

#: Longest text taken over from elsewhere, in characters: a report must not grow with an exception's message.
LONGEST = 300
#: E, and rates in percent, are not told apart below this.
_LEAST = 0.01
#: E from here on is written as a power of ten.
_LONG = 1e6
_MARKDOWN = re.compile(r"([\\`*\[\]|])|(?<!\w)(_)|(_)(?!\w)")


def plain(value: object) -> str:
    r"""Return `value` as one line of at most `LONGEST` characters that Markdown and HTML show as it is.

    >>> plain("a|b <b>*c*</b>")
    'a\\|b &lt;b&gt;\\*c\\*&lt;/b&gt;'
    """
    line = " ".join(str(value).split())
    clipped = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(clipped, quote=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(fraction: float) -> str:
    """Return `fraction` in percent with at most two decimals.

    >>> percent(0.05), percent(0.0125), percent(1.0)
    ('5 %', '1.25 %', '100 %')
    """
    text = f"{100.0 * fraction:.2f}"
    return f"{text.rstrip('0').rstrip('.')} %"


def rate(fraction: float) -> str:
    """Return a measured rate in percent with three significant digits, never rounded down to none.

    >>> rate(0.27301), rate(0.0014), rate(0.000001), rate(0.0)
    ('27.3 %', '0.14 %', 'below 0.01 %', '0 %')
    """
    if 0.0 < fraction < _LEAST / 100.0:
        return f"below {_LEAST} %"
    return f"{100.0 * fraction:.3g} %"


def evidence_value(log_e: float | None) -> str:
    """Return E of its natural logarithm, with three digits; None and NaN are unknown, which is not small.

    >>> evidence_value(0.0), evidence_value(20.0), evidence_value(-9.0), evidence_value(None)
    ('1', '10^8.7', 'below 0.01', 'unknown')
    """
    if log_e is None or math.isnan(log_e):
        return "unknown"
    if log_e < math.log(_LEAST):
        return f"below {_LEAST}"
    if log_e < math.log(_LONG):
        return _three_digits(math.exp(log_e))
    return "infinite" if math.isinf(log_e) else f"10^{log_e / math.log(10.0):.1f}"


def _three_digits(value: float) -> str:
    decimals = max(0, 2 - math.floor(math.log10(value) + 1e-9)) if value >= 1.0 else 2
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def moment(at: datetime) -> str:
    """Return `at` to the minute, in UTC."""
    return f"{require_aware(at):%Y-%m-%d %H:%M} UTC"


def distance(at: datetime, *, now: datetime) -> str:
    """Return how far `at` is from `now`: ``in 2 d 3 h``, ``5 min ago``, ``now``."""
    if at == now:
        return "now"
    return f"in {format_duration(at - now)}" if at > now else f"{format_duration(now - at)} ago"


def name_of(names: Mapping[str, str], release_id: str) -> str:
    """Return the name of a release, or the beginning of its id when no name is known."""
    return names.get(release_id, short(release_id))


def stage_text(stage: Stage) -> str:
    """Return what `stage` is, in two words at most."""
    match stage:
        case Gates():
            return "gates"
        case Shadow():
            return "shadow"
        case Approval():
            return "approval"
        case Canary():
            return f"canary {percent(stage.share)}"
        case Labels():
            return "labels"
        case Promotion():
            return "promotion"
        case unreachable:
            assert_never(unreachable)


def rule_text(stage: Stage) -> str:
    """Return how long `stage` lasts and when it ends undecided."""
    limit = format_duration(limit_of(stage))
    match stage:
        case Approval():
            return f"a person answers within {limit}"
        case Promotion():
            return f"holdback {percent(stage.holdback)}, watched for {limit}"
        case Gates() | Shadow() | Canary() | Labels():
            soak = soak_of(stage)
            soaked = "" if soak is None else f"at least {format_duration(soak)}, "
            return f"{soaked}decided within {limit}"
        case unreachable:
            assert_never(unreachable)


def serving_share(rollout: Rollout, plan: Plan) -> float:
    """Return the part of traffic that the challenger answers by this rollout's state, in [0, 1].

    A champion whose watch is over is served without a comparison, which routing calls share 0 and people call all.
    """
    if rollout.state is State.CHAMPION and rollout.deadline is None:
        return 1.0
    return share_of(rollout, plan)


def requests(rollout: Rollout, plan: Plan) -> str:
    """Return whose requests are meant, as the object of a sentence."""
    of = f"{rollout.decision_point}'s requests"
    return of if plan.segment is None else f"{of} in segment {plan.segment}"


def headline(state: State) -> str:
    """Return the state as a reader who was woken up needs it, in capitals."""
    return state.value.upper()


_ALONE = "{champion} answers all of {whose}"
#: Who answers what, by state. A second text holds before any share was given, or after the watch is over.
_SITUATIONS: Mapping[State, str] = {
    State.GATES: f"{_ALONE}; {{challenger}} is checked before it sees any traffic.",
    State.SHADOW: f"{_ALONE}; {{challenger}} answers copies of them and nobody acts on its answers.",
    State.SHADOW_PAUSED: f"{_ALONE}; copies for {{challenger}} cost more than they may and are paused.",
    State.AWAITING_APPROVAL: (
        "{challenger} keeps {share} of {whose} while a person decides; {champion} answers the rest."
    ),
    State.CANARY: "{challenger} answers {share} of {whose}; {champion} answers the rest.",
    State.LABELS: "{challenger} keeps {share} of {whose} until matured labels decide; {champion} answers the rest.",
    State.AWAITING_DECISION: f"{_ALONE}; the evidence was undecided at the deadline and a person is asked.",
    State.PROMOTING: "{challenger} is being made champion with {share} of {whose}; not seen on every live router yet.",
    State.CHAMPION: "{challenger} is champion with {share} of {whose} and is watched until {deadline}.",
    State.SUPERSEDED: "A later release is champion; labels of {challenger} still arrive.",
    State.RETIRED: "A later release is champion; {challenger} is retired.",
    State.REJECTED: f"{_ALONE}; {{challenger}} was refused before it saw any traffic.",
    State.ROLLING_BACK: "{champion} is returning to all of {whose}; not seen on every live router yet.",
    State.ROLLED_BACK: f"{_ALONE}, as seen on every live router; {{challenger}} was taken out.",
    State.ROLLBACK_INCOMPLETE: (
        "{champion} should answer all of {whose}, but was not seen doing so on every live router: {challenger} may"
        " still answer some."
    ),
}
_UNEXPOSED = f"{_ALONE}; a person must say whether {{challenger}} may answer any."
_UNWATCHED = "{challenger} is champion and answers all of {whose}; its watch is over."


def situation(rollout: Rollout, plan: Plan, names: Mapping[str, str]) -> str:
    """Return in plain words who answers what now."""
    share = serving_share(rollout, plan)
    text = _SITUATIONS[rollout.state]
    if rollout.state is State.AWAITING_APPROVAL and share == 0.0:
        text = _UNEXPOSED
    if rollout.state is State.CHAMPION and rollout.deadline is None:
        text = _UNWATCHED
    return text.format(
        challenger=name_of(names, rollout.challenger),
        champion=name_of(names, rollout.champion),
        share=percent(share),
        whose=requests(rollout, plan),
        deadline="" if rollout.deadline is None else moment(rollout.deadline),
    )


def next_step(rollout: Rollout, plan: Plan, findings: Sequence[Finding] = ()) -> str:
    """Return what a person should do now, or that nothing is to be done; `findings` are those of the last look."""
    broken = next((f for f in findings if f.is_binding and _is_broken(f)), None)
    if broken is not None and (is_watched(rollout) or rollout.state is State.GATES):
        return (
            f"Repair what keeps evidence from being judged: {broken.subject}: {broken.reason}. Until then nothing is"
            " widened, and a share that is given ends with its lease."
        )
    waivable = next((f for f in findings if f.is_binding and f.is_waivable), None)
    if waivable is not None and rollout.state is not State.AWAITING_DECISION:
        return (
            f"Mend the cause and start a mended release, or a person with the role {' or '.join(plan.approvers.roles)}"
            f" waives gate {gate_of(waivable)} (`seatrial waive {rollout.id} {gate_of(waivable)}`): {waivable.reason}."
        )
    return _routine(rollout, plan)


def _is_broken(finding: Finding) -> bool:
    return finding.verdict is Verdict.ERROR or (
        finding.question is Question.ASSIGNMENT and finding.verdict is Verdict.FAIL
    )


def _routine(rollout: Rollout, plan: Plan) -> str:
    roles = " or ".join(plan.approvers.roles)
    match rollout.state:
        case State.AWAITING_APPROVAL:
            until = "" if rollout.deadline is None else f" until {moment(rollout.deadline)}"
            return f"A person with the role {roles} approves or rejects{until}; without an answer the champion returns."
        case State.AWAITING_DECISION:
            return f"A person with the role {roles} continues it for one more deadline, or rejects it."
        case State.ROLLING_BACK:
            return "Wait until every live router reports the present snapshot; restart or remove one that stays silent."
        case State.ROLLBACK_INCOMPLETE:
            return "Act now: find the routers that do not report the present snapshot and restart them or cut them off."
        case State.ROLLED_BACK | State.REJECTED:
            return "Find the cause offline; a mended release is a new release and starts a rollout of its own."
        case State.GATES | State.SHADOW | State.CANARY | State.LABELS:
            return "Nothing: every look judges it again, and proven harm returns the champion by itself."
        case State.SHADOW_PAUSED:
            return "Nothing: the shadow is tried again after its pause; if it stays too dear, plan a smaller sampling."
        case State.PROMOTING:
            return "Nothing, unless it lasts: then find the router that does not report the present snapshot."
        case State.CHAMPION | State.SUPERSEDED | State.RETIRED:
            return "Nothing."
        case unreachable:
            assert_never(unreachable)


def is_waiting(rollout: Rollout) -> bool:
    """Return whether a person is asked."""
    return rollout.state in (State.AWAITING_APPROVAL, State.AWAITING_DECISION)


def is_watched(rollout: Rollout) -> bool:
    """Return whether the logs are judged in its present state, so that a missing look means a dead watch."""
    if rollout.state is State.CHAMPION:
        return rollout.deadline is not None
    return rollout.state in SERVING or rollout.state is State.SHADOW
