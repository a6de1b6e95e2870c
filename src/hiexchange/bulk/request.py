"""What to export, and the kick-off request that asks for it. Pure: no network, no clock, no files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from hiexchange.errors import ConfigError

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}\Z")
TYPE_FILTER = re.compile(r"[A-Z][A-Za-z]+\?\S+\Z")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
NOT_IN_TYPE_FILTER = ("_sort", "_include", "_revinclude", "_elements", "_count", "_summary")
MULTIPLE = ("_type", "_typeFilter", "_elements", "includeAssociatedData")
METHODS = ("auto", "GET", "POST")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One bulk export: the level follows from ``group`` and ``level``; times are instants."""

    group: str | None = None
    """Id of the Group: group level."""
    types: tuple[str, ...] = ()
    """Resource types; empty means all the server has."""
    since: str | None = None
    """Instant with offset; service dates belong in ``type_filters``."""
    until: str | None = None
    type_filters: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    patients: tuple[str, ...] = field(default=(), repr=False)
    """Patient ids; sent by POST, never written to disk unless the policy says so."""
    include_associated_data: tuple[str, ...] = ()
    organize_output_by: str | None = None
    allow_partial: bool = False
    output_format: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further parameters, sent as they are."""
    method: str = "auto"
    lenient: bool = False
    separate_status: bool = False
    level: str | None = None
    """``system`` or ``Patient`` when there is no group; Patient by default."""

    def __post_init__(self) -> None:
        """Normalise lists and times, and refuse what no server may accept.

        Raises:
            ConfigError: Says which parameter and why.
        """
        put = object.__setattr__
        for name in ("types", "type_filters", "elements", "patients", "include_associated_data"):
            put(self, name, _strings(name, getattr(self, name)))
        put(self, "since", _instant("since", self.since))
        put(self, "until", _instant("until", self.until))
        put(self, "extra", {str(name): str(value) for name, value in self.extra.items()})
        put(self, "level", self._level())
        self._check()

    def _level(self) -> str:
        if self.group is not None:
            if self.level not in (None, "Group"):
                raise ConfigError("a group makes it a group export", hint="leave level out")
            return "Group"
        if self.level not in (None, "system", "Patient"):
            raise ConfigError(f"level is 'system' or 'Patient', not {self.level!r}")
        return self.level or "Patient"

    def _check(self) -> None:
        if self.group is not None and not ID.match(self.group):
            raise ConfigError(f"{self.group!r} is not a FHIR id", hint="give the Group's id, not its URL")
        if len(set(self.types)) != len(self.types):
            raise ConfigError("a resource type is listed twice", hint="BCDA answers 400 to it")
        for name in self.types:
            if not TYPE.match(name):
                raise ConfigError(f"{name!r} is not a resource type")
        for text in self.type_filters:
            _check_filter(text)
        for text in self.patients:
            if not ID.match(text.removeprefix("Patient/")):
                raise ConfigError("a patient id is not a FHIR id")
        if self.patients and self.level == "system":
            raise ConfigError("the standard forbids patients at system level", hint="use level='Patient' or a group")
        if self.patients and self.method == "GET":
            raise ConfigError("patients can only be sent by POST")
        if self.since and self.until and self.until <= self.since:
            raise ConfigError("until is not after since", said=f"{self.since} to {self.until}")
        if self.method not in METHODS:
            raise ConfigError(f"method is one of {', '.join(METHODS)}")

    @property
    def path(self) -> str:
        """The operation's path under the base URL."""
        if self.group is not None:
            return f"/Group/{self.group}/$export"
        return "/$export" if self.level == "system" else "/Patient/$export"

    def parameters(self) -> list[tuple[str, str]]:
        """Return name and value pairs in a fixed order, lists one pair an item, patients left out."""
        pairs: list[tuple[str, str]] = []
        if self.output_format:
            pairs.append(("_outputFormat", self.output_format))
        pairs += [("_type", name) for name in self.types]
        if self.since:
            pairs.append(("_since", self.since))
        if self.until:
            pairs.append(("_until", self.until))
        pairs += [("_typeFilter", text) for text in self.type_filters]
        pairs += [("_elements", text) for text in self.elements]
        pairs += [("includeAssociatedData", text) for text in self.include_associated_data]
        if self.organize_output_by:
            pairs.append(("organizeOutputBy", self.organize_output_by))
        if self.allow_partial:
            pairs.append(("allowPartialManifests", "true"))
        return pairs + sorted(self.extra.items())

    def canonical(self, *, patients: bool = False) -> dict[str, Any]:
        """Return the request as plain data; without ``patients`` their ids are replaced by one hash."""
        data: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value not in (None, (), "", False) and value != {}:
                data[item.name] = list(value) if isinstance(value, tuple) else value
        if self.patients and not patients:
            data["patients"] = {"count": len(self.patients), "sha256": _digest(self.patients)}
        return data

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Name the fields in which this request differs from a stored :meth:`canonical` form."""
        mine = self.canonical(patients=isinstance(stored.get("patients"), list))
        return sorted(name for name in {*mine, *stored} if mine.get(name) != stored.get(name))

    @classmethod
    def from_canonical(cls, stored: Mapping[str, Any]) -> ExportRequest:
        """Rebuild a request from :meth:`canonical`; hashed patients are left out."""
        data: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
        }
        if isinstance(data.get("patients"), Mapping):
            del data["patients"]
        if data.get("group") is not None:
            data.pop("level", None)
        return cls(**data)


class KickOff(msgspec.Struct, frozen=True):
    """A kick-off request, ready to be sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None


