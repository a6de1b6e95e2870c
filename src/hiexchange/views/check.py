"""Check a view file against the profiles of SQL on FHIR, without data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiexchange.errors import ViewError
from hiexchange.views.library import load_view
from hiexchange.views.sqlquery import SQLQuery
from hiexchange.views.view import View

PROFILES = ("shareable", "tabular")

PORTABLE = frozenset(
    "where exists empty extension ofType first not getResourceKey getReferenceKey join lowBoundary highBoundary".split()
)
"""Functions every runner has, and (the last three) the experimental ones of the standard."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One remark about a view."""

    severity: str
    """``error`` (the profile is not met) or ``warning``."""
    message: str


def check_view(name_or_path: str | Path, *, profile: str | None = None, fhir_version: str = "4.0.1") -> list[Finding]:
    """Return what is to be said about a view that can run.

    Args:
        name_or_path: As :func:`load_view` takes it.
        profile: ``shareable`` (url, name, fhirVersion, column types) or ``tabular`` (single primitive
            values only); None checks neither.
        fhir_version: FHIR version to check paths against.

    Raises:
        ViewError: The view cannot run at all; the message says which part is wrong.
    """
    found = load_view(name_or_path, fhir_version=fhir_version)
    if isinstance(found, SQLQuery):
        found.schema()
        return []
    findings = [Finding("warning", text) for text in found.warnings]
    if profile == "shareable":
        findings += _shareable(found)
    elif profile == "tabular":
        findings += _tabular(found)
    elif profile is not None:
        raise ViewError(f"there is no profile {profile!r}", hint=f"one of {', '.join(PROFILES)}")
    return findings


def _shareable(view: View) -> list[Finding]:
    definition = view.definition
    findings = [
        Finding("error", f"shareable: the view has no {what}")
        for what, value in (
            ("url", definition.url),
            ("name", definition.name),
            ("fhirVersion", definition.fhir_versions),
        )
        if not value
    ]
    findings += [
        Finding("error", f"shareable: the column {column.name} has no type")
        for column in definition.columns()
        if column.type is None
    ]
    extra = sorted(view.functions() - PORTABLE)
    if extra:
        findings.append(
            Finding("warning", f"shareable: other runners may lack {', '.join(name + '()' for name in extra)}")
        )
    return findings


def _tabular(view: View) -> list[Finding]:
    findings = []
    for column in view.definition.columns():
        if column.collection:
            findings.append(Finding("error", f"tabular: the column {column.name} is a collection"))
        type = (view.schema().field(column.name).metadata or {}).get(b"fhir", b"").decode()
        if not type.startswith("System.") and not view.is_primitive(type):
            findings.append(Finding("error", f"tabular: the column {column.name} is a {type}, not a primitive"))
    return findings
