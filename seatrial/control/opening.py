"""Register releases and start rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.change import KEEPS_SCORES, changes, described, keeps_scores
from seatrial.control.outranking import is_killed
from seatrial.control.publishing import sealed_by
from seatrial.errors import ConflictError, InvalidDocumentError, NotFoundError, Problem, RefusedError
from seatrial.ledger import Record
from seatrial.plan import Approval, Shadow
from seatrial.ports import Commit, Registered
from seatrial.release import verify_files
from seatrial.rollout import ACTIVE, Rollout, State, limit_of
from seatrial.routing import RoutingSnapshot, parts_of
from seatrial.units import digest_of, short

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from seatrial.plan import Plan
    from seatrial.ports import Ports
    from seatrial.release import Release


def register(ports: Ports, release: Release, *, location: Path, now: datetime, actor: str) -> Registered:
    """Store `release` after its files are proven to be those it names; the first one of a decision point serves it.

    Raises InvalidDocumentError with every problem at once; then nothing is written.
    """
    problems = [*verify_files(release, location), *_target_problems(ports, release)]
    if problems:
        raise InvalidDocumentError(problems)
    registered = Registered(release, location, now)
    decision_point = release.decision_point
    body = {"name": release.name, "version": release.version, "components": release.components()}
    records = [Record(now, "release.registered", actor, decision_point, None, f"{release.id}/registered", body)]
    ports.store.add_release(registered, records)
    if release.rollback_target is None and decision_point not in ports.store.champions():
        _open_decision_point(ports, release, now=now, actor=actor)
    return registered


def _target_problems(ports: Ports, release: Release) -> list[Problem]:
    target = release.rollback_target
    champions = ports.store.champions()
    if target is None:
        serving = champions.get(release.decision_point)
        # A first release stays registered after another one was promoted over it.
        is_known = release.id in {each.release.id for each in ports.store.releases(release.decision_point)}
        if serving is None or is_known:
            return []
        return [
            Problem(
                "rollback_target",
                f"none, although {short(str(serving))} serves {release.decision_point!r}",
                "name the release that serves when this one is taken out",
            )
        ]
    try:
        known = ports.store.release(target).release
    except NotFoundError as error:
        return [Problem("rollback_target", str(error), "register the rollback target first")]
    if known.decision_point != release.decision_point:
        return [
            Problem(
                "rollback_target",
                f"{short(target)} belongs to decision point {known.decision_point!r}",
                f"name a release of {release.decision_point!r}",
            )
        ]
    return []


def _open_decision_point(ports: Ports, release: Release, *, now: datetime, actor: str) -> None:
    name = release.decision_point
    parts = {release.id: parts_of(release)}
    snapshot = RoutingSnapshot(name, 1, champion=release.id, fallback=release.id, parts=parts)
    body = {
        "champion": release.id,
        "reason": "first release of the decision point, served without a rollout",
        "snapshot": {"number": snapshot.number, "digest": snapshot.digest},
    }
    record = Record(now, "decision_point.opened", actor, name, None, f"{name}/opened", body)
    ports.store.commit(Commit(records=(record,), snapshot=sealed_by(ports, snapshot), champion=(name, release.id)))


def start(
    ports: Ports,
    release_id: str,
    plan: Plan,
    *,
    request: str,
    requested_by: str,
    now: datetime,
    flow_run_id: str | None = None,
) -> Rollout:
    """Open a rollout of `release_id` by `plan`; the same `request` again returns the rollout it opened.

    Raises RefusedError when release and plan do not fit, ConflictError when another rollout holds the decision point.
    """
    challenger = ports.store.release(release_id).release
    rollout_id = short(digest_of([challenger.id, plan.id, request]))
    existing = [r for r in ports.store.rollouts(challenger.decision_point) if r.id == rollout_id]
    if existing:
        return existing[0]
    _require_fit(ports, challenger, plan)
    champion = ports.store.champions()[challenger.decision_point]
    ports.store.add_plan(plan, now=now)
    rollout = Rollout(
        id=rollout_id,
        decision_point=challenger.decision_point,
        champion=champion,
        challenger=challenger.id,
        plan_id=plan.id,
        requested_by=requested_by,
        created_at=now,
        state=State.GATES,
        stage=0,
        entered_at=now,
        deadline=now + limit_of(plan.stages[0]),
        reason=f"requested by {requested_by}",
        flow_run_id=flow_run_id,
    )
    record = Record(
        now,
        "rollout.started",
        requested_by,
        rollout.decision_point,
        rollout.id,
        f"{rollout.id}/started",
        rollout.document(),
    )
    ports.store.commit(Commit(records=(record,), inserted=rollout))
    return rollout


def _require_fit(ports: Ports, challenger: Release, plan: Plan) -> None:
    name = challenger.decision_point
    if plan.decision_point != name:
        raise RefusedError(
            f"plan {plan.name!r} is for {plan.decision_point!r}, the release for {name!r}; take a plan for {name!r}"
        )
    champion = ports.store.champions().get(name)
    if champion is None:
        raise RefusedError(
            f"decision point {name!r} has no champion; register the release that serves it now, with rollback_target:"
            " none"
        )
    if champion == challenger.id:
        raise RefusedError(f"release {short(challenger.id)} is champion of {name!r} already; nothing to roll out")
    if challenger.rollback_target != champion:
        raise RefusedError(
            f"release {short(challenger.id)} returns to {short(str(challenger.rollback_target))}, but {short(champion)}"
            f" serves {name!r} now; make a release whose rollback_target is the present champion"
        )
    if is_killed(ports.store.snapshot(name), challenger.id):
        raise RefusedError(
            f"release {short(challenger.id)} is killed; a rollout would give it no unit; lift the order that"
            f" `seatrial routers {name}` shows"
        )
    if plan.segment is not None and plan.segment not in challenger.segments.names():
        raise RefusedError(
            f"plan {plan.name!r} is for segment {plan.segment!r}; the release has"
            f" {', '.join(challenger.segments.names())}"
        )
    if challenger.risk_tier == "high" and not any(isinstance(s, Approval) for s in plan.stages):
        raise RefusedError(f"plan {plan.name!r} has no approval, which a release of high risk needs")
    _require_stages(challenger, ports.store.release(champion).release, plan)
    active = [r for r in ports.store.rollouts(name) if r.state in ACTIVE]
    if active:
        raise ConflictError(
            f"rollout {active[0].id} holds {name!r} since {active[0].created_at:%Y-%m-%d %H:%M} ({active[0].state});"
            " wait for its end or kill it"
        )


def _require_stages(challenger: Release, champion: Release, plan: Plan) -> None:
    """Refuse a plan that is for other changes, or spares the shadow to a release that may score otherwise."""
    others = changes(challenger, champion) - set(plan.changes)
    if plan.changes and others:
        raise RefusedError(
            f"plan {plan.name!r} is for changes of {', '.join(plan.changes)}; the release is"
            f" {described(challenger, champion)}; take a plan for these changes"
        )
    if not keeps_scores(challenger, champion) and not any(isinstance(s, Shadow) for s in plan.stages):
        raise RefusedError(
            f"plan {plan.name!r} has no shadow, which only a change of {' or '.join(sorted(KEEPS_SCORES))} may spare;"
            f" the release is {described(challenger, champion)}"
        )
