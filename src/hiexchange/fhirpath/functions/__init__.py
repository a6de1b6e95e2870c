"""FHIRPath functions by name; what is not here is refused before any data is read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection
from hiexchange.fhirpath.frame import Frame
from hiexchange.fhirpath.functions import (
    boundary,
    conversion,
    existence,
    filtering,
    maths,
    strings,
    subset,
    typing,
    utility,
)

Implementation = Callable[[tree.Call, Frame], Collection]


class Function(NamedTuple):
    """One function: how many arguments it takes, and what it does."""

    fewest: int
    most: int
    run: Implementation


FUNCTIONS: Mapping[str, Function] = {
    name: Function(*entry)
    for module in (boundary, conversion, existence, filtering, maths, strings, subset, typing, utility)
    for name, entry in module.FUNCTIONS.items()
}


REFUSED = {
    **dict.fromkeys(("memberOf", "subsumes", "subsumedBy"), "it needs a terminology server"),
    **dict.fromkeys(("conformsTo", "elementDefinition", "slice", "checkModifiers"), "it needs profiles"),
    **dict.fromkeys(("sort", "defineVariable"), "it is newer than FHIRPath 2.0 (N1)"),
    "htmlChecks": "it checks XHTML, which views do not read",
}
"""Functions of FHIR or of drafts that are not here, and why."""


def call(node: tree.Call, frame: Frame) -> Collection:
    """Run a function in a frame.

    Raises:
        FHIRPathError: There is no such function, or it takes another number of arguments.
    """
    return find(node).run(node, frame)


def find(node: tree.Call) -> Function:
    """Return the function a node calls, or raise the error that says why there is none."""
    function = FUNCTIONS.get(node.name)
    if function is None:
        if node.name in REFUSED:
            raise FHIRPathError(
                f"the function {node.name}() is not supported: {REFUSED[node.name]}", position=node.position
            )
        near = difflib.get_close_matches(node.name, FUNCTIONS, 1)
        raise FHIRPathError(
            f"the function {node.name}() is not supported",
            position=node.position,
            hint=f"did you mean {near[0]}()?" if near else "docs/views.md lists the functions",
        )
    if not function.fewest <= len(node.arguments) <= function.most:
        wanted = str(function.fewest) if function.fewest == function.most else f"{function.fewest} to {function.most}"
        raise FHIRPathError(
            f"{node.name}() takes {wanted} arguments, not {len(node.arguments)}", position=node.position
        )
    return function
