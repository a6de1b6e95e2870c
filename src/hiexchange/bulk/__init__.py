"""The Bulk Data client: export jobs that prove every byte and survive every stop.

Read in this order: ``request`` (what to ask), ``protocol`` (what answers mean), ``manifest``, ``job``
(the phases), ``download`` and ``transfer`` (the bytes), ``journal`` (how nothing is lost).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiexchange._policy import Policy
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

_HOMES = {
    "hiexchange._policy": ("Policy",),
    "hiexchange.bulk.folder": ("read_status",),
    "hiexchange.bulk.foreign": ("ExportFolder", "open_export"),
    "hiexchange.bulk.job": ("ExportJob",),
    "hiexchange.bulk.manifest": ("Manifest", "OutputFile", "parse_manifest"),
    "hiexchange.bulk.request": ("ExportRequest",),
    "hiexchange.bulk.result": ("ExportResult", "FileReceipt", "JobStatus"),
    "hiexchange.bulk.watermark": ("SqliteWatermarks", "WatermarkStore", "watermark_key"),
}


def __getattr__(name: str) -> Any:
    # On first use: the helper process of a download (prover.py) needs none of them.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
