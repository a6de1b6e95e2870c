"""String functions. Each distinct text is worked on once."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hiexchange.errors import FHIRPathError
from hiexchange.fhirpath import tree
from hiexchange.fhirpath.columns import Collection, Part, dense, empty, merge
from hiexchange.fhirpath.frame import Frame
from hiexchange.fhirpath.kinds import kind_of


def texts(collection: Collection, what: str) -> pa.Array | None:
    """Return one text a row, or None where no row has one.

    Raises:
        FHIRPathError: The value is no text.
    """
    result: pa.Array | None = None
    for part in collection.singles(what):
        if kind_of(part.type) not in ("String", "Date", "DateTime", "Time"):
            raise FHIRPathError(f"{what} works on a string, not on {part.type}", hint="use toString()")
        values = part.array(collection.n)
        result = values if result is None else pc.coalesce(result, values)
    return result


def _mapped(function: Callable[..., Any], type: str, arrow: pa.DataType) -> Callable[[tree.Call, Frame], Collection]:
    """Make a FHIRPath function of a Python one; any empty argument gives empty."""

    def run(node: tree.Call, frame: Frame) -> Collection:
        text = texts(frame.eval(node.parent), f"{node.name}()")
        arguments = [_argument(argument, node, frame) for argument in node.arguments]
        if text is None or any(argument is None for argument in arguments):
            return empty(frame.n)
        if all(argument.constant for argument in arguments if argument is not None):
            constants = [argument.values.as_py() for argument in arguments if argument is not None]
            values = _distinct_map(text, lambda item: function(item, *constants), arrow)
        else:
            columns = [argument.array(frame.n).to_pylist() for argument in arguments if argument is not None]
            rows = zip(text.to_pylist(), *columns, strict=True)
            values = pa.array([None if None in row else function(*row) for row in rows], arrow)
        return dense(values, f"System.{type}", frame.n)

    return run


def _argument(argument: tree.Node, node: tree.Call, frame: Frame) -> Part | None:
    parts = frame.eval(argument).singles(f"{node.name}()")
    if len(parts) > 1:
        raise FHIRPathError(f"an argument of {node.name}() has several types", position=node.position)
    if parts and kind_of(parts[0].type) != ("Integer" if node.name == "substring" else "String"):
        raise FHIRPathError(f"{node.name}() cannot take {parts[0].type}", position=node.position)
    return parts[0] if parts else None


def _distinct_map(text: pa.Array, function: Callable[[str], Any], arrow: pa.DataType) -> pa.Array:
    encoded = pc.dictionary_encode(text)
    return pa.array([function(item) for item in encoded.dictionary.to_pylist()], arrow).take(encoded.indices)


def _substring(text: str, start: int, length: int | None = None) -> str | None:
    if start < 0 or start >= len(text):
        return None
    return text[start:] if length is None else text[start : start + max(length, 0)]


@lru_cache(maxsize=256)
def pattern(text: str, anchored: bool = False) -> re.Pattern[str]:
    """Compile a regular expression of an expression; ``.`` also matches line ends, as FHIRPath says.

    Raises:
        FHIRPathError: It is not a regular expression.
    """
    try:
        return re.compile(f"\\A(?:{text})\\Z" if anchored else text, re.DOTALL)
    except re.error as error:
        raise FHIRPathError(f"not a regular expression: {error}") from None


def _replace_matches(text: str, regex: str, substitution: str) -> str:
    # FHIRPath writes groups as $1 and ${name}; Python as \1 and \g<name>.
    python = re.sub(r"\$(?:(\d+)|\{(\w+)\})", lambda m: f"\\g<{m[1] or m[2]}>", substitution.replace("\\", "\\\\"))
    try:
        return pattern(regex).sub(python, text)
    except (re.error, IndexError) as error:
        raise FHIRPathError(f"not a substitution: {error}") from None


def _encode(text: str, format: str) -> str:
    data = text.encode()
    if format == "hex":
        return data.hex()
    if format == "base64":
        return base64.b64encode(data).decode()
    if format == "urlbase64":
        return base64.urlsafe_b64encode(data).decode()
    raise FHIRPathError(f"encode() knows hex, base64 and urlbase64, not {format!r}")


def _decode(text: str, format: str) -> str | None:
    codecs: dict[str, Callable[[str], bytes]] = {
        "hex": bytes.fromhex,
        "base64": base64.b64decode,
        "urlbase64": base64.urlsafe_b64decode,
    }
    if format not in codecs:
        raise FHIRPathError(f"decode() knows hex, base64 and urlbase64, not {format!r}")
    try:
        return codecs[format](text).decode()
    except ValueError:
        return None


def _escape(text: str, target: str) -> str:
    if target == "html":
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    if target == "json":
        return json.dumps(text, ensure_ascii=False)[1:-1]
    raise FHIRPathError(f"escape() knows html and json, not {target!r}")


def _unescape(text: str, target: str) -> str | None:
    if target == "html":
        return html.unescape(text)
    if target == "json":
        try:
            return str(json.loads(f'"{text}"', strict=False))
        except ValueError:
            return None
    raise FHIRPathError(f"unescape() knows html and json, not {target!r}")


def _listed(function: Callable[..., list[str]]) -> Callable[[tree.Call, Frame], Collection]:
    """Make a function whose result is several texts a row."""

    def run(node: tree.Call, frame: Frame) -> Collection:
        text = texts(frame.eval(node.parent), f"{node.name}()")
        arguments = [_argument(argument, node, frame) for argument in node.arguments]
        if text is None or any(argument is None for argument in arguments):
            return empty(frame.n)
        columns = [argument.array(frame.n).to_pylist() for argument in arguments if argument is not None]
        found = [[] if None in row else function(*row) for row in zip(text.to_pylist(), *columns, strict=True)]
        rows = np.repeat(np.arange(frame.n), [len(items) for items in found])
        return merge(
            frame.n, [Part(pa.array([item for items in found for item in items], pa.string()), "System.String", rows)]
        )

    return run


def _join(node: tree.Call, frame: Frame) -> Collection:
    """Join each row's texts. An empty row gives '', as SQL on FHIR's own tests ask (FHIRPath leaves it open)."""
    parent = frame.eval(node.parent)
    separator = _argument(node.arguments[0], node, frame) if node.arguments else None
    glue = separator.array(frame.n) if separator is not None else pa.scalar("", pa.string())
    for part in parent.parts:
        if kind_of(part.type) != "String":
            raise FHIRPathError(f"join() joins strings, not {part.type}", position=node.position)
    parts = parent.sparse()
    values = pa.concat_arrays([part.values for part in parts]) if parts else pa.nulls(0, pa.string())
    rows = np.concatenate([part.rows for part in parts]) if parts else np.empty(0, np.int64)
    if len(parts) > 1:
        order = np.argsort(np.concatenate(parent.ranks()))
        values, rows = values.take(pa.array(order)), rows[order]
    if values.null_count:
        # Elements that have extensions and no text.
        rows, values = rows[np.asarray(values.is_valid())], values.drop_null()
    offsets = np.searchsorted(rows, np.arange(frame.n + 1))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return dense(pc.binary_join(lists, glue), "System.String", frame.n)


_TEXT, _FLAG, _INT = pa.string(), pa.bool_(), pa.int64()

FUNCTIONS = {
    "indexOf": (1, 1, _mapped(lambda text, other: text.find(other), "Integer", _INT)),
    "lastIndexOf": (1, 1, _mapped(lambda text, other: text.rfind(other), "Integer", _INT)),
    "substring": (1, 2, _mapped(_substring, "String", _TEXT)),
    "startsWith": (1, 1, _mapped(str.startswith, "Boolean", _FLAG)),
    "endsWith": (1, 1, _mapped(str.endswith, "Boolean", _FLAG)),
    "contains": (1, 1, _mapped(lambda text, other: other in text, "Boolean", _FLAG)),
    "upper": (0, 0, _mapped(str.upper, "String", _TEXT)),
    "lower": (0, 0, _mapped(str.lower, "String", _TEXT)),
    "trim": (0, 0, _mapped(str.strip, "String", _TEXT)),
    "length": (0, 0, _mapped(len, "Integer", _INT)),
    "replace": (2, 2, _mapped(lambda text, old, new: text.replace(old, new), "String", _TEXT)),
    "matches": (1, 1, _mapped(lambda text, regex: pattern(regex).search(text) is not None, "Boolean", _FLAG)),
    "matchesFull": (1, 1, _mapped(lambda text, regex: pattern(regex, True).match(text) is not None, "Boolean", _FLAG)),
    "replaceMatches": (2, 2, _mapped(_replace_matches, "String", _TEXT)),
    "encode": (1, 1, _mapped(_encode, "String", _TEXT)),
    "decode": (1, 1, _mapped(_decode, "String", _TEXT)),
    "escape": (1, 1, _mapped(_escape, "String", _TEXT)),
    "unescape": (1, 1, _mapped(_unescape, "String", _TEXT)),
    "urlEncode": (0, 0, _mapped(lambda text: quote(text, safe=""), "String", _TEXT)),
    "urlDecode": (0, 0, _mapped(unquote, "String", _TEXT)),
    "toChars": (0, 0, _listed(list)),
    "split": (1, 1, _listed(lambda text, separator: text.split(separator) if separator else list(text))),
    "join": (0, 1, _join),
}
