"""The routing snapshot that a rollout calls for: publish it, correct it, renew its lease."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.control.recording import snapshot_body
from seatrial.ledger import Record
from seatrial.plan import Shadow
from seatrial.ports import Commit
from seatrial.rollout import SERVING, Rollout, State, is_judged, share_of
from seatrial.routing import Parts, RoutingSnapshot, ShadowBudget, parts_of
from seatrial.routing.signing import signed
from seatrial.units import share_to_slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from seatrial.control.judging import Judged
    from seatrial.plan import Plan, Stage
    from seatrial.ports import Ports
    from seatrial.routing import Kill


def agree(ports: Ports, decision_point: str, *, now: datetime, actor: str) -> bool:
    """Publish the snapshot that the rollouts call for if another one is in force; return whether that was needed.

    Raises ConflictError when a rollout moved meanwhile, and with it the snapshot.
    """
    # Read before the rollouts: a rollback in between publishes a snapshot of its own, and this one is then refused.
    present = ports.store.snapshot(decision_point)
    owner = owner_of(ports, decision_point)
    if owner is None:
        return False
    plan = ports.store.plan(owner.plan_id)
    snapshot = next_snapshot(ports, owner, plan, present=present, now=now)
    if snapshot is None:
        return False
    record = Record(
        now,
        "share.corrected",
        actor,
        decision_point,
        owner.id,
        f"{decision_point}/{snapshot.number}/corrected",
        snapshot_body(snapshot),
    )
    ports.store.commit(Commit(records=(record,), snapshot=snapshot))
    return True


def owner_of(ports: Ports, decision_point: str) -> Rollout | None:
    """Return the rollout whose state the present routing must express.

    One that would return a champion which was demoted meanwhile is none: another one took its place.
    """
    rollouts = ports.store.rollouts(decision_point)
    champion = ports.store.champions().get(decision_point)
    active = [r for r in rollouts if r.is_active and r.champion == champion]
    watched = [r for r in rollouts if r.state is State.CHAMPION]
    candidates = active or watched
    return candidates[-1] if candidates else None


def next_snapshot(
    ports: Ports, rollout: Rollout, plan: Plan, *, present: RoutingSnapshot, now: datetime, kills: tuple[Kill, ...] = ()
) -> RoutingSnapshot | None:
    """Return the snapshot to publish for `rollout`, or None when the present one assigns the same.

    `kills` are orders that come with it.
    """
    wanted = with_orders(ports, _wanted(ports, rollout, plan, now=now), present, now=now, kills=kills)
    if wanted.has_same_assignment(present):
        return None
    return sealed_by(ports, replace(wanted, number=present.number + 1))


def sealed_by(ports: Ports, snapshot: RoutingSnapshot) -> RoutingSnapshot:
    """Return `snapshot` with the control plane's signature, or as it is where no key is configured."""
    return snapshot if ports.signer is None else signed(snapshot, ports.signer)


def with_orders(
    ports: Ports, snapshot: RoutingSnapshot, present: RoutingSnapshot, *, now: datetime, kills: tuple[Kill, ...] = ()
) -> RoutingSnapshot:
    """Return `snapshot` with the orders of `present` and `kills`, and the parts of every release it names."""
    pins = tuple(pin for pin in present.pins if now < pin.expires_at)
    ordered = replace(snapshot, pins=pins, kills=(*present.kills, *kills))
    return replace(ordered, parts=parts_in(ports, ordered.releases(), known=present.parts))


def parts_in(ports: Ports, releases: Iterable[str], *, known: Mapping[str, Parts]) -> dict[str, Parts]:
    """Return what data planes need of each of `releases`; a release never changes, so what is `known` is not read."""
    return {
        release_id: known.get(release_id) or parts_of(ports.store.release(release_id).release)
        for release_id in releases
    }


def _wanted(ports: Ports, rollout: Rollout, plan: Plan, *, now: datetime) -> RoutingSnapshot:
    share = share_of(rollout, plan)
    is_promoted = rollout.state in (State.PROMOTING, State.CHAMPION)
    serves = rollout.challenger if is_promoted else rollout.champion
    alone = RoutingSnapshot(rollout.decision_point, 0, champion=serves, fallback=serves)
    is_shadowed = rollout.state is State.SHADOW
    if not is_shadowed and (share == 0.0 or (is_promoted and share == 1.0)):
        return alone
    segments = ports.store.release(rollout.challenger).release.segments
    return replace(
        alone,
        champion=rollout.champion,
        challenger=rollout.challenger,
        rollout_id=rollout.id,
        segment=plan.segment,
        when={} if plan.segment is None else segments.rule(plan.segment),
        slots=share_to_slots(share),
        shadow=is_shadowed,
        budget=_budget(plan.stages[rollout.stage]) if is_shadowed else None,
        stage=rollout.stage,
        salt=f"{segments.salt}/{rollout.id}/",
        lease_until=now + plan.lease if share else None,
    )


def _budget(stage: Stage) -> ShadowBudget | None:
    if not isinstance(stage, Shadow) or stage.cost is None:
        return None
    cost = stage.cost
    return ShadowBudget(share_to_slots(cost.sampling), cost.max_per_s, cost.max_concurrent, cost.dependencies)


def renew(ports: Ports, rollout: Rollout, plan: Plan, judged: Judged, *, now: datetime) -> None:
    """Extend the lease of the rollout's own snapshot, only after fresh evidence was really judged."""
    if rollout.state not in SERVING or not is_judged(judged.findings):
        return
    present = ports.store.snapshot(rollout.decision_point)
    if present.rollout_id == rollout.id and present.slots:
        ports.store.renew(sealed_by(ports, replace(present, lease_until=now + plan.lease)))
