"""Choose the reader of a file by its layout's kind."""

from __future__ import annotations

from hiexchange.errors import ConfigError
from hiexchange.roster import convert
from hiexchange.roster.atr import attribution_list
from hiexchange.roster.columns import sources
from hiexchange.roster.delimited import Raw, delimited, fixed
from hiexchange.roster.excel import workbook
from hiexchange.roster.issues import issue
from hiexchange.roster.layout import Layout
from hiexchange.roster.opening import Opened, as_text
from hiexchange.roster.x12 import x12_834


def raw_rows(opened: Opened, layout: Layout) -> Raw:
    """Return a file as text columns.

    Raises:
        RosterError: The bytes are not what the layout's ``file.kind`` says.
    """
    rule = layout.file
    if rule.kind == "xlsx":
        raw, as_dates = workbook(opened.data, rule, file=opened.name)
        found = sources(layout, raw.header, raw.width, file=opened.name)
        as_dates(number for name in convert.DATES for number in found.get(name, []))
        return raw
    text = as_text(opened, rule.encoding)
    if rule.kind == "x12-834":
        raw = x12_834(text.data, file=opened.name)
    elif rule.kind in ("atr", "dpc"):
        raw = attribution_list(text.data, file=opened.name)
        if rule.kind == "atr":
            # An ATR export is the payer's list whole; a DPC Group is one practitioner's, each a list.
            raw.facts.pop("list_id", None)
    elif rule.kind == "fixed":
        raw = fixed(text.data, _slices(layout), rule, file=opened.name)
    else:
        raw = delimited(text.data, rule, file=opened.name)
    if text.guessed:
        message = "neither marked nor UTF-8: read as cp1252, names may be garbled"
        raw.issues.append(issue("encoding_guessed", message, file=opened.name, severity="warning"))
    return raw


def _slices(layout: Layout) -> list[tuple[int, int]]:
    rules = [rule for rule in layout.columns.values() if rule.start and rule.width]
    if not rules:
        raise ConfigError(
            f"the fixed-width layout {layout.name} has no positions", hint="give start and width of each column"
        )
    return [(rule.start - 1, rule.start - 1 + rule.width) for rule in rules if rule.start and rule.width]
