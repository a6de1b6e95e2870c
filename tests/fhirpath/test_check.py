"""Checks without data: types, cardinality, and what is refused before anything is read."""

from __future__ import annotations

import pytest

from hiexchange.definitions import Definitions
from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import parse
from hiexchange.fhirpath.check import Checker, Shape
from hiexchange.fhirpath.functions import FUNCTIONS
from hiexchange.fhirpath.needs import Needs


def checked(expression: str, resource: str = "Patient") -> tuple[Shape, list[str]]:
    checker = Checker(Definitions.load(), {"use": "code"}, root=Shape((resource,)))
    return checker.check(parse(expression), Shape((resource,))), checker.warnings


@pytest.mark.parametrize(
    ("expression", "types", "many"),
    [
        ("name", ("HumanName",), True),
        ("name.first()", ("HumanName",), False),
        ("name[0].given", ("string",), True),
        ("birthDate", ("date",), False),
        ("name.where(use = %use).family", ("string",), True),
        ("name.exists()", ("System.Boolean",), False),
        ("name.count() + 1", ("System.Integer",), False),
        ("1 / 2", ("System.Decimal",), False),
        ("deceased", ("boolean", "dateTime"), False),
        ("deceased.ofType(dateTime)", ("dateTime",), False),
        ("birthDate + 1 day", ("System.Date",), False),
        ("extension('x').value.ofType(Coding).code", ("code",), True),
        ("iif(active, gender, 'x')", ("code", "System.String"), False),
        ("name.select(given)", ("string",), True),
        ("link.other.getReferenceKey()", ("System.String",), True),
        ("name.given.join(',')", ("System.String",), False),
        ("gender | birthDate", ("code", "date"), True),
        ("%resource.id", ("id",), False),
        ("contact.name.family", ("string",), True),
    ],
)
def test_types_and_cardinality(expression: str, types: tuple[str, ...], many: bool) -> None:
    shape, warnings = checked(expression)
    assert (shape.types, shape.many) == (types, many)
    assert warnings == []


@pytest.mark.parametrize(
    ("expression", "warning"),
    [
        ("nmae.family", "no element nmae"),
        ("birthDate = '1970-01-01'", "never equals"),
        ("gender.ofType(Quantity)", "never Quantity"),
        ("valueQuantity", "no element valueQuantity"),
    ],
)
def test_what_is_always_empty_is_a_warning(expression: str, warning: str) -> None:
    assert any(warning in text for text in checked(expression)[1])


@pytest.mark.parametrize(
    "expression",
    ["conformsTo('x')", "name.where(conformsTo('x'))", "name < 1", "gender + 1", "%x", "name[gender]", "-gender", "name is X", "ofType(1)"],
)  # fmt: skip
def test_what_cannot_run_is_refused(expression: str) -> None:
    with pytest.raises(FHIRPathError):
        checked(expression)


def test_every_function_has_a_result_type() -> None:
    # A function that the checker forgot would fail here, not in a user's view.
    arguments = {"ofType": "string", "is": "string", "as": "string", "extension": "'x'", "iif": "true, 1, 2"}
    for name, function in FUNCTIONS.items():
        given = arguments.get(name, ", ".join(["1"] * function.fewest))
        checked(f"name.{name}({given})")


@pytest.mark.parametrize(
    ("expression", "whole", "part"),
    [
        ("name.where(use = 'official').family", {"name.use", "name.family"}, {"name"}),
        ("name.exists()", set(), {"name"}),
        ("name.first() = name.last()", {"name"}, set()),
        ("extension('x').value.ofType(code)", {"extension.url", "extension.valueCode"}, set()),
        ("birthDate.extension('x').url", {"_birthDate.extension.url"}, set()),
        ("getResourceKey()", {"id", "__hx_key"}, set()),
        ("managingOrganization.getReferenceKey()", {"managingOrganization.reference"}, set()),
        ("link.other.resolve().id", {"contained", "link.other.reference"}, set()),
        ("deceased.ofType(boolean)", {"deceasedBoolean"}, set()),
        ("name.select(given & family)", {"name.given", "name.family"}, {"name"}),
        ("iif(active, name.family, gender)", {"active", "name.family", "gender"}, set()),
        ("contact.descendants()", {"contact"}, set()),
        ("1 + 1", set(), set()),
    ],
)
def test_needed_elements(expression: str, whole: set[str], part: set[str]) -> None:
    needs = Needs(Definitions.load(), "Patient")
    needs.use(needs.read(parse(expression), needs.root()))
    found = needs.wanted()
    assert {".".join(path) for path in found.whole} == whole
    assert {".".join(path) for path in found.part} == part
