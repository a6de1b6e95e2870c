"""Read FHIRPath text into a syntax tree: the whole grammar of FHIRPath 2.0 (N1), by precedence climbing.

Errors say what was expected and at which character. Nothing here knows data or definitions.

Source: http://hl7.org/fhirpath/N1/grammar.html
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import dates, tree

# Weakest first, as in the grammar; `is`/`as` stand between `|` and `+` and take a type, not a term.
PRECEDENCE = {
    "implies": 1,
    "or": 2,
    "xor": 2,
    "and": 3,
    "in": 4,
    "contains": 4,
    "=": 5,
    "~": 5,
    "!=": 5,
    "!~": 5,
    "<": 6,
    "<=": 6,
    ">": 6,
    ">=": 6,
    "|": 7,
    "is": 8,
    "as": 8,
    "+": 9,
    "-": 9,
    "&": 9,
    "*": 10,
    "/": 10,
    "div": 10,
    "mod": 10,
}
SIGN = 11
MAX_DIGITS = 18
MAX_DEPTH = 250
"""Levels of a syntax tree: a chain of operators or steps is as deep as it is long, and the evaluator recurses."""
WORDS_AS_NAMES = {"as", "is", "contains", "in"}
"""Keywords that the grammar also allows as identifiers."""

CALENDAR = {
    word + plural: word
    for word in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for plural in ("", "s")
}

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\r\n]*|/\*.*?\*/)
  | (?P<datetime>@\d{4}(?:-\d\d(?:-\d\d)?)?T(?:\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:\d\d)?)?)
  | (?P<time>@T\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?)
  | (?P<date>@\d{4}(?:-\d\d(?:-\d\d)?)?)
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<string>'(?:[^'\\]|\\.)*')
  | (?P<quoted>`(?:[^`\\]|\\.)*`)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<special>\$(?:this|index|total)\b)
  | (?P<operator><=|>=|!=|!~|[-+*/&|<>=~.,()\[\]{}%])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "'": "'", '"': '"', "`": "`", "\\": "\\", "/": "/"}


class Token(NamedTuple):
    """One word of the expression."""

    kind: str
    text: str
    position: int


@lru_cache(maxsize=4096)
def parse(text: str) -> tree.Node:
    """Return the syntax tree of a FHIRPath expression.

    Raises:
        FHIRPathError: The text is not FHIRPath; ``position`` is the offending character.
    """
    if not isinstance(text, str):
        raise FHIRPathError("a FHIRPath expression must be a string")
    try:
        node = _Parser(text).whole()
    except RecursionError:
        raise _deep() from None
    level: list[tree.Node] = [node]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node.children()]
        if not level:
            return node
    raise _deep()


def _deep() -> FHIRPathError:
    return FHIRPathError(
        f"the expression is nested more than {MAX_DEPTH} levels deep",
        position=0,
        hint="a chain of operators is as deep as it is long: split it, or use matches()",
    )


def tokens(text: str) -> list[Token]:
    """Cut an expression into words; the last one has kind ``end``."""
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error("this is not FHIRPath", text, position)
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match.group(), position))
        position = match.end()
    return [*found, Token("end", "", len(text))]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0

    def whole(self) -> tree.Node:
        node = self.expression(0)
        if self.peek.kind != "end":
            raise self.error("expected an operator or the end")
        return node

    @property
    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        return self.take() if self.peek.kind in ("operator", "name") and self.peek.text in texts else None

    def expect(self, text: str) -> Token:
        token = self.accept(text)
        if token is None:
            raise self.error(f"expected {text!r}")
        return token

    def error(self, what: str) -> FHIRPathError:
        return _error(what, self.text, self.peek.position)

    def expression(self, floor: int) -> tree.Node:
        left = self.unary()
        while self.peek.kind in ("operator", "name"):
            token = self.peek
            level = PRECEDENCE.get(token.text)
            if level is None or level <= floor:
                break
            self.take()
            if token.text in ("is", "as"):
                left = tree.TypeTest(token.text, left, self.type_specifier(), position=token.position)
            else:
                left = tree.Binary(token.text, left, self.expression(level), position=token.position)
        return left

    def unary(self) -> tree.Node:
        if self.peek.kind == "operator" and self.peek.text in ("+", "-"):
            token = self.take()
            return tree.Unary(token.text, self.expression(SIGN), position=token.position)
        return self.postfix(self.term())

    def postfix(self, node: tree.Node) -> tree.Node:
        while True:
            if self.accept("."):
                node = self.invocation(node)
            elif self.peek.text == "[" and self.peek.kind == "operator":
                token = self.take()
                node = tree.At(node, self.expression(0), position=token.position)
                self.expect("]")
            else:
                return node

    def term(self) -> tree.Node:
        token = self.peek
        if token.kind == "operator" and token.text == "(":
            self.take()
            node = self.expression(0)
            self.expect(")")
            return node
        if token.kind == "operator" and token.text == "{":
            self.take()
            self.expect("}")
            return tree.Empty(position=token.position)
        if token.kind == "operator" and token.text == "%":
            return self.variable()
        if token.kind in ("number", "string", "date", "datetime", "time") or token.text in ("true", "false"):
            return self.literal()
        return self.invocation(tree.This(position=token.position))

    def invocation(self, parent: tree.Node) -> tree.Node:
        token = self.peek
        if token.kind == "special":
            self.take()
            kinds = {"$this": tree.This, "$index": tree.Index, "$total": tree.Total}
            return kinds[token.text](position=token.position)
        name = self.identifier()
        if self.peek.kind == "operator" and self.peek.text == "(":
            self.take()
            return tree.Call(parent, name, self.arguments(), position=token.position)
        return tree.Child(parent, name, position=token.position)

    def arguments(self) -> tuple[tree.Node, ...]:
        if self.accept(")"):
            return ()
        found = [self.expression(0)]
        while self.accept(","):
            found.append(self.expression(0))
        self.expect(")")
        return tuple(found)

    def identifier(self) -> str:
        token = self.peek
        if token.kind == "quoted":
            self.take()
            return _unescape(token.text[1:-1])
        if token.kind == "name" and (token.text not in PRECEDENCE or token.text in WORDS_AS_NAMES):
            self.take()
            return token.text
        raise self.error("expected a name, a literal or '('")

    def type_specifier(self) -> str:
        name = self.identifier()
        while self.accept("."):
            name += "." + self.identifier()
        return name

    def variable(self) -> tree.Node:
        position = self.take().position
        token = self.peek
        if token.kind in ("string", "quoted"):
            self.take()
            return tree.Variable(_unescape(token.text[1:-1]), position=position)
        name = self.identifier()
        # %vs-name and %ext-name are written with a hyphen in FHIR's own examples.
        if name in ("vs", "ext") and self.peek.text == "-":
            self.take()
            name += "-" + self.identifier()
        return tree.Variable(name, position=position)

    def literal(self) -> tree.Node:
        token = self.take()
        if token.kind == "string":
            return tree.Literal("String", _unescape(token.text[1:-1]), position=token.position)
        if token.kind == "name":
            return tree.Literal("Boolean", token.text == "true", position=token.position)
        if token.kind == "number":
            return self.number(token)
        kind = {"date": "Date", "datetime": "DateTime", "time": "Time"}[token.kind]
        text = token.text[2:] if token.kind == "time" else token.text[1:]
        if dates.parse(text, time=token.kind == "time") is None:
            raise _error(f"there is no {token.text}", self.text, token.position)
        return tree.Literal(kind, text.removesuffix("T"), position=token.position)

    def number(self, token: Token) -> tree.Node:
        unit = self.peek
        if unit.kind == "string":
            self.take()
            return tree.Literal("Quantity", token.text, _unescape(unit.text[1:-1]), position=token.position)
        if unit.kind == "name" and unit.text in CALENDAR:
            self.take()
            return tree.Literal("Quantity", token.text, CALENDAR[unit.text], position=token.position)
        if "." in token.text:
            return tree.Literal("Decimal", token.text, position=token.position)
        if len(token.text.lstrip("0")) > MAX_DIGITS:
            raise _error("the number is no Integer", self.text, token.position)
        return tree.Literal("Integer", int(token.text), position=token.position)


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)

    return _ESCAPE.sub(one, text) if "\\" in text else text


def _error(what: str, text: str, position: int) -> FHIRPathError:
    near = text[position : position + 20]
    said = f"at character {position}" + (f", near {near!r}" if near else ", at the end")
    return FHIRPathError(f"not a FHIRPath expression: {what} {said}", position=position, where=text[:200])
