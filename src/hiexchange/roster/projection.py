"""Run a plan of ``convert`` over the batches of a file, as one statement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.roster.convert import Plan, connect

CHUNK = 1 << 16
"""Rows that leave the projection at once."""


def project(plan: Plan, batches: Iterable[pa.Table], width: int) -> Iterator[pa.Table]:
    """Yield the rows of text batches as MEMBER columns, hashes and ``flags``, in the same order.

    All batches pass through one statement: to plan it costs a third of a second, as much as 25,000 rows.

    Args:
        plan: What :func:`plan` returned.
        batches: Tables of ``row_no`` and ``c1`` … ``cN``.
        width: N.

    Raises:
        RosterError: What ``batches`` raised.
    """
    schema = pa.schema([("row_no", pa.int64()), *((f"c{number}", pa.string()) for number in range(1, width + 1))])
    failed: list[BaseException] = []

    def source() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield from _trimmed(batch).to_batches()
        except BaseException as error:
            # It would come back from DuckDB as a text; kept, it is raised as itself.
            failed.append(error)
            raise

    con = connect()
    try:
        # Two threads would take batches from the stream in turn and give the rows back out of order.
        con.execute("SET threads = 1")
        con.register("raw", pa.RecordBatchReader.from_batches(schema, source()))
        with closing(con.sql(plan.sql).to_arrow_reader(CHUNK)) as reader:
            for found in reader:
                yield pa.Table.from_batches([found])
    except (duckdb.Error, pa.ArrowException, OSError):
        if failed:
            raise failed[0] from None
        raise
    finally:
        con.close()


def _trimmed(batch: pa.Table) -> pa.Table:
    """Return text columns without space around the values; thirty times faster than in SQL."""
    columns = [
        pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column for column in batch.columns
    ]
    return pa.table(columns, names=batch.column_names)


def constant_chunks(value: object, kind: pa.DataType, lengths: Iterable[int]) -> pa.ChunkedArray:
    """Return a column of one value whose chunks share memory."""
    lengths = list(lengths)
    longest = max(lengths, default=0)
    chunk = pa.nulls(longest, kind) if value is None else pa.repeat(pa.scalar(value, kind), longest)
    return pa.chunked_array([chunk.slice(0, length) for length in lengths], type=kind)
