"""The exact path: one line at a time, against the definitions. Slow, keeps everything, never guesses.

What has no place in the typed tree goes to ``unmapped`` by JSON pointer: unknown names, the wrong JSON
type, integers out of range, explicit nulls, empty objects and lists, members deeper than the cap. A
container of which nothing is left goes there whole, so that a pointer's parent always exists.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from hiexchange.definitions import Definitions
from hiexchange.lake.schema import MAX_DEPTH, scalar_kind
from hiexchange.lake.shape import Shape, absorb

BLANKS = b" \t\r\n"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONTAINED = re.compile(rb'"contained"[ \t\r\n]*:[ \t\r\n]*')
_ENDS = 16
"""Ends of arrays that are looked at as that of ``contained``: each time from its start."""
_MARKS = (b'}],"', b"}]")
"""What such an end looks like: most often another member follows."""
_INT_RANGE = {"int32": 2**31, "int64": 2**63}


class Refused(Exception):
    """A line cannot be a row; ``reason`` is the quarantine code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Duplicate(ValueError):
    pass


class _RootText(msgspec.Struct):
    """Finds the bytes of a root member without reading the rest, and proves the line one document."""

    contained: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class Line:
    """One resource taken apart."""

    row: dict[str, Any]
    unmapped: dict[str, Any] = field(default_factory=dict)

    def unmapped_text(self) -> str | None:
        """Return the cell of ``__unmapped``."""
        return dump(self.unmapped) if self.unmapped else None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate
    return found


def _integer(text: str) -> Any:
    # "-0" and integers beyond 64 bits keep their text: a decimal may be spelled so.
    return msgspec.Raw(text.encode()) if text == "-0" or len(text) > 18 else int(text)


