"""Turn many decoded objects into Arrow columns, one member at a time.

The objects are msgspec structs whose members are named ``f0``, ``f1`` ... in the order of :func:`structs`'
converts, whatever JSON calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, repeat
from operator import is_
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hiexchange.lake.scan import places_of

Convert = Callable[[list[Any]], pa.Array]

_NEWLINE, _NULL = b"\nn"


def structs(kind: Any, members: dict[str, Convert]) -> Convert:
    """Return what makes structs of objects of one type, or of None where the element is absent."""
    # Compiled for this type alone: so the interpreter learns where its members are, and takes a third of attrgetter's
    # time.
    getters = [eval(f"lambda values: [value.f{at} for value in values]") for at in range(len(members))]
    return partial(_structs, kind=kind, getters=getters, names=list(members), converts=list(members.values()))


def _structs(
    values: list[Any],
    *,
    kind: Any,
    getters: Sequence[Callable[[list[Any]], list[Any]]],
    names: Sequence[str],
    converts: Sequence[Convert],
) -> pa.Array:
    mask = None
    try:
        found = [get(values) for get in getters]
    except AttributeError:  # absent ones are looked for only when one was stumbled over
        mask = pa.array(np.fromiter(map(is_, values, repeat(None)), np.bool_, len(values)))
        empty = kind()
        values = [value or empty for value in values]
        found = [get(values) for get in getters]
    arrays = [convert(of_one) for convert, of_one in zip(converts, found, strict=True)]
    return pa.StructArray.from_arrays(arrays, names, mask=mask)


def lists(convert: Convert) -> Convert:
    """Return what makes lists; an element that is absent counts as empty."""
    return partial(_lists, convert=convert)


def _lists(values: list[Any], *, convert: Convert) -> pa.Array:
    try:
        items = [item for [item] in values]  # where each has one, as is common, there is nothing to measure
        offsets = np.arange(len(values) + 1, dtype=np.int32)
    except (TypeError, ValueError):
        try:
            lengths = np.fromiter(map(len, values), np.int32, len(values))
        except TypeError:  # explicit nulls
            values = [value or () for value in values]
            lengths = np.fromiter(map(len, values), np.int32, len(values))
        offsets = np.cumsum(np.append(np.int32(0), lengths), dtype=np.int32)
        items = list(chain.from_iterable(values))
    return pa.ListArray.from_arrays(pa.array(offsets), convert(items))


def leaves(type: pa.DataType) -> Convert:
    """Return what makes an array of values of a primitive."""
    return partial(pa.array, type=type)


def texts(starts: bytes) -> Convert:
    """Return what makes text of literal JSON; an absent one is empty, that and an explicit null are null.

    Raises:
        ArrowInvalid: When run: a text does not begin with one of ``starts``.
    """
    return partial(_texts, begins=np.isin(np.arange(256), list(starts)))


def _texts(values: list[Any], *, begins: NDArray[np.bool_]) -> pa.Array:
    # Of each byte, ``begins`` says whether a text may begin with it.
    codes = np.frombuffer(b"\n".join([*values, b""]), np.uint8)
    ends = places_of(codes, _NEWLINE)
    if len(ends) != len(values):
        raise pa.ArrowInvalid("a value over several lines")
    sizes = np.diff(ends, prepend=-1)
    first = codes[ends - sizes + 1]
    filled = (sizes > 1) & (first != _NULL)
    if not begins[first[filled]].all():
        raise pa.ArrowInvalid("a value of another JSON type")
    kept = np.repeat(filled, sizes)
    kept[ends] = False
    offsets = np.cumsum(np.append(0, np.where(filled, sizes - 1, 0)), dtype=np.int32)
    buffers = (np.packbits(filled, bitorder="little"), offsets, codes[kept])
    return pa.Array.from_buffers(pa.string(), len(values), [pa.py_buffer(buffer) for buffer in buffers])
