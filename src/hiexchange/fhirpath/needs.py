"""Which stored elements an expression reads, so that a reader can leave the others out.

A :class:`Place` is an element's path from the resource. What is compared, returned or walked whole is
*needed*; what is only asked for existence or stepped through is needed just as far as some leaf of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hiexchange.definitions import Definitions
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.kinds import conforms, kind_of, resolve

Path = tuple[str, ...]


class Place(NamedTuple):
    """Where values come from: JSON member names from the resource down, and their FHIR type."""

    path: Path
    type: str


Places = frozenset[Place]
NOWHERE: Places = frozenset()


class Wanted(NamedTuple):
    """Elements that a reader must give; ``()`` in ``whole`` means everything."""

    whole: frozenset[Path]
    """Read with all they hold; none lies under another one."""
    part: frozenset[Path]
    """Need only be there or not."""


@dataclass(slots=True)
class Needs:
    """Gathers what the expressions of one view read."""

    definitions: Definitions
    resource: str
    whole: set[Path] = field(default_factory=set)
    """Elements read with all they hold."""
    part: set[Path] = field(default_factory=set)
    """Elements whose existence matters."""

    def root(self) -> Places:
        """Return the place of the resource itself."""
        return frozenset([Place((), self.resource)])

    def read(self, node: tree.Node, this: Places) -> Places:
        """Note what ``node`` reads where ``$this`` stands at ``this``; return where its values stand."""
        return _READ[type(node)](self, node, this)

    def use(self, places: Iterable[Place]) -> None:
        """Note that values are returned or compared."""
        self.whole.update(place.path for place in places)

    def count(self, places: Iterable[Place]) -> None:
        """Note that only existence matters; a resource is always there."""
        self.part.update(place.path for place in places if place.path)

    def wanted(self) -> Wanted:
        """Return the shortest paths that cover all needs."""
        whole = frozenset(path for path in self.whole if not any(_under(path, other) for other in self.whole))
        part = frozenset(path for path in self.part if not any(path == other or _under(path, other) for other in whole))
        return Wanted(whole, part)


def _under(path: Path, above: Path) -> bool:
    return len(path) > len(above) and path[: len(above)] == above


def _children(needs: Needs, parents: Places, name: str) -> Places:
    found: set[Place] = set()
    for path, type in parents:
        if name in ("extension", "id") and kind_of(type) not in (None, "Quantity") and path:
            sibling = (*path[:-1], "_" + path[-1])
            found.add(Place((*sibling, name), "Extension" if name == "extension" else "string"))
            continue
        definition = needs.definitions.get(type)
        element = definition.elements.get(name) if definition else None
        if element is not None:
            found.update(Place((*path, member), kind) for member, kind in element.json_names().items())
        elif name.startswith("__hx_") or name == "resourceType":
            found.add(Place((*path, name), "string"))
    return frozenset(found)


def _child(needs: Needs, node: tree.Child, this: Places) -> Places:
    parents = needs.read(node.parent, this)
    if isinstance(node.parent, tree.This) and needs.definitions.is_resource(node.name):
        return parents
    if node.name == "contained":
        needs.whole.add(("contained",))
        return NOWHERE
    return _children(needs, parents, node.name)


def _variable(needs: Needs, node: tree.Variable, this: Places) -> Places:
    return needs.root() if node.name in ("resource", "rootResource", "context") else NOWHERE


def _operands(needs: Needs, node: tree.Node, this: Places) -> Places:
    for child in node.children():
        needs.use(needs.read(child, this))
    return NOWHERE


def _binary(needs: Needs, node: tree.Binary, this: Places) -> Places:
    if node.operator != "|":
        return _operands(needs, node, this)
    found = needs.read(node.left, this) | needs.read(node.right, this)
    needs.use(found)
    return found


def _at(needs: Needs, node: tree.At, this: Places) -> Places:
    needs.use(needs.read(node.index, this))
    found = needs.read(node.parent, this)
    needs.count(found)
    return found


def _type_test(needs: Needs, node: tree.TypeTest, this: Places) -> Places:
    found = needs.read(node.operand, this)
    if node.operator == "is":
        needs.count(found)
        return NOWHERE
    return _of_type(needs, found, node.type)


def _of_type(needs: Needs, places: Places, name: str) -> Places:
    wanted = resolve(name, needs.definitions) or name
    return frozenset(place for place in places if conforms(place.type, wanted, needs.definitions))


def _call(needs: Needs, node: tree.Call, this: Places) -> Places:
    parent = needs.read(node.parent, this)
    special = _SPECIAL.get(node.name)
    if special is not None:
        return special(needs, node, parent, this)
    for argument in node.arguments:
        needs.use(needs.read(argument, parent if node.name in _WALKING else this))
    if node.name in _EXISTENCE:
        needs.count(parent)
        return NOWHERE
    if node.name in _PASSING:
        needs.count(parent)
        return parent
    needs.use(parent)
    return parent if node.name in _COMPARING else NOWHERE


_Special = Callable[[Needs, tree.Call, Places, Places], Places]


def _typed(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    if node.name == "is":
        needs.count(parent)
        return NOWHERE
    return _of_type(needs, parent, tree.type_name(node.arguments[0]) or "")


def _extension(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    found = _children(needs, parent, "extension")
    needs.use(_children(needs, found, "url"))
    needs.use(needs.read(node.arguments[0], this))
    return found


def _select(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    found = needs.read(node.arguments[0], parent)
    needs.count(found)
    needs.count(parent)
    return found


def _combine(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    found = parent | needs.read(node.arguments[0], this)
    if node.name == "combine":
        needs.count(found)
    else:
        needs.use(found)
    return found


def _iif(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    needs.count(parent)
    needs.use(needs.read(node.arguments[0], parent))
    found = NOWHERE
    for branch in node.arguments[1:]:
        found |= needs.read(branch, parent)
    needs.count(found)
    return found


def _coalesce(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    found = NOWHERE.union(*(needs.read(argument, this) for argument in node.arguments))
    needs.count(found)
    return found


def _resource_key(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    needs.use(_children(needs, parent, "id") | _children(needs, parent, "__hx_key"))
    return NOWHERE


def _reference_key(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    needs.use(_children(needs, parent, "reference"))
    return NOWHERE


def _resolved(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    needs.whole.add(("contained",))
    needs.use(_children(needs, parent, "reference"))
    return NOWHERE


def _everything(needs: Needs, node: tree.Call, parent: Places, this: Places) -> Places:
    # What is below has no path that could be followed: take it whole, and stay there.
    needs.use(parent)
    for argument, scope in zip(node.arguments, (parent, this), strict=False):
        needs.use(needs.read(argument, scope))
    return NOWHERE


_SPECIAL: Mapping[str, _Special] = {
    "ofType": _typed,
    "as": _typed,
    "is": _typed,
    "extension": _extension,
    "select": _select,
    "combine": _combine,
    "union": _combine,
    "iif": _iif,
    "coalesce": _coalesce,
    "getResourceKey": _resource_key,
    "getReferenceKey": _reference_key,
    "resolve": _resolved,
    "children": _everything,
    "descendants": _everything,
    "repeat": _everything,
    "repeatAll": _everything,
    "aggregate": _everything,
}
_WALKING = {"where", "all", "exists"}
_EXISTENCE = {"exists", "empty", "count", "hasValue", "all", "type"}
_PASSING = {"where", "first", "last", "tail", "skip", "take", "single", "trace"}
_COMPARING = {"distinct", "intersect", "exclude", "lowBoundary", "highBoundary"}

_READ: dict[type, Callable[..., Places]] = {
    tree.Literal: lambda needs, node, this: NOWHERE,
    tree.Empty: lambda needs, node, this: NOWHERE,
    tree.This: lambda needs, node, this: this,
    tree.Index: lambda needs, node, this: NOWHERE,
    tree.Total: lambda needs, node, this: NOWHERE,
    tree.Variable: _variable,
    tree.Child: _child,
    tree.Call: _call,
    tree.At: _at,
    tree.Unary: _operands,
    tree.Binary: _binary,
    tree.TypeTest: _type_test,
}
