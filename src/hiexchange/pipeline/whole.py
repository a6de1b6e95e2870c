"""Say which file of the lake is damaged or gone, where an engine only says that it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from hiexchange.errors import LakeError
from hiexchange.lake import Lake


@contextmanager
def whole(lake: Lake) -> Iterator[None]:
    """Explain a failure inside the block by the lake's files, if one of them is its cause.

    Raises:
        LakeError: A file of the current snapshot is gone or is no Parquet file any more.
    """
    try:
        yield
    except (OSError, duckdb.Error, pa.ArrowInvalid, LakeError) as error:
        broken = _broken(lake)
        if broken is None:
            raise
        raise LakeError(
            f"a file of the lake is {'damaged' if broken.exists() else 'gone'}",
            where=str(broken),
            said=type(error).__name__,
            hint="restore the lake's folder from a copy; nothing of this stage was written",
        ) from None


def _broken(lake: Lake) -> Path | None:
    for name in lake.tables():
        for path in lake.files(name):
            try:
                pq.read_metadata(path)
            except (OSError, pa.ArrowInvalid):
                return path
    return None
