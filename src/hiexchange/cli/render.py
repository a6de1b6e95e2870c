"""The only place that prints: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from hiexchange.errors import HIExchangeError


def out(text: str = "") -> None:
    """Print a line of result."""
    print(text, file=sys.stdout, flush=True)


def err(text: str = "") -> None:
    """Print a line of progress or trouble."""
    print(text, file=sys.stderr, flush=True)


def json_out(value: Any) -> None:
    """Print a result as JSON."""
    out(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def table(rows: Iterable[Sequence[Any]], headers: Sequence[str]) -> None:
    """Print rows under headers, columns aligned; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(head), *(len(row[index]) for row in cells)]) for index, head in enumerate(headers)]
    right = [all(_is_number(row[index]) for row in cells) and bool(cells) for index in range(len(headers))]
    for row in [list(headers), *cells]:
        line = "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        )
        out(line.rstrip())


def failure(error: HIExchangeError) -> None:
    """Print an error in the form of the documents: what, where, said, do."""
    err(f"error {error.code} {error.what}")
    for label, text in error.details():
        err(f"  {label:<5}  {text}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("-", "").replace("%", "").strip().isdigit() or not text