def kick_off(request: ExportRequest, base_url: str, *, method: str = "auto", url_bytes_max: int = 4096) -> KickOff:
    """Build the kick-off request.

    GET joins lists with commas, because BCDA reads only the first ``_type`` and Cerner refuses a
    second; a comma inside a ``_typeFilter`` is then percent-encoded once more. POST repeats them.

    Args:
        request: What to export.
        base_url: The server's base.
        method: ``auto``, ``GET`` or ``POST``: the preset's wish; the request's own goes first.
        url_bytes_max: A longer GET becomes a POST.
    """
    chosen = request.method if request.method != "auto" else method
    # Exactly these strings: DPC, older BCDA and the SMART server compare them.
    headers = {"Accept": "application/fhir+json", "Prefer": "respond-async"}
    if request.lenient:
        headers["Prefer"] += ", handling=lenient"
    if request.separate_status:
        headers["Prefer"] += ", separate-export-status"
    url = base_url.rstrip("/") + request.path
    full = url + _query(joined_parameters(request))
    if chosen == "GET" or (chosen == "auto" and not request.patients and len(full.encode()) <= url_bytes_max):
        return KickOff("GET", full, headers)
    headers["Content-Type"] = "application/fhir+json"
    return KickOff("POST", url, headers, json.dumps(_parameters_resource(request)).encode())


FIELDS = {
    "_since": ("since", None),
    "_until": ("until", None),
    "_typeFilter": ("type_filters", ()),
    "_elements": ("elements", ()),
    "_outputFormat": ("output_format", None),
    "includeAssociatedData": ("include_associated_data", ()),
    "organizeOutputBy": ("organize_output_by", None),
    "allowPartialManifests": ("allow_partial", False),
}
"""Parameters that can be left out and what they are then; without ``_type`` it is another export."""


def without_parameter(request: ExportRequest, parameter: str) -> ExportRequest | None:
    """Return the request without a parameter, or None where that makes no sense."""
    if parameter in request.extra:
        return replace(request, extra={key: value for key, value in request.extra.items() if key != parameter})
    if parameter not in FIELDS:
        return None
    name, nothing = FIELDS[parameter]
    values: dict[str, Any] = {name: nothing}
    return replace(request, **values)


def joined_parameters(request: ExportRequest) -> dict[str, str]:
    """Return the parameters as a GET has them: each once, the values of a list joined by commas."""
    joined: dict[str, str] = {}
    for name, value in request.parameters():
        text = value.replace(",", "%2C") if name == "_typeFilter" else value
        joined[name] = f"{joined[name]},{text}" if name in joined and name in MULTIPLE else text
    return joined


def _query(joined: Mapping[str, str]) -> str:
    return (
        "?" + "&".join(f"{quote(name, safe='')}={quote(value, safe=',/:')}" for name, value in joined.items())
        if joined
        else ""
    )


def _parameters_resource(request: ExportRequest) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for name, value in request.parameters():
        key = {"_since": "valueInstant", "_until": "valueInstant", "_type": "valueCode"}.get(name, "valueString")
        if name == "allowPartialManifests":
            entries.append({"name": name, "valueBoolean": True})
        else:
            entries.append({"name": name, key: value})
    for patient in request.patients:
        reference = patient if "/" in patient else f"Patient/{patient}"
        entries.append({"name": "patient", "valueReference": {"reference": reference}})
    return {"resourceType": "Parameters", "parameter": entries}


def _digest(values: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(values)).encode()).hexdigest()


def _strings(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigError(f"{name} is a list", hint=f'write {name}=("{value}",)' if name == "types" else None)
    if not isinstance(value, Iterable):
        raise ConfigError(f"{name} is a list")
    return tuple(str(item) for item in value)


def _instant(name: str, value: str | datetime | None) -> str | None:
    """Return an instant as the standard wants it: UTC, milliseconds, ``Z`` (a plus sign is lost in some URLs)."""
    if value is None:
        return None
    if isinstance(value, str):
        if not INSTANT.match(value):
            raise ConfigError(
                f"{name} is an instant with seconds and offset",
                said=value[:40],
                hint="such as 2026-08-01T00:00:00Z; for service dates use type_filters",
            )
        try:
            value = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"{name} is no time there is: {error}") from None
    if value.tzinfo is None:
        raise ConfigError(f"{name} has no time zone")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _check_filter(text: str) -> None:
    if not TYPE_FILTER.match(text):
        raise ConfigError("a type filter is Type?search", hint="such as Encounter?status=finished, without blanks")
    names = {part.split("=", 1)[0] for part in text.split("?", 1)[1].split("&")}
    if bad := sorted(names & set(NOT_IN_TYPE_FILTER)):
        raise ConfigError(f"{bad[0]} may not be in a type filter", said=text.split("?", 1)[0])
