"""Documents that people write: YAML in, checked values out, every problem at once with its line.

`load_yaml` reads the core schema of YAML 1.2: ``yes`` and ``NO`` are text, a key stands once, no number is NaN.
`check` holds the data against a model and names all that is wrong, rules between fields included, so that a file
is mended in one go.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, Self, TypeAlias, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from seatrial.errors import InvalidDocumentError, Problem
from seatrial.units import format_time, parse_duration, parse_share, parse_time, require_digest

#: Keys and list positions from the root of a document down to a value.
Location: TypeAlias = tuple[str | int, ...]

#: A value that a column of a log can hold.
Scalar: TypeAlias = str | int | float | bool

#: A document is written by people; anything longer is data that went to the wrong place.
MAX_BYTES = 1_000_000
#: Ten years; a longer wait is a slip of the pen, and overflows the calendar when added to a moment.
MAX_DURATION = timedelta(days=3_650)
#: As much of a found value as a message repeats.
MAX_SHOWN = 60


class Flaw(NamedTuple):
    """One thing wrong at one location; `Document.problem` adds file and line."""

    location: Location
    finding: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, before anyone has checked it; only `check` turns it into values."""

    #: what a reader calls the document, normally its path
    source: str
    data: Mapping[str, Any]
    #: line of every location, counted from 1; empty when the data did not come from text
    lines: Mapping[Location, int] = field(default_factory=dict)
    #: what the text itself has wrong although it could be read; `check` reports it with the rest
    flaws: tuple[Flaw, ...] = ()

    def place(self, location: Location) -> str:
        """Return ``source:line path`` of `location`; what is absent has the line of its closest parent."""
        known = (location[:end] for end in range(len(location), -1, -1) if location[:end] in self.lines)
        nearest = next(known, None)
        where = self.source if nearest is None else f"{self.source}:{self.lines[nearest]}"
        return f"{where} {dotted(location)}" if location else where

    def problem(self, flaw: Flaw) -> Problem:
        """Return `flaw` with the place where it stands."""
        return Problem(self.place(flaw.location), flaw.finding, flaw.remedy)


def dotted(location: Location) -> str:
    """Return `location` as people write it.

    >>> dotted(("stages", 2, "share"))
    'stages[2].share'
    """
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def shown(value: object) -> str:
    """Return `value` as a message repeats it: short, and in the words of the document.

    >>> shown(True), shown({}), shown(None)
    ('true', 'a mapping', 'nothing')
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case _:
            text = repr(value)
            return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the closest spelling of `name` among `known`, or all that is known.

    >>> suggestion("sok", ["soak", "share"])
    "did you mean 'soak'?"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"


def repeated(names: Iterable[tuple[Location, str]]) -> Iterator[Flaw]:
    """Yield a flaw for each name that stands a second time.

    >>> [flaw.location for flaw in repeated([(("a", 0), "x"), (("a", 1), "x")])]
    [('a', 1)]
    """
    seen: set[str] = set()
    for location, name in names:
        if name in seen:
            yield Flaw(location, f"found {name!r} again, expected it once", "rename or remove one of them")
        seen.add(name)


def parse_yaml(text: str, source: str) -> Document:
    """Return the document that `text` holds.

    Raises
    ------
    InvalidDocumentError
        When `text` is not YAML, is indented with tabs, or is not a mapping. What leaves the rest readable (a
        key that stands twice, an alias, a number that is not finite, a tag) is kept in `Document.flaws`.
    """
    indented_by_tab = [number for number, line in enumerate(text.split("\n"), 1) if _TAB_INDENT.match(line)]
    if indented_by_tab:
        raise InvalidDocumentError(
            [
                Problem(f"{source}:{number}", "found a tab, expected spaces before the text", "indent with spaces")
                for number in indented_by_tab
            ]
        )
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        finding = f"found {error.problem or error.context}, expected plain YAML"
        raise _unreadable(f"{source}{line}", finding, "mend this line or the one above") from error
    except (yaml.YAMLError, ValueError) as error:
        # A character that YAML excludes, or an escape beyond the last one, which PyYAML leaves to chr().
        finding = f"found a character that is not allowed ({' '.join(str(error).split())})"
        raise _unreadable(source, finding, "remove the character") from error
    except RecursionError as error:
        raise _unreadable(source, "found values nested too deep to read", "write fewer levels") from error
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else shown(root.value)
        finding = f"found {found}, expected a mapping of keys to values"
        raise _unreadable(source, finding, "write key: value lines")
    builder = _Builder()
    data = builder.value(root, ())
    return Document(source, cast("dict[str, Any]", data), builder.lines, tuple(builder.flaws))


def load_yaml(path: Path) -> Document:
    """Return the document in the file at `path`.

    Raises
    ------
    InvalidDocumentError
        When the file is missing, unreadable, not UTF-8, longer than `MAX_BYTES`, or refused by `parse_yaml`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _unreadable(str(path), f"found no readable file ({reason})", "check the path and its rights") from error
    if len(content) > MAX_BYTES:
        finding = f"found {len(content)} bytes, expected at most {MAX_BYTES}"
        raise _unreadable(str(path), finding, "check that this is the document that was meant")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        finding = f"found byte {error.start} that is not UTF-8"
        raise _unreadable(str(path), finding, "save the file as UTF-8") from error
    return parse_yaml(text, str(path))


