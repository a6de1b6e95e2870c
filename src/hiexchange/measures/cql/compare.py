"""Equality, equivalence and order of CQL values, in three-valued logic: True, False or None.

Source: CQL 1.5, Appendix B, sections 2 to 4 (Equal, Equivalent, Less ...), and Author's Guide 5.2.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from hiexchange.measures.cql import arithmetic, ucum
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.model import Element
from hiexchange.measures.cql.values import Code, CodeSystem, Concept, Interval, Quantity, Ratio, ValueSet

Truth = bool | None


def is_number(value: Any) -> bool:
    """Tell whether the value is an Integer, Long or Decimal."""
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def order(a: Any, b: Any) -> int | None:
    """Return -1, 0 or 1 for two ordered values of like type; None when it cannot be told."""
    if a is None or b is None:
        return None
    kind = type(a)
    if kind is type(b):
        if kind is Quantity:
            return order_quantities(a, b)
        if kind is int or kind is Decimal:
            return int(a > b) - int(a < b)
    if isinstance(a, t.Temporal) and isinstance(b, t.Temporal):
        return t.compare(a, b)
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        return _order_uncertain(a, b)
    if (is_number(a) and is_number(b)) or (isinstance(a, str) and isinstance(b, str)):
        return int(a > b) - int(a < b)
    # A bare number meets a quantity of unit 1, as when Divide gave one.
    if isinstance(a, Quantity) and is_number(b):
        return order_quantities(a, Quantity(Decimal(b), "1"))
    if isinstance(b, Quantity) and is_number(a):
        return order_quantities(Quantity(Decimal(a), "1"), b)
    return None


def order_quantities(a: Quantity, b: Quantity) -> int | None:
    """Compare after conversion; None for unlike dimensions."""
    if a.value is None or b.value is None:
        return None
    if a.unit == b.unit:
        return (a.value > b.value) - (a.value < b.value)
    factor = ucum.ratio(b.unit, a.unit)
    if factor is None:
        return None
    # a > b * n/d, without a division that would round.
    left, right = a.value * factor.denominator, b.value * factor.numerator
    return (left > right) - (left < right)


def _order_uncertain(a: Any, b: Any) -> int | None:
    first = a if isinstance(a, t.Uncertainty) else t.Uncertainty(a, a)
    second = b if isinstance(b, t.Uncertainty) else t.Uncertainty(b, b)
    if first.low > second.high:
        return 1
    if first.high < second.low:
        return -1
    return 0 if first.low == first.high == second.low == second.high else None


def _uncertain_rank(a: Any, b: Any) -> tuple[Truth, Truth]:
    """Return (a <= b, a >= b) for uncertain integers."""
    first = a if isinstance(a, t.Uncertainty) else t.Uncertainty(a, a)
    second = b if isinstance(b, t.Uncertainty) else t.Uncertainty(b, b)
    below = True if first.high <= second.low else False if first.low > second.high else None
    above = True if first.low >= second.high else False if first.high < second.low else None
    return below, above


def less(a: Any, b: Any) -> Truth:
    """Return a < b."""
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        return None if a is None or b is None else _negate(_uncertain_rank(a, b)[1])
    found = order(a, b)
    return None if found is None else found < 0


def less_or_equal(a: Any, b: Any) -> Truth:
    """Return a <= b."""
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        return None if a is None or b is None else _uncertain_rank(a, b)[0]
    found = order(a, b)
    return None if found is None else found <= 0


def greater(a: Any, b: Any) -> Truth:
    """Return a > b."""
    return less(b, a)


def greater_or_equal(a: Any, b: Any) -> Truth:
    """Return a >= b."""
    return less_or_equal(b, a)


def _negate(value: Truth) -> Truth:
    return None if value is None else not value


def equal(a: Any, b: Any) -> Truth:
    """Return a = b: None when either side is null or the answer depends on what is not known."""
    if a is None or b is None:
        return None
    kind = type(a)
    if kind is str or kind is bool:
        return bool(a == b) if type(b) is kind or isinstance(b, str) else False
    if a is b and kind not in _STRUCTURES:
        return True
    if isinstance(a, _ORDERED) or is_number(a):
        return _equal_ordered(a, b)
    if isinstance(a, Code):
        return _equal_codes(a, b)
    if isinstance(a, Concept):
        if not isinstance(b, Concept) or a.display != b.display:
            return False
        return equal(a.codes, b.codes)
    if kind is list:
        return _equal_lists(a, b)
    if kind is dict:
        return _equal_tuples(a, b)
    if kind is Interval:
        return _both(equal(a.start, b.start), equal(a.end, b.end)) if type(b) is Interval else False
    if isinstance(a, Element):
        return same_element(a, b)
    if isinstance(a, Ratio):
        if not isinstance(b, Ratio):
            return False
        return _both(equal(a.numerator, b.numerator), equal(a.denominator, b.denominator))
    if isinstance(a, ValueSet | CodeSystem):
        return type(b) is kind and a.id == b.id
    return bool(a == b)


_STRUCTURES = (Interval, list, dict)
"""What may not equal itself: it may hold what is not known."""
_ORDERED = (t.Temporal, t.Uncertainty, Quantity)


def _equal_ordered(a: Any, b: Any) -> Truth:
    if isinstance(a, t.Uncertainty) or isinstance(b, t.Uncertainty):
        found = _order_uncertain(a, b)
        return None if found is None else found == 0
    if isinstance(a, t.Temporal) != isinstance(b, t.Temporal):
        return False
    if isinstance(a, t.Time) != isinstance(b, t.Time):
        return False
    found = order(a, b)
    if found is None:
        # Unlike dimensions, and imprecise dates, are unknown; a number and a string are just unlike.
        return None if isinstance(a, Quantity | t.Temporal) and isinstance(b, Quantity | t.Temporal) else False
    return found == 0


def _equal_codes(a: Code, b: Any) -> Truth:
    if not isinstance(b, Code):
        return False
    pairs = ((a.code, b.code), (a.system, b.system), (a.version, b.version), (a.display, b.display))
    # As for any structured value: fields null on both sides agree, null on one side leaves it open.
    if any(x != y and x is not None and y is not None for x, y in pairs):
        return False
    return None if any((x is None) != (y is None) for x, y in pairs) else True


def _equal_lists(a: list[Any], b: Any) -> Truth:
    if type(b) is not list or len(a) != len(b):
        return False
    result: Truth = True
    for x, y in zip(a, b, strict=True):
        found = True if x is None and y is None else equal(x, y)
        if found is False:
            return False
        if found is None:
            result = None
    return result


def _equal_tuples(a: dict[str, Any], b: Any) -> Truth:
    if type(b) is not dict or a.keys() != b.keys():
        return False
    result: Truth = True
    for key, x in a.items():
        y = b[key]
        found = True if x is None and y is None else equal(x, y)
        if found is False:
            return False
        if found is None:
            result = None
    return result


def _both(a: Truth, b: Truth) -> Truth:
    if a is False or b is False:
        return False
    return True if a and b else None


def same_element(a: Element, b: Any) -> bool:
    """Compare FHIR elements: resources by identity of type, id and row; others by content."""
    if a is b:
        return True
    if not isinstance(b, Element) or a.type is not b.type:
        return False
    if a.row is not None or b.row is not None:
        return False
    return bool(a.data == b.data)


def equivalent(a: Any, b: Any) -> bool:
    """Return a ~ b: nulls are alike, text ignores case and white space, codes ignore version and display."""
    if a is None or b is None:
        return a is None and b is None
    if isinstance(a, str) and isinstance(b, str):
        return a == b or " ".join(a.split()).casefold() == " ".join(b.split()).casefold()
    if isinstance(a, Concept | Code) and isinstance(b, Concept | Code):
        return _same_code(a, b)
    if isinstance(a, Decimal) and isinstance(b, Decimal):
        return _round_alike(a, b)
    if is_number(a) and is_number(b):
        return bool(a == b)
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        return _equivalent_quantities(a, b)
    if isinstance(a, t.Temporal) and isinstance(b, t.Temporal):
        return t.compare(a, b) == 0
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equivalent, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equivalent(x, b[key]) for key, x in a.items())
    if isinstance(a, Interval) and isinstance(b, Interval):
        return equivalent(a.start, b.start) and equivalent(a.end, b.end)
    if isinstance(a, Ratio) and isinstance(b, Ratio):
        return _equivalent_ratios(a, b)
    return equal(a, b) is True


def _same_code(a: Code | Concept, b: Code | Concept) -> bool:
    if isinstance(a, Code):
        if isinstance(b, Code):
            return a.code == b.code and a.system == b.system
        return (a.system, a.code) in b.pairs
    if isinstance(b, Code):
        return (b.system, b.code) in a.pairs
    return not a.pairs.isdisjoint(b.pairs)


def _round_alike(a: Decimal, b: Decimal) -> bool:
    places = max(a.normalize().as_tuple().exponent, b.normalize().as_tuple().exponent)
    assert isinstance(places, int)
    unit = Decimal(1).scaleb(min(places, 0))
    return a.quantize(unit, ROUND_HALF_UP) == b.quantize(unit, ROUND_HALF_UP)


def _equivalent_quantities(a: Quantity, b: Quantity) -> bool:
    if a.value is None or b.value is None:
        return a.value is b.value
    converted = ucum.convert(b.value, b.unit, a.unit, equivalence=True)
    return converted is not None and _round_alike(a.value, converted)


def _equivalent_ratios(a: Ratio, b: Ratio) -> bool:
    """Tell whether both come to the same quotient, whatever units its parts are in."""
    first, second = (arithmetic.divide(ratio.numerator, ratio.denominator) for ratio in (a, b))
    return first is not None and second is not None and _equivalent_quantities(first, second)


def token(value: Any) -> Any:
    """Return something hashable that is the same for values Distinct and Union must merge.

    Null is one value, resources are themselves, quantities of one dimension meet in base units.
    """
    kind = type(value)
    # The commonest first: a list of tuples asks for a token of each of their parts.
    if kind is t.DateTime or kind is t.Date:
        return (kind, value.key)
    if kind is dict:
        return (dict, *[(key, token(item)) for key, item in value.items()])
    if kind is Interval:
        return _interval_token(value)
    if value is None or kind is bool:
        return (bool, value)
    if isinstance(value, str):
        return value
    if is_number(value):
        return (Decimal, value)
    if isinstance(value, t.Temporal):
        return (type(value), value.key)
    if isinstance(value, Element):
        return (Element, id(value)) if value.row is not None else (value.type.name, repr(value.data))
    if isinstance(value, Code):
        return (Code, value.code, value.system, value.version, value.display)
    if isinstance(value, Concept):
        return (Concept, value.display, *map(token, value.codes))
    if isinstance(value, Quantity):
        unit = ucum.parse(value.unit)
        if unit is None or value.value is None:
            return (Quantity, value.value, value.unit)
        return (Quantity, unit[1], value.value * unit[0].numerator / unit[0].denominator)
    if isinstance(value, list):
        return (list, *map(token, value))
    return (kind, id(value))


def _interval_token(value: Interval) -> Any:
    start, end = value.start, value.end
    if start is None or end is None:
        return (Interval, token(start), token(end), value.low_closed, value.high_closed)
    return (Interval, token(start), token(end))
