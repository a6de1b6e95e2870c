"""Where a view's resources come from: lakes, Arrow, NDJSON. Always record batches in the lake's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from hiexchange.errors import ConfigError
from hiexchange.lake.cut import blocks
from hiexchange.lake.decode import Source, encode
from hiexchange.ndjson import open_bytes

BATCH_ROWS = 32_768
"""Rows worked on at a time when the source gives larger batches."""


def batches(source: Any, resource: str, version: str) -> Iterator[pa.RecordBatch]:
    """Yield the resources of one type.

    Args:
        source: A lake (has ``table(name)``), Arrow data, or NDJSON paths: a file, a list of files, or
            a folder, of which the files named after the type are read (``Patient.ndjson``,
            ``1.Patient.ndjson.gz``).
        resource: Resource type wanted.
        version: FHIR version of NDJSON files.

    Raises:
        ConfigError: The source is none of these, or has no file.
    """
    if isinstance(source, str | Path) or (isinstance(source, list | tuple) and source):
        yield from _ndjson(_paths(source, resource), resource, version)
        return
    if hasattr(source, "table") and not hasattr(source, "__arrow_c_stream__"):
        source = source.table(resource)
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        yield from source.to_batches(max_chunksize=BATCH_ROWS)
    elif hasattr(source, "to_batches"):
        yield from _sized(source.to_batches())
    elif hasattr(source, "__arrow_c_stream__"):
        yield from _sized(pa.RecordBatchReader.from_stream(source))
    else:
        raise ConfigError(
            f"a view cannot read a {type(source).__name__}", hint="pass a Lake, Arrow data, or paths of NDJSON files"
        )


def _sized(given: Any) -> Iterator[pa.RecordBatch]:
    for batch in given:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _paths(source: Any, resource: str) -> list[Path]:
    given = [Path(source)] if isinstance(source, str | Path) else [Path(item) for item in source]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(item for item in path.iterdir() if _holds(item.name, resource))
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"no such file: {path.name}", where=str(path))
    if not found:
        raise ConfigError(f"the folder has no NDJSON file of {resource}", where=str(given[0]))
    return found


def _holds(name: str, resource: str) -> bool:
    parts = name.removesuffix(".gz").split(".")
    return parts[-1] == "ndjson" and resource in parts[:-1]


def _ndjson(paths: list[Path], resource: str, version: str) -> Iterator[pa.RecordBatch]:
    shape: dict[str, Any] = {}
    for path in paths:
        with open_bytes(path) as stream:
            for block in blocks(stream):
                encoded = encode(block, shape, Source(resource, path.name, "view", version))
                shape = encoded.shape
                yield from _sized([encoded.batch])