def _unreadable(place: str, finding: str, remedy: str) -> InvalidDocumentError:
    return InvalidDocumentError([Problem(place, finding, remedy)])


_TAB_INDENT = re.compile(r" *\t")
_YAML = "tag:yaml.org,2002:"


class _CoreLoader(yaml.SafeLoader):
    """The core schema of YAML 1.2.

    PyYAML speaks YAML 1.1, in which ``NO`` is false, ``1:30`` is ninety and ``2013-06-01`` is a date.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and type are PyYAML's; filled below, once


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _CoreLoader.add_implicit_resolver(f"{_YAML}{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _Builder:
    """Plain values from YAML nodes, with the line of each and what is wrong with it."""

    def __init__(self) -> None:
        self.lines: dict[Location, int] = {}
        self.flaws: list[Flaw] = []
        self._built: set[int] = set()

    def refuse(self, location: Location, finding: str, remedy: str) -> None:
        self.flaws.append(Flaw(location, finding, remedy))

    def value(self, node: yaml.Node, location: Location) -> Any:
        if id(node) in self._built:
            # Nested aliases grow without bound, and who reads the line does not see the value.
            return self.refuse(location, "found an alias, expected the value itself", "write the value here too")
        self._built.add(id(node))
        # A block value begins below its key, and the key is what a reader looks for: its line is set before.
        self.lines.setdefault(location, node.start_mark.line + 1)
        match node.tag.removeprefix(_YAML), node:
            case "map", yaml.MappingNode():
                return self.mapping(node, location)
            case "seq", yaml.SequenceNode():
                return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
            case kind, yaml.ScalarNode():
                return self.scalar(kind, node.value, location)
        return self.refuse(location, f"found the tag {node.tag!r}, expected a plain value", "remove the tag")

    def mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*location, key)
            line = key_node.start_mark.line + 1
            if key_node.tag != f"{_YAML}str" or not _is_unicode(key):
                self.lines.setdefault(here, line)
                self.refuse(here, f"found the key {shown(key_node.value)}, expected text", "put it in quotes")
            elif key in built:
                finding = f"found the key {key!r} again on line {line}, expected it once"
                self.refuse(here, finding, "keep the one that is meant")
            else:
                self.lines[here] = line
                built[key] = self.value(value_node, here)
        return built

    def scalar(self, kind: str, text: str, location: Location) -> Any:
        match kind:
            case "str" if _is_unicode(text):
                return text
            case "bool" if text.lower() in {"true", "false"}:
                return text.lower() == "true"
            case "int" | "float" if (number := _finite(kind, text)) is not None:
                return number
            case "int" | "float":
                return self.refuse(
                    location,
                    f"found {shown(text)}, expected a finite number",
                    "write the number that is meant",
                )
            case "null":
                return None
        finding = f"found {shown(text)} as {kind}, expected text, a number, true or false"
        return self.refuse(location, finding, "write it without tag and escapes")


def _finite(kind: str, text: str) -> float | None:
    """Return the number in `text`, or None when it is NaN, infinite, too large to compare, or no number."""
    try:
        number = int(text) if kind == "int" else float(text)
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None


def _is_unicode(text: str) -> bool:
    # Half of a surrogate pair, written as an escape, is text that no digest and no database takes.
    return not any("\ud800" <= character <= "\udfff" for character in text)


class Checked(BaseModel):
    """A frozen value from a document: unknown keys are refused and its rules hold, however it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return, for each rule between fields, an iterator of its flaws, located relative to this value.

        A rule may meet a field that is itself broken: `check` ends that rule there and goes on with the next.
        """
        return ()

    def document(self) -> dict[str, Any]:
        """Return the canonical document of this value, which `check` reads back as an equal value."""
        return cast("dict[str, Any]", _without_nothing(self.model_dump(mode="json")))

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        flaws = [f"{dotted(at)}: {finding}; {remedy}" for rule in self.flaws() for at, finding, remedy in rule]
        if flaws:
            raise ValueError("\n".join(flaws))
        return self


def _without_nothing(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nothing(item) for key, item in value.items() if item is not None}
        case list():
            return [_without_nothing(item) for item in value]
        case _:
            return value


CheckedT = TypeVar("CheckedT", bound=Checked)
PartT = TypeVar("PartT")


def check(document: Document, model: type[CheckedT]) -> CheckedT:
    """Return the value of type `model` that `document` holds.

    Raises
    ------
    InvalidDocumentError
        With every problem that can be known: flaws of the text, missing and unknown keys, wrong values, and
        each rule between fields as far as its fields could be read.
    """
    reader = _Reader(document.flaws)
    value = reader.model(model, document.data, ())
    if reader.flaws:
        raise InvalidDocumentError([document.problem(flaw) for flaw in reader.flaws])
    return cast("CheckedT", value)


class _Broken:
    """Stands for a value that could not be read; a rule that needs a part of it ends there."""

    def __iter__(self) -> NoReturn:
        raise AttributeError("a value that could not be read has no parts")


_BROKEN = _Broken()


class _Reader:
    """A walk over a document beside its model: pydantic judges fields, the walk goes on where it refuses."""

    def __init__(self, flaws: Iterable[Flaw]) -> None:
        #: an ordered set: two rules may find the same
        self.flaws = dict.fromkeys(flaws)
        # A place whose text is already refused has no value; a second flaw would be about its absence.
        self._refused = frozenset(flaw.location for flaw in self.flaws)
        self._incomplete = frozenset(at[:end] for at in self._refused for end in range(1, len(at) + 1))

    def refuse(self, location: Location, finding: str, remedy: str) -> object:
        flaw = Flaw(location, finding, remedy)
        if location not in self._refused:
            self.flaws[flaw] = None
        return _BROKEN

    def model(self, model: type[Checked], raw: object, at: Location) -> object:
        """Return the `model` in `raw`; an attribute that could not be read is absent from it."""
        fields = model.model_fields
        if not isinstance(raw, Mapping):
            return self.refuse(at, f"found {shown(raw)}, expected a mapping", f"write its keys: {', '.join(fields)}")
        for key in raw.keys() - fields.keys():
            self.refuse((*at, key), f"found the unknown key {key!r}, expected a known one", suggestion(key, fields))
        values: dict[str, object] = {}
        for name, info in fields.items():
            here = (*at, name)
            if name in raw:
                values[name] = self.field(model, name, raw[name], here)
            elif info.is_required():
                values[name] = self.refuse(here, "found no such key, expected it", f"add it: {meaning(name, info)}")
        built = model.model_construct(None, **values)
        for name in [name for name, value in values.items() if value is _BROKEN]:
            del built.__dict__[name]
        self.hold_rules(built, at)
        return built

    def hold_rules(self, built: Checked, at: Location) -> None:
        for rule in self.until_broken(built.flaws()):
            for location, finding, remedy in self.until_broken(rule):
                self.refuse((*at, *location), finding, remedy)

    def until_broken(self, parts: Iterable[PartT]) -> Iterator[PartT]:
        """Yield `parts` until one needs a value that is already refused; else the fault is the rule's."""
        try:
            yield from parts
        except AttributeError:
            if not self.flaws:
                raise

    def field(self, model: type[Checked], name: str, raw: object, at: Location) -> object:
        if raw is None:
            return self.refuse(at, "found nothing, expected a value", "write one, or remove the key")
        kind = model.model_fields[name].annotation
        count = len(self.flaws)
        nested = self.nested(kind, raw, at) if _holds_models(kind) else None
        # What spans the parts of a field, such as a least length, is asked once its parts are sound.
        return nested if len(self.flaws) > count else self.leaf(model, name, raw, at)

    def nested(self, kind: Any, raw: object, at: Location) -> object:
        """Return the models inside `raw`, a part of a field whose annotation is `kind`."""
        match get_origin(kind), get_args(kind):
            case None, _:
                found = self.model(kind, raw, at)
            case origin, (inner, annotation, *_) if origin is Annotated:
                tag = getattr(annotation, "discriminator", None)
                found = self.tagged(get_args(inner), tag, raw, at) if tag else self.nested(inner, raw, at)
            case origin, (item, _) if origin is tuple:
                found = self.listed(item, raw, at)
            case origin, (_, item) if origin is Mapping:
                found = self.mapped(item, raw, at)
            case _, (option, *_):
                found = self.nested(option, raw, at)
        return found

    def listed(self, item: Any, raw: object, at: Location) -> object:
        if not isinstance(raw, list):
            return self.refuse(at, f"found {shown(raw)}, expected a list", "write entries that begin with -")
        return tuple(self.nested(item, value, (*at, index)) for index, value in enumerate(raw))

    def mapped(self, item: Any, raw: object, at: Location) -> object:
        if not isinstance(raw, Mapping):
            return self.refuse(at, f"found {shown(raw)}, expected a mapping", "write key: value lines")
        return {key: self.nested(item, value, (*at, key)) for key, value in raw.items()}

    def tagged(self, models: Iterable[type[Checked]], tag: str, raw: object, at: Location) -> object:
        """Return the one of `models` whose literal field `tag` says what `raw` says there."""
        known = {get_args(model.model_fields[tag].annotation)[0]: model for model in models}
        if not isinstance(raw, Mapping):
            return self.refuse(at, f"found {shown(raw)}, expected a mapping", f"write its keys, {tag} first")
        name = raw.get(tag)
        if not isinstance(name, str) or name not in known:
            finding = f"found {shown(name)}, expected one of {', '.join(known)}"
            return self.refuse((*at, tag), finding, suggestion(str(name), known))
        return self.model(known[name], raw, at)

    def leaf(self, model: type[Checked], name: str, raw: object, at: Location) -> object:
        try:
            return _adapter(model, name).validate_python(raw)
        except ValidationError as error:
            remedy = f"correct it: {meaning(name, model.model_fields[name])}"
            for details in error.errors(include_url=False):
                here = (*at, *_within(raw, details["loc"]))
                if here not in self._incomplete:
                    self.refuse(here, _finding(details), remedy)
        return _BROKEN


