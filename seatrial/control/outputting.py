"""Keep account of batch outputs: register them, doubt them when a release is taken out, settle the doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from seatrial.errors import RefusedError
from seatrial.ledger import Record
from seatrial.outputs import BatchOutput, Standing
from seatrial.ports import Commit
from seatrial.rollout import RETURNING, State
from seatrial.units import short

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports
    from seatrial.rollout import Rollout

#: States of a rollout whose challenger is not trusted any more.
_TAKEN_OUT = RETURNING | {State.ROLLED_BACK, State.REJECTED}


def register_output(ports: Ports, output: BatchOutput, *, now: datetime, actor: str) -> BatchOutput:
    """Store `output`, at once suspect when a release in it was taken out meanwhile; again changes nothing.

    Raises NotFoundError for a release that is not registered, RefusedError for one of another decision point or a
    snapshot that was never published.
    """
    if (known := _known(ports, output)) is not None:
        return known
    for release_id in output.rows:
        release = ports.store.release(release_id).release
        if release.decision_point != output.decision_point:
            raise RefusedError(
                f"output {output.location}: release {short(release_id)} decides for {release.decision_point!r}, the"
                f" output is of {output.decision_point!r}; register it there"
            )
    present = ports.store.snapshot(output.decision_point).number
    if not 1 <= output.snapshot_no <= present:
        raise RefusedError(
            f"output {output.location}: found snapshot {output.snapshot_no}; expected 1 to {present}; assign its units"
            " by a published snapshot"
        )
    if doubt := _doubt(ports, output):
        output = replace(output, standing=Standing.SUSPECT, reason=doubt)
    record = _record(output, "output.registered", output.decision_point, None, now=now, actor=actor)
    ports.store.commit(Commit(records=(record,), outputs=(output,)))
    return output


def mark(ports: Ports, output_id: str, standing: Standing, *, reason: str, now: datetime, actor: str) -> BatchOutput:
    """Give an output another standing by a person's word; the same one again changes nothing.

    Raises NotFoundError, RefusedError when it cannot follow, ConflictError when somebody else was quicker.
    """
    output = ports.store.output(output_id)
    if output.standing is standing:
        return output
    after = output.marked(standing, f"{actor}: {reason}")
    record = _record(after, "output.marked", output.decision_point, None, now=now, actor=actor)
    ports.store.commit(Commit(records=(record,), outputs=(after,)))
    return after


def suspected(
    ports: Ports, rollout: Rollout, *, reason: str, now: datetime, actor: str
) -> tuple[tuple[BatchOutput, ...], tuple[Record, ...]]:
    """Return the outputs that `rollout`'s challenger decided in part, now suspect, and the records that say so."""
    doubted = tuple(
        output.marked(Standing.SUSPECT, f"{short(rollout.challenger)} was taken out: {reason}")
        for output in ports.store.outputs(rollout.decision_point)
        if output.standing is Standing.VALID and rollout.challenger in output.rows
    )
    records = tuple(
        _record(output, "output.marked", rollout.decision_point, rollout.id, now=now, actor=actor) for output in doubted
    )
    return doubted, records


def _known(ports: Ports, output: BatchOutput) -> BatchOutput | None:
    same = [each for each in ports.store.outputs(output.decision_point) if each.id == output.id]
    return same[0] if same else None


def _doubt(ports: Ports, output: BatchOutput) -> str | None:
    for rollout in ports.store.rollouts(output.decision_point):
        if rollout.challenger in output.rows and rollout.state in _TAKEN_OUT:
            return f"{short(rollout.challenger)} was taken out: {rollout.reason}"
    return None


def _record(
    output: BatchOutput, kind: str, decision_point: str, rollout_id: str | None, *, now: datetime, actor: str
) -> Record:
    key = f"output/{output.id}/{output.version}"
    return Record(now, kind, actor, decision_point, rollout_id, key, output.document())
