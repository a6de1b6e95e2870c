"""Builders of references (defines, parameters, aliases, properties, functions) and of literal values."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from hiexchange.errors import MeasureError
from hiexchange.measures.cql import convert, types
from hiexchange.measures.cql import temporal as t
from hiexchange.measures.cql.compiler import PARAMETER, SUBJECT, Compiler, Fn, Function, Scope, Unit, builds
from hiexchange.measures.cql.fhirhelpers import FUNCTIONS as FHIRHELPERS
from hiexchange.measures.cql.library import Node
from hiexchange.measures.cql.model import Element, get
from hiexchange.measures.cql.values import (
    MAX_LONG,
    MIN_LONG,
    Code,
    CodeSystem,
    Concept,
    EvaluationError,
    Interval,
    Quantity,
    Ratio,
    ValueSet,
    maximum,
    minimum,
)

# References -----------------------------------------------------------------------------------


@builds("ExpressionRef")
def _expression_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = c.unit_of(n)
    define = unit.define(n["name"])
    if define is None:
        raise MeasureError(f"there is no define {n['name']!r}", library=unit.library.name, locator=n.get("locator"))
    index, compute = define.index, define.compute
    c.note(SUBJECT)

    def ref(s: Any, e: list[Any]) -> Any:
        results = s.results
        return results[index] if index in results else compute(s)

    return ref


@builds("ParameterRef")
def _parameter_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    name = n["name"]
    unit = c.unit_of(n)
    node = unit.library.parameters.get(name, {})
    default, reads = c.reading(node.get("default"), Scope(sc.frame, {}))
    c.note(PARAMETER, *reads)

    def ref(s: Any, e: list[Any]) -> Any:
        parameters = s.parameters
        return parameters[name] if name in parameters else default(s, e)

    return ref


@builds("AliasRef", "OperandRef", "QueryLetRef")
def _slot_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    name = n["name"]
    if name not in sc.names:
        raise MeasureError(f"the name {name!r} is not in scope", library=c.unit.library.name, locator=n.get("locator"))
    slot = sc.names[name]
    c.note(slot)
    return lambda s, e: e[slot]


@builds("IdentifierRef")
def _identifier_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    name = n["name"]
    if sc.element is not None:
        slot = sc.element
        c.note(slot)
        if name == "$this":
            return lambda s, e: e[slot]
        # A sort key's own row comes first, then whatever else is in scope.
        return lambda s, e: get(e[slot], name)
    if name in sc.names:
        return _slot_ref(c, n, sc)
    if n.get("libraryName") is None and c.unit.define(name) is not None:
        return _expression_ref(c, n, sc)
    raise MeasureError(f"the identifier {name!r} is not known", library=c.unit.library.name, locator=n.get("locator"))


@builds("Property")
def _property(c: Compiler, n: Node, sc: Scope) -> Fn:
    path = n["path"]
    found = _alias_path(n, sc)
    if found is not None:
        slot, whole = found
        c.note(slot)
        return _of_alias(slot, whole)
    source = n.get("source")
    if source is None:
        raise MeasureError(f"the alias {n.get('scope')!r} is not in scope", library=c.unit.library.name)
    fn = c.expression(source, sc)

    plain = "." not in path

    def of_source(s: Any, e: list[Any]) -> Any:
        value = fn(s, e)
        kind = type(value)
        if kind is Element:
            cache = value.cache
            return cache[path] if path in cache else value.get(path)
        if kind is dict and plain:
            return value.get(path)
        return None if value is None else get(value, path)

    return of_source


def _alias_path(node: Node, sc: Scope) -> tuple[int, str] | None:
    """Return the slot and the whole path of a property of a property of an alias; None of anything else."""
    parts: list[str] = []
    while node.get("type") == "Property":
        parts.insert(0, node["path"])
        if node.get("source") is None:
            slot = sc.names.get(node.get("scope", ""))
            return None if slot is None else (slot, ".".join(parts))
        node = node["source"]
    if parts and node.get("type") in ("AliasRef", "OperandRef", "QueryLetRef") and node["name"] in sc.names:
        return sc.names[node["name"]], ".".join(parts)
    return None


def _of_alias(slot: int, path: str) -> Fn:
    plain = "." not in path

    def of_alias(s: Any, e: list[Any]) -> Any:
        value = e[slot]
        kind = type(value)
        if kind is Element:
            cache = value.cache
            return cache[path] if path in cache else value.get(path)
        if kind is dict and plain:
            return value.get(path)
        return get(value, path)

    return of_alias


@builds("FunctionRef")
def _function_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = c.unit_of(n)
    arguments = c.operands(n, sc)
    name = n["name"]
    if unit.library.id == "FHIRHelpers" and name in FHIRHELPERS:
        native = FHIRHELPERS[name]
        if len(arguments) == 1:
            found = _alias_path(n["operand"][0], sc)
            if found is not None:
                return _converted(native, *found, name, arguments[0])
            only = arguments[0]
            return lambda s, e: native(only(s, e))
        return lambda s, e: native(*[argument(s, e) for argument in arguments])
    candidates = [function for function in unit.functions.get(name, []) if function.arity == len(arguments)]
    if not candidates:
        raise MeasureError(
            f"there is no function {name!r} of {len(arguments)} operands",
            library=unit.library.name,
            locator=n.get("locator"),
        )
    c.note(SUBJECT)
    if len(candidates) == 1:
        call = candidates[0].call
        if len(arguments) == 1:
            return _of_one(candidates[0], arguments[0])
        return lambda s, e: call(s, [argument(s, e) for argument in arguments])
    return _overloaded(unit, name, candidates, arguments)


def _converted(native: Callable[[Any], Any], slot: int, path: str, name: str, property: Fn) -> Fn:
    """Return a conversion of an alias's property, done once an element: it is the commonest expression of all."""
    key = f"#{name} {path}"

    def converted(s: Any, e: list[Any]) -> Any:
        value = e[slot]
        if type(value) is not Element:
            return native(property(s, e))
        cache = value.cache
        if key in cache:
            return cache[key]
        found = cache[key] = native(property(s, e))
        return found

    return converted


