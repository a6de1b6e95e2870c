"""Read a table of one snapshot: lazily, only the columns and row groups asked for."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hiexchange._duck import quiet_connection, said
from hiexchange.errors import LakeError

if TYPE_CHECKING:
    import pyarrow.dataset as ds


@contextlib.contextmanager
def readable(paths: Iterable[Path]) -> Iterator[None]:
    """Say so when files are gone or damaged that a snapshot needs.

    Raises:
        LakeError: A file was vacuumed since the snapshot was asked for, or is not what the lake wrote.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid, duckdb.Error) as error:
        needed = list(paths)
        gone = [path for path in needed if not path.exists()]
        if gone:
            raise LakeError(
                f"{len(gone)} files of this snapshot were vacuumed, or removed by hand",
                where=str(gone[0].parent),
                hint="ask the lake for the table again, or keep more snapshots",
            ) from None
        broken = [path for path in needed if not _has_footer(path)]
        # Arrow gives the errors of the system their number, and a page it can't read none.
        if broken or (isinstance(error, OSError) and error.errno is None):
            raise LakeError(
                "a file of this table is damaged",
                where=str(broken[0] if broken else needed[0].parent) if needed else None,
                hint="restore it from a copy, or ask for a snapshot from before",
            ) from None
        raise


def _has_footer(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def answer(con: duckdb.DuckDBPyConnection, query: str, params: Any, paths: Sequence[Path]) -> pa.Table:
    """Return the rows of one SELECT over tables that are in these files.

    Raises:
        LakeError: The query gives none, or a file can't be read.
    """
    try:
        with readable(paths):
            found = con.sql(query, params=params)
            if found is not None:
                return found.to_arrow_table()
    except duckdb.Error as error:
        raise LakeError("the query can't be answered", said=said(error)) from None
    raise LakeError("the query gives no rows", hint="ask with one SELECT")


class LakeTable:
    """A table of a snapshot. Nothing is read until rows are asked for.

    Anything that speaks the Arrow PyCapsule protocol takes it as it is: ``polars.DataFrame(table)``,
    ``pyarrow.table(table)``, ``duckdb.sql("from table")`` in a scope where it has that name.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        schema: pa.Schema,
        rows: int,
        *,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> None:
        self.name = name
        self._paths = list(paths)
        self._full = schema
        self._rows = rows
        self._columns = list(columns) if columns is not None else None
        self._where = where
        _ = self.schema  # a column that is not there is an error now, not at the first row

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows this table gives."""
        if self._columns is None:
            return self._full
        return pa.schema([self._field(name) for name in self._columns], metadata=self._full.metadata)

    def _field(self, path: str) -> pa.Field:
        """Return the field of a column name or of a dotted path into structs."""
        field: pa.Field | None = None
        kind: Any = self._full
        for part in path.split("."):
            index = kind.get_field_index(part) if isinstance(kind, pa.Schema) or pa.types.is_struct(kind) else -1
            if index < 0:
                raise LakeError(
                    f"table {self.name} has no column {path!r}", hint="its columns are in .schema.names of the table"
                )
            field = kind.field(index)
            kind = field.type
        assert field is not None
        return field.with_name(path)

    def select(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> LakeTable:
        """Return the same table with fewer columns or rows; nothing is read yet.

        Args:
            columns: Names; a dotted path (``period.start``) gives a struct's member as a column.
            where: A ``pyarrow.compute`` expression over the stored columns.
        """
        both = where if self._where is None else self._where if where is None else self._where & where
        return LakeTable(self.name, self._paths, self._full, self._rows, columns=columns or self._columns, where=both)

    def to_batches(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield record batches, in stored order, in bounded memory."""
        view = self.select(columns, where)
        return view._scan()

    def _scan(self) -> Iterator[pa.RecordBatch]:
        schema = self.schema
        if not self._paths:
            return
        wanted = None
        if self._columns is not None:
            wanted = {name: pc.field(*name.split(".")) for name in self._columns}
        with readable(self._paths):
            scanner = self._dataset().scanner(columns=wanted, batch_readahead=4, fragment_readahead=1)
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def _dataset(self) -> ds.Dataset:
        """Return the chosen rows as a dataset of all columns."""
        import pyarrow.dataset as ds  # it imports pandas where that is installed, which those who write need not wait for

        data = ds.dataset([str(path) for path in self._paths], schema=self._full, format="parquet")
        return data if self._where is None else data.filter(self._where)

    def sql(self, query: str, params: Any = None) -> pa.Table:
        """Run a DuckDB query over the rows and columns of this table, which the query calls ``self``.

        Args:
            query: One SELECT; a column of a dotted path is named by it: ``"period.start"``.
            params: Values for ``?`` or ``$name``.

        Raises:
            LakeError: The query can't be answered, or a file is gone or damaged.
        """
        with quiet_connection() as con, readable(self._paths):
            con.execute("set timezone = 'UTC'")
            con.register("stored", self._dataset() if self._paths else self._full.empty_table())
            # stored."period"."start" as "period.start"
            chosen = ", ".join(
                f"""stored.{_quoted(*name.split("."))} as {_quoted(name)}""" for name in self.schema.names
            )
            con.execute(f'create view "self" as select {chosen} from stored')
            return answer(con, query, params, self._paths)

    def to_arrow(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Return the rows as a ``pyarrow.Table``; see :meth:`select` for the arguments."""
        view = self.select(columns, where)
        return pa.Table.from_batches(view._scan(), schema=view.schema)

    def head(self, rows: int = 10) -> pa.Table:
        """Return the first rows, reading no more than they need."""
        taken: list[pa.RecordBatch] = []
        for batch in self.to_batches():
            taken.append(batch.slice(0, rows))
            rows -= taken[-1].num_rows
            if rows <= 0:
                break
        return pa.Table.from_batches(taken, schema=self.schema)

    def to_polars(self) -> Any:
        """Return the rows as a ``polars.DataFrame``."""
        import polars

        return polars.DataFrame(self.to_arrow())

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame`` with Arrow-backed columns."""
        import pandas

        return self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)

    def __len__(self) -> int:
        if self._where is None:
            return self._rows
        return sum(batch.num_rows for batch in self.to_batches(columns=self.schema.names[:1]))

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        reader = pa.RecordBatchReader.from_batches(self.schema, self._scan())
        return reader.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"LakeTable({self.name!r}, {self._rows:,} rows, {len(self.schema.names)} columns)"

    def _repr_html_(self) -> str:
        """Columns, types and counts for a notebook; never cell values, which may be a patient's."""
        rows = "".join(
            f"<tr><td>{html.escape(field.name)}</td><td>{html.escape(_short(field.type))}</td></tr>"
            for field in self.schema
        )
        head = f"<b>{html.escape(self.name)}</b>: {self._rows:,} rows, {len(self._paths)} files"
        return f"{head}<table><tr><th>column</th><th>type</th></tr>{rows}</table>"


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) < 80 else text[:77] + "…"
