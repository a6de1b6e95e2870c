"""ELM to Python closures ``f(subject, frame)``, compiled once per program, defines on first use.

A frame is a list with one slot for each alias, let and operand in scope; names are resolved when
compiling. While compiling, each expression reports what it reads: slots, the subject, parameters.
What reads nothing is folded to a constant; what reads only parameters is computed once a run; what
sits inside a query but reads none of its rows is computed once a subject.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import types
from hiexchange.measures.cql.library import Library, Node
from hiexchange.measures.cql.model import Model
from hiexchange.measures.cql.values import EvaluationError, ValueSet

Fn = Callable[[Any, list[Any]], Any]
Builder = Callable[["Compiler", Node, "Scope"], Fn]
BUILDERS: dict[str, Builder] = {}

SUBJECT, PARAMETER, EFFECT = -1, -2, -3
UNSET: Any = object()
MISTAKES = (TypeError, AttributeError, ValueError, ArithmeticError, LookupError)
"""What Python raises when an operator meets a value of a type it does not take."""
FAULTS = (MeasureError, *MISTAKES)
"""What an expression without a value may raise."""
MAX_DEPTH = 200
"""Nesting of defines and function calls beyond which an expression is taken to call itself for ever."""


F = TypeVar("F")


def registering(table: dict[str, F]) -> Callable[..., Callable[[F], F]]:
    """Return a decorator that keeps a function in ``table`` under the names it is given, ELM node types."""

    def named(*names: str) -> Callable[[F], F]:
        def register(function: F) -> F:
            table.update(dict.fromkeys(names, function))
            return function

        return register

    return named


builds = registering(BUILDERS)


class Frame:
    """Counts the slots a define or function needs."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    def slot(self) -> int:
        """Reserve one more slot."""
        self.size += 1
        return self.size - 1


class Scope:
    """Names visible to an expression, by slot; a child scope shadows its parent."""

    __slots__ = ("element", "frame", "names", "rows", "varying")

    def __init__(
        self,
        frame: Frame,
        names: dict[str, int],
        *,
        rows: bool = False,
        element: int | None = None,
        varying: frozenset[int] = frozenset(),
    ) -> None:
        """Keep names; ``rows`` tells that evaluation repeats per row, ``element`` is the slot of a sort key's row.

        ``varying`` are the slots that change with every evaluation: what reads none of them is worth keeping.
        """
        self.frame = frame
        self.names = names
        self.rows = rows
        self.element = element
        self.varying = varying

    def child(
        self,
        names: dict[str, int],
        *,
        rows: bool = True,
        element: int | None = None,
        varying: frozenset[int] | None = None,
    ) -> Scope:
        """Return a scope with more names; unless ``varying`` says otherwise, those are what varies."""
        return Scope(
            self.frame,
            {**self.names, **names},
            rows=self.rows or rows,
            element=self.element if element is None else element,
            varying=frozenset(names.values()) if varying is None else varying,
        )


class Define:
    """One named expression of one library, compiled when first asked for."""

    __slots__ = ("fn", "frame", "index", "name", "node", "unit")

    def __init__(self, unit: Unit, name: str, node: Node, index: int) -> None:
        self.unit = unit
        self.name = name
        self.node = node
        self.index = index
        self.fn: Fn | None = None
        self.frame = Frame()

    def compute(self, subject: Any) -> Any:
        """Evaluate for a subject and remember the value.

        Raises:
            EvaluationError: The expression has no value for this subject; says which define.
        """
        if self.fn is None:
            self.fn = self.unit.compiler.expression(self.node.get("expression"), Scope(self.frame, {}))
        subject.enter(self)
        try:
            value = self.fn(subject, [None] * self.frame.size)
        except MeasureError as error:
            if error.locator is None:
                error.library, error.locator = self.unit.library.name, self.name
                error.where = f"{error.library} {error.locator}"
            raise
        except RecursionError:
            raise EvaluationError(
                "an expression calls itself", library=self.unit.library.name, locator=self.name
            ) from None
        except MISTAKES as error:
            # A value of a type the operator does not take: the fault of ELM or data, and one subject's only.
            raise EvaluationError(
                f"an operator met a value it cannot take ({type(error).__name__})",
                library=self.unit.library.name,
                locator=self.name,
            ) from error
        finally:
            subject.leave()
        subject.results[self.index] = value
        return value