def meaning(name: str, info: FieldInfo) -> str:
    """Return what the field `name` is, in the words of its description."""
    return f"{name} is {info.description}"


def _holds_models(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, Checked):
        return True
    return any(_holds_models(part) for part in get_args(kind))


@cache
def _adapter(model: type[Checked], name: str) -> TypeAdapter[Any]:
    info = model.model_fields[name]
    kind: Any = info.annotation
    return TypeAdapter(Annotated[kind, *info.metadata] if info.metadata else kind)


def _within(raw: object, location: Location) -> Iterator[str | int]:
    """Yield the part of `location` that stands in `raw`; pydantic appends names of its own: ``[key]``."""
    for part in location:
        match raw:
            case dict() if part in raw:
                raw = raw[part]
            case list() if isinstance(part, int) and part < len(raw):
                raw = raw[part]
            case _:
                return
        yield part


#: What each refusal of pydantic expected, filled from the context of the refusal.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "enum": "one of {expected}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_type": "a whole number",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "mapping_type": "a mapping",
    "missing": "more entries",
    "string_too_short": "text",
    "string_type": "text (a number needs quotes to be text)",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "tuple_type": "a list",
}


def _finding(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    if "error" in context:
        return str(context["error"])
    expected = _EXPECTED.get(details["type"])
    if expected is None:
        return f"found {shown(details['input'])}: {details['msg']}"
    return f"found {shown(details['input'])}, expected {expected.format(**context)}"


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("found empty text, expected words")
    return value


def _require_name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value):
        expected = "a name of at most 63 lower-case letters, digits, - and _ that begins with a letter"
        raise ValueError(f"found {shown(value)}, expected {expected}")
    return value


