"""What is asked and answered in the Open Inference Protocol, version 2, without any connection.

Written against https://github.com/kserve/open-inference-protocol and what servers really answer: MLServer 1.7 says
500 for a wrong shape and lists versions as ready that are not loaded; KServe 0.21 has no versions, and an error for
every address with one. An answer that is not exactly what was asked for is no answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from seatrial.errors import NotFoundError, RefusedError, SeatrialError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Bytes of one answer beyond which it is not read on: a score takes a few hundred.
LARGEST_ANSWER = 16 * 2**20
#: What servers announce when models can be loaded over the network; KServe writes the longer name, and has no index.
REPOSITORY = frozenset({"model_repository", "model_repository_extension"})

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_INTEGERS = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
_DATATYPES = _FLOATS | _INTEGERS | {"BOOL", "BYTES", "BF16"}
_OK, _NOT_FOUND, _TOO_MANY, _CLIENT, _SERVER = 200, 404, 429, 400, 500
_CLIPPED = 200


@dataclass(frozen=True, slots=True)
class ModelAddress:
    """One model on one server, in one version where the server has versions."""

    name: str
    version: str | None = None  #: None for servers without versions; elsewhere it means "whichever is the newest"

    @property
    def path(self) -> str:
        """The path of the model below the server's address.

        >>> ModelAddress("fraud", "3").path
        'v2/models/fraud/versions/3'
        """
        versioned = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"v2/models/{quote(self.name, safe='')}{versioned}"

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name} version {self.version}"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output as the server describes it."""

    name: str
    datatype: str  #: such as FP64
    shape: tuple[int, ...]  #: -1 where any number is allowed


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a server says about a model: the served contract."""

    name: str
    versions: tuple[str, ...]  #: empty for servers without versions
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """What a server says about itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One line of the repository's index. READY here is a hint: only the ready address of the version is a promise."""

    name: str
    version: str | None
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wiring:
    """How a feature vector becomes tensors, and which number of the answer is the score."""

    columns: tuple[str, ...]  #: in the order in which the model reads them
    input: str | None  #: one tensor of this name holds all columns; None when each column is a tensor of its own
    datatypes: tuple[str, ...]  #: of that one tensor, or of each column
    output: str  #: name of the tensor with the score
    position: int | None = None  #: place of the score in the last dimension; None when a row has one number only


def request_body(wiring: Wiring, rows: Sequence[Sequence[float]], *, request_id: str) -> bytes:
    """Return the body of an inference request for `rows`, each with the columns in the order of `wiring`.

    A missing value (NaN) is sent as null, for JSON has no NaN. How a server reads it is shown by the examples of the
    release that are scored on it before any traffic.

    Raises
    ------
    RefusedError
        When a value is infinite, or no whole number where the server reads whole ones.
    """
    width = len(wiring.columns)
    if any(len(row) != width for row in rows):
        found = sorted({len(row) for row in rows})
        raise RefusedError(f"features: found rows of {found} values; expected {width}; send one value for each column")
    if wiring.input is not None:
        cells = [_cell(value, wiring.datatypes[0], name) for row in rows for name, value in zip(wiring.columns, row)]  # noqa: B905 widths were compared above
        tensors = [_tensor(wiring.input, [len(rows), width], wiring.datatypes[0], cells)]
    else:
        tensors = [
            _tensor(name, [len(rows), 1], datatype, [_cell(row[at], datatype, name) for row in rows])
            for at, (name, datatype) in enumerate(zip(wiring.columns, wiring.datatypes, strict=True))
        ]
    return orjson.dumps({"id": request_id, "inputs": tensors, "outputs": [{"name": wiring.output}]})


