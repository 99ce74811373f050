"""Releases without files, for the two that a log names: the control plane reads their segments and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.change import Change
from seatrial.documents import Document, check
from seatrial.plan import Shadow
from seatrial.release import Release
from seatrial.units import digest_of

if TYPE_CHECKING:
    from seatrial.plan import Plan

#: What every part says that a log cannot tell.
_UNKNOWN = "not in the log"


def stand_in(plan: Plan, name: str, *, salt: str, target: str | None = None) -> Release:
    """Return a release `name` of the plan's decision point, which returns to `target`.

    It takes part with the plan's segment, which is a value of the log's column ``segment``.
    """
    digest = digest_of([_UNKNOWN, name if _is_for_models(plan) else "one model for both"])
    text = {"version": _UNKNOWN}
    document = {
        "release": {"name": name, **text, "decision_point": plan.decision_point},
        "model": {"artifact": "unknown", "digest": digest, "format": "unknown"},
        "training": {
            "snapshot": _UNKNOWN,
            "digest": digest,
            "as_of": "1970-01-01T00:00:00+00:00",
            "code": _UNKNOWN,
            "trained_by": _UNKNOWN,
            "features_digest": digest,
        },
        "features": {
            **text,
            "columns": [
                {
                    "name": "unknown",
                    "dtype": "float",
                    "unit": _UNKNOWN,
                    "nullable": True,
                    "meaning": _UNKNOWN,
                    "owner": _UNKNOWN,
                }
            ],
        },
        "output": {"kind": "amount", "range": [0, 1], "positive": _UNKNOWN},
        "policy": {
            **text,
            "default_action": "unknown",
            "actions": {"unknown": {"reversible": True}},
            "cut_offs": {"default": []},
        },
        "segments": {"salt": salt, **_segments(plan.segment)},
        "runtime": {"engine": _UNKNOWN, **text, "python": _UNKNOWN},
        "evaluation": {"report": "unknown", "digest": digest, "metrics": {"unknown": 0}, "dataset_digest": digest},
        "limits": {"p99_ms": 1, "timeout_ms": 1, "memory_mb": 1},
        "rollback_target": target or "none",
        "first_release": target is None,
        "owner": {"team": _UNKNOWN, "person": _UNKNOWN},
        # A plan without an approval is replayed too.
        "risk_tier": "low",
    }
    return check(Document(f"stand-in for the {name}", document), Release)


def _is_for_models(plan: Plan) -> bool:
    """Return whether a release with another model may follow `plan`; of one for cut-offs alone, both have one model."""
    if plan.changes:
        return Change.MODEL in plan.changes
    return any(isinstance(stage, Shadow) for stage in plan.stages)


def _segments(segment: str | None) -> dict[str, object]:
    if segment is None:
        return {"default": "everyone"}
    return {"default": f"not-{segment}", "rules": [{"name": segment, "when": {"segment": [segment]}}]}
