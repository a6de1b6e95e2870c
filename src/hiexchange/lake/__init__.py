"""The lake: FHIR NDJSON as lossless, exact, incremental Parquet.

``Lake`` is the door. Read in this order: ``schema`` (layout), ``decode`` (fast path), ``lines`` (exact
path), ``restore`` (back to JSON), ``store`` (snapshots), ``merge`` (newest wins), ``read``.
"""

from hiexchange.lake.job import ExportFolder
from hiexchange.lake.lake import Lake
from hiexchange.lake.maintain import Vacuumed
from hiexchange.lake.read import LakeTable
from hiexchange.lake.report import IngestReport

__all__ = ["ExportFolder", "IngestReport", "Lake", "LakeTable", "Vacuumed"]
