"""The grammar: precedence, literals, escapes, and errors with their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import parse, tree


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("1 + 2 * 3", "1 + (2 * 3)"),
        ("1 - 2 - 3", "(1 - 2) - 3"),
        ("-1.abs()", "-(1.abs())"),
        ("-1 + 2", "(-1) + 2"),
        ("a or b and c", "a or (b and c)"),
        ("a implies b or c", "a implies (b or c)"),
        ("a = b and c != d", "(a = b) and (c != d)"),
        ("a | b = c", "(a | b) = c"),
        ("a < b = c", "(a < b) = c"),
        ("a in b | c", "a in (b | c)"),
        ("a is string and b", "(a is string) and b"),
        ("a + b is Integer", "(a + b) is Integer"),
        ("a as Quantity > 4", "(a as Quantity) > 4"),
        ("a & b + c", "(a & b) + c"),
        ("a.b[0].c", "((a.b)[0]).c"),
        ("a // a comment\n.b", "a.b"),
        ("a /* so\nis this */ .b", "a.b"),
        ("`a`.`b`", "a.b"),
    ],
)
def test_precedence_and_spelling(expression: str, same: str) -> None:
    assert parse(expression) == parse(same)


@pytest.mark.parametrize(
    ("expression", "type", "value"),
    [
        ("'it\\'s'", "String", "it's"),
        ("'\\u00e9\\n\\t\\\\\\/'", "String", "é\n\t\\/"),
        ("1.50", "Decimal", "1.50"),
        ("42", "Integer", 42),
        ("true", "Boolean", True),
        ("@2020-05", "Date", "2020-05"),
        ("@2020-05-17T10:30:15.123+02:00", "DateTime", "2020-05-17T10:30:15.123+02:00"),
        ("@2020T", "DateTime", "2020"),
        ("@T10:30", "Time", "10:30"),
    ],
)
def test_literals(expression: str, type: str, value: object) -> None:
    assert parse(expression) == tree.Literal(type, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("expression", "unit"), [("4 days", "day"), ("4 day", "day"), ("1.5 'mg/dL'", "mg/dL")])
def test_quantities(expression: str, unit: str) -> None:
    node = parse(expression)
    assert isinstance(node, tree.Literal)
    assert (node.type, node.unit) == ("Quantity", unit)


@pytest.mark.parametrize(
    "expression", ["contains", "is.as", "a.contains('x')", "$this.in", "%`a b`", "%'x'", "%ext-race"]
)
def test_words_that_are_also_names(expression: str) -> None:
    parse(expression)


PLACES = {
    "": 0, "a.": 2, "a +": 3, "a b": 2, "(a": 2, "a[1": 3, "a.where(b": 9, "@@": 0, "'open": 0, "and": 0,
    "a ? b": 2, "{a}": 1, "a > @2020-13-01": 4, "@T25:00": 0, "1 + 9999999999999999999": 4,
}  # fmt: skip


@pytest.mark.parametrize(("expression", "position"), PLACES.items())
def test_errors_name_the_character(expression: str, position: int) -> None:
    with pytest.raises(FHIRPathError) as caught:
        parse(expression)
    assert caught.value.position == position
    assert str(position) in str(caught.value) or "at the end" in str(caught.value)


@pytest.mark.parametrize("expression", ["(" * 2000 + "1" + ")" * 2000, "1" + "+1" * 2000, "a" + ".a" * 300])
def test_too_deep_an_expression_is_refused(expression: str) -> None:
    with pytest.raises(FHIRPathError, match="250 levels"):
        parse(expression)


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused_with_a_place(text: str) -> None:
    try:
        parse(text)
    except FHIRPathError as error:
        assert error.position is not None and 0 <= error.position <= len(text)


@given(st.text(max_size=20))
def test_any_string_survives_as_a_literal(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"'{escaped}'") == tree.Literal("String", text)


def test_equal_nodes_are_equal_wherever_they_stood() -> None:
    first = parse("a.b = a.b")
    assert isinstance(first, tree.Binary)
    assert first.left == first.right
    assert hash(first.left) == hash(first.right)
