"""What a caller asks of an evaluation, checked before any data is read."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from hiexchange.errors import ConfigError


def check_period(period: Any, offset: Any) -> None:
    """Refuse what is no period of whole days, or no offset.

    Raises:
        ConfigError: ``period`` is not (first day, last day), or ``offset`` no timedelta.
    """
    days = isinstance(period, tuple | list) and len(period) == 2
    if not days or not all(isinstance(day, date) and not isinstance(day, datetime) for day in period):
        raise ConfigError(
            "a measurement period is two days", hint="period=(date(2025, 1, 1), date(2025, 12, 31)), both included"
        )
    if period[0] > period[1]:
        raise ConfigError("the measurement period ends before it starts", hint="give (first day, last day)")
    if not isinstance(offset, timedelta):
        raise ConfigError("an offset is a timedelta", hint="offset=timedelta(hours=-6)")


def check_tables(source: Any) -> None:
    """Refuse a source of which a native measure cannot read tables.

    Raises:
        ConfigError: It is a path, or anything else that is no lake and no mapping of tables.
    """
    if isinstance(source, str | Path):
        raise ConfigError(
            "our own measures read a lake",
            where=str(source),
            hint="give hiexchange.Lake(path); a folder of NDJSON is loaded by Lake.ingest",
        )
    if not hasattr(source, "table") and not hasattr(source, "keys"):
        raise ConfigError(
            "our own measures read a lake", hint="give a hiexchange.Lake, or a mapping from FHIR type to table"
        )