def _of_one(function: Function, argument: Fn) -> Fn:
    call = function.call

    def once_a_value(s: Any, e: list[Any]) -> Any:
        # A function sees its operand, defines and parameters only: of one value its result is always the same.
        value = argument(s, e)
        kind = type(value)
        key: Any = function
        if kind is Element:
            cache = value.cache
        elif kind is t.DateTime:
            cache, key = s.memo, (function, value)
        elif kind is Interval:
            # Kept beside its result, the interval keeps its id.
            held = s.memo.get((function, id(value)))
            if held is None:
                held = s.memo[function, id(value)] = value, call(s, [value])
            return held[1]
        else:
            return call(s, [value])
        if key in cache:
            return cache[key]
        result = cache[key] = call(s, [value])
        return result

    return once_a_value


def _overloaded(unit: Unit, name: str, candidates: list[Function], arguments: list[Fn]) -> Fn:
    def choose(s: Any, e: list[Any]) -> Any:
        values = [argument(s, e) for argument in arguments]
        best, found = None, None
        for candidate in candidates:
            fit = candidate.fit(values)
            # The first declared wins a tie, as when only nulls decide.
            if fit is not None and (best is None or fit < best):
                best, found = fit, candidate
        if found is None:
            raise EvaluationError(f"no overload of {name!r} takes these operands")
        return found.call(s, values)

    return choose


@builds("ValueSetRef")
def _value_set_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = c.unit_of(n)
    found = unit.value_sets.get(n["name"])
    if found is None:
        raise MeasureError(f"there is no value set {n['name']!r}", library=unit.library.name, locator=n.get("locator"))
    return c.constant(found)


@builds("CodeSystemRef")
def _code_system_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    return c.constant(_code_system(c.unit_of(n), n["name"]))


def _code_system(unit: Unit, name: str) -> CodeSystem:
    node = unit.library.code_systems[name]
    return CodeSystem(node["id"], name, node.get("version"))


def _code(unit: Unit, name: str) -> Code:
    node = unit.library.codes[name]
    reference = node.get("codeSystem") or {}
    owner = unit.includes.get(reference.get("libraryName", ""), unit)
    system = owner.library.code_systems.get(reference.get("name", ""), {})
    return Code(node["id"], system.get("id"), system.get("version"), node.get("display"))


@builds("CodeRef")
def _code_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    return c.constant(_code(c.unit_of(n), n["name"]))


@builds("ConceptRef")
def _concept_ref(c: Compiler, n: Node, sc: Scope) -> Fn:
    unit = c.unit_of(n)
    node = unit.library.concepts[n["name"]]
    return c.constant(Concept([_code(unit, item["name"]) for item in node.get("code", [])], node.get("display")))


# Values ---------------------------------------------------------------------------------------


@builds("Null")
def _null(c: Compiler, n: Node, sc: Scope) -> Fn:
    return c.constant(None)


@builds("Literal")
def _literal(c: Compiler, n: Node, sc: Scope) -> Fn:
    kind = types.split_name(n["valueType"])[1]
    try:
        return c.constant(convert.parse_literal(kind, n.get("value", "")))
    except ValueError:
        raise MeasureError(f"a {kind} literal cannot be read", library=c.unit.library.name) from None


@builds("Quantity")
def _quantity(c: Compiler, n: Node, sc: Scope) -> Fn:
    return c.constant(Quantity(Decimal(str(n["value"])), n.get("unit")))


@builds("Ratio")
def _ratio(c: Compiler, n: Node, sc: Scope) -> Fn:
    parts = (n["numerator"], n["denominator"])
    return c.constant(Ratio(*(Quantity(Decimal(str(part["value"])), part.get("unit")) for part in parts)))