def require_column(value: object) -> str:
    """Return `value` when it is a column name, or raise ValueError."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", value):
        raise ValueError(f"found {shown(value)}, expected a column name of letters, digits and _")
    return value


def parse_scalar(value: object) -> Scalar:
    """Return `value` when a column of a log can hold it, or raise ValueError."""
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"found {shown(value)}, expected text, a number, true or false")


def _share(value: object) -> float:
    try:
        return parse_share(value)
    except OverflowError:
        raise ValueError(f"found {shown(value)}, expected a share from 0 % to 100 %") from None


def _duration(value: object) -> timedelta:
    try:
        duration = parse_duration(value)
    except OverflowError:
        duration = timedelta.max
    if not timedelta(0) < duration <= MAX_DURATION:
        raise ValueError(f"found {shown(value)}, expected a duration above 0 s, at most {MAX_DURATION.days} d")
    return duration


def _duration_text(duration: timedelta) -> str:
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + " s"


def _moment(value: object) -> datetime:
    try:
        return parse_time(value.isoformat() if isinstance(value, datetime) else str(value))
    except (ValueError, OverflowError):
        example = "a time with its zone, such as 2013-04-01T00:00:00+00:00"
        raise ValueError(f"found {shown(value)}, expected {example}") from None


#: What editors are told of a column's value.
SCALAR_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}
_SHARE_SCHEMA = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}]
}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(s|min|h|d|w)\s*$"}

ScalarField = Annotated[Scalar, PlainValidator(parse_scalar), WithJsonSchema(SCALAR_SCHEMA)]
#: Words for people, never empty.
Text = Annotated[str, Field(strict=True), AfterValidator(_text)]
#: A name that also serves as part of a key, a path and a metric.
Name = Annotated[
    str,
    Field(strict=True),
    AfterValidator(_require_name),
    WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$"}),
]
#: A column name that every SQL engine takes unquoted.
ColumnName = Annotated[str, Field(strict=True), AfterValidator(require_column)]
Digest = Annotated[
    str,
    Field(strict=True),
    AfterValidator(require_digest),
    WithJsonSchema({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}),
]
#: true or false and nothing else: neither 1 nor "yes".
Flag = Annotated[bool, Field(strict=True)]
#: A finite number.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
#: How many of something, at least one.
Count = Annotated[int, Field(strict=True, ge=1)]
#: A fraction of traffic or a probability; ``5 %`` or 0.05, in steps of 0.01 %.
Share = Annotated[float, PlainValidator(_share), WithJsonSchema(_SHARE_SCHEMA)]
#: A positive length of time, written with its unit.
Duration = Annotated[
    timedelta, PlainValidator(_duration), PlainSerializer(_duration_text), WithJsonSchema(_DURATION_SCHEMA)
]
#: A moment in UTC, written with its zone.
Moment = Annotated[
    datetime,
    PlainValidator(_moment),
    PlainSerializer(format_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
