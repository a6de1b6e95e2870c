"""Type the JSON text of contained resources, so that paths can walk into them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from hiexchange.definitions import Definitions
from hiexchange.errors import ViewError
from hiexchange.fhirpath.columns import Ints
from hiexchange.lake.contained import resources_in
from hiexchange.lake.cut import Block
from hiexchange.lake.decode import Source, encode


class ContainedReader:
    """Reads the text of ``contained`` columns; a text repeated in many resources is read once a batch."""

    def __init__(self, version: str) -> None:
        """Read as resources of a FHIR version."""
        self._version = version
        self._known = Definitions.load(version)

    def __call__(self, texts: pa.Array) -> list[tuple[str, pa.Array, Ints]]:
        """Return (resource type, structs, index of the text each came from), types in a fixed order.

        A contained resource of no known type is passed over: it has no elements to name.

        Raises:
            ViewError: One of a known type cannot be read.
        """
        lines: dict[str, list[bytes]] = defaultdict(list)
        rows: dict[str, list[int]] = defaultdict(list)
        for row, kind, line in resources_in(texts):
            if self._known.is_resource(kind):
                lines[kind].append(line)
                rows[kind].append(row)
        return [self._encoded(kind, lines[kind], rows[kind]) for kind in sorted(lines)]

    def _encoded(self, kind: str, lines: list[bytes], rows: list[int]) -> tuple[str, pa.Array, Ints]:
        found = encode(Block(b"\n".join(lines), 1, 0), {}, Source(kind, "", "contained", self._version))
        if found.rejects:
            # As a lake says of the same: a row that is silently missing would be a wrong answer.
            raise ViewError(
                f"{len(found.rejects):,} contained {kind} resources can't be read: {found.rejects[0].reason}"
            )
        index = np.asarray(found.batch["__hx_line"], dtype=np.int64) - 1
        return kind, found.batch.to_struct_array(), np.array(rows, np.int64)[index]