class Function:
    """One overload of a function."""

    __slots__ = ("arity", "body", "frame", "name", "node", "specs", "tests", "unit")

    def __init__(self, unit: Unit, node: Node) -> None:
        self.unit = unit
        self.node = node
        self.name = node["name"]
        self.specs = [types.specifier(operand, "operand") for operand in node.get("operand", [])]
        self.tests = [types.test_for(spec) for spec in self.specs]
        self.arity = len(self.specs)
        self.body: Fn | None = None
        self.frame = Frame()

    def call(self, subject: Any, arguments: list[Any]) -> Any:
        """Evaluate the body with arguments in the first slots."""
        body = self.body or self._compile()
        return body(subject, arguments + [None] * (self.frame.size - self.arity))

    def _compile(self) -> Fn:
        if self.node.get("external") or "expression" not in self.node:
            raise EvaluationError(f"the function {self.name!r} is external and not known here")
        names = {operand["name"]: self.frame.slot() for operand in self.node.get("operand", [])}
        # A function runs once per call; rows=True lets what reads none of its operands be shared.
        self.body = self.unit.compiler.expression(self.node["expression"], Scope(self.frame, names, rows=True))
        return self.body

    def fit(self, arguments: list[Any]) -> int | None:
        """Return how loosely the arguments fit, None when they do not."""
        total = 0
        for spec, test, argument in zip(self.specs, self.tests, arguments, strict=True):
            points = types.score(spec, argument, test)
            if points is None:
                return None
            total += points
        return total


class Unit:
    """One library within a program, with its includes and value sets resolved."""

    __slots__ = ("compiler", "defines", "functions", "includes", "key", "library", "program", "value_sets")

    def __init__(
        self, program: Program, library: Library, includes: dict[str, Unit], value_sets: dict[str, ValueSet], key: Any
    ) -> None:
        self.program = program
        self.library = library
        self.includes = includes
        self.value_sets = value_sets
        self.key = key
        self.defines: dict[str, Define] = {}
        self.functions: dict[str, list[Function]] = {
            name: [Function(self, node) for node in nodes] for name, nodes in library.functions.items()
        }
        self.compiler = Compiler(self)

    def define(self, name: str) -> Define | None:
        """Return a define by name, or None."""
        found = self.defines.get(name)
        if found is None and name in self.library.defines:
            found = self.defines[name] = self.program.add(self, name)
        return found


class Program:
    """Everything compiled together: defines and retrieves are shared by all measures in it."""

    def __init__(self, model: Model) -> None:
        """Start empty, for one FHIR model (and with it one evaluation offset)."""
        self.model = model
        self.units: dict[Any, Unit] = {}
        self.defines: list[Define] = []
        self.retrieves: dict[Any, int] = {}
        self.retrieve_specs: list[Any] = []
        self.memos = 0
        self.facts: dict[Any, Any] = {}
        """What other modules work out about defines, once for all subjects."""

    def add(self, unit: Unit, name: str) -> Define:
        """Give a define its place among the results of a subject."""
        define = Define(unit, name, unit.library.defines[name], len(self.defines))
        self.defines.append(define)
        return define

    def memo(self) -> int:
        """Reserve a place for a value computed once a subject or run."""
        self.memos += 1
        return self.memos


