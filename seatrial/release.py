"""What a release is: one immutable decision system, named by the digest of its manifest."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum, StrEnum
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from seatrial.documents import (
    Checked,
    ColumnName,
    Digest,
    Flag,
    Flaw,
    Moment,
    Name,
    Number,
    Text,
    check,
    load_yaml,
    repeated,
    shown,
    suggestion,
)
from seatrial.errors import NotFoundError, Problem, RefusedError
from seatrial.units import digest_bytes, digest_of, require_digest

#: Engine of a model that answers on a server by the Open Inference Protocol.
OPEN_INFERENCE = "open-inference"
#: Key of the cut-offs that hold in every segment without its own.
DEFAULT = "default"


class Authority(IntEnum):
    """What a release's answer may do, from watching to acting alone; each includes those before it."""

    OBSERVE = 1  #: nobody sees the answer
    RECOMMEND = 2  #: a person decides and sees it
    DECIDE_WITH_REVIEW = 3  #: it acts after a hold, or a person reviews a sample
    DECIDE_REVERSIBLE = 4  #: it acts alone where the action can be undone
    DECIDE = 5  #: it acts alone


class RiskTier(StrEnum):
    """How much harm a wrong release can do; a plan for high must hold an approval."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def _authority(value: object) -> Authority:
    if isinstance(value, Authority):
        return value
    known = {authority.name.lower(): authority for authority in Authority}
    if isinstance(value, str) and value in known:
        return known[value]
    raise ValueError(f"found {shown(value)}, expected one of {', '.join(known)}")


def _relative_path(value: str) -> str:
    path = PurePosixPath(value)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"found {shown(value)}, expected a path below the manifest, written with / and without ..")
    return value


def _target(value: object) -> str | None:
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        return require_digest(value)
    raise ValueError(f"found {shown(value)}, expected a release id (sha256: and 64 hexadecimal digits) or none")


def _is_left_out(value: object) -> bool:
    # A key that is new in the language of manifests must not change the id of releases that serve already.
    return value is None


RelativePath = Annotated[str, Field(strict=True), AfterValidator(_relative_path)]
Positive = Annotated[Number, Field(gt=0)]


class ReleaseHead(Checked):
    """Who the release is among releases."""

    name: Name = Field(description="what people call the release")
    version: Text = Field(description="the version of the release, as text")
    decision_point: Name = Field(description="the decision point that the release wants to serve")


class ModelArtifact(Checked):
    """The model file, pinned by its content."""

    artifact: RelativePath = Field(description="the path of the model file, relative to this manifest")
    digest: Digest = Field(description="the sha256 of the model file")
    format: Name = Field(description="the format of the model file, such as lightgbm-text")


class Training(Checked):
    """What produced the model, so that it can be produced again."""

    snapshot: Text = Field(description="the name or address of the training data as it was read")
    digest: Digest = Field(description="the digest of the training data")
    as_of: Moment = Field(description="the moment until which the training data knew the world")
    code: Text = Field(description="the revision or digest of the training code")
    trained_by: Text = Field(description="the person or job that trained the model")
    features_digest: Digest = Field(description="the digest of the code that computed the features for training")


class Column(Checked):
    """One feature as the model expects it; unit, sign and definition are what a type cannot say."""

    name: ColumnName = Field(description="the name of the column")
    dtype: Literal["float", "int", "category", "bool"] = Field(description="the type of the column")
    unit: Text = Field(description="the unit of the column, such as min or mph, or none")
    nullable: Flag = Field(description="whether the model was trained on missing values of the column")
    meaning: Text = Field(description="what the column says about a unit, in words")
    owner: Text = Field(description="the person or team that answers for the column")
    sign: Literal["any", "non_negative", "non_positive"] = Field("any", description="the signs the column may have")
    definition: Digest | None = Field(None, description="the digest of the code or query that computes the column")
    quantiles: tuple[Number, ...] = Field((), description="reference quantiles of the column, evenly spaced, ascending")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that quantiles ascend and belong to a numeric column."""
        yield self._quantiles_ascend()

    def _quantiles_ascend(self) -> Iterator[Flaw]:
        if self.quantiles and self.dtype in {"category", "bool"}:
            finding = f"found quantiles of a {self.dtype} column, expected none"
            yield Flaw(("quantiles",), finding, "remove them")
        if any(later < earlier for earlier, later in pairwise(self.quantiles)):
            yield Flaw(("quantiles",), "found quantiles that fall, expected them ascending", "sort them")


