"""Rules between documents that no single file can break alone; needs neither store nor server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from seatrial.contracts import differences
from seatrial.documents import Flaw, shown, suggestion
from seatrial.plan import Approval
from seatrial.release import RiskTier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from seatrial.contracts import FeatureContract
    from seatrial.documents import Document, Location
    from seatrial.errors import Problem
    from seatrial.plan import Plan
    from seatrial.release import Release

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Documents:
    """Sound documents, each with the text that it came from."""

    plans: Sequence[tuple[Document, Plan]] = ()
    releases: Sequence[tuple[Document, Release]] = ()
    contracts: Sequence[tuple[Document, FeatureContract]] = ()
    #: roles by name of the person; None when no settings are among the documents
    approvers: Mapping[str, frozenset[str]] | None = field(default=None)


def problems_between(documents: Documents) -> list[Problem]:
    """Return every problem between `documents`, each at the place where it is mended."""
    return [
        *_told(documents.plans, lambda plan: _roles_are_held(plan, documents.approvers)),
        *_told(documents.plans, lambda plan: _contract_is_known(plan, documents)),
        *_told(documents.releases, lambda release: _actions_are_carried_out(release, documents)),
        *_told(documents.releases, lambda release: _columns_are_promised(release, documents)),
        *_told(documents.releases, lambda release: _high_risk_is_approved(release, documents)),
        *_one_content_for_each_version(documents),
    ]


def _told(documents: Sequence[tuple[Document, ValueT]], rule: Callable[[ValueT], Iterable[Flaw]]) -> Iterator[Problem]:
    for document, value in documents:
        yield from map(document.problem, rule(value))


def _roles_are_held(plan: Plan, approvers: Mapping[str, frozenset[str]] | None) -> Iterator[Flaw]:
    if approvers is None:
        return
    held = {role for roles in approvers.values() for role in roles}
    asked: list[tuple[Location, str]] = [
        (("approvers", "roles", at), role) for at, role in enumerate(plan.approvers.roles)
    ]
    if plan.gates.ownership is not None:
        asked += [
            (("stages", 0, "ownership", "tiers", name.value, "roles", at), role)
            for name, tier in plan.gates.ownership.tiers.items()
            for at, role in enumerate(tier.roles)
        ]
    for location, role in asked:
        if role not in held:
            yield Flaw(location, f"found the role {role!r}, which nobody in the settings has", suggestion(role, held))


def _contract_is_known(plan: Plan, documents: Documents) -> Iterator[Flaw]:
    asked, known = plan.gates.served, {contract.name for _, contract in documents.contracts}
    if asked is not None and asked.contract not in known:
        finding = f"found the contract {asked.contract!r}, expected one of those here"
        yield Flaw(("stages", 0, "served", "contract"), finding, suggestion(asked.contract, known))


def _plans_of(release: Release, documents: Documents) -> list[Plan]:
    return [plan for _, plan in documents.plans if plan.decision_point == release.decision_point]


def _actions_are_carried_out(release: Release, documents: Documents) -> Iterator[Flaw]:
    for plan in _plans_of(release, documents):
        if plan.gates.catalogue is not None:
            yield from _against_catalogue(release, plan.gates.catalogue.actions, f"plan {plan.name!r}")


def _against_catalogue(release: Release, known: Mapping[str, bool], whose: str) -> Iterator[Flaw]:
    for name, action in release.policy.actions.items():
        at = ("policy", "actions", name)
        if name not in known:
            yield Flaw(at, f"found {name!r}, which {whose} has not in its catalogue", suggestion(name, known))
        elif known[name] != action.reversible:
            finding = f"found {shown(action.reversible)}, expected what {whose} says, {shown(known[name])}"
            yield Flaw((*at, "reversible"), finding, "correct the one that is wrong")


def _columns_are_promised(release: Release, documents: Documents) -> Iterator[Flaw]:
    wanted = {plan.gates.served.contract for plan in _plans_of(release, documents) if plan.gates.served is not None}
    for contract in [each for _, each in documents.contracts if each.name in wanted]:
        offered = contract.by_name()
        for at, column in enumerate(release.features.columns):
            location = ("features", "columns", at)
            if column.name not in offered:
                finding = f"found {column.name!r}, which contract {contract.name!r} does not promise"
                yield Flaw(location, finding, suggestion(column.name, offered))
                continue
            for difference in differences(column, offered[column.name]):
                if difference.is_breaking:
                    finding = f"found {column.name!r} against contract {contract.name!r}: it {difference.what}"
                    yield Flaw(location, finding, "train on what is served, or agree on another contract")


def _high_risk_is_approved(release: Release, documents: Documents) -> Iterator[Flaw]:
    plans = _plans_of(release, documents)
    if release.risk_tier is RiskTier.HIGH and plans:
        named = [plan.name for plan in plans if not any(isinstance(stage, Approval) for stage in plan.stages)]
        if len(named) == len(plans):
            finding = f"found high, and no approval in {', '.join(named)}"
            yield Flaw(("risk_tier",), finding, "add an approval stage to a plan of this decision point")


def _one_content_for_each_version(documents: Documents) -> Iterator[Problem]:
    seen: dict[tuple[str, str, str], tuple[str, object]] = {}
    named = [
        *((("plan", "version"), document, plan.name, plan.version, plan) for document, plan in documents.plans),
        *(
            (("contract", "version"), document, each.name, each.contract.version, each)
            for document, each in documents.contracts
        ),
    ]
    for location, document, name, version, value in named:
        source, first = seen.setdefault((location[0], name, version), (document.source, value))
        if first != value:
            finding = f"found {name} {version}, which is something else in {source}"
            yield document.problem(Flaw(location, finding, "raise the version"))