def _tensor(name: str, shape: list[int], datatype: str, data: list[float | int | bool | None]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def _cell(value: float, datatype: str, column: str) -> float | int | bool | None:
    number = float(value)
    if math.isnan(number) and datatype in _FLOATS:
        return None
    if not math.isfinite(number):
        raise RefusedError(f"feature {column!r}: found {number!r}; expected a finite {datatype}; the model has no such")
    if datatype in _FLOATS:
        return number
    if number.is_integer():
        return bool(number) if datatype == "BOOL" else int(number)
    raise RefusedError(f"feature {column!r}: found {number!r}; expected a whole number, {datatype}; send one")


def scores_of(content: bytes, wiring: Wiring, address: ModelAddress, *, rows: int, request_id: str) -> list[float]:
    """Return the score of each of `rows` from an answer; anything doubtful in it raises UnavailableError.

    Raises RefusedError when the server has versions and none was asked for: the next load would change the model.
    The answer must be of the model, version and request asked, hold the one output asked, in a shape that is one
    number (or one of `wiring.position`) for each row, all of them finite.
    """
    answer = document(content, f"{address}: inference")
    _same(answer, "model_name", address.name, address)
    if address.version is not None:
        _same(answer, "model_version", address.version, address)
    elif answer.get("model_version") is not None:
        raise RefusedError(
            f"{address}: found an answer of version {_clip(answer['model_version'])}; expected that the release names"
            " it; an address without a version follows whichever is newest"
        )
    _same(answer, "id", request_id, address)
    found = [each for each in _objects(answer, "outputs", address) if each.get("name") == wiring.output]
    if len(found) != 1:
        raise _doubt(f"{address}: found {len(found)} outputs named {wiring.output!r}; expected one")
    output = found[0]
    if output.get("datatype") not in _FLOATS:
        raise _doubt(f"{address}: found a score of type {output.get('datatype')!r}; expected FP16, FP32 or FP64")
    shape = _shape(output, address, least=0)
    numbers = [_finite(value, address) for value in _flat(output.get("data"), address)]
    width = math.prod(shape[1:])
    if not shape or shape[0] != rows or len(numbers) != rows * width:
        raise _doubt(f"{address}: found {len(numbers)} numbers in shape {list(shape)}; expected {rows} rows")
    if wiring.position is None and width == 1:
        return numbers
    if wiring.position is None or not 0 <= wiring.position < width:
        raise _doubt(f"{address}: found {width} numbers for each row; expected one, or that the release says which")
    return numbers[wiring.position :: width]


def _same(answer: Mapping[str, Any], key: str, asked: str, address: ModelAddress) -> None:
    found = answer.get(key)
    # KServe answers null for a version it does not have; the name is always there.
    if found is None and key != "model_name":
        return
    if found != asked:
        raise _doubt(f"{address}: found an answer with {key} {_clip(found)}; expected {asked!r}")


def _flat(data: object, address: ModelAddress) -> Iterator[object]:
    """Yield the numbers of `data`, which the protocol allows flat and nested, in row-major order."""
    if not isinstance(data, list):
        raise _doubt(f"{address}: found no data in the output; expected a list of numbers")
    for each in data:
        if isinstance(each, list):
            yield from _flat(each, address)
        else:
            yield each


def _finite(value: object, address: ModelAddress) -> float:
    # True is a number to Python, and no score.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _doubt(f"{address}: found the score {_clip(value)}; expected a finite number")
    return float(value)


def model_metadata(content: bytes, address: ModelAddress) -> ModelMetadata:
    """Return what the server says about the model at `address`; raises UnavailableError for half an answer."""
    answer = document(content, f"{address}: metadata")
    _same(answer, "name", address.name, address)
    versions = answer.get("versions") or []
    if not isinstance(versions, list) or not all(isinstance(each, str) for each in versions):
        raise _doubt(f"{address}: found the versions {_clip(versions)}; expected a list of texts")
    return ModelMetadata(
        name=address.name,
        versions=tuple(versions),
        platform=str(answer.get("platform") or ""),
        inputs=_described_all(answer, "inputs", address),
        outputs=_described_all(answer, "outputs", address),
    )


def _described_all(answer: Mapping[str, Any], key: str, address: ModelAddress) -> tuple[Tensor, ...]:
    # A model that nobody described has none, which fits no release.
    if answer.get(key) is None:
        return ()
    return tuple(_described(each, address) for each in _objects(answer, key, address))


def _described(tensor: Mapping[str, Any], address: ModelAddress) -> Tensor:
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str) or datatype not in _DATATYPES:
        raise _doubt(f"{address}: found a tensor {_clip(name)} of type {_clip(datatype)}; expected a name and a type")
    return Tensor(name, datatype, _shape(tensor, address, least=-1))


def _shape(tensor: Mapping[str, Any], address: ModelAddress, *, least: int) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(each) is int and each >= least for each in shape):
        raise _doubt(f"{address}: found the shape {_clip(shape)}; expected a list of whole numbers")
    return tuple(shape)


