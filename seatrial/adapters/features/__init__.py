"""Feature sources on the serving path: a table of any SQL engine, Parquet files, or an HTTP endpoint."""

from __future__ import annotations

from seatrial.adapters.features.endpoint import HttpSource
from seatrial.adapters.features.examining import FeaturesExaminer
from seatrial.adapters.features.files import ParquetSource
from seatrial.adapters.features.rows import FeatureSource, MemorySource
from seatrial.adapters.features.tables import SqlSource

__all__ = ["FeatureSource", "FeaturesExaminer", "HttpSource", "MemorySource", "ParquetSource", "SqlSource"]
