"""Choose the reader of a file by its layout's kind."""

from __future__ import annotations

from hiexchange.errors import ConfigError
from hiexchange.roster.delimited import Raw, delimited, fixed
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
    text = as_text(opened, rule.encoding)
    if rule.kind == "x12-834":
        raw = x12_834(text.data, file=opened.name)
    elif rule.kind == "fixed":
        raw = fixed(text.data, _slices(layout), rule, file=opened.name)
    else:
        raw = delimited(text.data, rule, file=opened.name)
    if text.guessed:
        message = "neither marked nor UTF-8: read as cp1252, names may be garbled"
        raw.issues.append(issue("encoding_guessed", message, file=opened.name, severity="warning"))
    return raw


def _slices(layout: Layout) -> list[tuple[int, int]]:
    rules = [(name, rule) for name, rule in layout.columns.items() if rule.start and rule.width]
    if not rules:
        raise ConfigError(
            f"the fixed-width layout {layout.name} has no positions", hint="give start and width of each column"
        )
    return [(rule.start - 1, rule.start - 1 + rule.width) for _, rule in rules if rule.start and rule.width]
