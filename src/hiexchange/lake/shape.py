"""Which members were seen: the shape that prunes a FHIR type's schema.

A shape is a nested dict of JSON member names; a leaf is ``{}`` and lists are transparent. Types never
come from values (one partial date would flip a column), only from the definitions. The union is
commutative, associative and idempotent, so neither block size nor file order has an effect.
"""

from __future__ import annotations

import json
from typing import TypeAlias

Shape: TypeAlias = "dict[str, Shape]"


def merge(left: Shape, right: Shape) -> Shape:
    """Return the union of two shapes; neither is changed."""
    if not right:
        return left
    union = dict(left)
    for name, below in right.items():
        union[name] = merge(union[name], below) if name in union else below
    return union


def covers(wide: Shape, narrow: Shape) -> bool:
    """Say whether every member of ``narrow`` is in ``wide``."""
    return all(name in wide and covers(wide[name], below) for name, below in narrow.items())


def absorb(target: Shape, seen: Shape) -> None:
    """Add ``seen`` to ``target`` in place."""
    for name, below in seen.items():
        if name in target:
            absorb(target[name], below)
        else:
            target[name] = below


def dumps(shape: Shape) -> str:
    """Return the canonical text of a shape: equal shapes, equal text."""
    return json.dumps(shape, sort_keys=True, separators=(",", ":"))


def loads(text: str) -> Shape:
    """Read what :func:`dumps` wrote."""
    shape: Shape = json.loads(text)
    return shape


def leaves(shape: Shape) -> int:
    """Return the number of leaf members."""
    return sum(leaves(below) if below else 1 for below in shape.values())
