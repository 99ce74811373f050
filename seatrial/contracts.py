"""Feature contracts: what a serving path promises of its columns, who owns it, and what another version changes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from seatrial.documents import Checked, ColumnName, Flag, Flaw, Name, Text, check, load_yaml, repeated, suggestion
from seatrial.release import Column


class ContractHead(Checked):
    """Which contract it is, and who answers for it."""

    name: Name = Field(description="what people and plans call the contract")
    version: Text = Field(description="the version of the contract, as text; other content is another version")
    owner: Text = Field(description="the person or team that answers for the whole contract")


class Feature(Column):
    """One column that the serving path computes."""

    deprecated: Flag = Field(False, description="true when no new release may read it; releases that serve still may")
    replaced_by: ColumnName | None = Field(None, description="the column to read instead of a deprecated one")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules of a column, and that only what is deprecated is replaced."""
        yield from super().flaws()
        yield self._only_the_deprecated_is_replaced()

    def _only_the_deprecated_is_replaced(self) -> Iterator[Flaw]:
        if self.replaced_by is not None and not self.deprecated:
            finding = "found a replacement of a column that is not deprecated"
            yield Flaw(("replaced_by",), finding, "add deprecated: true, or remove it")


class FeatureContract(Checked):
    """Every column that a serving path computes at present."""

    contract: ContractHead = Field(description="name, version and owner")
    features: tuple[Feature, ...] = Field(min_length=1, description="the columns that the serving path computes")

    @property
    def name(self) -> str:
        """What people and plans call the contract."""
        return self.contract.name

    def by_name(self) -> Mapping[str, Feature]:
        """Return the columns by name."""
        return {feature.name: feature for feature in self.features}

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between columns."""
        yield self._features_stand_once()
        yield self._replacements_are_served()

    def _features_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("features", at, "name"), each.name) for at, each in enumerate(self.features))

    def _replacements_are_served(self) -> Iterator[Flaw]:
        known = {each.name for each in self.features if not each.deprecated}
        for at, each in enumerate(self.features):
            if each.replaced_by is not None and each.replaced_by not in known:
                finding = f"found {each.replaced_by!r}, expected a column that is served and not deprecated"
                yield Flaw(("features", at, "replaced_by"), finding, suggestion(each.replaced_by, known))


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is otherwise, and whether a reader that was built on it before is broken by it."""

    column: str
    what: str  #: with both sides, for people
    is_breaking: bool


def load_contract(path: Path) -> FeatureContract:
    """Return the contract in the file at `path`; raises InvalidDocumentError with every problem of it."""
    return check(load_yaml(path), FeatureContract)


def compare(before: Sequence[Column], after: Sequence[Column]) -> list[Difference]:
    """Return what is otherwise in `after`, and whether it breaks readers that were built on `before`."""
    known, offered = {each.name: each for each in before}, {each.name: each for each in after}
    found = []
    for name, column in known.items():
        if name in offered:
            found += differences(column, offered[name])
        else:
            found.append(Difference(name, "is not served any more", is_breaking=True))
    found += [Difference(name, "is new", is_breaking=False) for name in offered if name not in known]
    return found


def differences(reader: Column, served: Column) -> list[Difference]:
    """Return how a column differs from what a reader of it was built on.

    Type, unit and definition break it whatever they are; a sign or an absence of nulls that is promised no more does,
    and one that is promised now does not. Meaning, owner, quantiles and a deprecation inform.
    """
    return [Difference(reader.name, what, is_breaking) for what, is_breaking in _differences(reader, served)]


def _differences(reader: Column, served: Column) -> Iterator[tuple[str, bool]]:
    if reader.dtype != served.dtype:
        yield f"type {reader.dtype} is now {served.dtype}", True
    if reader.unit != served.unit:
        yield f"unit {reader.unit} is now {served.unit}", True
    if reader.sign != served.sign:
        yield f"sign {reader.sign} is now {served.sign}", reader.sign != "any"
    if reader.nullable != served.nullable:
        yield ("may be missing now", True) if served.nullable else ("is never missing now", False)
    if reader.definition != served.definition:
        if reader.definition is None:
            yield "its definition is pinned now", False
        else:
            yield f"is computed by {served.definition or 'nobody says what'}, was by {reader.definition}", True
    for word in ("meaning", "owner", "quantiles"):
        if getattr(reader, word) != getattr(served, word):
            yield f"another {word}: {getattr(served, word) or 'none'}", False
    if isinstance(served, Feature) and served.deprecated and not getattr(reader, "deprecated", False):
        yield f"is deprecated{f', read {served.replaced_by}' if served.replaced_by else ''}", False


def version_problem(before: FeatureContract, after: FeatureContract) -> Difference | None:
    """Return that two contents bear one version, or None; whoever pins a version must know what it means."""
    is_same = (before.name, before.contract.version) == (after.name, after.contract.version)
    if is_same and before != after:
        return Difference(
            before.name, f"version {before.contract.version} names two contents; raise the version", is_breaking=True
        )
    return None
