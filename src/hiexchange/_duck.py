"""DuckDB connections that keep to themselves: in memory, one a call, and silent."""

from __future__ import annotations

import duckdb


def quiet_connection() -> duckdb.DuckDBPyConnection:
    """Return an in-memory connection of its own, which never draws a progress bar.

    DuckDB draws one on a terminal after two seconds of a statement; a library never prints.
    """
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    return connection


def said(error: duckdb.Error) -> str:
    """Return what is wrong with a query; of an error at run time, which may quote a patient's value, only its kind."""
    static = isinstance(error, duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException)
    return str(error).splitlines()[0][:200] if static else type(error).__name__
