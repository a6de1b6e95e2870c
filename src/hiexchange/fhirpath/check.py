"""Check an expression against the definitions before any data is read: functions, variables, types.

:func:`check` says which FHIR types an expression can give and whether it may give several values. An
element that the definitions do not know is only a warning: SQL on FHIR says it is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hiexchange.definitions import Definitions
from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.functions import find
from hiexchange.fhirpath.kinds import conforms, kind_of, resolve


@dataclass(frozen=True, slots=True)
class Shape:
    """What an expression can give."""

    types: tuple[str, ...]
    """Possible types; empty when it is always the empty collection."""
    many: bool = False
    """Whether there may be more than one value."""
    known: bool = True
    """False where the types cannot be told (contained resources, aggregates)."""

    def with_many(self, many: bool) -> Shape:
        """Return the same types with another cardinality."""
        return Shape(self.types, many, self.known)


@dataclass(slots=True)
class Checker:
    """Checks expressions of one view; collects warnings."""

    definitions: Definitions
    variables: Mapping[str, str]
    """Type of each constant."""
    warnings: list[str] = field(default_factory=list)
    root: Shape = Shape((), False)

    def check(self, node: tree.Node, this: Shape) -> Shape:
        """Return the shape of ``node`` where ``$this`` has shape ``this``.

        Raises:
            FHIRPathError: An unknown function, variable or type; operands that no rule joins.
        """
        try:
            return _CHECK[type(node)](self, node, this)
        except FHIRPathError as error:
            if error.position is None:
                error.position = node.position
            raise

    def child(self, parent: Shape, name: str) -> Shape:
        """Return the shape of an element of ``parent``."""
        types: list[str] = []
        many = parent.many
        for type in parent.types:
            definition = self.definitions.get(type)
            element = definition.elements.get(name) if definition else None
            if element is not None:
                types += [kind for kind in element.types if kind not in types]
                many = many or element.many
            elif name.startswith("__hx_"):
                types.append("System.Integer" if name == "__hx_line" else "System.String")
            elif name == "resourceType":
                types.append("code")
            elif type == "System.TypeInfo" and name in ("namespace", "name"):
                types.append("System.String")
            elif type == "System.Quantity" and name in ("value", "unit", "code"):
                types.append("System.Decimal" if name == "value" else "System.String")
        if not types and parent.types and parent.known:
            self.warnings.append(f"{' or '.join(parent.types)} has no element {name}: always empty")
        known = parent.known and not any(self.definitions.get(type) is not None and type in _ABSTRACT for type in types)
        return Shape(tuple(types), many, known)


_ABSTRACT = ("Resource", "DomainResource", "Element")
_NUMBERS = ("Integer", "Decimal")
_DATES = ("Date", "DateTime")


def _literal(checker: Checker, node: tree.Literal, this: Shape) -> Shape:
    return Shape((f"System.{node.type}",))


def _variable(checker: Checker, node: tree.Variable, this: Shape) -> Shape:
    if node.name in checker.variables:
        return Shape((checker.variables[node.name],))
    if node.name in ("resource", "rootResource", "context"):
        return checker.root
    if node.name == "rowIndex":
        return Shape(("System.Integer",))
    if node.name in ("sct", "loinc", "ucum"):
        return Shape(("System.String",))
    raise FHIRPathError(
        f"%{node.name} is not defined", position=node.position, hint="declare it as a constant of the view"
    )


def _child(checker: Checker, node: tree.Child, this: Shape) -> Shape:
    parent = checker.check(node.parent, this)
    if isinstance(node.parent, tree.This) and checker.definitions.is_resource(node.name):
        return parent
    return checker.child(parent, node.name)


def _at(checker: Checker, node: tree.At, this: Shape) -> Shape:
    index = checker.check(node.index, this)
    if index.types and all(kind_of(type) != "Integer" for type in index.types):
        raise FHIRPathError(f"an index must be an Integer, not {index.types[0]}")
    return checker.check(node.parent, this).with_many(False)


def _unary(checker: Checker, node: tree.Unary, this: Shape) -> Shape:
    operand = checker.check(node.operand, this)
    bad = [type for type in operand.types if kind_of(type) not in (*_NUMBERS, "Quantity")]
    if bad and len(bad) == len(operand.types):
        raise FHIRPathError(f"{bad[0]} has no sign")
    return operand


def _type_test(checker: Checker, node: tree.TypeTest, this: Shape) -> Shape:
    operand = checker.check(node.operand, this)
    if node.operator == "is":
        _named(checker, node.type)
        return Shape(("System.Boolean",))
    return _narrowed(checker, operand, node.type).with_many(False)


def _narrowed(checker: Checker, shape: Shape, name: str) -> Shape:
    wanted = _named(checker, name)
    if not shape.known:
        return Shape((wanted,), shape.many)
    kept = tuple(type for type in shape.types if conforms(type, wanted, checker.definitions))
    if not kept and shape.types:
        checker.warnings.append(f"{' or '.join(shape.types)} is never {name}: always empty")
    return Shape(kept, shape.many)


def _named(checker: Checker, name: str) -> str:
    found = resolve(name, checker.definitions)
    if found is None:
        raise FHIRPathError(f"{name!r} is no FHIR {checker.definitions.version} type")
    return found


def _binary(checker: Checker, node: tree.Binary, this: Shape) -> Shape:
    left, right = checker.check(node.left, this), checker.check(node.right, this)
    if node.operator in ("and", "or", "xor", "implies", "=", "!=", "~", "!~", "in", "contains"):
        _warn_if_never_equal(checker, node.operator, left, right)
        return Shape(("System.Boolean",))
    if node.operator == "|":
        return Shape(tuple(dict.fromkeys(left.types + right.types)), True, left.known and right.known)
    kinds = {(kind_of(a), kind_of(b)) for a in left.types for b in right.types}
    if node.operator in ("<", "<=", ">", ">="):
        if kinds and not any(_comparable(a, b) for a, b in kinds) and left.known and right.known:
            raise FHIRPathError(f"{left.types[0]} and {right.types[0]} cannot be compared with {node.operator}")
        return Shape(("System.Boolean",))
    if node.operator == "&":
        return Shape(("System.String",))
    results = {result for a, b in kinds if (result := _result(node.operator, a, b))}
    if kinds and not results and left.known and right.known:
        raise FHIRPathError(f"{left.types[0]} {node.operator} {right.types[0]} is not defined")
    return Shape(tuple(sorted(f"System.{kind}" for kind in results)))


def _warn_if_never_equal(checker: Checker, operator: str, left: Shape, right: Shape) -> None:
    if operator not in ("=", "!=") or not (left.types and right.types and left.known and right.known):
        return
    kinds = {(kind_of(a), kind_of(b)) for a in left.types for b in right.types}
    if not any(a == b or _comparable(a, b) for a, b in kinds):
        checker.warnings.append(f"{left.types[0]} never equals {right.types[0]}")


def _comparable(a: str | None, b: str | None) -> bool:
    if a in _NUMBERS and b in _NUMBERS:
        return True
    if a in _DATES and b in _DATES:
        return True
    return a == b and a in ("String", "Time", "Quantity")


def _result(operator: str, a: str | None, b: str | None) -> str | None:
    if a in _NUMBERS and b in _NUMBERS:
        if operator == "div" or (a == b == "Integer" and operator != "/"):
            return "Integer"
        return "Decimal"
    if a == b == "String" and operator == "+":
        return "String"
    if a in (*_DATES, "Time") and b == "Quantity" and operator in ("+", "-"):
        return a
    if "Quantity" in (a, b) and {a, b} <= {"Quantity", *_NUMBERS} and operator in ("+", "-", "*", "/"):
        return "Quantity"
    return None


def _call(checker: Checker, node: tree.Call, this: Shape) -> Shape:
    find(node)
    parent = checker.check(node.parent, this)
    name = node.name
    if name in _TYPED:
        return _typed(checker, node, parent)
    scope = parent.with_many(False) if name in _WALKING else this
    arguments = [checker.check(argument, scope) for argument in node.arguments]
    if name in _SAME:
        return parent.with_many(parent.many and name not in ("first", "last", "single"))
    if name in _RESULT:
        return Shape((_RESULT[name],), name in ("split", "toChars"))
    return _SPECIAL[name](checker, node, parent, arguments)


def _typed(checker: Checker, node: tree.Call, parent: Shape) -> Shape:
    if not node.arguments:
        return Shape(("System.String",), parent.many)
    type = tree.type_name(node.arguments[0])
    if type is None:
        raise FHIRPathError(f"{node.name}() takes the name of a type")
    _named(checker, type)
    if node.name == "is":
        return Shape(("System.Boolean",))
    if node.name == "getReferenceKey":
        return Shape(("System.String",), parent.many)
    narrowed = _narrowed(checker, parent, type)
    return narrowed.with_many(False) if node.name == "as" else narrowed


_Special = Callable[[Checker, tree.Call, Shape, list[Shape]], Shape]


def _extension(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    return Shape(("Extension",), True) if parent.types else parent


def _union(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    types = dict.fromkeys(parent.types)
    for argument in arguments:
        types.update(dict.fromkeys(argument.types))
    return Shape(tuple(types), True, parent.known and all(argument.known for argument in arguments))


def _iif(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    branches = arguments[1:]
    types = dict.fromkeys(type for branch in branches for type in branch.types)
    return Shape(tuple(types), any(branch.many for branch in branches), all(branch.known for branch in branches))


def _coalesced(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    return _iif(checker, node, parent, [Shape(()), *arguments])


def _projected(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    return arguments[0].with_many(parent.many or arguments[0].many or node.name in ("repeat", "repeatAll"))


def _type_info(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    return Shape(("System.TypeInfo",), parent.many)


def _value(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    kinds = [kind for type in parent.types if (kind := kind_of(type)) not in (None, "Quantity")]
    return Shape(tuple(dict.fromkeys(f"System.{kind}" for kind in kinds)), False, parent.known)


def _unknown(checker: Checker, node: tree.Call, parent: Shape, arguments: list[Shape]) -> Shape:
    return Shape((), True, False)


_SPECIAL: dict[str, _Special] = {
    "extension": _extension,
    "union": _union,
    "combine": _union,
    "iif": _iif,
    "coalesce": _coalesced,
    "select": _projected,
    "repeat": _projected,
    "repeatAll": _projected,
    "aggregate": _unknown,
    "children": _unknown,
    "descendants": _unknown,
    "resolve": _unknown,
    "type": _type_info,
    "getValue": _value,
    "round": lambda checker, node, parent, arguments: Shape(("System.Decimal",)),
    "abs": lambda checker, node, parent, arguments: parent.with_many(False),
    "power": lambda checker, node, parent, arguments: parent.with_many(False),
}

_TYPED = {"ofType", "is", "as", "getReferenceKey"}
_WALKING = {"where", "select", "all", "exists", "repeat", "repeatAll", "aggregate", "iif"}
_SAME = {
    "where", "first", "last", "tail", "skip", "take", "single", "distinct", "intersect", "exclude", "trace",
    "lowBoundary", "highBoundary",
}  # fmt: skip
_BOOLEAN = (
    "exists", "empty", "not", "all", "allTrue", "anyTrue", "allFalse", "anyFalse", "subsetOf", "supersetOf",
    "isDistinct", "hasValue", "startsWith", "endsWith", "contains", "matches", "matchesFull",
    "convertsToString", "convertsToBoolean", "convertsToInteger", "convertsToDecimal", "convertsToDate",
    "convertsToDateTime", "convertsToTime", "convertsToQuantity",
)  # fmt: skip
_STRING = (
    "substring", "upper", "lower", "trim", "replace", "replaceMatches", "encode", "decode", "escape", "unescape",
    "urlEncode", "urlDecode", "toChars", "split", "join", "toString", "getResourceKey",
)  # fmt: skip
_RESULT = {
    **dict.fromkeys(_BOOLEAN, "System.Boolean"),
    **dict.fromkeys(_STRING, "System.String"),
    **dict.fromkeys(
        ("count", "length", "indexOf", "lastIndexOf", "toInteger", "ceiling", "floor", "truncate", "precision"),
        "System.Integer",
    ),
    **dict.fromkeys(("toDecimal", "sqrt", "exp", "ln", "log"), "System.Decimal"),
    "toBoolean": "System.Boolean",
    "toDate": "System.Date",
    "toDateTime": "System.DateTime",
    "toTime": "System.Time",
    "toQuantity": "System.Quantity",
    "today": "System.Date",
    "now": "System.DateTime",
    "timeOfDay": "System.Time",
}

_CHECK: dict[type, Callable[..., Shape]] = {
    tree.Literal: _literal,
    tree.Empty: lambda checker, node, this: Shape(()),
    tree.This: lambda checker, node, this: this,
    tree.Index: lambda checker, node, this: Shape(("System.Integer",)),
    tree.Total: lambda checker, node, this: Shape((), True, False),
    tree.Variable: _variable,
    tree.Child: _child,
    tree.Call: _call,
    tree.At: _at,
    tree.Unary: _unary,
    tree.Binary: _binary,
    tree.TypeTest: _type_test,
}