@builds("Code")
def _code_literal(c: Compiler, n: Node, sc: Scope) -> Fn:
    name = (n.get("system") or {}).get("name")
    system = _code_system(c.unit_of(n["system"]), name) if name else None
    return c.constant(
        Code(n["code"], system.id if system else None, system.version if system else None, n.get("display"))
    )


@builds("Concept")
def _concept_literal(c: Compiler, n: Node, sc: Scope) -> Fn:
    codes = [c.constants[_code_literal(c, item, sc)] for item in n.get("code", [])]
    return c.constant(Concept(codes, n.get("display")))


@builds("List")
def _list(c: Compiler, n: Node, sc: Scope) -> Fn:
    items = [c.expression(item, sc) for item in n.get("element", [])]
    return lambda s, e: [item(s, e) for item in items]


@builds("Tuple")
def _tuple(c: Compiler, n: Node, sc: Scope) -> Fn:
    items = [(item["name"], c.expression(item["value"], sc)) for item in n.get("element", [])]
    return lambda s, e: {name: item(s, e) for name, item in items}


@builds("Instance")
def _instance(c: Compiler, n: Node, sc: Scope) -> Fn:
    namespace, local = types.split_name(n["classType"])
    items = [(item["name"], c.expression(item["value"], sc)) for item in n.get("element", [])]
    if namespace != types.SYSTEM:
        return _fhir_instance(c, local, items)
    make = INSTANCES.get(local)
    if make is None:
        raise MeasureError(f"an instance of {local} cannot be made", library=c.unit.library.name)
    return lambda s, e: make({name: item(s, e) for name, item in items})


def _fhir_instance(c: Compiler, local: str, items: list[tuple[str, Fn]]) -> Fn:
    model = c.program.model
    definition = model.definitions.get(local)
    if definition is None or definition.kind == "primitive":
        value = dict(items).get("value")
        return value if value is not None else c.constant(None)
    kind = model.type(local)

    def make(s: Any, e: list[Any]) -> Any:
        element = Element(kind, {})
        for name, item in items:
            found = item(s, e)
            element.cache[name] = found
            if isinstance(found, str | int | bool):
                element.data[name] = found
        return element

    return make


INSTANCES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Quantity": lambda v: Quantity(convert.to_decimal(v.get("value")), v.get("unit")),
    "Ratio": lambda v: Ratio(v.get("numerator"), v.get("denominator")),
    "Code": lambda v: Code(v.get("code"), v.get("system"), v.get("version"), v.get("display")),
    "Concept": lambda v: Concept(list(v.get("codes") or []), v.get("display")),
    "ValueSet": lambda v: ValueSet(v.get("id") or "", v.get("name") or "", None, "it was made at run time"),
    "CodeSystem": lambda v: CodeSystem(v.get("id") or "", v.get("name") or "", v.get("version")),
    "Tuple": lambda v: v,
}


@builds("Interval")
def _interval(c: Compiler, n: Node, sc: Scope) -> Fn:
    low, high = c.expression(n.get("low"), sc), c.expression(n.get("high"), sc)
    kind = point_hint(n.get("low")) or point_hint(n.get("high"))
    if "lowClosedExpression" not in n and "highClosedExpression" not in n:
        low_closed, high_closed = n.get("lowClosed", True), n.get("highClosed", True)
        return lambda s, e: Interval(low(s, e), high(s, e), low_closed, high_closed, kind)
    first = (
        c.expression(n["lowClosedExpression"], sc)
        if "lowClosedExpression" in n
        else c.constant(n.get("lowClosed", True))
    )
    second = (
        c.expression(n["highClosedExpression"], sc)
        if "highClosedExpression" in n
        else c.constant(n.get("highClosed", True))
    )

    def interval(s: Any, e: list[Any]) -> Any:
        x, y, begins, ends = low(s, e), high(s, e), first(s, e), second(s, e)
        # low and lowClosed of a null interval are null together: the interval made of them is null.
        if begins is None and ends is None and x is None and y is None:
            return None
        return Interval(x, y, begins is not False, ends is not False, kind)

    return interval


def point_hint(node: Node | None) -> Any:
    """Return the class of points an expression gives, where the node says so, else None."""
    if node is None:
        return None
    if node.get("type") == "As":
        return types.point_class(types.specifier(node, "as"))
    return {
        "ToDateTime": t.DateTime,
        "ToDate": t.Date,
        "DateFrom": t.Date,
        "ToDecimal": Decimal,
        "ToQuantity": Quantity,
    }.get(node.get("type", ""))


@builds("MinValue", "MaxValue")
def _extreme_value(c: Compiler, n: Node, sc: Scope) -> Fn:
    kind, least = types.point_class(n["valueType"]), n["type"] == "MinValue"
    if types.split_name(n["valueType"])[1] == "Long":
        return c.constant(MIN_LONG if least else MAX_LONG)
    return c.constant(minimum(kind) if least else maximum(kind))
