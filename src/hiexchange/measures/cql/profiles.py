"""Which rows a retrieve's profile takes: a declared QI-Core or US Core profile decides, else structure.

Real claims and EHR exports rarely declare profiles: trusting ``meta.profile`` alone drops their data
without a word, ignoring it lets "not done" records count as done. Rows judged by structure are
counted on the subject.

Source: QI-Core 6.0.0, US Core 3.1.1 to 6.1.0 profile names; negation profiles of QI-Core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiexchange.measures.cql.model import Element

Infer = Callable[[dict[str, Any]], bool]


def _status(*values: str) -> Infer:
    return lambda data: data.get("status") in values


def _status_not(*values: str) -> Infer:
    return lambda data: data.get("status") not in values


def _prohibited(data: dict[str, Any]) -> bool:
    return data.get("doNotPerform") is True


def _requested(data: dict[str, Any]) -> bool:
    return data.get("doNotPerform") is not True


def _categories(data: dict[str, Any]) -> set[str]:
    value = data.get("category") or []
    concepts = value if isinstance(value, list) else [value]
    return {coding.get("code") for item in concepts for coding in item.get("coding") or () if coding.get("code")}


def _category(*codes: str) -> Infer:
    wanted = set(codes)
    return lambda data: not wanted.isdisjoint(_categories(data)) and data.get("status") != "cancelled"


def _problem(data: dict[str, Any]) -> bool:
    return not {"problem-list-item", "health-concern"}.isdisjoint(_categories(data))


def _encounter_diagnosis(data: dict[str, Any]) -> bool:
    found = _categories(data)
    if "encounter-diagnosis" in found:
        return True
    # Claims and many EHRs give no category, but name the encounter.
    return not ({"problem-list-item", "health-concern"} & found) and data.get("encounter") is not None


def _loinc(*codes: str) -> Infer:
    wanted = set(codes)

    def test(data: dict[str, Any]) -> bool:
        codings = (data.get("code") or {}).get("coding") or ()
        return any(c.get("system") == "http://loinc.org" and c.get("code") in wanted for c in codings)

    return test


_SPECIFIC = {"laboratory", "survey", "exam", "imaging", "procedure", "vital-signs"}


def _simple(data: dict[str, Any]) -> bool:
    return data.get("status") != "cancelled" and not (_SPECIFIC & _categories(data))


# profile: (type, how it is inferred). A profile that is not here takes every row of its type.
RULES: dict[str, tuple[str, Infer]] = {
    "qicore-servicenotrequested": ("ServiceRequest", _prohibited),
    "qicore-servicerequest": ("ServiceRequest", _requested),
    "qicore-medicationnotrequested": ("MedicationRequest", _prohibited),
    "qicore-medicationrequest": ("MedicationRequest", _requested),
    "qicore-devicenotrequested": ("DeviceRequest", _prohibited),
    "qicore-deviceprohibited": ("DeviceRequest", _prohibited),
    "qicore-devicerequest": ("DeviceRequest", _requested),
    "qicore-procedurenotdone": ("Procedure", _status("not-done")),
    "qicore-procedure": ("Procedure", _status_not("not-done")),
    "qicore-medicationadministrationnotdone": ("MedicationAdministration", _status("not-done")),
    "qicore-medicationadministration": ("MedicationAdministration", _status_not("not-done")),
    "qicore-medicationdispensedeclined": ("MedicationDispense", _status("declined")),
    "qicore-medicationdispensenotdone": ("MedicationDispense", _status("declined")),
    "qicore-medicationdispense": ("MedicationDispense", _status_not("declined")),
    "qicore-immunizationnotdone": ("Immunization", _status("not-done")),
    "qicore-immunization": ("Immunization", _status_not("not-done")),
    "qicore-communicationnotdone": ("Communication", _status("not-done")),
    "qicore-communication": ("Communication", _status_not("not-done")),
    "qicore-observationcancelled": ("Observation", _status("cancelled")),
    "qicore-observationnotdone": ("Observation", _status("cancelled")),
    "qicore-taskrejected": ("Task", _status("rejected")),
    "qicore-tasknotdone": ("Task", _status("rejected")),
    "qicore-task": ("Task", _status_not("rejected")),
    "qicore-condition-problems-health-concerns": ("Condition", _problem),
    "qicore-condition-encounter-diagnosis": ("Condition", _encounter_diagnosis),
    "qicore-observation-lab": ("Observation", _category("laboratory")),
    "qicore-observation-screening-assessment": ("Observation", _category("survey")),
    "qicore-observation-clinical-result": ("Observation", _category("exam", "imaging", "procedure", "laboratory")),
    "qicore-nonpatient-observation": ("Observation", _simple),
    "qicore-simple-observation": ("Observation", _simple),
    "us-core-blood-pressure": ("Observation", _loinc("85354-9")),
    "us-core-bmi": ("Observation", _loinc("39156-5")),
    "us-core-heart-rate": ("Observation", _loinc("8867-4")),
    "us-core-respiratory-rate": ("Observation", _loinc("9279-1")),
    "us-core-body-temperature": ("Observation", _loinc("8310-5")),
    "us-core-body-height": ("Observation", _loinc("8302-2")),
    "us-core-body-weight": ("Observation", _loinc("29463-7")),
    "us-core-pulse-oximetry": ("Observation", _loinc("59408-5", "2708-6")),
    "us-core-observation-pregnancystatus": ("Observation", _loinc("82810-3")),
    "us-core-smokingstatus": ("Observation", _loinc("72166-2")),
    "pediatric-bmi-for-age": ("Observation", _loinc("59576-9")),
}
_KNOWN: dict[str, set[str]] = {}
for _name, (_kind, _) in RULES.items():
    _KNOWN.setdefault(_kind, set()).add(_name)

Select = Callable[[Any, list[Element]], list[Element]]


def declared(row: Element) -> frozenset[str]:
    """Return the profiles a resource declares, by last path segment, versions cut off."""
    found: frozenset[str] | None = row.cache.get("#profiles")
    if found is None:
        urls = (row.data.get("meta") or {}).get("profile") or ()
        found = row.cache["#profiles"] = frozenset(url.rpartition("/")[2].partition("|")[0] for url in urls if url)
    return found


def test_for(kind: str, template: str) -> Select | None:
    """Return the selection a profile makes, or None when it takes every row of its type."""
    rule = RULES.get(template)
    if rule is None or rule[0] != kind:
        return None
    infer, known = rule[1], _KNOWN[kind]

    def select(s: Any, rows: list[Element]) -> list[Element]:
        trust = s.context.profiles == "trust"
        result = []
        for row in rows:
            names = declared(row)
            if template in names:
                result.append(row)
            elif not trust and known.isdisjoint(names):
                if "#inferred" not in row.cache:
                    row.cache["#inferred"] = True
                    s.inferred += 1
                if infer(row.data):
                    result.append(row)
        return result

    return select
