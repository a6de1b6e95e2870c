"""The syntax tree of a FHIRPath expression: frozen nodes, each knowing where it stood in the text.

Two nodes are equal when they mean the same, wherever they stood: the evaluator keeps results by node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """Any part of an expression."""

    position: int = field(default=0, compare=False, kw_only=True)
    """Character offset in the expression's text."""

    def children(self) -> tuple[Node, ...]:
        """Return the nodes directly under this one."""
        return ()


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A constant: its System type and its text (a bool for Boolean, an int for Integer)."""

    type: str
    value: str | int | bool
    unit: str | None = None
    """Unit of a Quantity: a UCUM code, or a calendar word such as ``year``."""


@dataclass(frozen=True, slots=True)
class Empty(Node):
    """The empty collection, ``{}``."""


@dataclass(frozen=True, slots=True)
class This(Node):
    """``$this``, or the context an expression starts from."""


@dataclass(frozen=True, slots=True)
class Index(Node):
    """``$index``: position of ``$this`` in the collection a function walks."""


@dataclass(frozen=True, slots=True)
class Total(Node):
    """``$total``: what ``aggregate`` has gathered so far."""


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """An environment variable, ``%name``."""

    name: str


@dataclass(frozen=True, slots=True)
class Child(Node):
    """Navigation to an element: ``parent.name``."""

    parent: Node
    name: str

    def children(self) -> tuple[Node, ...]:
        return (self.parent,)


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function: ``parent.name(arguments)``."""

    parent: Node
    name: str
    arguments: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return (self.parent, *self.arguments)


@dataclass(frozen=True, slots=True)
class At(Node):
    """The indexer: ``parent[index]``."""

    parent: Node
    index: Node

    def children(self) -> tuple[Node, ...]:
        return (self.parent, self.index)


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """A sign before a number."""

    operator: str
    operand: Node

    def children(self) -> tuple[Node, ...]:
        return (self.operand,)


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """An operator between two expressions."""

    operator: str
    left: Node
    right: Node

    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class TypeTest(Node):
    """``operand is Type`` (a Boolean) or ``operand as Type`` (the operand, if it is one)."""

    operator: str
    operand: Node
    type: str

    def children(self) -> tuple[Node, ...]:
        return (self.operand,)


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything under it."""
    yield node
    for child in node.children():
        yield from walk(child)


def type_name(node: Node) -> str | None:
    """Return the type an argument names (``string``, ``FHIR.Patient``, ``System.String``), or None."""
    if isinstance(node, Child):
        if isinstance(node.parent, This):
            return node.name
        space = type_name(node.parent)
        return f"{space}.{node.name}" if space in ("FHIR", "System") else None
    if isinstance(node, Literal) and node.type == "String":
        return str(node.value)
    return None