def _number(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _constant(text: str) -> Any:
    raise ValueError(text)


def number_hooks() -> dict[str, Any]:
    """Arguments for ``json.JSONDecoder`` that keep the literal text of numbers an int can't hold."""
    return {"parse_float": _number, "parse_int": _integer, "parse_constant": _constant}


_decode = json.JSONDecoder(object_pairs_hook=_pairs, **number_hooks()).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_root_text = msgspec.json.Decoder(_RootText).decode
_encode = msgspec.json.encode


def parse(line: bytes) -> dict[str, Any]:
    """Return the object of one line; numbers with a point, an exponent or many digits stay literal text.

    Raises:
        Refused: ``bad-utf8``, ``duplicate-key``, ``truncated``, ``not-json``, ``too-deep``,
            ``lone-surrogate`` or ``not-object``.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise Refused("bad-utf8") from None
    try:
        value = _decode(text.strip(" \t\r\n"))
    except _Duplicate:
        raise Refused("duplicate-key") from None
    except RecursionError:
        raise Refused("too-deep") from None
    except ValueError as error:
        position = getattr(error, "pos", 0)
        cut = position >= len(text.rstrip()) - 1 or "Unterminated string" in str(error)
        raise Refused("truncated" if cut else "not-json") from None
    if not isinstance(value, dict):
        raise Refused("not-object")
    if _SURROGATE.search(line):
        _refuse_lone_surrogates(value)
    return value


def _refuse_lone_surrogates(value: dict[str, Any]) -> None:
    try:
        _encode(value)
    except UnicodeEncodeError:
        raise Refused("lone-surrogate") from None
    except RecursionError:
        raise Refused("too-deep") from None


@lru_cache(maxsize=1024)
def has_contained(resource: str, version: str) -> bool:
    """Say whether a type has ``contained``; Binary, Bundle and Parameters have not."""
    found = Definitions.load(version).get(resource)
    return found is not None and "contained" in found.elements


def contained_span(line: bytes) -> tuple[int, int] | None:
    """Return where the array of root member ``contained`` starts and ends in the line.

    Nothing inside ``contained`` is typed: it is kept as text. One pass of the parser finds it and
    proves the line to be one JSON document.

    Returns:
        None when the line is not one JSON object or has no non-empty array there.
    """
    try:
        found = _root_text(line).contained
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(found, msgspec.UnsetType):
        return None
    text = bytes(found)
    if not text.startswith(b"[") or not text[1:-1].strip(BLANKS):
        return None
    start = line.find(b'"contained":' + text)
    if start >= 0:
        return start + 12, start + 12 + len(text)
    return _spaced_span(line, text)


def first_contained(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return where in a line the first value of a member ``contained`` starts and ends, without reading the rest.

    A JSON array ends where its text is one, so the first end that makes an array of it is its end.

    Args:
        data: A text that the line is in.
        start: Where it starts.
        end: Where it ends.

    Returns:
        None when it is not found soon.
    """
    name = data.find(b'"contained":[{', start, end)
    if name < 0:
        return None
    first = name + 12
    for mark in _MARKS:
        last = first
        for _ in range(_ENDS):
            place = data.find(mark, last, end)
            if place < 0:
                break
            last = place + 2
            try:
                _items(data[first:last])
            except (msgspec.DecodeError, RecursionError):
                continue
            return first - start, last - start
    return None


def _spaced_span(line: bytes, text: bytes) -> tuple[int, int] | None:
    """Find a value of ``contained`` with blanks round its colon."""
    for match in _CONTAINED.finditer(line):
        if line.startswith(text, match.end()):
            return match.end(), match.end() + len(text)
    return None


def read(line: bytes, resource: str, version: str, seen: Shape) -> Line:
    """Take one line apart; members found are added to ``seen``.

    Raises:
        Refused: The line cannot be a row of this table.
    """
    span = contained_span(line) if b'"contained"' in line and has_contained(resource, version) else None
    value = parse(line[: span[0]] + b'""' + line[span[1] :] if span else line)
    if value.get("resourceType") != resource:
        raise Refused("wrong-resource-type")
    if span and value.get("contained") != "":
        span, value = None, parse(line)  # a nested member of the same text was cut
    if span:
        del value["contained"]
    result = Line({})
    result.row = _walker(version).members(value, resource, "", 0, seen, result.unmapped)
    if span:
        try:
            result.row["contained"] = line[span[0] : span[1]].decode()
        except UnicodeDecodeError:
            raise Refused("bad-utf8") from None
        seen.setdefault("contained", {})
    result.row["resourceType"] = resource
    return result


@lru_cache(maxsize=8)
def _walker(version: str) -> _Walker:
    return _Walker(Definitions.load(version))


class _Walker:
    """Walks parsed JSON along the definitions of one FHIR version."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._members: dict[str, dict[str, tuple[str, str, bool]]] = {}

    def _of(self, type_name: str) -> dict[str, tuple[str, str, bool]]:
        """{JSON name: (FHIR type, kind, many)}, the ``_x`` siblings of primitives included."""
        found = self._members.get(type_name)
        if found is None:
            found = {}
            for name, (element, kind) in self._definitions.type(type_name).json_members.items():
                scalar = scalar_kind(self._definitions, kind)
                found[name] = (kind, scalar, element.many)
                if scalar not in ("struct", "json"):
                    found["_" + name] = ("Element", "struct", element.many)
            self._members[type_name] = found
        return found

    def members(
        self, value: dict[str, Any], type_name: str, path: str, depth: int, seen: Shape, unmapped: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the typed members of an object; the rest goes to ``unmapped``."""
        known = self._of(type_name)
        typed: dict[str, Any] = {}
        for name, given in value.items():
            spec = known.get(name)
            if spec is None:
                if depth or name != "resourceType":
                    unmapped[f"{path}/{escape(name)}"] = given
                continue
            below: Shape = {}
            left: dict[str, Any] = {}
            result = None
            if given is not None and depth < MAX_DEPTH:
                if spec[2] or spec[1] == "struct":
                    result = self.value(given, spec, f"{path}/{name}", depth + 1, below, left)
                else:
                    result = scalar(given, spec[1])
            if result is None:
                unmapped[f"{path}/{name}"] = given
                continue
            typed[name] = result
            unmapped.update(left)
            absorb(seen.setdefault(name, {}), below)
        return typed

    def value(
        self, given: Any, spec: tuple[str, str, bool], path: str, depth: int, seen: Shape, unmapped: dict[str, Any]
    ) -> Any:
        """Return the typed value of a member, or None when nothing of it is typed."""
        type_name, kind, many = spec
        if not many:
            return self.item(given, type_name, kind, path, depth, seen, unmapped)
        if not isinstance(given, list) or not given:
            return None
        if kind == "json":
            return dump(given)
        items = []
        for index, item in enumerate(given):
            pointer = f"{path}/{index}"
            result = None
            if item is not None:
                result = self.item(item, type_name, kind, pointer, depth, seen, unmapped)
                if result is None:
                    unmapped[pointer] = item
            items.append(result)
        if all(item is None for item in items):
            unmapped.clear()
            return None
        return items

    def item(
        self, given: Any, type_name: str, kind: str, path: str, depth: int, seen: Shape, unmapped: dict[str, Any]
    ) -> Any:
        """Return one typed value, or None when nothing of it is typed."""
        if kind == "struct":
            if not isinstance(given, dict):
                return None
            left: dict[str, Any] = {}
            below: Shape = {}
            typed = self.members(given, type_name, path, depth, below, left)
            if not typed:
                return None
            absorb(seen, below)
            unmapped.update(left)
            return typed
        return scalar(given, kind)


def scalar(given: Any, kind: str) -> Any:
    """Return a JSON scalar as its column holds it, or None when it does not fit the kind."""
    if kind == "bool":
        return given if isinstance(given, bool) else None
    if kind in _INT_RANGE:
        if isinstance(given, msgspec.Raw) and bytes(given) == b"-0":
            return 0
        fits = isinstance(given, int) and not isinstance(given, bool) and -_INT_RANGE[kind] <= given < _INT_RANGE[kind]
        return given if fits else None
    if kind == "decimal":
        if isinstance(given, msgspec.Raw):
            return bytes(given).decode()
        return str(given) if isinstance(given, int) and not isinstance(given, bool) else None
    if kind == "json":
        return dump(given) if isinstance(given, dict) else None
    return given if isinstance(given, str) else None


def escape(name: str) -> str:
    """Return a name as a JSON pointer token (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def dump(value: Any) -> str:
    """Return compact JSON text; literal numbers as they stood."""
    return _encode(value).decode()
