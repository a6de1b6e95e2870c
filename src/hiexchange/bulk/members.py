"""New members of a group: their full history, beside everybody's news. Pure.

A ``_since`` export of a group leaves out what happened to a new member before. The guidance: keep the
patient ids of run N; at N+1 export the ids alone, export the new ones by ``patient`` without
``_since``, then everybody with it. Overlap is expected; the lake keeps one version of each resource.

Source:
    Bulk Data Access IG, "Group membership and _since".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hiexchange.bulk.request import ExportRequest


@dataclass(frozen=True, slots=True)
class GroupChange:
    """How a group's membership changed between two runs."""

    joined: tuple[str, ...] = field(repr=False)
    left: tuple[str, ...] = field(repr=False)


def members_request(request: ExportRequest) -> ExportRequest:
    """Return the request that lists a group's patients by id only."""
    return replace(request, types=("Patient",), elements=("id",), since=None, until=None, type_filters=(), patients=())


def compare_members(before: Iterable[str], now: Iterable[str]) -> GroupChange:
    """Return who joined and who left, sorted."""
    old, new = set(before), set(now)
    return GroupChange(tuple(sorted(new - old)), tuple(sorted(old - new)))


def requests_for(request: ExportRequest, change: GroupChange, *, batch: int = 500) -> list[ExportRequest]:
    """Return the exports of this run: full history of those who joined in batches, then ``request`` itself."""
    full = [
        replace(request, since=None, patients=change.joined[start : start + batch], method="POST")
        for start in range(0, len(change.joined), batch)
    ]
    return [*full, request]
