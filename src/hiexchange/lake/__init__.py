"""The lake: FHIR NDJSON as lossless, exact, incremental Parquet.

``Lake`` is the door. Read in this order: ``schema`` (layout), ``decode`` (fast path), ``lines`` (exact
path), ``restore`` (back to JSON), ``store`` (snapshots), ``merge`` (newest wins), ``read``.
"""

from hiexchange.lake.lake import ExportFolder, IngestReport, Lake
from hiexchange.lake.read import LakeTable

__all__ = ["ExportFolder", "IngestReport", "Lake", "LakeTable"]
