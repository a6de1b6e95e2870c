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

from hiexchange.lake.scan import Codes, Indices, at

MARK = b"\x7f"
"""Starts the new names; lines that hold it go the exact way."""
_WIDTH = 24
"""Longest number looked at together with the others."""
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?=[ \t\r\n,}\]])")
_QUOTE, _BLANK = b'" '

# The grammar of numbers (RFC 8259, section 6): what was read so far, and where each kind of byte leads from there.
_START, _MINUS, _ZERO, _WHOLE, _POINT, _FRACTION, _E, _SIGN, _POWER, _GOOD, _BAD = range(11)
_STEPS = {
    _START: {b"-": _MINUS, b"0": _ZERO, b"123456789": _WHOLE},
    _MINUS: {b"0": _ZERO, b"123456789": _WHOLE},
    _ZERO: {b".": _POINT, b"eE": _E},
    _WHOLE: {b"0123456789": _WHOLE, b".": _POINT, b"eE": _E},
    _POINT: {b"0123456789": _FRACTION},
    _FRACTION: {b"0123456789": _FRACTION, b"eE": _E},
    _E: {b"+-": _SIGN, b"0123456789": _POWER},
    _SIGN: {b"0123456789": _POWER},
    _POWER: {b"0123456789": _POWER},
}
_NEXT = np.full((_GOOD, 256), _BAD, np.uint8)
_NEXT[np.ix_([_ZERO, _WHOLE, _FRACTION, _POWER], list(b" \t\r\n,}]"))] = _GOOD
for _state, _steps in _STEPS.items():
    for _bytes, _after in _steps.items():
        _NEXT[_state, list(_bytes)] = _after


def marked_names(names: Iterable[str]) -> dict[str, str]:
    """Return {name: new name}; a name too short, or whose new name would be another's too, is left out."""
    marked = {name: MARK.decode() + name[3:] for name in sorted(names) if len(name) > 2}
    often = Counter(marked.values())
    return {name: new for name, new in marked.items() if often[new] == 1}


def quote_numbers(codes: Codes, loose: Indices, names: dict[str, str]) -> int:
    """Quote every number under one of the names, in place; a malformed one stays as it is.

    Args:
        codes: JSON lines, writable.
        loose: Places of the quotes that end a name and are followed by a number or a blank, after the colon.
        names: {name: new name}.

    Returns:
        How many were quoted.
    """
    if not names or not len(loose):
        return 0
    starts = loose + 2
    starts += at(codes, starts) == _BLANK
    numbers = _NEXT[_START][at(codes, starts)] != _BAD
    colons, starts = loose[numbers] + 1, starts[numbers]
    count = 0
    for name, new in names.items():
        mine = _named(codes, colons, b'"%s"' % name.encode())
        count += _quote(codes, colons[mine], starts[mine], new.encode(), len(name))
    return count


def _named(codes: Codes, colons: Indices, name: bytes) -> Indices:
    """Return which colons stand after this name in quotes."""
    kept = np.flatnonzero(colons >= len(name))
    for back, code in enumerate(reversed(name), 1):
        kept = kept[codes[colons[kept] - back] == code]
    return kept


def _quote(codes: Codes, colons: Indices, starts: Indices, new: bytes, length: int) -> int:
    """Quote the numbers that start here, after these colons, and rename their members; return how many."""
    sizes = _sizes(codes, starts)
    good = np.flatnonzero(sizes)
    colons, starts, sizes = colons[good], starts[good], sizes[good]
    opening = colons - length - 2
    codes[starts - 3] = _BLANK  # only where a blank came after the colon; elsewhere this is the new colon's place
    for place, code in enumerate(b'"%s":' % new):
        codes[opening + place] = code
    codes[starts - 2] = _QUOTE
    longer = np.arange(len(starts))
    for place in range(int(min(sizes.max(initial=0), _WIDTH))):
        longer = longer[sizes[longer] > place]
        codes[starts[longer] + (place - 1)] = codes[starts[longer] + place]
    for start, size in zip(starts[sizes > _WIDTH].tolist(), sizes[sizes > _WIDTH].tolist(), strict=True):
        codes[start + _WIDTH - 1 : start + size - 1] = codes[start + _WIDTH : start + size].copy()
    codes[starts + (sizes - 1)] = _QUOTE
    return len(starts)


def _sizes(codes: Codes, starts: Indices) -> Indices:
    """Return the lengths of numbers; 0 for what is not spelled as JSON wants."""
    sizes = np.zeros(len(starts), np.int64)
    states, left = np.full(len(starts), _START, np.uint8), np.arange(len(starts))
    for place in range(_WIDTH):
        states = _NEXT[states, at(codes, starts[left] + place)]
        sizes[left[states == _GOOD]] = place
        going = states < _GOOD
        states, left = states[going], left[going]
    for row in left.tolist():
        match = _NUMBER.match(codes[starts[row] : starts[row] + 4096].tobytes())
        sizes[row] = match.end() if match else 0
    return sizes
