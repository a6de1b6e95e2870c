"""What a load did, put together from its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hiexchange.errors import LakeError
from hiexchange.lake.ingest import Done
from hiexchange.lake.job import Job
from hiexchange.lake.store import Load, Snapshot
from hiexchange.lake.validate import Validation


@dataclass(frozen=True)
class IngestReport:
    """What a load did."""

    load: str
    """Id of the load, as in column ``__hx_ingest``."""
    snapshot: int
    files: int
    rows: int
    """Resources read into rows, before newest-wins."""
    rejected: int
    """Lines in quarantine."""
    seconds: float
    size_bytes: int
    """Bytes of the files as they lie on disk."""
    tables: dict[str, int] = field(default_factory=dict)
    """{table: rows read}."""
    reasons: dict[str, int] = field(default_factory=dict)
    """{quarantine reason: lines}."""
    unmapped: dict[str, int] = field(default_factory=dict)
    """{type and JSON pointer: members kept as text}."""
    slow_lines: int = 0
    """Lines that took the exact path."""
    deleted: int = 0
    """Tombstones read."""
    repaired: dict[str, int] = field(default_factory=dict)
    """{vendor repair: how often}."""
    validation: dict[str, Validation] = field(default_factory=dict)
    """{table: what the sample showed}."""
    watermark: tuple[str, str] | None = None
    skipped: bool = False
    """The same load is in the lake already; nothing was done."""

    def check(self, max_bad_lines: int | None, where: Path) -> None:
        """Refuse more lines in quarantine than allowed; None allows any number.

        Raises:
            LakeError: There are more.
        """
        if max_bad_lines is not None and self.rejected > max_bad_lines:
            raise LakeError(
                f"{self.rejected:,} lines are in quarantine, more than the {max_bad_lines:,} allowed",
                where=str(where),
                said=", ".join(f"{reason} {count:,}" for reason, count in self.reasons.items()),
                hint='the other rows are stored; see Lake.table("_rejects")',
            )


def refuse_unmapped(finished: list[Done], where: Path) -> None:
    """Refuse members that have no column.

    Raises:
        LakeError: There are such members; the most frequent places are named, no values.
    """
    found: Counter[str] = Counter()
    for done in finished:
        found.update({done.work.table + pointer: count for pointer, count in done.unmapped.items()})
    if found:
        raise LakeError(
            f"{found.total():,} members have no column, and the load was to be strict",
            where=str(where),
            said=", ".join(f"{pointer} {count:,}" for pointer, count in found.most_common(10)),
            hint="nothing was stored; without strict they are kept as text in __unmapped",
        )


def touched(finished: list[Done]) -> dict[str, None]:
    """Return the tables of a load, in the order of its files."""
    return dict.fromkeys(done.work.table for done in finished)


def report(finished: list[Done], snapshot: Snapshot, load: Load, job: Job, seconds: float) -> IngestReport:
    """Add up what was done for each file."""
    tables: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    unmapped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for done in finished:
        repaired.update(done.repaired)
        tables[done.work.table] += done.rows
        reasons.update(done.reasons)
        unmapped.update({done.work.table + pointer: count for pointer, count in done.unmapped.items()})
    return IngestReport(
        load=load.id,
        snapshot=snapshot.number,
        files=len({done.work.path for done in finished}),
        rows=sum(tables.values()),
        rejected=sum(reasons.values()),
        seconds=seconds,
        size_bytes=sum(done.size_bytes for done in finished),
        tables=dict(tables),
        reasons=dict(reasons),
        unmapped=dict(unmapped.most_common()),
        repaired=dict(repaired),
        slow_lines=sum(done.slow_lines for done in finished),
        deleted=snapshot.loads[-1].deleted,
        watermark=job.watermark,
    )
