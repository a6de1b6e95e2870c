"""Where a view's resources come from: lakes, Arrow, NDJSON. Always record batches in the lake's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange.definitions import Definitions
from hiexchange.errors import BadLine, ConfigError, ViewError
from hiexchange.fhirpath.needs import Wanted
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Encoded, Source, encode
from hiexchange.lake.ingest import opened
from hiexchange.views.lines import LineReader
from hiexchange.views.prune import parquet_batches, prune

BATCH_ROWS = 32_768
"""Rows worked on at a time when the source gives larger batches."""


def batches(source: Any, resource: str, version: str, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Yield the resources of one type.

    Args:
        source: A lake (has ``table(name)``), Arrow data, or NDJSON paths: a file, a list of files, or
            a folder, of which the files named after the type are read (``Patient.ndjson``,
            ``1.Patient.ndjson.gz``).
        resource: Resource type wanted.
        version: FHIR version of NDJSON files.
        wanted: Elements that will be read; others may be left out.

    Raises:
        ConfigError: The source is none of these, or has no file.
        BadLine: A line of an NDJSON file is no resource of the type.
        LakeError: A compressed file is cut short or damaged.
        ViewError: A table holds resources of another type, or nothing of this one.
    """
    if isinstance(source, str | Path) or (isinstance(source, list | tuple) and source):
        yield from _files(_paths(source, resource), resource, version, wanted)
    elif hasattr(source, "files") and hasattr(source, "table"):
        _ = source.table(resource)  # a lake says which types it lacks
        for path in source.files(resource):
            yield from parquet_batches(path, wanted, BATCH_ROWS)
    elif isinstance(source, pa.Table | pa.RecordBatch):
        given = source.to_batches() if isinstance(source, pa.Table) else [source]
        yield from _arrow(given, resource, version, wanted)
    elif hasattr(source, "to_batches"):
        yield from _arrow(source.to_batches(), resource, version, wanted)
    elif hasattr(source, "__arrow_c_stream__"):
        yield from _arrow(pa.RecordBatchReader.from_stream(source), resource, version, wanted)
    else:
        raise ConfigError(
            f"a view cannot read a {type(source).__name__}", hint="pass a Lake, Arrow data, or paths of NDJSON files"
        )


def _arrow(given: Any, resource: str, version: str, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    for batch in _sized(given):
        _refuse_others(batch, resource, version)
        yield prune(batch, wanted)


def _refuse_others(batch: pa.RecordBatch, resource: str, version: str) -> None:
    """Refuse rows that would come out empty, or as what they are not."""
    if "resourceType" in batch.schema.names:
        kinds = batch["resourceType"].cast(pa.string())
        others = pc.fill_null(pc.not_equal(kinds, resource), False)
        if pc.any(others).as_py():
            kind = kinds.filter(others)[0]
            raise ViewError(f"the table holds {kind} where the view reads {resource}")
    elif not set(Definitions.load(version).type(resource).json_members) & set(batch.schema.names):
        raise ViewError(f"the table has no element of {resource}", hint="a view reads tables in the lake's layout")


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
    return resource in parts[:-1] and parts[-1] in ("ndjson", "parquet")


def _files(paths: list[Path], resource: str, version: str, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    reader = LineReader(resource, version, wanted)
    shape: dict[str, Any] = {}

    def encoded(block: Block) -> pa.RecordBatch:
        nonlocal shape
        found = encode(block, shape, Source(resource, path.name, "view", version))
        shape = found.shape
        _refuse_bad_lines(found, path, resource)
        return prune(found.batch, wanted)

    for path in paths:
        if path.suffix == ".parquet":
            yield from _parquet(path, resource, version, wanted)
            continue
        with opened(path) as stream:
            for batch in reader.batches(stream, path.name, encoded):
                yield from _sized([batch])


def _parquet(path: Path, resource: str, version: str, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            named = [name for name in file.schema_arrow.names if name == "resourceType"] or None
            for batch in file.iter_batches(columns=named, use_threads=False):
                _refuse_others(batch, resource, version)
                if named is None:
                    break
        yield from parquet_batches(path, wanted, BATCH_ROWS)
    except pa.ArrowInvalid:
        raise ViewError("the file is not Parquet, or damaged", where=path.name) from None


def _refuse_bad_lines(encoded: Encoded, path: Path, resource: str) -> None:
    """A view has no quarantine: a line that cannot be read would be a row that is silently missing."""
    if encoded.rejects:
        bad, more = encoded.rejects[0], len(encoded.rejects) - 1
        raise BadLine(
            f"not a {resource}: {bad.reason}" + (f", and {more:,} lines more" if more else ""),
            file=path.name,
            line=bad.line,
            offset=bad.offset,
            hint="ingest the files into a lake, which quarantines such lines, and run the view on it",
        )
