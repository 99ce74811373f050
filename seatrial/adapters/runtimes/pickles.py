"""Pickled models, which are code: opening one runs what it says, so that only named bytes may be opened."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class PickledScorer:
    """A model with ``predict_proba``, of which the second column is the score, or else with ``predict``."""

    tolerance = 1e-9

    def __init__(self, model: bytes, columns: tuple[str, ...]) -> None:
        self._model = pickle.loads(model)  # noqa: S301 the caller let exactly these bytes pass
        self.columns = columns

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""
        row = np.array([[vector[name] for name in self.columns]], dtype=np.float64)
        return float(self.score_all(row)[0])

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""
        if hasattr(self._model, "predict_proba"):
            return np.asarray(self._model.predict_proba(matrix), dtype=np.float64)[:, 1]
        return np.asarray(self._model.predict(matrix), dtype=np.float64).reshape(len(matrix))