class Compiler:
    """Builds closures for one library."""

    def __init__(self, unit: Unit) -> None:
        """Keep the library; ``reads`` collects what the expression being compiled reads."""
        self.unit = unit
        self.program = unit.program
        self.reads: list[set[int]] = [set()]
        self.constants: dict[Fn, Any] = {}

    def expression(self, node: Node | None, scope: Scope) -> Fn:
        """Return the closure of an expression.

        Raises:
            MeasureError: The node's type is not known.
        """
        if node is None:
            return self.constant(None)
        self.reads.append(set())
        try:
            fn = self._build(node, scope)
        finally:
            reads = self.reads.pop()
            self.reads[-1] |= reads
        return self._placed(fn, node, reads, scope)

    def _build(self, node: Node, scope: Scope) -> Fn:
        kind = node.get("type")
        # Older translators leave the type out of the ``valueset`` member of InValueSet.
        builder = BUILDERS.get(kind if kind is not None else "ValueSetRef")
        if builder is None:
            raise MeasureError(
                f"the ELM node type {kind} is not supported",
                library=self.unit.library.name,
                locator=node.get("locator"),
            )
        if kind == "Null" and self.unit.library.errors:
            message = self.unit.library.error_at(node.get("locator"))
            if message is not None:
                return self._broken(message)
        return builder(self, node, scope)

    def _broken(self, message: str) -> Fn:
        def fail(s: Any, e: list[Any]) -> Any:
            raise EvaluationError(f"the translator could not compile this expression: {message[:120]}")

        self.note(EFFECT)
        return fail

    def _placed(self, fn: Fn, node: Node, reads: set[int], scope: Scope) -> Fn:
        """Fold or memoise ``fn`` as far as what it reads allows."""
        if fn in self.constants or EFFECT in reads:
            return fn
        if not reads:
            try:
                return self.constant(fn(None, []))
            except FAULTS:
                return fn  # it fails at run time, for those who reach it
        if max(reads) >= 0:
            slots = [slot for slot in reads if slot >= 0]
            if (
                len(slots) > 1
                or not scope.varying
                or slots[0] in scope.varying
                or node.get("type") not in _WORTH_A_SLOT
            ):
                return fn
            return once_a_row(fn, slots[0], scope.frame.slot())
        if node.get("type") not in _WORTH_A_MEMO:
            return fn
        if reads == {PARAMETER}:
            return once_a_run(fn, self.program.memo())
        return once_a_subject(fn, self.program.memo()) if scope.rows else fn

    def constant(self, value: Any) -> Fn:
        """Return a closure that gives a value."""

        def const(s: Any, e: list[Any]) -> Any:
            return value

        self.constants[const] = value
        return const

    def note(self, *marks: int) -> None:
        """Record what the expression being compiled reads."""
        self.reads[-1].update(marks)

    def without(self, slots: set[int]) -> None:
        """Forget reads of slots that belong to the expression itself."""
        self.reads[-1] -= slots

    def reading(self, node: Node | None, scope: Scope) -> tuple[Fn, frozenset[int]]:
        """Return an expression's closure and what it reads."""
        self.reads.append(set())
        try:
            fn = self.expression(node, scope)
        finally:
            reads = self.reads.pop()
            self.reads[-1] |= reads
        return fn, frozenset(reads)

    def operands(self, node: Node, scope: Scope) -> list[Fn]:
        """Return the closures of a node's operands."""
        given = node.get("operand")
        if given is None:
            given = [node["source"]] if "source" in node else []
        return [self.expression(item, scope) for item in (given if isinstance(given, list) else [given])]

    def unit_of(self, node: Node) -> Unit:
        """Return the library a reference points into.

        Raises:
            MeasureError: No library of that name is included.
        """
        alias = node.get("libraryName")
        if alias is None:
            return self.unit
        if alias not in self.unit.includes:
            raise MeasureError(
                f"the library {alias!r} is not included", library=self.unit.library.name, locator=node.get("locator")
            )
        return self.unit.includes[alias]


_WORTH_A_MEMO = {
    "Query", "FunctionRef", "Interval", "Start", "End", "DateFrom", "Add", "Subtract", "CalculateAgeAt", "Union",
    "Intersect", "Except", "Flatten", "First", "Last", "Collapse", "Count", "Max", "Min", "Sum", "ToDateTime", "If", "Case",
    "Property", "Exists",
}  # fmt: skip


_WORTH_A_SLOT = {
    "Query",
    "Interval",
    "Add",
    "Subtract",
    "CalculateAgeAt",
    "Union",
    "Case",
    "Count",
    "Max",
    "Min",
    "Sum",
}


def once_a_row(fn: Fn, slot: int, place: int) -> Fn:
    """Return ``fn`` computed again only when the one slot it reads holds another value."""

    def once(s: Any, e: list[Any]) -> Any:
        held, value = e[place], e[slot]
        if held is None or held[0] is not value:
            held = e[place] = value, fn(s, e)
        return held[1]

    return once


def once_a_run(fn: Fn, place: int) -> Fn:
    """Return ``fn`` computed once a run: it reads nothing but parameters."""

    def once(s: Any, e: list[Any]) -> Any:
        memo = s.run_memo
        if place not in memo:
            memo[place] = fn(s, e)
        return memo[place]

    return once


def once_a_subject(fn: Fn, place: int) -> Fn:
    """Return ``fn`` computed once a subject: it reads no row."""

    def once(s: Any, e: list[Any]) -> Any:
        memo = s.memo
        if place not in memo:
            memo[place] = fn(s, e)
        return memo[place]

    return once
