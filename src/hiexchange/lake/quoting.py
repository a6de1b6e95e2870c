"""Quote decimals in place, so that a parser keeps the text of the number.

``"value":1.50`` becomes ``"\x7fue":"1.50"``: a name without its first three letters, after a DEL, makes room
for the two quotes, so nothing moves but the digits. The new name also tells a number that was quoted here
from a text that stood there: the parser is told to look for decimals under it, and finds nothing else there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from hiexchange.lake.scan import Codes, Flags, Indices, Survey, at

MARK = b"\x7f"
"""Starts the new names; lines that hold it go the exact way."""
_WIDTH = 24
"""Longest number looked at together with the others."""
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?=[ \t\r\n,}\]])")
_QUOTE, _BLANK, _ZERO = b'" 0'

_DIGIT, _POINT, _MINUS, _EXPONENT = 1, 2, 3, 4
_CLASS = np.zeros(256, np.uint8)
_CLASS[list(b"0123456789")] = _DIGIT
_CLASS[list(b".")] = _POINT
_CLASS[list(b"-")] = _MINUS
_CLASS[list(b"eE+")] = _EXPONENT


def marked_names(names: Iterable[str]) -> dict[str, str]:
    """Return {name: new name}; a name too short, or whose new name would be another's too, is left out."""
    marked = {name: MARK.decode() + name[3:] for name in sorted(names) if len(name) > 2}
    often = Counter(marked.values())
    return {name: new for name, new in marked.items() if often[new] == 1}


def quote_numbers(codes: Codes, survey: Survey, names: dict[str, str]) -> None:
    """Quote every number under one of the names, in place; a malformed one stays as it is.

    Args:
        codes: JSON lines, writable.
        survey: Where their members are.
        names: {name: new name}.
    """
    if not names:
        return
    gaps = survey.names[survey.spaced]
    before = np.concatenate([survey.names[_starts_number(survey.after)], gaps[_starts_number(at(codes, gaps + 3))]])
    for name, new in names.items() if len(before) else ():
        _quote(codes, _named(codes, before + 1, b'"%s"' % name.encode()), new.encode(), len(name))


def _starts_number(codes: Codes) -> Flags:
    kinds = _CLASS[codes]
    found: Flags = (kinds == _DIGIT) | (kinds == _MINUS)
    return found


def _named(codes: Codes, colons: Indices, name: bytes) -> Indices:
    """Return the colons that stand after this name in quotes."""
    colons = colons[colons >= len(name)]
    for back, code in enumerate(reversed(name), 1):
        colons = colons[codes[colons - back] == code]
    return colons


def _quote(codes: Codes, colons: Indices, new: bytes, length: int) -> None:
    blank = codes[colons + 1] == _BLANK
    starts = colons + 1 + blank
    chars, sizes = _measured(codes, starts)
    good = sizes > 0
    colons, starts, sizes, blank, chars = colons[good], starts[good], sizes[good], blank[good], chars[good]
    opening = colons - length - 2
    for place, code in enumerate(b'"%s":' % new):
        codes[opening + place] = code
    codes[starts[blank] - 3] = _BLANK
    for place in range(int(min(sizes.max(initial=0), _WIDTH))):
        longer = sizes > place
        codes[starts[longer] + (place - 1)] = chars[longer, place]
    for start, size in zip(starts[sizes > _WIDTH].tolist(), sizes[sizes > _WIDTH].tolist(), strict=True):
        codes[start + _WIDTH - 1 : start + size - 1] = codes[start + _WIDTH : start + size].copy()
    codes[starts - 2] = _QUOTE
    codes[starts + (sizes - 1)] = _QUOTE


def _measured(codes: Codes, starts: Indices) -> tuple[Codes, Indices]:
    """Return the first bytes of numbers, and their lengths; 0 for what is not spelled as JSON wants."""
    places = starts[:, None] + np.arange(_WIDTH)
    chars = codes[np.minimum(places, len(codes) - 1)]
    kinds = _CLASS[chars]
    kinds[places >= len(codes)] = 0
    ended = kinds == 0
    sizes = np.where(ended.any(axis=1), ended.argmax(axis=1), 0).astype(np.int64)
    inside = np.arange(_WIDTH) < sizes[:, None]
    points = ((kinds == _POINT) & inside).sum(axis=1)
    minus = (kinds[:, 0] == _MINUS).astype(np.int64)
    first = np.take_along_axis(chars, minus[:, None], 1)[:, 0]
    second = np.take_along_axis(kinds, minus[:, None] + 1, 1)[:, 0]
    rows = np.arange(len(starts))
    plain = (
        (sizes > minus)
        & (points <= 1)
        & (((kinds == _MINUS) & inside).sum(axis=1) == minus)
        & ~((kinds == _EXPONENT) & inside).any(axis=1)
        & (kinds[rows, minus] == _DIGIT)
        & (kinds[rows, np.maximum(sizes - 1, 0)] == _DIGIT)
        & ~((first == _ZERO) & (second == _DIGIT))
    )
    for row in np.flatnonzero(~plain).tolist():
        match = _NUMBER.match(codes[starts[row] : starts[row] + 4096].tobytes())
        sizes[row] = match.end() if match else 0
    return chars, sizes