def wiring_of(metadata: ModelMetadata, columns: Sequence[str], *, output: str | None = None) -> Wiring:
    """Return how feature vectors of `columns` reach the model, by the contract it serves.

    Parameters
    ----------
    metadata
        What the server says. One input with a row of as many numbers as there are columns, or one input for each
        column and under its name.
    columns
        Names of the columns in the order in which the release declares them.
    output
        The output that holds the score; None when only one is of floating point. A two-column output of
        probabilities, as classifiers give it, has the score in its second column.

    Raises
    ------
    RefusedError
        When the served contract is not that of these columns: the release and the server do not fit together.
    """
    where = f"model {metadata.name!r}"
    chosen = [each for each in metadata.outputs if each.datatype in _FLOATS and output in (None, each.name)]
    if len(chosen) != 1:
        found = ", ".join(f"{each.name} ({each.datatype})" for each in metadata.outputs) or "none"
        wanted = "one output of floating point" if output is None else f"a floating-point output {output!r}"
        raise RefusedError(f"{where}: found the outputs {found}; expected {wanted}; correct the release or the server")
    position = _position(chosen[0], where)
    names = [each.name for each in metadata.inputs]
    if len(names) == 1 and (len(columns) > 1 or names[0] != columns[0]):
        (single,) = metadata.inputs
        if single.datatype not in _FLOATS or len(single.shape) != 2 or single.shape[1] not in (-1, len(columns)):  # noqa: PLR2004 rows and columns
            raise RefusedError(
                f"{where}: found the input {single.name} of {single.datatype} in shape {list(single.shape)};"
                f" expected rows of {len(columns)} floating-point numbers; serve the model of this release"
            )
        return Wiring(tuple(columns), single.name, (single.datatype,), chosen[0].name, position)
    if sorted(names) != sorted(columns):
        missing, extra = sorted(set(columns) - set(names)), sorted(set(names) - set(columns))
        raise RefusedError(
            f"{where}: found inputs without {missing} and with {extra}; expected one input, or one for each column;"
            " serve the model of this release"
        )
    types = {each.name: each.datatype for each in metadata.inputs}
    unsuited = sorted(name for name, datatype in types.items() if datatype not in _FLOATS | _INTEGERS | {"BOOL"})
    if unsuited:
        raise RefusedError(f"{where}: found inputs that are no numbers: {unsuited}; expected numbers; encode them")
    return Wiring(tuple(columns), None, tuple(types[name] for name in columns), chosen[0].name, position)


def _position(output: Tensor, where: str) -> int | None:
    widths = [each for each in output.shape[1:] if each != 1]
    if widths in ([], [-1]):
        return None
    if widths == [2]:
        return 1
    raise RefusedError(
        f"{where}: found the output {output.name} in shape {list(output.shape)}; expected one number for each row,"
        " or the two probabilities of a classifier; export the model with one score"
    )


def server_metadata(content: bytes, where: str) -> ServerMetadata:
    """Return what the server at `where` says about itself."""
    answer = document(content, where)
    extensions = answer.get("extensions") or []
    if not isinstance(answer.get("name"), str) or not isinstance(extensions, list):
        raise _doubt(f"{where}: found no name or no list of extensions; expected the metadata of a V2 server")
    return ServerMetadata(answer["name"], str(answer.get("version") or ""), tuple(map(str, extensions)))


def repository_index(content: bytes, where: str) -> tuple[RepositoryEntry, ...]:
    """Return the lines of a repository's index."""
    lines = _parsed(content, where)
    if not isinstance(lines, list) or not all(isinstance(each, dict) and each.get("name") for each in lines):
        raise _doubt(f"{where}: found {_clip(lines)}; expected a list of models with their names")
    return tuple(
        RepositoryEntry(str(each["name"]), each.get("version"), str(each.get("state")), str(each.get("reason") or ""))
        for each in lines
    )


def says_ready(status: int, content: bytes) -> bool:
    """Return whether the answer of a ready address means ready: status 200, and no word to the contrary."""
    if status != _OK:
        return False
    if not content.strip():
        return True
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    # The specification calls the key `live` at one place; KServe writes `ready`.
    return not isinstance(answer, dict) or all(answer.get(key, True) is True for key in ("ready", "live"))


def refuse_failure(status: int, content: bytes, where: str) -> None:
    """Raise unless `status` is 200: NotFoundError, RefusedError for what a client did, else UnavailableError."""
    if status == _OK:
        return
    said = f"{where}: found HTTP {status}: {_clip(content.decode(errors='replace'))}"
    kind: type[SeatrialError] = UnavailableError
    if status == _NOT_FOUND:
        kind = NotFoundError
    elif _CLIENT <= status < _SERVER and status != _TOO_MANY:
        kind = RefusedError
    raise kind(f"{said}; expected 200; read the server's log")


def document(content: bytes, where: str) -> Mapping[str, Any]:
    """Return a JSON object; raises UnavailableError for anything else, NaN among it."""
    answer = _parsed(content, where)
    if not isinstance(answer, dict):
        raise _doubt(f"{where}: found {_clip(answer)}; expected a JSON object")
    return answer


def _parsed(content: bytes, where: str) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _doubt(f"{where}: found no JSON ({error}); expected an answer of a V2 server") from error


def _objects(answer: Mapping[str, Any], key: str, address: ModelAddress) -> list[Mapping[str, Any]]:
    found = answer.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _doubt(f"{address}: found {key} {_clip(found)}; expected a list of tensors")
    return found


def _doubt(message: str) -> UnavailableError:
    return UnavailableError(f"{message}; compare the server with the Open Inference Protocol")


def _clip(found: object) -> str:
    text = " ".join(str(found).split())
    return repr(text if len(text) <= _CLIPPED else f"{text[: _CLIPPED - 1]}…")
