"""CQL values that Python has no class for. Null is None; Boolean, Integer, String are Python's own.

Decimals are ``decimal.Decimal``, lists are ``list``, tuples are ``dict``. Classes here are treated as
immutable, and compare by CQL's rules only through :mod:`.compare`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import temporal as t

MAX_INTEGER = 2**31 - 1
MIN_INTEGER = -(2**31)
MAX_LONG = 2**63 - 1
MIN_LONG = -(2**63)
STEP = Decimal("0.00000001")
MAX_DECIMAL = Decimal("99999999999999999999.99999999")
MIN_DECIMAL = -MAX_DECIMAL


class EvaluationError(MeasureError):
    """One subject's expression has no value: the subject becomes an error row, the run goes on."""

    code = "HX-702"


class Code:
    """One code of a code system."""

    __slots__ = ("code", "display", "system", "version")

    def __init__(
        self, code: str | None, system: str | None, version: str | None = None, display: str | None = None
    ) -> None:
        """Keep the four parts."""
        self.code = code
        self.system = system
        self.version = version
        self.display = display

    def __repr__(self) -> str:
        return f"Code({self.code!r}, {self.system!r})"


class Concept:
    """Several codes for one meaning."""

    __slots__ = ("codes", "display", "pairs")

    def __init__(self, codes: list[Code], display: str | None = None) -> None:
        """Keep the codes, and their (system, code) pairs for membership tests."""
        self.codes = codes
        self.display = display
        self.pairs = frozenset((code.system, code.code) for code in codes if code is not None)

    def __repr__(self) -> str:
        return f"Concept({self.codes!r})"


class ValueSet:
    """A value set by canonical URL, with its codes as (system, code) pairs where they are known."""

    __slots__ = ("bare", "id", "name", "pairs", "problem", "version")

    def __init__(
        self, id: str, name: str, pairs: frozenset[tuple[str | None, str | None]] | None, problem: str | None = None
    ) -> None:
        """Keep the codes; ``pairs`` None means that the set could not be resolved, ``problem`` says why."""
        self.id = id
        self.name = name
        self.version: str | None = None
        self.pairs = pairs
        self.problem = problem
        self.bare = frozenset(code for _, code in pairs) if pairs else frozenset()

    def __repr__(self) -> str:
        return f"ValueSet({self.id!r})"


class CodeSystem:
    """A code system by its URL; membership is by system alone, since its codes are not at hand."""

    __slots__ = ("id", "name", "version")

    def __init__(self, id: str, name: str, version: str | None = None) -> None:
        """Keep URL and name."""
        self.id = id
        self.name = name
        self.version = version


class Quantity:
    """A number with a unit (UCUM or a calendar word); ``unit`` 1 is written as ``1``."""

    __slots__ = ("unit", "value")

    def __init__(self, value: Decimal | None, unit: str | None) -> None:
        """Keep value and unit; no unit is the unit 1."""
        self.value = value
        self.unit = unit or "1"

    def __repr__(self) -> str:
        return f"Quantity({self.value}, {self.unit!r})"


class Ratio:
    """Two quantities."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: Quantity | None, denominator: Quantity | None) -> None:
        """Keep both."""
        self.numerator = numerator
        self.denominator = denominator


class Interval:
    """Low to high, each end closed or open; a closed null end is unbounded, an open null end unknown."""

    __slots__ = ("high", "high_closed", "kind", "low", "low_closed")

    def __init__(
        self, low: Any, high: Any, low_closed: bool = True, high_closed: bool = True, kind: Any = None
    ) -> None:
        """Keep the ends; ``kind`` is the class of the points, needed where both ends are null."""
        self.low = low
        self.high = high
        self.low_closed = low_closed
        self.high_closed = high_closed
        point = low if low is not None else high
        self.kind = type(point) if point is not None else kind

    def __repr__(self) -> str:
        return f"Interval{'[' if self.low_closed else '('}{self.low}, {self.high}{']' if self.high_closed else ')'}"

    @property
    def start(self) -> Any:
        """The first point: the low end, its successor when open, the minimum when unbounded, else None."""
        if self.low is None:
            return minimum(self.kind, self.high) if self.low_closed else None
        return self.low if self.low_closed else successor(self.low)

    @property
    def end(self) -> Any:
        """The last point: the high end, its predecessor when open, the maximum when unbounded, else None."""
        if self.high is None:
            return maximum(self.kind, self.low) if self.high_closed else None
        return self.high if self.high_closed else predecessor(self.high)


_LIMITS: dict[Any, tuple[Any, Any]] = {
    int: (MIN_INTEGER, MAX_INTEGER),
    Decimal: (MIN_DECIMAL, MAX_DECIMAL),
    t.Date: (t.MIN_DATE, t.MAX_DATE),
    t.DateTime: (t.MIN_DATETIME, t.MAX_DATETIME),
    t.Time: (t.MIN_TIME, t.MAX_TIME),
}


def minimum(kind: Any, sample: Any = None) -> Any:
    """Return the least value of a point type; for a Quantity in the unit of ``sample``; else None."""
    if kind is Quantity:
        return Quantity(MIN_DECIMAL, sample.unit if sample is not None else "1")
    return _LIMITS[kind][0] if kind in _LIMITS else None


def maximum(kind: Any, sample: Any = None) -> Any:
    """Return the greatest value of a point type; for a Quantity in the unit of ``sample``; else None."""
    if kind is Quantity:
        return Quantity(MAX_DECIMAL, sample.unit if sample is not None else "1")
    return _LIMITS[kind][1] if kind in _LIMITS else None


def successor(value: Any) -> Any:
    """Return the next point (integer 1, decimal 1e-8, temporal 1 of its precision); None after the last."""
    if isinstance(value, t.Temporal):
        return t.successor(value)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if value in (MAX_INTEGER, MAX_LONG) else value + 1
    if isinstance(value, Decimal):
        return None if value >= MAX_DECIMAL else value + STEP
    if isinstance(value, Quantity):
        following = successor(value.value)
        return None if following is None else Quantity(following, value.unit)
    return None


def predecessor(value: Any) -> Any:
    """Return the point before; None before the first."""
    if isinstance(value, t.Temporal):
        return t.predecessor(value)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if value in (MIN_INTEGER, MIN_LONG) else value - 1
    if isinstance(value, Decimal):
        return None if value <= MIN_DECIMAL else value - STEP
    if isinstance(value, Quantity):
        before = predecessor(value.value)
        return None if before is None else Quantity(before, value.unit)
    return None
