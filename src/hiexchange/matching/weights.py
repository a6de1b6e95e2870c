"""Fellegi-Sunter weights as a versioned data file: m and u per field and level, and how they were got.

Bits are log2(m/u). A missing field is 0 bits. Surname, address, phone, email and ZIP are ONE graded
comparison, ``family``: they agree together in every household, so adding them up as if independent gives
a father's record tens of bits for his son. Exact names are adjusted by how common they are in the index.

Source: Fellegi and Sunter, JASA 64 (1969), 1183-1210; Winkler's frequency adjustment.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from hiexchange.errors import ConfigError

FIRST = {5: "exact", 4: "nickname", 3: "typo", 2: "similar", 1: "initial", -1: "differ"}
LAST = {5: "same", 4: "part", 3: "typo", 2: "similar", 0: "missing", -1: "differ"}
HOME = {5: "address and phone", 4: "address", 3: "phone", 2: "zip", 0: "missing", -1: "differ"}
LEVELS: dict[str, dict[int, str]] = {
    "first": FIRST,
    "birth": {5: "exact", 4: "near", 3: "partial", -1: "differ"},
    "ssn4": {2: "exact", 1: "near", -1: "differ"},
    "id": {2: "own", 1: "shared", -1: "differ"},
    "mbi": {2: "exact", -1: "differ"},
    "sex": {1: "same", -1: "differ"},
    "middle": {2: "exact", 1: "initial", -1: "differ"},
    "suffix": {1: "same", -1: "differ"},
    "family": {
        10 * last + home: f"surname {name}, home {place}"
        for last, name in LAST.items()
        for home, place in HOME.items()
        if (last, home) != (0, 0)
    },
}
"""Every field, its level codes and their names, as stored in the file and shown as evidence."""

HOME_SQL = """CASE WHEN a >= 2 AND (ph = 1 OR em = 1) THEN 5 WHEN a >= 2 THEN 4 WHEN ph = 1 OR em = 1 THEN 3
    WHEN a = 1 THEN 2 WHEN a = 0 AND ph = 0 THEN 0 ELSE -1 END"""
FIELD_SQL = {
    "first": "CASE WHEN sw THEN 4 ELSE f END",
    "birth": "d",
    "ssn4": "s",
    "id": "i",
    "mbi": "mb",
    "sex": "x",
    "middle": "g",
    "suffix": "su",
    "family": f"(10 * (CASE WHEN sw THEN 5 ELSE l END) + {HOME_SQL})",
}
"""SQL over the levels of :mod:`.compare` that gives each field's level code."""

SHIPPED = "weights.json"


@dataclass(frozen=True)
class Weights:
    """A set of weights."""

    m: dict[str, dict[int, float]]
    """Probability of each level among pairs that are one person."""
    u: dict[str, dict[int, float]]
    """Probability of each level among pairs that are not."""
    auto_bits: float
    """Bits (prior included) at and above which a pair may be linked unseen, guards permitting."""
    review_bits: float
    """Bits under which a pair is not worth a person's time."""
    note: str = ""
    """What they were trained on, when, by which trainer, with which evidence for ``auto_bits``."""
    version: int = 1
    """Format of the file."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Counts of the training: pairs, iterations, convergence."""

    @property
    def sha(self) -> str:
        """Hash of everything that affects a score, for PERSON_LINK.weights_sha."""
        cells = [[name, sorted(table[name].items())] for table in (self.m, self.u) for name in sorted(table)]
        data = msgspec.json.encode([cells, self.auto_bits, self.review_bits, self.version])
        return hashlib.sha256(data).hexdigest()

    def bits(self, name: str, level: int) -> float:
        """Return log2(m/u) of a field's level; 0 where the file has none."""
        m, u = self.m.get(name, {}).get(level), self.u.get(name, {}).get(level)
        return math.log2(m / u) if m and u else 0.0

    def dump(self) -> bytes:
        """Return the file's bytes."""
        fields = {
            name: {
                label: {"m": self.m[name][code], "u": self.u[name][code], "bits": round(self.bits(name, code), 3)}
                for code, label in levels.items()
                if code in self.m.get(name, {})
            }
            for name, levels in LEVELS.items()
        }
        value = {
            "version": self.version,
            "note": self.note,
            "auto_bits": self.auto_bits,
            "review_bits": self.review_bits,
            "training": self.extra,
            "fields": fields,
        }
        return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def load_weights(path: str | Path | None = None) -> Weights:
    """Read a weights file; without a path, the one shipped with the package.

    Raises:
        ConfigError: The file is missing, is no JSON, or names a field or level that does not exist.
    """
    try:
        data = (
            (files("hiexchange.matching") / "data" / SHIPPED).read_bytes() if path is None else Path(path).read_bytes()
        )
        value = msgspec.json.decode(data)
        m: dict[str, dict[int, float]] = {}
        u: dict[str, dict[int, float]] = {}
        for name, levels in value["fields"].items():
            codes = {label: code for code, label in LEVELS[name].items()}
            m[name] = {codes[label]: float(cell["m"]) for label, cell in levels.items()}
            u[name] = {codes[label]: float(cell["u"]) for label, cell in levels.items()}
        return Weights(
            m,
            u,
            float(value["auto_bits"]),
            float(value["review_bits"]),
            value["note"],
            value["version"],
            value.get("training", {}),
        )
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"the weights file cannot be used ({type(error).__name__})",
            where=str(path or SHIPPED),
            hint="write one with `hiexchange match train`",
        ) from error


def field_bits_sql(weights: Weights, name: str, people: int) -> str:
    """Return a SQL expression for the bits of one field, name frequency included."""
    arms = " ".join(
        f"WHEN {code} THEN {weights.bits(name, code):.4f}" for code in LEVELS[name] if weights.bits(name, code)
    )
    base = f"CASE {FIELD_SQL[name]} {arms} ELSE 0 END" if arms else "0"
    if name == "first":
        return f"({base} + {rarity_sql(weights, people)})"
    if name == "family":
        u = weights.u["family"].get(50, 0.003)
        # Inside one home everyone has the surname, so its rarity adds nothing there.
        return f"({base} + CASE WHEN l = 5 AND {HOME_SQL} <= 2 THEN greatest(-6, least(8, log2({u:.6e} * {people}.0 / cl))) ELSE 0 END)"
    return base


def rarity_sql(weights: Weights, people: int) -> str:
    """Return a SQL expression for the bits an exact first name adds by being rare, or takes by being common."""
    u = weights.u["first"].get(5, 0.005)
    return f"CASE WHEN f = 5 THEN greatest(-6, least(6, log2({u:.6e} * {people}.0 / cf))) ELSE 0 END"


def score_sql(weights: Weights, people: int) -> str:
    """Return a SQL expression: all bits plus the prior of one right person in an index of ``people``."""
    terms = " + ".join(field_bits_sql(weights, name, people) for name in LEVELS)
    return f"({terms} - {math.log2(max(people, 2)):.4f})"
