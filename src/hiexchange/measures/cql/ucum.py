"""A small UCUM: prefix + atom + exponent, ``.`` and ``/``, annotations; a dimension vector and a factor.

Special units (temperature scales, pH, logarithms, homeopathic potencies) have no factor and are
refused: they are comparable only with themselves. Units of unlike dimension give None, never an
exception. Calendar years and months are a dimension of their own, since their length varies (CQL
1.5, 2.2.6.5); weeks down to milliseconds are the same in both.

Source: The Unified Code for Units of Measure, version 2.1, tables 1 to 27 (https://ucum.org/ucum).
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import lru_cache

Dimension = tuple[tuple[str, int], ...]
Unit = tuple[Fraction, Dimension]

_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "d": -1, "c": -2,
    "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
}  # fmt: skip
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_BASE = ("m", "s", "g", "rad", "K", "C", "cd")

# atom: (takes prefixes, factor, expression in other atoms).
_ATOMS: dict[str, tuple[bool, str, str]] = {
    "10*": (False, "10", "1"), "10^": (False, "10", "1"), "[pi]": (False, "3.14159265358979323846", "1"),
    "%": (False, "1/100", "1"), "[ppth]": (False, "1/1000", "1"), "[ppm]": (False, "1/1000000", "1"),
    "[ppb]": (False, "1/1000000000", "1"), "mol": (True, "602213670000000000000000", "1"),
    "sr": (True, "1", "rad2"), "Hz": (True, "1", "s-1"), "N": (True, "1000", "g.m/s2"),
    "Pa": (True, "1000", "g/m/s2"), "J": (True, "1000", "g.m2/s2"), "W": (True, "1000", "g.m2/s3"),
    "A": (True, "1", "C/s"), "V": (True, "1000", "g.m2/s2/C"), "F": (True, "1/1000", "C2.s2/g/m2"),
    "Ohm": (True, "1000", "g.m2/s/C2"), "S": (True, "1/1000", "s.C2/g/m2"), "Wb": (True, "1000", "g.m2/s/C"),
    "T": (True, "1000", "g/s/C"), "H": (True, "1000", "g.m2/C2"), "lm": (True, "1", "cd.rad2"),
    "lx": (True, "1", "cd.rad2/m2"), "Bq": (True, "1", "s-1"), "Gy": (True, "1", "m2/s2"),
    "Sv": (True, "1", "m2/s2"), "gon": (False, "9/10", "deg"), "deg": (False, "1/180", "[pi].rad"),
    "'": (False, "1/60", "deg"), "''": (False, "1/3600", "deg"), "l": (True, "1/1000", "m3"),
    "L": (True, "1/1000", "m3"), "ar": (True, "100", "m2"), "min": (False, "60", "s"), "h": (False, "3600", "s"),
    "d": (False, "86400", "s"), "wk": (False, "604800", "s"), "a": (False, "31557600", "s"),
    "a_j": (False, "31557600", "s"), "a_g": (False, "31556952", "s"), "a_t": (False, "31556925.216", "s"),
    "mo": (False, "2629800", "s"), "mo_j": (False, "2629800", "s"), "mo_s": (False, "2551442.976", "s"),
    "t": (True, "1000000", "g"), "bar": (True, "100000000", "g/m/s2"), "u": (True, "1.6605402e-24", "g"),
    "eV": (True, "1.60217733e-19", "J"), "[c]": (True, "299792458", "m/s"), "[g]": (True, "9.80665", "m/s2"),
    "Ci": (True, "37000000000", "s-1"), "R": (True, "0.000258", "C/kg"), "RAD": (True, "1/100", "m2/s2"),
    "REM": (True, "1/100", "m2/s2"), "dyn": (True, "1", "g.cm/s2"), "erg": (True, "1", "dyn.cm"),
    "P": (True, "1", "dyn.s/cm2"), "St": (True, "1", "cm2/s"), "[in_i]": (False, "2.54", "cm"),
    "[ft_i]": (False, "12", "[in_i]"), "[yd_i]": (False, "3", "[ft_i]"), "[mi_i]": (False, "5280", "[ft_i]"),
    "[sin_i]": (False, "1", "[in_i]2"), "[sft_i]": (False, "1", "[ft_i]2"), "[cin_i]": (False, "1", "[in_i]3"),
    "[in_us]": (False, "100/3937", "m"), "[gal_us]": (False, "231", "[in_i]3"), "[qt_us]": (False, "1/4", "[gal_us]"),
    "[pt_us]": (False, "1/2", "[qt_us]"), "[foz_us]": (False, "1/16", "[pt_us]"), "[fdr_us]": (False, "1/8", "[foz_us]"),
    "[tbs_us]": (False, "1/2", "[foz_us]"), "[tsp_us]": (False, "1/3", "[tbs_us]"), "[cup_us]": (False, "16", "[tbs_us]"),
    "[cup_m]": (False, "240", "mL"), "[tsp_m]": (False, "5", "mL"), "[tbs_m]": (False, "15", "mL"),
    "[foz_m]": (False, "30", "mL"), "[gr]": (False, "64.79891", "mg"), "[lb_av]": (False, "7000", "[gr]"),
    "[oz_av]": (False, "1/16", "[lb_av]"), "[dr_av]": (False, "1/16", "[oz_av]"), "[stone_av]": (False, "14", "[lb_av]"),
    "[oz_tr]": (False, "480", "[gr]"), "[lb_tr]": (False, "12", "[oz_tr]"), "[drp]": (False, "1/20", "mL"),
    "m[H2O]": (True, "9.80665", "kPa"), "m[Hg]": (True, "133.322", "kPa"), "[in_i'Hg]": (False, "25.4", "mm[Hg]"),
    "[psi]": (False, "6.89475729316836", "kPa"), "atm": (False, "101325", "Pa"), "cal": (True, "4.184", "J"),
    "cal_th": (True, "4.184", "J"), "cal_IT": (True, "4.1868", "J"), "[Cal]": (False, "1", "kcal_th"),
    "[HP]": (False, "745.69987158227", "W"), "eq": (True, "1", "mol"), "osm": (True, "1", "mol"),
    "kat": (True, "1", "mol/s"), "U": (True, "1/1000000", "mol/min"), "g%": (True, "1", "g/dL"),
    "[degF]": (False, "", ""), "bit": (True, "1", "1"), "By": (True, "8", "1"), "Bd": (True, "1", "s-1"),
    "[diop]": (False, "1", "m-1"), "[mesh_i]": (False, "1", "[in_i]-1"), "[Ch]": (False, "1/3", "mm"),
    "mho": (True, "1", "S"), "tex": (True, "1", "g/km"), "B[10.nV]": (False, "", ""), "st": (True, "1", "m3"),
    "Ao": (False, "1/10", "nm"), "b": (False, "100", "fm2"), "[car_m]": (False, "1/5", "g"), "[car_Au]": (False, "1/24", "1"),
    "[smgy]": (False, "1", "1"),
}  # fmt: skip
_SPECIAL = {
    "Cel", "[degF]", "[degRe]", "[pH]", "Np", "B", "B[SPL]", "B[V]", "B[mV]", "B[uV]", "B[10.nV]", "B[W]", "B[kW]",
    "[p'diop]", "%[slope]", "[hp'_X]", "[hp'_C]", "[hp'_M]", "[hp'_Q]", "bit_s", "[m/s2/Hz^0.5]",
}  # fmt: skip
# Arbitrary units ([IU], [hnsf'U] ...) are comparable only with themselves; these take prefixes.
_ARBITRARY = re.compile(r"^\[[^\]]+\]$")

CALENDAR: dict[str, tuple[str, int | Fraction]] = {
    "year": ("calendar-month", 12),
    "month": ("calendar-month", 1),
    "week": ("s", 604_800),
    "day": ("s", 86_400),
    "hour": ("s", 3_600),
    "minute": ("s", 60),
    "second": ("s", 1),
    "millisecond": ("s", Fraction(1, 1000)),
}
CALENDAR_WORDS = {
    "a": "year", "mo": "month", "wk": "week", "d": "day", "h": "hour", "min": "minute", "s": "second", "ms": "millisecond",
}  # fmt: skip
"""UCUM's units of time, by CQL's words."""
_TO_UCUM = {word: unit for unit, word in CALENDAR_WORDS.items()}
_TERM = re.compile(r"^(.*?)([+-]?\d+)?$")
_TOKEN = re.compile(r"[./()]|(?:\[[^\]]*\]|\{[^}]*\}|[^./()\[\]{}])+")


def calendar_word(unit: str) -> str | None:
    """Return the singular calendar word of ``unit`` (``days`` gives ``day``), or None."""
    if unit in CALENDAR:
        return unit
    return unit[:-1] if unit.endswith("s") and unit[:-1] in CALENDAR else None


@lru_cache(maxsize=10_000)
def parse(unit: str) -> Unit | None:
    """Return (factor, dimension) of a unit, or None when it is special or not a unit."""
    word = calendar_word(unit)
    if word is not None:
        name, size = CALENDAR[word]
        return Fraction(size), ((name, 1),)
    # UCUM numbers are positive; "0" stands in published cases where a form left the unit empty.
    if unit in ("", "1", "0"):
        return Fraction(1), ()
    tokens = _TOKEN.findall(unit)
    if "".join(tokens) != unit:
        return None
    try:
        result, rest = _product(tokens, 0)
    except (ValueError, IndexError, ZeroDivisionError, RecursionError):
        return None
    return result if rest == len(tokens) else None


def _product(tokens: list[str], at: int) -> tuple[Unit, int]:
    value: Unit = (Fraction(1), ())
    sign = 1
    if tokens[at] == "/":
        sign, at = -1, at + 1
    while True:
        if tokens[at] == "(":
            factor, at = _product(tokens, at + 1)
            if tokens[at] != ")":
                raise ValueError(")")
            at += 1
        else:
            factor, at = _component(tokens[at]), at + 1
        value = combine(value, factor, sign)
        if at >= len(tokens) or tokens[at] == ")":
            return value, at
        if tokens[at] not in "./":
            raise ValueError(tokens[at])
        sign, at = (1 if tokens[at] == "." else -1), at + 1


def combine(a: Unit, b: Unit, sign: int = 1) -> Unit:
    """Return ``a`` times ``b`` to the power ``sign``."""
    powers = dict(a[1])
    for name, power in b[1]:
        powers[name] = powers.get(name, 0) + sign * power
    return a[0] * b[0] ** sign, tuple(sorted((name, power) for name, power in powers.items() if power))


def _component(token: str) -> Unit:
    plain = re.sub(r"\{[^}]*\}", "", token)
    if not plain:
        return Fraction(1), ()
    if plain.isdigit() and int(plain):
        return Fraction(int(plain)), ()
    # An exponent follows the atom, but 10* and 10^ end in a sign that is part of the atom.
    match = _TERM.match(plain)
    assert match is not None
    name, power = match[1], match[2]
    if not name or plain in ("10*", "10^"):
        name, power = plain, None
    factor, dimension = _atom(name)
    exponent = int(power) if power else 1
    return factor**exponent, tuple((base, size * exponent) for base, size in dimension)


def _atom(name: str) -> Unit:
    if name in _SPECIAL:
        raise ValueError(name)
    if name in _BASE:
        return Fraction(1), ((name, 1),)
    if name in _ATOMS:
        _, size, text = _ATOMS[name]
        inner = parse(text)
        if inner is None:
            raise ValueError(name)
        return Fraction(size) * inner[0], inner[1]
    for length in (2, 1):
        prefix, rest = name[:length], name[length:]
        known = rest in _BASE or (rest in _ATOMS and _ATOMS[rest][0]) or (rest != name and _ARBITRARY.match(rest))
        if rest and known and (prefix in _PREFIXES or prefix in _BINARY):
            factor, dimension = _atom(rest)
            scale = Fraction(_BINARY[prefix]) if prefix in _BINARY else Fraction(10) ** _PREFIXES[prefix]
            return factor * scale, dimension
    if _ARBITRARY.match(name):
        return Fraction(1), ((name, 1),)
    raise ValueError(name)


@lru_cache(maxsize=10_000)
def ratio(source: str, target: str, *, equivalence: bool = False) -> Fraction | None:
    """Return what a value in ``source`` is multiplied with to be in ``target``; None when not comparable.

    ``equivalence`` makes calendar years and months the same as UCUM ``a`` and ``mo``.
    """
    if source == target:
        return Fraction(1)
    if equivalence:
        source, target = (_TO_UCUM.get(calendar_word(unit) or "", unit) for unit in (source, target))
    a, b = parse(source), parse(target)
    if a is None or b is None or a[1] != b[1]:
        return None
    return a[0] / b[0]


def convert(value: Decimal, source: str, target: str, *, equivalence: bool = False) -> Decimal | None:
    """Return ``value`` in the target unit, or None when the units are of unlike dimension."""
    factor = ratio(source, target, equivalence=equivalence)
    return None if factor is None else times(value, factor)


def times(value: Decimal, factor: Fraction) -> Decimal:
    """Return a value in another unit: rounded once, after the multiplication."""
    return value if factor == 1 else decimal(Fraction(value) * factor)


def decimal(value: Fraction) -> Decimal:
    """Return a fraction as a decimal with at most CQL's eight places beyond what it needs."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return exact.quantize(Decimal("0.00000001"), ROUND_HALF_UP).normalize() if exact.adjusted() < 19 else exact


def product(a: str, b: str, sign: int) -> str:
    """Return the unit of a product (``sign`` 1) or a quotient (-1); like units cancel to ``1``."""
    if b == "1":
        return a
    if a != "1" or sign < 0:
        # Calendar words cannot be part of a unit: 10 mg a day is 10 mg/d.
        a, b = (_TO_UCUM.get(calendar_word(unit) or "", unit) for unit in (a, b))
    if sign < 0:
        if a == b or ratio(a, b) is not None:
            return "1"
        return f"/{b}" if a == "1" else f"{a}/({b})" if re.search(r"[./]", b) else f"{a}/{b}"
    if a == "1":
        return b
    return f"{a}.{b}" if not b.startswith("/") else f"{a}{b}"