class FeatureSchema(Checked):
    """The columns of the feature vector, in the order in which the model reads them."""

    version: Text = Field(description="the version of the feature schema, as text")
    columns: tuple[Column, ...] = Field(min_length=1, description="the columns in the order the model reads them")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a column stands once."""
        yield self._columns_stand_once()

    def _columns_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("columns", at, "name"), column.name) for at, column in enumerate(self.columns))


class OutputContract(Checked):
    """What a score means."""

    kind: Literal["probability", "rank", "amount"] = Field(description="what the score is")
    range: tuple[Number, Number] = Field(description="the least and the greatest score the model may give")
    positive: Text = Field(description="what a high score says, in words")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that the range is one, and that of a probability lies in [0, 1]."""
        yield self._range_is_a_range()

    def _range_is_a_range(self) -> Iterator[Flaw]:
        low, high = self.range
        if not low < high:
            yield Flaw(("range",), f"found [{low:g}, {high:g}], expected the least score first", "swap the two")
        elif self.kind == "probability" and not 0.0 <= low < high <= 1.0:
            finding = f"found [{low:g}, {high:g}], expected a range of probabilities within [0, 1]"
            yield Flaw(("range",), finding, "correct the range, or declare the score a rank or an amount")


class Action(Checked):
    """What can be done with a unit."""

    reversible: Flag = Field(description="whether the action can be undone without loss")


class CutOff(Checked):
    """One rule of a policy: from this score on, this action."""

    action: Name = Field(description="the action taken from this score on")
    at_least: Number = Field(description="the least score for which the action is taken")


class Recommendation(NamedTuple):
    """What a policy makes of one score."""

    action: str
    #: the least score of the rule that fired; None when no rule did and the default action stands
    cut_off: float | None
    #: the rule that fired, as ``list[position]``, or ``default_action``
    rule: str


