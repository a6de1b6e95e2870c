"""Read member attribution lists in FHIR: Da Vinci ATR exports and Bundles, and DPC's roster Groups.

One row is one ``Group.member``; Patient, Coverage, Practitioner, PractitionerRole, Organization and
Location are looked up by reference. Only the elements that a roster needs are decoded, so a Group
line of 300,000 members stays small.

Source: HL7 Da Vinci Member Attribution (ATR) List IG 2.1; CMSgov/dpc-app for the DPC Group.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from hiexchange.roster.delimited import Raw, text_table
from hiexchange.roster.issues import issue, refusal

ROWS = 1 << 16
_SOLID = re.compile(r"\S")
_MONTH = re.compile(r"[1-9][0-9]{3}-(0[1-9]|1[0-2])")
HEADER = [
    *("group_id", "contract_id", "plan_id", "line_of_business", "patient_id", "member_id", "member_id_system"),
    *("subscriber_id", "mbi", "ssn", "first_name", "middle_name", "last_name", "suffix", "birth_date", "sex"),
    *("deceased", "address_line", "city", "state", "zip", "phone", "email", "provider_npi", "provider_tin"),
    *("org_id", "location_id", "change_type", "period_start", "period_end", "coverage_start", "coverage_end"),
]
NPI_SYSTEM = "http://hl7.org/fhir/sid/us-npi"
TIN_SYSTEMS = ("urn:oid:2.16.840.1.113883.4.4", "http://hl7.org/fhir/sid/us-ein")
SSN_SYSTEM = "http://hl7.org/fhir/sid/us-ssn"
MBI_SYSTEM = "http://hl7.org/fhir/sid/us-mbi"
ATR = "http://hl7.org/fhir/us/davinci-atr/StructureDefinition/"
CHANGE_TYPE, COVERAGE_REFERENCE, PROVIDER = "ext-changeType", "ext-coverageReference", "ext-attributedProvider"
VALIDITY = "ext-contractValidityPeriod"


class _Struct(msgspec.Struct):
    """An element of which only the fields below are decoded."""


class _Coding(_Struct):
    system: str | None = None
    code: str | None = None


class _Concept(_Struct):
    coding: list[_Coding] = []


class _Identifier(_Struct):
    system: str | None = None
    value: str | None = None
    type: _Concept | None = None


class _Reference(_Struct):
    reference: str | None = None
    identifier: _Identifier | None = None


class _Period(_Struct):
    start: str | None = None
    end: str | None = None


class _Extension(_Struct):
    url: str = ""
    valueCode: str | None = None
    valueReference: _Reference | None = None
    valuePeriod: _Period | None = None


class _Member(_Struct):
    entity: _Reference
    extension: list[_Extension] = []
    period: _Period | None = None
    inactive: bool = False


class _Characteristic(_Struct):
    code: _Concept | None = None
    valueReference: _Reference | None = None
    valueCodeableConcept: _Concept | None = None


class _Meta(_Struct):
    lastUpdated: str | None = None


class _Group(_Struct):
    id: str = ""
    meta: _Meta | None = None
    identifier: list[_Identifier] = []
    managingEntity: _Reference | None = None
    characteristic: list[_Characteristic] = []
    member: list[_Member] = []


class _Name(_Struct):
    use: str | None = None
    family: str | None = None
    given: list[str] = []
    suffix: list[str] = []


class _Telecom(_Struct):
    system: str | None = None
    value: str | None = None


class _Address(_Struct):
    line: list[str] = []
    city: str | None = None
    state: str | None = None
    postalCode: str | None = None


class _Patient(_Struct):
    id: str = ""
    identifier: list[_Identifier] = []
    name: list[_Name] = []
    telecom: list[_Telecom] = []
    gender: str | None = None
    birthDate: str | None = None
    deceasedDateTime: str | None = None
    address: list[_Address] = []


class _Class(_Struct):
    type: _Concept | None = None
    value: str | None = None


class _Coverage(_Struct):
    id: str = ""
    identifier: list[_Identifier] = []
    subscriberId: str | None = None
    dependent: str | None = None
    period: _Period | None = None
    type: _Concept | None = None


class _Coverage2(_Coverage):
    classes: list[_Class] = msgspec.field(name="class", default_factory=list)


class _Provider(_Struct):
    """Practitioner, PractitionerRole, Organization or Location."""

    id: str = ""
    identifier: list[_Identifier] = []
    practitioner: _Reference | None = None
    organization: _Reference | None = None
    location: list[_Reference] = []
    managingOrganization: _Reference | None = None


class _Kind(_Struct):
    resourceType: str = ""


class _Entry(_Struct):
    resource: msgspec.Raw = msgspec.Raw()
    fullUrl: str | None = None


class _Bundle(_Struct):
    entry: list[_Entry] = []


KINDS: dict[str, type[_Struct]] = {
    "Patient": _Patient,
    "Coverage": _Coverage2,
    **dict.fromkeys(("Practitioner", "PractitionerRole", "Organization", "Location"), _Provider),
}
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in KINDS.items()}
_KIND = msgspec.json.Decoder(_Kind)
_GROUP = msgspec.json.Decoder(_Group)
_BUNDLE = msgspec.json.Decoder(_Bundle)


def attribution_list(text: pa.Buffer, *, file: str) -> Raw:
    """Return the members of every Group of a file as text columns named :data:`HEADER`.

    Args:
        text: NDJSON of the list's resources in any order, one Bundle, or JSON resources one after
            another.
        file: File name, for issues.

    Raises:
        RosterError: Not JSON, or no Group.
    """
    try:
        try:
            store = _Store(_lines(text))
        except msgspec.DecodeError:  # pretty-printed, or one value after another
            store = _Store(_values(text))
    except (msgspec.DecodeError, ValueError):
        raise refusal(
            "not_fhir", "the file is not FHIR JSON of the expected form", file=file, hint="is it NDJSON or a Bundle?"
        ) from None
    if not store.groups:
        raise refusal("no_group", "the file holds no Group", file=file, hint="export the Group with its members")
    if not any(group.member for group in store.groups):
        raise refusal("no_rows", "the Group has no members", file=file, hint="ask the payer to send it again")
    raw = Raw(list(HEADER), len(HEADER), iter(()), file)
    raw.facts.update(store.facts())
    raw.batches = _batches(store, raw)
    return raw


class _Store:
    """The resources of one list, by ``Type/id`` and by full URL."""

    def __init__(self, documents: Iterator[bytes]) -> None:
        self.groups: list[_Group] = []
        self.found: dict[str, Any] = {}
        for document in documents:
            self.add(document)

    def add(self, document: bytes | msgspec.Raw, url: str | None = None) -> None:
        kind = _KIND.decode(document).resourceType
        if kind == "Bundle":
            for entry in _BUNDLE.decode(document).entry:
                if bytes(entry.resource):
                    self.add(entry.resource, entry.fullUrl)
        elif kind == "Group":
            self.groups.append(_GROUP.decode(document))
        elif kind in _DECODERS:
            resource: Any = _DECODERS[kind].decode(document)
            self.found[f"{kind}/{resource.id}"] = resource
            if url:
                self.found[url] = resource

    def get(self, reference: _Reference | None) -> Any:
        if reference is None or not reference.reference:
            return None
        text = reference.reference.split("/_history/")[0]
        found = self.found.get(text)
        return found if found is not None else self.found.get("/".join(text.split("/")[-2:]))

    def facts(self) -> dict[str, str]:
        """Return what the Groups declare: the newest ``meta.lastUpdated`` as as-of date, the payer."""
        facts = {"mode": "full"}
        updated = [group.meta.lastUpdated[:10] for group in self.groups if group.meta and group.meta.lastUpdated]
        if updated and re.fullmatch(r"\d{4}-\d\d-\d\d", max(updated)):
            facts["as_of"] = max(updated)
        if len(self.groups) == 1:
            facts["list_id"] = self.groups[0].id
        entity = self.groups[0].managingEntity
        if entity and entity.reference:
            facts["payer_id"] = entity.reference.split("/")[-1]
        return facts


def _lines(text: pa.Buffer) -> Iterator[bytes]:
    """Yield the lines of NDJSON."""
    start = 0
    data = text.to_pybytes()
    while start < len(data):
        stop = data.find(b"\n", start)
        stop = len(data) if stop < 0 else stop
        if line := data[start:stop].strip():
            yield line
        start = stop + 1


def _values(text: pa.Buffer) -> Iterator[bytes]:
    """Yield JSON values that span lines, one after another, as ``cat *.json`` gives them."""
    data = text.to_pybytes().decode()
    decoder = json.JSONDecoder()
    start = 0
    # Skipped in place: to cut the blank off would copy the rest of the file for each value.
    while (solid := _SOLID.search(data, start)) is not None:
        value, start = decoder.raw_decode(data, solid.start())
        yield msgspec.json.encode(value)


def _batches(store: _Store, raw: Raw) -> Iterator[pa.Table]:
    values: list[str] = []
    read, done = 0, 0
    for group in store.groups:
        common = _of_group(group, store)
        for member in group.member:
            read += 1
            values += _row(member, common, store, raw, read)
            if read - done >= ROWS:
                yield text_table(values, raw.width, done)
                values, done = [], read
    if values:
        yield text_table(values, raw.width, done)


def _of_group(group: _Group, store: _Store) -> dict[str, str]:
    """Return what the Group says of all its members: ids of the list, its provider."""
    values = {"group_id": group.id, "contract_id": group.id}
    for identifier in group.identifier:
        if identifier.system == NPI_SYSTEM:
            values["provider_npi"] = identifier.value or ""
        elif identifier.system in TIN_SYSTEMS:
            values["provider_tin"] = identifier.value or ""
        elif identifier.value:
            values["contract_id"] = identifier.value
    for trait in group.characteristic:
        codes = [coding.code for coding in (trait.code.coding if trait.code else [])]
        if "attributed-to" in codes:
            values |= _provider(trait.valueReference, store)
            if trait.valueCodeableConcept and trait.valueCodeableConcept.coding:
                values["provider_npi"] = trait.valueCodeableConcept.coding[0].code or ""
    return values


def _row(member: _Member, common: dict[str, str], store: _Store, raw: Raw, number: int) -> list[str]:
    values = dict(common)
    extensions = {extension.url.rsplit("/", 1)[-1]: extension for extension in member.extension}
    patient = store.get(member.entity)
    values["patient_id"] = (member.entity.reference or "").split("/")[-1].removeprefix("urn:uuid:")
    if patient is None:
        raw.issues.append(
            issue(
                "patient_missing",
                "the member's Patient is not in the file",
                file=raw.file,
                row_no=number,
                severity="warning",
                column="Group.member.entity",
            )
        )
    else:
        values |= _person(patient)
    if (coverage := extensions.get(COVERAGE_REFERENCE)) is not None:
        values |= _insurance(store.get(coverage.valueReference))
    attributed = extensions.get(PROVIDER)
    if attributed is not None:
        provider = _provider(attributed.valueReference, store)
        values |= {"provider_npi": "", "provider_tin": "", **provider}
        if not provider:
            raw.issues.append(
                issue(
                    "provider_missing",
                    "the attributed provider is not in the file",
                    file=raw.file,
                    row_no=number,
                    severity="warning",
                    column="Group.member.extension",
                )
            )
    values.setdefault("member_id", values.get("mbi", "") or ("" if patient is None else values["patient_id"]))
    if member.period is not None:
        values["period_start"] = _day(member.period.start, last=False)
        values["period_end"] = _day(member.period.end, last=True)
    change = extensions[CHANGE_TYPE].valueCode if CHANGE_TYPE in extensions else None
    values["change_type"] = "dropped" if member.inactive and change not in ("cancelled", "dropped") else change or ""
    return [values.get(name, "") for name in HEADER]


def _person(patient: _Patient) -> dict[str, str]:
    name = next((name for name in patient.name if name.use == "official"), patient.name[0] if patient.name else _Name())
    address = patient.address[0] if patient.address else _Address()
    values = {
        "first_name": name.given[0] if name.given else "",
        "middle_name": " ".join(name.given[1:]),
        "last_name": name.family or "",
        "suffix": " ".join(name.suffix),
        "birth_date": patient.birthDate or "",
        "sex": patient.gender or "",
        "deceased": (patient.deceasedDateTime or "")[:10],
        "address_line": " ".join(address.line),
        "city": address.city or "",
        "state": address.state or "",
        "zip": address.postalCode or "",
    }
    for telecom in patient.telecom:
        if telecom.system in ("phone", "email"):
            values.setdefault(telecom.system, telecom.value or "")
    for identifier in patient.identifier:
        codes = [coding.code for coding in (identifier.type.coding if identifier.type else [])]
        if identifier.system == MBI_SYSTEM or "MC" in codes:
            values["mbi"] = identifier.value or ""
        elif identifier.system == SSN_SYSTEM:
            values["ssn"] = identifier.value or ""
        elif "MB" in codes or "UMB" in codes:
            values["member_id"] = identifier.value or ""
            values["member_id_system"] = identifier.system or ""
    return values


def _insurance(coverage: _Coverage2 | None) -> dict[str, str]:
    """Return member and subscriber ids; a dependant's number makes a subscriber id a person's."""
    if coverage is None:
        return {}
    values: dict[str, str] = {}
    for identifier in coverage.identifier:
        codes = [coding.code for coding in (identifier.type.coding if identifier.type else [])]
        if identifier.value and (not codes or "MB" in codes):
            values["member_id"], values["member_id_system"] = identifier.value, identifier.system or ""
    if coverage.subscriberId:
        values["subscriber_id"] = coverage.subscriberId
        if coverage.dependent:
            values.setdefault("member_id", f"{coverage.subscriberId}-{coverage.dependent}")
    if coverage.period is not None:
        values["coverage_start"] = _day(coverage.period.start, last=False)
        values["coverage_end"] = _day(coverage.period.end, last=True)
    for group in coverage.classes:
        if group.type and any(coding.code == "plan" for coding in group.type.coding):
            values["plan_id"] = group.value or ""
    return values


def _provider(reference: _Reference | None, store: _Store) -> dict[str, str]:
    """Return NPI, tax id, organisation and location of a provider, roles followed."""
    if reference is None:
        return {}
    if reference.identifier is not None and reference.identifier.system == NPI_SYSTEM:
        return {"provider_npi": reference.identifier.value or ""}
    resource = store.get(reference)
    if resource is None:
        return {}
    values: dict[str, str] = {}
    for identifier in resource.identifier:
        if identifier.system == NPI_SYSTEM:
            values["provider_npi"] = identifier.value or ""
        elif identifier.system in TIN_SYSTEMS:
            values["provider_tin"] = identifier.value or ""
    kind = (reference.reference or "").split("/")[-2:][0]
    if kind == "Organization":
        values["org_id"] = resource.id
    for place in resource.location:
        values["location_id"] = (place.reference or "").split("/")[-1]
    for nearby in (resource.organization, resource.managingOrganization):
        if nearby is not None and nearby.reference:
            organization = _provider(nearby, store)
            values["org_id"] = nearby.reference.split("/")[-1]
            values |= {key: value for key, value in organization.items() if key == "provider_tin"}
    if resource.practitioner is not None:
        person = _provider(resource.practitioner, store)
        values |= {key: value for key, value in person.items() if key == "provider_npi"}
    return values


def _day(text: str | None, *, last: bool) -> str:
    """Return the day of a FHIR dateTime; a month or a year stands for its first or last day."""
    if not text:
        return ""
    if len(text) == 4:
        return f"{text}-12-31" if last else f"{text}-01-01"
    if _MONTH.fullmatch(text):
        return f"{text}-{calendar.monthrange(int(text[:4]), int(text[5:]))[1]:02d}" if last else f"{text}-01"
    return text[:10]
