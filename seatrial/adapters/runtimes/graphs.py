"""ONNX models in onnxruntime: a graph of known operators, which is data.

Weights must lie in the file itself, for the digest of the release covers no other: the graph is loaded from memory,
where onnxruntime finds no file beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.adapters.v2.protocol import ModelMetadata, Tensor, wiring_of
from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: Names of tensor types in the words of the Open Inference Protocol, which share one way from columns to tensors.
_DATATYPES = {
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_NUMBERS: dict[str, type[np.generic]] = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_ROW_AND_COLUMN = 2


class OnnxScorer:
    """An ONNX model."""

    #: Converted models compute in single precision.
    tolerance = 1e-6

    def __init__(self, model: bytes, columns: tuple[str, ...]) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 an engine is imported only where a release asks for it
        except ImportError as error:
            raise UnavailableError("onnxruntime: not installed here; install seatrial[onnx]") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        metadata = ModelMetadata(
            name="onnx",
            versions=(),
            platform="onnxruntime",
            inputs=_tensors(self._session.get_inputs()),
            outputs=_tensors(self._session.get_outputs()),
        )
        self._wiring = wiring_of(metadata, columns)
        self.columns = columns

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""
        row = np.array([[vector[name] for name in self.columns]], dtype=np.float64)
        return float(self.score_all(row)[0])

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""
        (found,) = self._session.run([self._wiring.output], self._feeds(matrix))
        scores = np.asarray(found, dtype=np.float64)
        if self._wiring.position is not None and scores.ndim == _ROW_AND_COLUMN:
            scores = scores[:, self._wiring.position]
        if scores.size != len(matrix):
            raise RefusedError(f"onnx: found scores in shape {scores.shape}; expected one for each of {len(matrix)}")
        return scores.reshape(len(matrix))

    def _feeds(self, matrix: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        wiring = self._wiring
        if wiring.input is not None:
            return {wiring.input: _typed(matrix, wiring.datatypes[0], wiring.input)}
        return {
            name: _typed(matrix[:, [at]], datatype, name)
            for at, (name, datatype) in enumerate(zip(wiring.columns, wiring.datatypes, strict=True))
        }


def _tensors(nodes: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return inputs or outputs as tensors; a size that has a name, or none, may be any."""
    return tuple(
        Tensor(
            node.name,
            _DATATYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else -1 for size in node.shape or ()),
        )
        for node in nodes
    )


def _typed(values: NDArray[np.float64], datatype: str, name: str) -> NDArray[Any]:
    if datatype.startswith("FP"):
        return values.astype(_NUMBERS[datatype])
    # A cast would make some whole number of a missing value.
    if not (np.isfinite(values) & (values == np.round(values))).all():
        raise RefusedError(f"feature {name!r}: found a value that is no whole number; expected {datatype}; send one")
    return values.astype(_NUMBERS[datatype])
