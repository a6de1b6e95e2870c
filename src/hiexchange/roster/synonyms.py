"""The usual header names of roster columns, as seen in payers' and exchanges' file guides."""

from __future__ import annotations

import re

_NAMES: dict[str, str] = {
    "payer_id": "payer, payer code, health plan id",
    "line_of_business": "lob, business line, product line, lineofbusiness",
    "contract_id": "contract, contract number, contract no",
    "plan_id": "plan, plan code, plan number, benefit plan",
    "member_id": "member, member number, memberid, member no, mbr id, mbr no, member identifier, subscriber member id, "
    "recipient id, medicaid id, cin, patient member id, enrollee id, beneficiary id, bene id",
    "member_id_system": "member system, member id namespace",
    "subscriber_id": "subscriber, subscriber number, subscriberid, policy holder id, subscriber no",
    "mbi": "medicare beneficiary identifier, medicare id, bene mbi id, current mbi, hic or mbi, mbi id",
    "first_name": "first, given, given name, firstname, member first name, patient first name, fname, bene 1st name, "
    "first nm",
    "middle_name": "middle, middle initial, mi, middlename, mname, bene midl name",
    "last_name": "last, family, family name, surname, lastname, member last name, patient last name, lname, "
    "bene last name, last nm",
    "suffix": "name suffix, generation, suffix name",
    "full_name": "name, member name, patient name, patient",
    "birth_on": "dob, date of birth, birth date, birthdate, birth, member dob, patient dob, bene dob, birth dt",
    "sex": "gender, sex code, gender code, member sex, patient gender, bene sex cd, administrative gender",
    "ssn": "social security number, ssn number, subscriberssn, member ssn",
    "ssn4": "last4 ssn, ssn last4, ssn last 4",
    "address_line": "address, address 1, address line 1, street, street address, address1, addr1, mailing address, "
    "home address",
    "city": "town, member city, patient city",
    "state": "state code, st, member state, patient state",
    "zip": "zip code, zipcode, postal, postal code, postalcode, member zip, patient zip",
    "phone": "phone number, telephone, tel, home phone, primary phone, member phone, patient phone, mobile",
    "email": "email address, e mail",
    "deceased_on": "date of death, dod, death date, deceased date, bene death dt",
    "provider_npi": "npi, pcp npi, provider npi, pcpnpi, attributed npi, attributed provider npi, physician npi, "
    "rendering npi, individual npi, pcpid, attributed provider, provider id npi",
    "provider_tin": "tin, tax id, practice tin, group tin, provider tin, ein, tax identification number, "
    "participant tin, aco participant tin, practice tax id",
    "org_id": "organization id, organisation id, practice id, group id, organization, clinic id, practice code",
    "location_id": "location, site, site id, service location",
    "attribution_level": "level",
    "basis": "attribution basis, assignment type, attribution type",
    "rank": "provider rank, priority",
    "method_text": "method, attribution method, assignment method",
    "valid_from": "eff date, effective date, start date, from, begin date, attribution start, attribution start date, "
    "attribution begin date, effective from, assignment date, assignment start date, pcp effective date, eff dt, start",
    "valid_to": "term date, termination date, end date, to, thru date, through date, attribution end, "
    "attribution end date, effective to, assignment end date, pcp term date, term dt, end",
    "coverage_from": "coverage start, coverage start date, coverage effective date, enrollment date, "
    "enrollment start date, eligibility start",
    "coverage_to": "coverage end, coverage end date, coverage term date, disenrollment date, enrollment end date, "
    "eligibility end",
    "program_year": "performance year, py, year, alignment year, program yr",
    "sharing_pref": "share, consent, data sharing, data sharing preference, opt out, sharing preference",
    "sharing_pref_from": "data sharing date, consent date, preference effective date",
    "samhsa_pref": "samhsa, part 2, part2 consent, substance use preference",
    "payer_change_type": "change type, change code, action, action code, maintenance type, transaction type, status code",
}


def folded(header: str) -> str:
    """Return a header as it is compared: lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", header.casefold())


SYNONYMS: dict[str, str] = {
    folded(name): column for column, names in _NAMES.items() for name in (column, *names.split(","))
}
"""Folded header -> MEMBER column."""

HALF_OPEN = {"validto", "coverageto"}
"""Folded headers that by our own naming are the first day after."""
