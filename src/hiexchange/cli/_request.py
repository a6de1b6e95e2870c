"""The options by which a verb says what to export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hiexchange.bulk import ExportRequest

Group = Annotated[str, typer.Option(help="Group id; without it all patients.")]
Types = Annotated[str, typer.Option("--type", help="Resource types, comma-separated.")]
Since = Annotated[str, typer.Option(help="Instant such as 2026-08-01T00:00:00Z.")]
Until = Annotated[str, typer.Option(help="Instant.")]
TypeFilter = Annotated[list[str] | None, typer.Option(help="Such as 'Encounter?status=finished'; repeatable.")]
Elements = Annotated[str, typer.Option(help="Root elements, comma-separated; the rest is left out.")]
Level = Annotated[str, typer.Option(help="system or Patient, where there is no group.")]
Method = Annotated[str, typer.Option(help="auto, GET or POST.")]


def request(
    *,
    group: str,
    types: str,
    since: str,
    until: str = "",
    type_filter: list[str] | None = None,
    elements: str = "",
    level: str = "",
    method: str = "auto",
) -> ExportRequest:
    """Build the request from the options' texts."""
    from hiexchange.bulk import ExportRequest

    return ExportRequest(
        group=group or None,
        types=_split(types),
        since=since or None,
        until=until or None,
        type_filters=tuple(type_filter or ()),
        elements=_split(elements),
        level=level or None,
        method=method,
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
