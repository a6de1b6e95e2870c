"""The Bulk Data client: export jobs that prove every byte and survive every stop.

Read in this order: ``request`` (what to ask), ``protocol`` (what answers mean), ``manifest``, ``job``
(the phases), ``download`` and ``transfer`` (the bytes), ``journal`` (how nothing is lost).
"""

from __future__ import annotations

from hiexchange._http import Policy
from hiexchange.bulk.folder import read_status
from hiexchange.bulk.foreign import ExportFolder, open_export
from hiexchange.bulk.job import ExportJob
from hiexchange.bulk.manifest import Manifest, OutputFile, parse_manifest
from hiexchange.bulk.request import ExportRequest
from hiexchange.bulk.result import ExportResult, FileReceipt, JobStatus
from hiexchange.bulk.watermark import SqliteWatermarks, WatermarkStore, watermark_key

__all__ = [
    "ExportFolder",
    "ExportJob",
    "ExportRequest",
    "ExportResult",
    "FileReceipt",
    "JobStatus",
    "Manifest",
    "OutputFile",
    "Policy",
    "SqliteWatermarks",
    "WatermarkStore",
    "open_export",
    "parse_manifest",
    "read_status",
    "watermark_key",
]
