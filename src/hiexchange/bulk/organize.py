"""Split organized output (``organizeOutputBy``) into one file a type, as everything else expects it.

An organized file holds blocks; each begins with a ``Parameters`` line whose parameter ``header``
refers to the resource the block is about. A block may go on in the file named by
``continuesInFile``, which repeats the header line. Header lines are not resources.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import msgspec

from hiexchange._files import atomic_file
from hiexchange.ndjson import open_bytes

HEADER = "Parameters"


class _Line(msgspec.Struct):
    resourceType: str


def split_by_type(path: Path, folder: Path, stem: str) -> dict[str, int]:
    """Write ``folder/<Type>.<stem>.ndjson`` for each type in an organized file.

    Args:
        path: The organized file, proven whole.
        folder: Where the parts go; they appear only when all are written.
        stem: What tells the parts of this file from those of others.

    Returns:
        Resources by type, header lines left out.
    """
    counts: dict[str, int] = {}
    decoder = msgspec.json.Decoder(_Line)
    with ExitStack() as stack, open_bytes(path) as lines:
        parts: dict[str, IO[bytes]] = {}
        for line in lines:
            name = decoder.decode(line).resourceType
            if name == HEADER and is_header(line):
                continue
            if name not in parts:
                parts[name] = stack.enter_context(atomic_file(folder / part_name(name, stem)))
            parts[name].write(line)
            counts[name] = counts.get(name, 0) + 1
    return counts


def part_name(type: str, stem: str) -> str:
    """Return the file name of one type's part."""
    return f"{type}.{stem}.ndjson"


def is_header(line: bytes) -> bool:
    """Say whether a Parameters line is a block header and not data."""
    value: Any = msgspec.json.decode(line)
    return any(isinstance(item, dict) and item.get("name") == "header" for item in value.get("parameter") or ())
