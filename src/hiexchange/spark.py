"""The lake's encoder under PySpark (extra ``spark``): the way beyond one machine.

    frame = encode(spark, "s3a://bucket/export/Observation*.ndjson", "Observation")
    frame.write.format("delta").save("s3a://bucket/lake/Observation")

The same pure function as in ``Lake.ingest`` runs inside ``mapInArrow``; no snapshot is kept, that is the table
format's work. Two passes: one finds the members that occur, one encodes with the schema made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.definitions import Definitions
from hiexchange.errors import MissingExtra
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Encoded, Source
from hiexchange.lake.decode import encode as encode_block
from hiexchange.lake.schema import plan
from hiexchange.lake.shape import Shape, dumps, loads, merge

_REJECTS = "file string, reason string, length bigint, raw binary"


def encode(
    spark: Any, paths: str | list[str], resource: str, *, fhir_version: str = "4.0.1", load: str = "spark"
) -> Any:
    """Return a DataFrame of the resources in NDJSON files, in the lake's layout.

    ``__hx_line`` is null: Spark splits files without counting lines. Bad lines are left out; see
    :func:`rejects`.

    Args:
        spark: The SparkSession; its workers need hiexchange installed.
        paths: Files, folders or globs that Spark can read.
        resource: Their resource type.
        fhir_version: Their FHIR version.
        load: Value of ``__hx_ingest``.

    Raises:
        MissingExtra: PySpark is not installed.
        ConfigError: The type is unknown in that FHIR version.
    """
    try:
        from pyspark.sql.pandas.types import from_arrow_schema
    except ImportError:
        raise MissingExtra("spark", "encoding under Spark") from None
    definitions = Definitions.load(fhir_version)
    definitions.type(resource)
    lines = _lines(spark, paths)
    found = lines.mapInArrow(_shapes(resource, definitions.version), "shape string").distinct().collect()
    shape: Shape = {}
    for row in found:
        shape = merge(shape, loads(row["shape"]))
    schema = _spark_schema(plan(resource, shape, definitions.version).stored_schema)
    return lines.mapInArrow(_rows(resource, definitions.version, shape, load, schema), from_arrow_schema(schema))


def rejects(spark: Any, paths: str | list[str], resource: str, *, fhir_version: str = "4.0.1") -> Any:
    """Return a DataFrame of the lines that can't be rows: file, reason, length, raw."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for file, encoded in _encoded(batches, resource, fhir_version, {}, ""):
            bad = [
                {"file": file, "reason": one.reason, "length": one.length, "raw": one.raw} for one in encoded.rejects
            ]
            fields = [("file", pa.string()), ("reason", pa.string()), ("length", pa.int64()), ("raw", pa.binary())]
            yield pa.RecordBatch.from_pylist(bad, schema=pa.schema(fields))

    return _lines(spark, paths).mapInArrow(run, _REJECTS)


def _lines(spark: Any, paths: str | list[str]) -> Any:
    # Without lineSep Spark splits on \r too.
    return spark.read.option("lineSep", "\n").text(paths).selectExpr("value", "input_file_name() as file")


def _encoded(
    batches: Iterator[pa.RecordBatch], resource: str, version: str, shape: Shape, load: str
) -> Iterator[tuple[str, Encoded]]:
    """Encode the lines of each batch, file by file."""
    for batch in batches:
        texts, files = batch.column(0).cast(pa.binary()), batch.column(1)
        for file in dict.fromkeys(files.to_pylist()):
            mine = texts if files.null_count == 0 and len(files.unique()) == 1 else texts.filter(pc.equal(files, file))
            block = Block(b"\n".join(mine.to_pylist()) + b"\n", 1, 0)
            name = unquote(file.rpartition("/")[2])  # Spark gives URLs
            yield file, encode_block(block, shape, Source(resource, name, load, version))


def _shapes(resource: str, version: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        shape: Shape = {}
        for _, encoded in _encoded(batches, resource, version, shape, ""):
            shape = merge(shape, encoded.shape)
        yield pa.RecordBatch.from_pydict({"shape": [dumps(shape)]})

    return run


def _rows(
    resource: str, version: str, shape: Shape, load: str, schema: pa.Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    line = schema.get_field_index("__hx_line")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, encoded in _encoded(batches, resource, version, shape, load):
            rows = pa.Table.from_batches([encoded.batch])
            rows = rows.set_column(line, "__hx_line", pa.nulls(rows.num_rows, pa.int64())).cast(schema)
            yield from rows.to_batches()

    return run


def _spark_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema with microseconds, the only unit Spark has, and every column nullable."""
    return pa.schema([pa.field(field.name, _micro(field.type)) for field in schema])


def _micro(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_list(kind):
        return pa.list_(_micro(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _micro(field.type)) for field in kind])
    return kind
