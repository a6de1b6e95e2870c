"""One member of an 834 (loop 2000: INS, 2100A, 2300 HD, 2310) to rows of text. Pure: text in, lists out."""

from __future__ import annotations

HEADER = [
    *("subscriber_id", "member_number", "member_id_qualifier", "ssn", "is_subscriber", "relationship", "maintenance"),
    *("last_name", "first_name", "middle_name", "suffix", "birth_date", "sex", "phone", "email"),
    *("address_line", "city", "state", "zip", "group_number", "insurance_line", "plan", "begin", "end"),
    *("provider_npi", "provider_tin", "provider_since", "death_date"),
]
(
    SUBSCRIBER_ID,
    MEMBER_NUMBER,
    MEMBER_ID_QUALIFIER,
    SSN,
    IS_SUBSCRIBER,
    RELATIONSHIP,
    MAINTENANCE,
    LAST_NAME,
    FIRST_NAME,
    MIDDLE_NAME,
    SUFFIX,
    BIRTH_DATE,
    SEX,
    PHONE,
    EMAIL,
    ADDRESS_LINE,
    CITY,
    STATE,
    ZIP,
    GROUP_NUMBER,
    INSURANCE_LINE,
    PLAN,
    BEGIN,
    END,
    PROVIDER_NPI,
    PROVIDER_TIN,
    PROVIDER_SINCE,
    DEATH_DATE,
) = range(len(HEADER))
REFERENCES = {"0F": SUBSCRIBER_ID, "1L": GROUP_NUMBER, "SY": SSN, "23": MEMBER_NUMBER}
"""REF01. Not 17: a client reporting category, which many members share."""
DTP_PLACE = {"348": 3, "349": 4}
CONTROL = frozenset(("SE", "GE", "IEA", "ISA", "GS", "ST", "BGN"))
"""Segments that end a loop 2000, whatever stands between."""
DAY = 8
"""Digits of a date in format D8."""
LONGEST = 16
"""Elements that a segment read here may have."""


def member_rows(text: str, terminator: str, separator: str) -> tuple[list[list[str]], int, list[str]]:
    """Return the rows of one member, the number of its segments, and the control segments behind it.

    Args:
        text: From behind ``INS*`` up to the next one.
        terminator: Of segments.
        separator: Of elements.

    Returns:
        One row a coverage with a provider, or one without if there is none, in the order of :data:`HEADER`.
    """
    segments = text.split(terminator)
    try:
        return _rows_of(segments, separator)
    except IndexError:  # an element at the end of a segment was left out
        return _rows_of([segment + separator * LONGEST for segment in segments], separator)


def _rows_of(segments: list[str], separator: str) -> tuple[list[list[str]], int, list[str]]:
    # One flat loop, no call a field: a state's 834 holds twenty million segments.
    base = [""] * len(HEADER)
    dates: dict[str, str] = {}
    coverages: list[list[str]] = []
    providers: list[list[str]] = []
    behind: list[str] = []
    person = "INS"
    for segment in segments:
        parts = segment.split(separator)
        name = parts[0]
        if person == "INS":
            base[IS_SUBSCRIBER], base[RELATIONSHIP], base[MAINTENANCE] = name, parts[1], parts[2]
            base[DEATH_DATE] = parts[11] if len(parts) > 11 else ""
            person = ""
        elif name == "REF":
            target = REFERENCES.get(parts[1])
            if target is not None and not coverages and not base[target]:
                base[target] = parts[2]
        elif name == "DTP":
            if coverages:
                coverages[-1][DTP_PLACE.get(parts[1], 5)] = parts[3]
            else:
                dates[parts[1]] = parts[3]
        elif name == "NM1":
            person = parts[1]
            if person in ("IL", "74"):
                _name(base, parts)
                person = "IL"
            elif person == "P3":
                providers.append([*_provider(parts), "", str(len(coverages))])
        elif name == "HD":
            coverages.append([parts[1], parts[3], parts[4], "", "", ""])
            person = ""
        elif name == "PLA":
            if person == "P3":
                providers[-1][2] = parts[3]
        elif name in CONTROL:
            behind = segments[segments.index(segment) :]
            break
        elif person == "IL":
            _detail(base, name, parts)
    return _joined(base, dates, coverages, providers), len(segments) - len(behind), behind


def _name(base: list[str], parts: list[str]) -> None:
    base[LAST_NAME], base[FIRST_NAME], base[MIDDLE_NAME], base[SUFFIX] = parts[3], parts[4], parts[5], parts[7]
    if parts[8] == "34":
        base[SSN] = parts[9]
    elif parts[9]:
        base[MEMBER_NUMBER], base[MEMBER_ID_QUALIFIER] = parts[9], parts[8]


def _provider(parts: list[str]) -> tuple[str, str]:
    """Return NPI and tax id of NM1*P3."""
    if parts[8] in ("XX", ""):
        return parts[9], ""
    return "", parts[9] if parts[8] in ("FI", "24") else ""


def _detail(base: list[str], name: str, parts: list[str]) -> None:
    """Note a segment of loop 2100A."""
    if name == "DMG":
        base[BIRTH_DATE], base[SEX] = parts[2], parts[3]
    elif name == "N3":
        base[ADDRESS_LINE] = parts[1]
    elif name == "N4":
        base[CITY], base[STATE], base[ZIP] = parts[1], parts[2], parts[3]
    elif name == "PER":
        for number in range(3, len(parts) - 1, 2):
            if parts[number] in ("TE", "HP", "CP"):
                base[PHONE] = base[PHONE] or parts[number + 1]
            elif parts[number] == "EM":
                base[EMAIL] = parts[number + 1]


def _joined(
    base: list[str], dates: dict[str, str], coverages: list[list[str]], providers: list[list[str]]
) -> list[list[str]]:
    if not base[MEMBER_NUMBER]:
        base[MEMBER_NUMBER] = _made_up_number(base)
    rows = []
    for npi, tin, since, number in providers or [["", "", "", str(len(coverages))]]:
        row = base.copy()
        coverage = coverages[int(number) - 1] if number != "0" else ["", "", "", "", "", ""]
        row[MAINTENANCE] = coverage[0] or row[MAINTENANCE]
        row[INSURANCE_LINE], row[PLAN] = coverage[1], coverage[2]
        row[BEGIN] = coverage[3] or dates.get("356", "")
        row[END] = coverage[4] or dates.get("357", "")
        # PLA03 is the day the provider changed: the coverage is older than the attribution.
        if since > row[BEGIN] and len(since) == DAY:
            row[BEGIN] = since
        row[PROVIDER_NPI], row[PROVIDER_TIN], row[PROVIDER_SINCE] = npi, tin, since
        rows.append(row)
    return rows


def _made_up_number(base: list[str]) -> str:
    """Return an id of the person where the payer sends only the subscriber's.

    Dependants share the subscriber's id, so relationship, birth date and first name are added.
    """
    if not base[SUBSCRIBER_ID] or base[IS_SUBSCRIBER] == "Y":
        return base[SUBSCRIBER_ID]
    return "-".join((base[SUBSCRIBER_ID], base[RELATIONSHIP], base[BIRTH_DATE], base[FIRST_NAME].upper()))
