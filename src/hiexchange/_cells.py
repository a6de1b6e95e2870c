"""Cells of files that people open in a spreadsheet."""

from __future__ import annotations

import re

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that starts so (CWE-1236); an apostrophe in front makes it text."""
_NUMBER = re.compile(r"[+-]\d+(\.\d+)?\Z")


def neutral(text: str) -> str:
    """Return text that no spreadsheet takes for a formula; a signed number is none."""
    return f"'{text}" if text.startswith(FORMULA) and not _NUMBER.match(text) else text