class Policy(Checked):
    """The versioned rules that turn a score into an action."""

    version: Text = Field(description="the version of the policy, as text")
    default_action: Name = Field(description="the action when the score reaches no cut-off")
    actions: Mapping[Name, Action] = Field(min_length=1, description="every action the policy may take")
    cut_offs: Mapping[Name, tuple[CutOff, ...]] = Field(
        description="the cut-offs, highest first: a list named default, and one for each segment that differs"
    )
    chosen_for: Digest | None = Field(
        None, description="the sha256 of the model file whose scores the cut-offs were chosen on"
    )
    fallback: Name | None = Field(
        None, description="the action when nobody can review in time; left out, it is the default action"
    )
    authority: Annotated[
        Authority,
        PlainValidator(_authority),
        PlainSerializer(lambda authority: authority.name.lower(), return_type=str),
        WithJsonSchema({"enum": [authority.name.lower() for authority in Authority]}),
    ] = Field(
        # The decision point's ceiling caps every release, so that a release needs no cap of its own.
        Authority.DECIDE,
        description="the most that the answers of this release may do",
    )

    @property
    def safe_action(self) -> str:
        """The action when a score cannot be had or nobody can review in time."""
        return self.fallback or self.default_action

    def decide(self, score: float, segment: str, *, within: tuple[float, float]) -> Recommendation:
        """Return what the policy makes of `score` for a unit of `segment`.

        Parameters
        ----------
        score
            The model's answer, in the unit and range of the output contract.
        segment
            Name of the unit's segment; one without cut-offs of its own is judged by the default ones.
        within
            Least and greatest score of the output contract, both included.

        Raises
        ------
        ValueError
            When `score` is NaN, infinite or outside `within`; the caller falls back to the champion or to
            `safe_action`, for a broken score never selects an action.
        """
        low, high = within
        if not (low <= score <= high and math.isfinite(score)):
            raise ValueError(f"score {score!r}: expected a finite score from {low:g} to {high:g}; fall back")
        name = segment if segment in self.cut_offs else DEFAULT
        for position, cut_off in enumerate(self.cut_offs[name]):
            if score >= cut_off.at_least:
                return Recommendation(cut_off.action, cut_off.at_least, f"{name}[{position}]")
        return Recommendation(self.default_action, None, "default_action")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that actions are declared, default cut-offs exist, and cut-offs descend."""
        yield self._own_actions_are_declared()
        yield self._default_exists()
        for name in self.cut_offs:
            yield self._cut_off_actions_are_declared(name)
            yield self._cut_offs_descend(name)

    def _own_actions_are_declared(self) -> Iterator[Flaw]:
        yield from self._declared(("default_action",), self.default_action)
        if self.fallback is not None:
            yield from self._declared(("fallback",), self.fallback)

    def _cut_off_actions_are_declared(self, name: str) -> Iterator[Flaw]:
        for position, cut_off in enumerate(self.cut_offs[name]):
            yield from self._declared(("cut_offs", name, position, "action"), cut_off.action)

    def _declared(self, at: tuple[str | int, ...], action: str) -> Iterator[Flaw]:
        if action not in self.actions:
            yield Flaw(at, f"found the undeclared action {action!r}", suggestion(action, self.actions))

    def _default_exists(self) -> Iterator[Flaw]:
        if DEFAULT not in self.cut_offs:
            finding = "found no such key, expected it"
            yield Flaw(("cut_offs", DEFAULT), finding, "add it: default holds in every segment without its own list")

    def _cut_offs_descend(self, name: str) -> Iterator[Flaw]:
        for position, (above, below) in enumerate(pairwise(self.cut_offs[name]), 1):
            if not below.at_least < above.at_least:
                finding = f"found {below.at_least:g} after {above.at_least:g}, expected less: it would never be reached"
                yield Flaw(("cut_offs", name, position, "at_least"), finding, "write the highest cut-off first")


class SegmentRule(Checked):
    """One segment: the units whose every named column has one of the listed values."""

    name: Name = Field(description="the name of the segment")
    when: Mapping[ColumnName, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        min_length=1, description="columns and the values they may have; every column must match"
    )

    def matches(self, attributes: Mapping[str, object]) -> bool:
        """Return whether a unit with `attributes` belongs here; a missing attribute matches nothing."""
        return all(name in attributes and attributes[name] in values for name, values in self.when.items())


def common_unit(first: SegmentRule, second: SegmentRule) -> dict[str, str] | None:
    """Return attributes of a unit that both rules match, or None: a proof that no such unit exists.

    A rule is a conjunction of column-in-set, so two rules are disjoint exactly when some column stands in both with
    sets that share no value.
    """
    unit: dict[str, str] = {}
    for name in sorted(first.when.keys() | second.when.keys()):
        allowed = [rule.when[name] for rule in (first, second) if name in rule.when]
        common = [value for value in allowed[0] if value in allowed[-1]]
        if not common:
            return None
        unit[name] = common[0]
    return unit


class Segments(Checked):
    """Disjoint segments and the one for everybody else."""

    salt: Text = Field(description="text hashed with the unit key, so that rollouts draw independent units")
    default: Name = Field(description="the segment of every unit that no rule matches")
    rules: tuple[SegmentRule, ...] = Field((), description="the segments, no two of which share a unit")

    def segment_of(self, attributes: Mapping[str, object]) -> str:
        """Return the name of the one segment that a unit with `attributes` belongs to.

        Attributes are what is known of the unit before the decision. A missing attribute matches no rule, so that a
        unit of which nothing is known is in the default segment.
        """
        return next((rule.name for rule in self.rules if rule.matches(attributes)), self.default)

    def names(self) -> tuple[str, ...]:
        """Return the names of all segments, the default one first."""
        return (self.default, *(rule.name for rule in self.rules))

    def rule(self, name: str) -> Mapping[str, tuple[str, ...]]:
        """Return the columns and values that describe the segment `name`; all must match, and no column is everybody.

        Raises
        ------
        NotFoundError
            When there is no such segment.
        RefusedError
            When `name` is the default segment beside others: it is what they leave over, which no conjunction says.
        """
        if name == self.default and self.rules:
            raise RefusedError(
                f"segment {name!r}: found the default segment, which is what the rules leave over;"
                f" expected one with a rule; name one of {', '.join(self.names()[1:])}, or add a rule for these units"
            )
        described = {self.default: {}, **{rule.name: rule.when for rule in self.rules}}
        if name not in described:
            raise NotFoundError.of("segment", name, described)
        return described[name]

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that names are distinct and rules disjoint."""
        yield self._rules_stand_once()
        yield self._default_is_no_rule()
        yield self._default_is_not_reserved()
        for first, second in combinations(range(len(self.rules)), 2):
            yield self._rules_are_disjoint(first, second)

    def _rules_stand_once(self) -> Iterator[Flaw]:
        yield from repeated((("rules", at, "name"), rule.name) for at, rule in enumerate(self.rules))

    def _default_is_no_rule(self) -> Iterator[Flaw]:
        for at, rule in enumerate(self.rules):
            if rule.name == self.default:
                finding = f"found {rule.name!r}, which is the default segment, expected another name"
                yield Flaw(("rules", at, "name"), finding, "rename the rule or the default")

    def _default_is_not_reserved(self) -> Iterator[Flaw]:
        for at, rule in enumerate(self.rules):
            if rule.name == DEFAULT:
                finding = f"found {DEFAULT!r}, which names the cut-offs of every other segment"
                yield Flaw(("rules", at, "name"), finding, "rename the rule")

    def _rules_are_disjoint(self, first: int, second: int) -> Iterator[Flaw]:
        earlier, later = self.rules[first], self.rules[second]
        if (unit := common_unit(earlier, later)) is not None:
            witness = ", ".join(f"{name}={value!r}" for name, value in unit.items())
            finding = f"found that {earlier.name!r} and {later.name!r} both match the unit {witness}"
            yield Flaw(("rules", second, "when"), finding, "narrow one of them until no unit matches both")


