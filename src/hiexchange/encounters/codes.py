"""Code maps from HL7 v2 tables to FHIR. Source: HL7/v2-to-fhir (PV1-Encounter, DG1-Condition, PID-Patient)."""

from __future__ import annotations

V3_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
V3_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
US_NPI = "http://hl7.org/fhir/sid/us-npi"
US_SSN = "http://hl7.org/fhir/sid/us-ssn"

# Table 0004 -> v3 ActCode; B (obstetrics) is a stay, R (recurring) and C (commercial) are visits.
CLASSES = {"E": "EMER", "I": "IMP", "O": "AMB", "P": "PRENC", "R": "AMB", "B": "IMP", "C": "AMB", "V": "OBSENC"}
CLASS_NAMES = {
    "EMER": "emergency",
    "IMP": "inpatient encounter",
    "AMB": "ambulatory",
    "PRENC": "pre-admission",
    "OBSENC": "observation encounter",
}
INPATIENT = {"IMP", "ACUTE", "NONAC", "OBSENC", "SS"}
EMERGENCY = {"EMER"}

TRIGGERS = {
    "A01": "admit",
    "A02": "transfer",
    "A03": "discharge",
    "A04": "register",
    "A05": "preadmit",
    "A06": "class_change",
    "A07": "class_change",
    "A08": "update",
    "A11": "cancel_admit",
    "A12": "cancel_transfer",
    "A13": "cancel_discharge",
    "A40": "merge",
}
"""Trigger event -> trigger of ENCOUNTER_EVENT, before the state machine looks at it."""

# Table 0396, as far as ADT uses it.
CODE_SYSTEMS = {
    "I9": "http://hl7.org/fhir/sid/icd-9-cm",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "I10": "http://hl7.org/fhir/sid/icd-10-cm",
    "I10C": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD10": "http://hl7.org/fhir/sid/icd-10-cm",
    "ICD-10-CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "SCT": "http://snomed.info/sct",
    "SNM": "http://snomed.info/sct",
    "LN": "http://loinc.org",
}
GENDERS = {"M": "male", "F": "female", "O": "other", "A": "other", "N": "other", "U": "unknown"}
# Table 0112 -> FHIR discharge-disposition, where the meaning is plain; others keep the v2 code.
DISPOSITIONS = {
    "01": "home",
    "02": "other-hcf",
    "03": "snf",
    "04": "long",
    "06": "home",
    "07": "aadvice",
    "20": "exp",
    "50": "hosp",
    "51": "hosp",
    "62": "rehab",
    "65": "psy",
}


def code_system(text: str) -> str | None:
    """Return the URI of a v2 coding system name; an unknown one keeps its name under ``urn:hl7v2:``."""
    name = text.strip().upper()
    if not name:
        return None
    return CODE_SYSTEMS.get(name) or (text.strip() if ":" in text else f"urn:hl7v2:{name}")


def is_npi(text: str) -> bool:
    """Say whether a text is an NPI: ten digits whose Luhn sum with the prefix 80840 is right."""
    if len(text) != 10 or not (text.isascii() and text.isdigit()):
        return False
    total = 24  # the Luhn sum of 80840
    for index, char in enumerate(text):
        digit = int(char)
        if index % 2 == 0:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0