class ServedModel(Checked):
    """The model on a server that speaks the Open Inference Protocol; the settings say where that server is."""

    server: Name = Field(description="the name of the server, whose address stands in the settings")
    model: Text = Field(description="the name of the model on the server")
    version: Text | None = Field(
        None,
        exclude_if=_is_left_out,
        description="the version on the server, as text; left out only where the server has no versions",
    )
    output: Text | None = Field(
        None,
        exclude_if=_is_left_out,
        description="the output that holds the score; left out when only one is of floating point",
    )


class RuntimeSpec(Checked):
    """What runs the model."""

    engine: Text = Field(description="what scores: lightgbm, onnxruntime, pickle or open-inference")
    version: Text = Field(description="the version of the engine, as text; of open-inference, that of the protocol: 2")
    python: Text = Field(description="the version of Python, as text")
    served: ServedModel | None = Field(
        None, exclude_if=_is_left_out, description="with open-inference: the model on a server; else left out"
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a served model and an engine that serves belong together."""
        yield self._served_has_its_engine()

    def _served_has_its_engine(self) -> Iterator[Flaw]:
        is_served = self.engine == OPEN_INFERENCE
        if is_served and self.served is None:
            yield Flaw(("served",), "found no such key, expected it", "say which model on which server answers")
        if self.served is not None and not is_served:
            finding = f"found a served model with the engine {shown(self.engine)}, expected {OPEN_INFERENCE}"
            yield Flaw(("served",), finding, "remove it, or correct the engine")


class EvaluationData(Checked):
    """The rows that the metrics were computed on, so that anybody can compute them again."""

    file: RelativePath = Field(description="the path of the Parquet file, relative to this manifest")
    label: ColumnName = Field(description="the column with the outcome, 1 or 0; features stand under their own names")


class Evaluation(Checked):
    """The evidence from before any traffic."""

    report: RelativePath = Field(description="the path of the evaluation report, relative to this manifest")
    digest: Digest = Field(description="the sha256 of the evaluation report")
    metrics: Mapping[Name, Number] = Field(min_length=1, description="the metrics, equal to those in the report")
    dataset_digest: Digest = Field(description="the digest of the data that the metrics were computed on")
    data: EvaluationData | None = Field(
        None, exclude_if=_is_left_out, description="the data itself; without it the report cannot be reproduced"
    )


class ServingLimits(Checked):
    """What the release may cost to serve."""

    p99_ms: Positive = Field(description="the latency in milliseconds that 99 of 100 calls must stay below")
    timeout_ms: Positive = Field(description="the latency in milliseconds after which the caller falls back")
    memory_mb: Positive = Field(description="the memory in megabytes that the release may use")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a call within the limit is not cut off."""
        yield self._timeout_is_later()

    def _timeout_is_later(self) -> Iterator[Flaw]:
        if self.timeout_ms < self.p99_ms:
            finding = f"found {self.timeout_ms:g}, expected at least p99_ms, which is {self.p99_ms:g}"
            yield Flaw(("timeout_ms",), finding, "raise timeout_ms or lower p99_ms")


class Owner(Checked):
    """Who answers for the release."""

    team: Text = Field(description="the team that answers for the release")
    person: Text = Field(description="the person who is called, and who may not approve it")


class Release(Checked):
    """One immutable decision system; its `id` is the digest of its parts and its promises."""

    release: ReleaseHead = Field(description="name, version and decision point")
    model: ModelArtifact = Field(description="the model file")
    training: Training = Field(description="what produced the model; without it the release cannot be reproduced")
    features: FeatureSchema = Field(description="the columns that the model reads")
    output: OutputContract = Field(description="what a score means")
    policy: Policy = Field(description="how a score becomes an action")
    segments: Segments = Field(description="which units are judged apart")
    runtime: RuntimeSpec = Field(description="what runs the model")
    evaluation: Evaluation = Field(description="the evidence from before any traffic")
    limits: ServingLimits = Field(description="what the release may cost to serve")
    rollback_target: Annotated[
        str | None,
        PlainValidator(_target),
        PlainSerializer(lambda target: target or "none", return_type=str),
        WithJsonSchema({"type": "string", "pattern": "^(none|sha256:[0-9a-f]{64})$"}),
    ] = Field(description="the id of the release that serves again after a rollback, or none for a first release")
    first_release: Flag = Field(False, description="true when the decision point has no release to return to yet")
    owner: Owner = Field(description="who answers for the release")
    risk_tier: RiskTier = Field(description="low, medium or high: how much harm a wrong release can do")

    @property
    def name(self) -> str:
        """What people call the release."""
        return self.release.name

    @property
    def version(self) -> str:
        """The version that people gave the release."""
        return self.release.version

    @property
    def decision_point(self) -> str:
        """The decision point that the release wants to serve."""
        return self.release.decision_point

    @property
    def id(self) -> str:
        """The digest of the canonical manifest.

        It covers every digest in `components` and every other key. The paths of files are left out:
        where a file lies says nothing about what it is, and its own digest is covered.
        """
        whole = {key: value for key, value in self.document().items() if key not in PARTS}
        return digest_of({**whole, "components": self.components()})

    def components(self) -> dict[str, str]:
        """Return the digest of each part, so that a release that changes one part shares the other digests."""
        manifest = self.document()
        del manifest["model"]["artifact"]
        del manifest["evaluation"]["report"]
        manifest["evaluation"].get("data", {}).pop("file", None)
        return {part: digest_of(manifest[part]) for part in PARTS}

    def decide(self, score: float, segment: str) -> Recommendation:
        """Return what the policy makes of `score`; raise ValueError when the output contract excludes it."""
        return self.policy.decide(score, segment, within=self.output.range)

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules between parts."""
        yield self._target_or_first()
        yield self._cut_offs_lie_in_range()
        yield self._cut_offs_name_segments()
        yield self._cut_offs_are_for_this_model()

    def _target_or_first(self) -> Iterator[Flaw]:
        if self.rollback_target is None and not self.first_release:
            finding = "found none, expected a release to return to"
            remedy = "name the release that serves now, or declare first_release: true"
            yield Flaw(("rollback_target",), finding, remedy)
        if self.rollback_target is not None and self.first_release:
            finding = "found true beside a rollback target, expected one or the other"
            yield Flaw(("first_release",), finding, "remove first_release")

    def _cut_offs_lie_in_range(self) -> Iterator[Flaw]:
        low, high = self.output.range
        for name, cut_offs in self.policy.cut_offs.items():
            for position, cut_off in enumerate(cut_offs):
                if not low <= cut_off.at_least <= high:
                    finding = f"found {cut_off.at_least:g}, expected a score in output.range, {low:g} to {high:g}"
                    at = ("policy", "cut_offs", name, position, "at_least")
                    yield Flaw(at, finding, "correct the cut-off or the range")

    def _cut_offs_name_segments(self) -> Iterator[Flaw]:
        known = {DEFAULT, *self.segments.names()}
        for name in self.policy.cut_offs:
            if name not in known:
                finding = f"found cut-offs of the unknown segment {name!r}"
                yield Flaw(("policy", "cut_offs", name), finding, suggestion(name, known))

    def _cut_offs_are_for_this_model(self) -> Iterator[Flaw]:
        if self.policy.chosen_for not in (None, self.model.digest):
            finding = f"found cut-offs chosen for {self.policy.chosen_for}, expected the model, {self.model.digest}"
            yield Flaw(("policy", "chosen_for"), finding, "choose the cut-offs anew on the scores of this model")


#: Parts that are named by a digest of their own.
PARTS = ("model", "training", "features", "output", "policy", "segments", "runtime", "evaluation", "limits")


def load_release(path: Path) -> Release:
    """Return the release whose manifest is the file at `path`.

    Raises
    ------
    InvalidDocumentError
        With every problem of the manifest. Files it names are not opened: `verify_files` does that.
    """
    return check(load_yaml(path), Release)


def verify_files(release: Release, base: Path) -> list[Problem]:
    """Return what is wrong with the files that `release` names, none when each is what was declared.

    The evaluation report is a JSON object with the keys ``metrics`` (name to number) and ``dataset_digest``; both
    must equal what the manifest declares, and other keys are free.

    Parameters
    ----------
    release
        A checked manifest.
    base
        The folder that its paths are relative to; a path that leaves it, through a link for example, is a problem.
    """
    model, evaluation = release.model, release.evaluation
    artifact = _read_declared("model.artifact", base, model.artifact, model.digest)
    report = _read_declared("evaluation.report", base, evaluation.report, evaluation.digest)
    problems = [each for each in (artifact, report) if isinstance(each, Problem)]
    # A report that is not the declared one is not asked what it says.
    if isinstance(report, bytes):
        problems += _report_problems(release, report, f"{base / evaluation.report} evaluation.report")
    return problems


def _read_declared(key: str, base: Path, relative: str, declared: str) -> bytes | Problem:
    path = base / relative
    place = f"{path} {key}"
    try:
        if not path.resolve().is_relative_to(base.resolve()):
            return Problem(place, "found a path that leaves the folder of the manifest", "move the file below it")
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:
        return Problem(place, f"found no readable file ({type(error).__name__})", "put the file there")
    found = digest_bytes(content)
    if found != declared:
        remedy = "restore the file, or make a new release with the new digest"
        return Problem(place, f"found content {found}, expected {declared}", remedy)
    return content


def _report_problems(release: Release, content: bytes, place: str) -> list[Problem]:
    try:
        report = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return [Problem(place, f"found no JSON ({error})", "evaluate the release again")]
    if not isinstance(report, dict) or not isinstance(report.get("metrics"), dict):
        return [Problem(place, "found no metrics, expected an object with the key metrics", "evaluate again")]
    declared = _reported(release.evaluation.metrics, release.evaluation.dataset_digest)
    found = _reported(report["metrics"], report.get("dataset_digest"))
    return [
        Problem(
            place,
            f"found {name} {shown(found.get(name))}, expected {shown(declared.get(name))}",
            "make a new release that declares what the report says",
        )
        for name in sorted(declared.keys() | found.keys())
        if found.get(name) != declared.get(name) or isinstance(found.get(name), bool)
    ]


def _reported(metrics: Mapping[str, Any], dataset_digest: object) -> dict[str, Any]:
    return {**{f"metrics.{name}": value for name, value in metrics.items()}, "dataset_digest": dataset_digest}


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
