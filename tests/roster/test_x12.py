"""X12 834: loops, delimiters, control counts, change and audit files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from hiexchange.errors import RosterError
from hiexchange.roster import Roster

Read = Callable[..., Roster]
Codes = Callable[[Roster], list[tuple[int | None, str, str | None]]]


def member(number: int, *segments: str, ins: str = "INS*Y*18*030*XN*A***FT", coverage: bool = True) -> list[str]:
    base = [
        ins,
        f"REF*0F*S{number:04d}",
        "REF*1L*GROUP1",
        f"NM1*IL*1*SMITH*ANN*B**JR*ZZ*M{number:04d}",
        "PER*IP**HP*5015551234*EM*ANN@EXAMPLE.ORG",
        "N3*1 ELM ST",
        "N4*CONWAY*AR*72032",
        "DMG*D8*19600102*F",
    ]
    plan = ["HD*030**HMO*GOLD*IND", "DTP*348*D8*20260101", "LX*1", "NM1*P3*1*DOE*J****XX*1234567893*25"]
    return [*base, *(plan if coverage else []), *segments]


def interchange(
    *members: list[str], bgn08: str = "4", separator: str = "*", terminator: str = "~", end: str = "\n", **wrong: str
) -> bytes:
    """An interchange around members, counts right unless ``se``, ``ge``, ``iea`` are given."""
    body = [
        "ST*834*0001*005010X220A1",
        f"BGN*00*1*20260131*1200****{bgn08}",
        *wrong.get("header", "N1*P5*SPONSOR*FI*111111111|N1*IN*PAYER*FI*987654321").split("|"),
        *(segment for found in members for segment in found),
    ]
    body.append(f"SE*{wrong.get('se', str(len(body) + 1))}*{wrong.get('se02', '0001')}")
    isa = "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260131*1200*^*00501*000000007*0*P*:"
    whole = [isa, "GS*BE*S*R*20260131*1200*3*X*005010X220A1", *body]
    whole += [f"GE*{wrong.get('ge', '1')}*3", f"IEA*{wrong.get('iea', '1')}*000000007"]
    return "".join(segment.replace("*", separator) + terminator + end for segment in whole).encode()


def test_a_member_with_provider_becomes_a_row(read: Read, codes: Codes) -> None:
    roster = read(interchange(member(1), member(2)), "x12-834", as_of=None, payer_id=None)
    assert (roster.payer_id, roster.as_of, roster.mode, roster.state) == (
        "987654321",
        date(2026, 1, 31),
        "full",
        "accepted",
    )
    assert codes(roster) == []
    row = roster.members.to_pylist()[0]
    expected = {
        "member_id": "M0001",
        "subscriber_id": "S0001",
        "first_name": "ANN",
        "middle_name": "B",
        "last_name": "SMITH",
        "suffix": "JR",
        "birth_on": date(1960, 1, 2),
        "sex": "female",
        "phone": "5015551234",
        "email": "ANN@EXAMPLE.ORG",
        "city": "CONWAY",
        "contract_id": "GROUP1",
        "plan_id": "GOLD",
        "provider_npi": "1234567893",
        "valid_from": date(2026, 1, 1),
        "payer_change_type": "nochange",
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("separator", "terminator", "end"),
    [("*", "~", ""), ("*", "\n", ""), ("|", "~", "\r\n"), ("^", "'", ""), ("*", "\x1c", "\n")],
)
def test_delimiters_come_from_isa(read: Read, separator: str, terminator: str, end: str) -> None:
    data = interchange(member(1), separator=separator, terminator=terminator, end=end)
    if separator == "^":
        data = data.replace(b"1200^^^00501", b"1200^!^00501")
    assert read(data, "x12-834").counts.accepted == 1


@pytest.mark.parametrize(("bgn08", "mode"), [("2", "delta"), ("4", "full"), ("RX", "full")])
def test_change_and_audit_files(read: Read, bgn08: str, mode: str) -> None:
    assert read(interchange(member(1), bgn08=bgn08), "x12-834").mode == mode


def test_an_audit_file_read_as_delta_is_refused(read: Read) -> None:
    with pytest.raises(RosterError) as caught:
        read(interchange(member(1)), {"extends": "x12-834", "list": {"mode": "delta"}})
    assert caught.value.code == "HX-506"


@pytest.mark.parametrize(
    ("code", "change"), [("021", "new"), ("001", "changed"), ("024", "dropped"), ("025", "new"), ("002", "cancelled")]
)
def test_maintenance_types(read: Read, code: str, change: str) -> None:
    found = [segment.replace("HD*030", f"HD*{code}") for segment in member(1, "DTP*349*D8*20260331")]
    data = interchange(found, bgn08="2")
    assert read(data, "x12-834").members["payer_change_type"].to_pylist() == [change]


def test_a_termination_date_is_the_last_day(read: Read) -> None:
    found = member(1)
    found.insert(-2, "DTP*349*D8*20260331")
    assert read(interchange(found), "x12-834").members["valid_to"].to_pylist() == [date(2026, 4, 1)]


@pytest.mark.parametrize(
    ("pla", "expected"),
    [
        ("PLA*2*1P*20260315**14", date(2026, 3, 15)),
        ("PLA*2*1P*20251201**14", date(2026, 1, 1)),
        ("PLA*2*1P*2026**14", date(2026, 1, 1)),
        ("PLA*2*1P", date(2026, 1, 1)),
    ],
)
def test_a_changed_provider_is_nobodys_before_the_change(read: Read, pla: str, expected: date) -> None:
    assert read(interchange(member(1, pla)), "x12-834").members["valid_from"].to_pylist() == [expected]


def test_a_member_without_provider_is_refused_with_its_byte(read: Read, codes: Codes) -> None:
    data = interchange(member(1), member(2, coverage=False), member(3))
    roster = read(data, "x12-834")
    assert codes(roster) == [(2, "missing_provider", "provider_npi")]
    offset = roster.issues["byte_offset"].to_pylist()[0]
    assert data[offset:].startswith(b"INS")
    assert b"S0002" in data[offset : offset + 60]


def test_every_coverage_with_a_provider_is_a_row(read: Read) -> None:
    dental = ["HD*030**DEN*SMILE*IND", "DTP*348*D8*20260201", "LX*1", "NM1*P3*1*ROE*R****XX*1999999984*25"]
    vision = ["HD*030**VIS*EYE*IND", "DTP*348*D8*20260201"]
    rows = read(interchange(member(1, *dental, *vision)), "x12-834").members.to_pylist()
    assert [(row["plan_id"], row["provider_npi"], row["valid_from"]) for row in rows] == [
        ("GOLD", "1234567893", date(2026, 1, 1)),
        ("SMILE", "1999999984", date(2026, 2, 1)),
    ]


def test_dependants_on_one_subscriber_get_ids_of_their_own(read: Read) -> None:
    def dependant(first: str, born: str) -> list[str]:
        found = member(1, ins="INS*N*19*030*XN*A")
        return [
            segment.replace("NM1*IL*1*SMITH*ANN*B**JR*ZZ*M0001", f"NM1*IL*1*SMITH*{first}").replace("19600102", born)
            for segment in found
        ]

    roster = read(interchange(member(1), dependant("KIM", "20150505"), dependant("LEE", "20150505")), "x12-834")
    assert roster.members["member_id"].to_pylist() == ["M0001", "S0001-19-20150505-KIM", "S0001-19-20150505-LEE"]
    assert set(roster.members["subscriber_id"].to_pylist()) == {"S0001"}


def test_a_reporting_category_is_nobodys_id(read: Read) -> None:
    def without_number(number: int) -> list[str]:
        found = [segment.replace(f"**JR*ZZ*M{number:04d}", "") for segment in member(number)]
        return [*found[:2], "REF*17*202601", f"REF*23*C{number}", *found[2:]]

    roster = read(interchange(without_number(1), without_number(2)), "x12-834")
    assert roster.members["member_id"].to_pylist() == ["C1", "C2"]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"se": "5"}, "control_count"),
        ({"ge": "2"}, "control_count"),
        ({"iea": "0"}, "control_count"),
        ({"se02": "0002"}, "control_number"),
    ],
)
def test_control_counts_that_do_not_add_up_refuse_the_file(
    read: Read, codes: Codes, wrong: dict[str, str], code: str
) -> None:
    roster = read(interchange(member(1), **wrong), "x12-834")
    assert roster.state == "refused"
    assert [found for _, found, _ in codes(roster)] == [code]


def test_a_cut_file_is_refused(read: Read, codes: Codes) -> None:
    data = interchange(member(1), member(2))
    roster = read(data[: data.index(b"SE*")], "x12-834")
    assert (roster.state, codes(roster)[0][1]) == ("refused", "truncated")


def test_a_declared_total_must_be_met(read: Read, codes: Codes) -> None:
    good = interchange(member(1), header="QTY*TO*1")
    assert read(good, "x12-834").state == "accepted"
    roster = read(interchange(member(1), header="QTY*TO*2"), "x12-834")
    assert (roster.state, codes(roster)[0][1]) == ("refused", "count_mismatch")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"hello", "no_isa"),
        (interchange(), "no_rows"),
        (interchange(member(1)).replace(b"ST*834", b"ST*837"), "wrong_transaction"),
    ],
)
def test_what_is_no_834(read: Read, data: bytes, code: str) -> None:
    with pytest.raises(RosterError) as caught:
        read(data, "x12-834")
    assert caught.value.issues["code"].to_pylist() == [code]


def test_left_out_trailing_elements_are_empty(read: Read) -> None:
    found = [segment for segment in member(1) if not segment.startswith(("N3", "N4", "PER"))]
    found.insert(4, "N4*CONWAY")
    found.insert(4, "PER*IP")
    row = read(interchange(found), "x12-834").members.to_pylist()[0]
    assert (row["city"], row["state"], row["phone"]) == ("CONWAY", None, None)


def test_batches_carry_numbers_on(read: Read, monkeypatch: Any) -> None:
    from hiexchange.roster import x12

    monkeypatch.setattr(x12, "ROWS", 3)
    monkeypatch.setattr(x12, "BLOCK", 100)
    roster = read(interchange(*(member(n) for n in range(1, 11))), "x12-834")
    assert roster.members["row_no"].to_pylist() == list(range(1, 11))
    assert roster.members["member_id"].to_pylist() == [f"M{n:04d}" for n in range(1, 11)]


def test_an_isa_that_is_not_106_characters_long_is_refused_for_what_it_is(read: Read) -> None:
    good = interchange(member(1))
    for wrong in (
        good.replace(b"SENDER         *", b"SENDER*", 1),
        good.replace(b"SENDER         *", b"SENDER          *", 1),
        good.replace(b"*^*00501", b"***00501", 1),
    ):
        with pytest.raises(RosterError) as caught:
            read(wrong, "x12-834")
        assert caught.value.issues["code"].to_pylist() == ["bad_isa"]


def test_lines_wrapped_at_eighty_columns_are_read_through(read: Read) -> None:
    flat = interchange(member(1), member(2, coverage=False), member(3), end="")
    wrapped = b"\r\n".join(flat[start : start + 80] for start in range(0, len(flat), 80))
    padded = flat.replace(b"~", b"~   \n")
    for data in (wrapped[:82].replace(b"\r\n", b"") + wrapped[82:], padded):
        roster, plain = read(data, "x12-834"), read(flat, "x12-834")
        assert roster.state == "accepted"
        assert roster.members.drop_columns("roster_id").equals(plain.members.drop_columns("roster_id"))
        offset = roster.issues["byte_offset"].to_pylist()[0]
        assert b"S0002" in data[offset : offset + 90].replace(b"\r\n", b"")


def two_sets(first: bytes, second: bytes) -> bytes:
    """Both interchanges' transaction sets in one functional group."""
    one, two = (data[data.index(b"ST*834") : data.index(b"GE*")] for data in (first, second))
    two = two.replace(b"ST*834*0001", b"ST*834*0002")
    at = two.index(b"SE*")
    two = two[:at] + two[at:].replace(b"*0001", b"*0002")
    return first[: first.index(b"ST*834")] + one + two + b"GE*2*3~\nIEA*1*000000007~\n"


def test_two_transaction_sets_are_one_list(read: Read, codes: Codes) -> None:
    header = "N1*P5*SPONSOR*FI*111111111|N1*IN*PAYER*FI*987654321|QTY*TO*1"
    data = two_sets(interchange(member(1), header=header), interchange(member(2), header=header))
    roster = read(data, "x12-834")
    assert (roster.state, codes(roster)) == ("accepted", [])
    assert roster.members["member_id"].to_pylist() == ["M0001", "M0002"]
    short = two_sets(interchange(member(1), header=header), interchange(member(2), member(3), header=header))
    assert (read(short, "x12-834").state, codes(read(short, "x12-834"))[0][1]) == ("refused", "count_mismatch")


def test_transaction_sets_that_contradict_each_other_refuse_the_file(read: Read, codes: Codes) -> None:
    first = interchange(member(1))
    for second in (
        interchange(member(2), bgn08="2"),
        interchange(member(2)).replace(b"*20260131*1200****", b"*20260228*1200****"),
    ):
        roster = read(two_sets(first, second), "x12-834")
        assert (roster.state, codes(roster)[0][1]) == ("refused", "several_headers")


def test_a_file_of_two_payers_needs_its_payer_named(read: Read, codes: Codes) -> None:
    other = interchange(member(2), header="N1*IN*OTHER*FI*555555555")
    data = two_sets(interchange(member(1)), other)
    roster = read(data, "x12-834", payer_id=None)
    assert (roster.state, codes(roster)[0][1]) == ("refused", "several_payers")
    assert read(data, "x12-834", payer_id="payer-a").state == "accepted"


def test_two_interchanges_in_one_file(read: Read) -> None:
    data = interchange(member(1)) + interchange(member(2))
    roster = read(data, "x12-834")
    assert (roster.state, roster.counts.accepted) == ("accepted", 2)


def test_an_interchange_with_other_delimiters_behind_the_first_is_not_lost_in_silence(read: Read, codes: Codes) -> None:
    data = interchange(member(1)) + interchange(member(2), separator="|", terminator="'")
    roster = read(data, "x12-834")
    assert (roster.state, codes(roster)[0][1]) == ("refused", "trailing_data")


def test_what_old_systems_put_behind_the_end_is_no_data(read: Read) -> None:
    assert read(interchange(member(1)) + b"\r\n  \x1a", "x12-834").state == "accepted"


@pytest.mark.parametrize("gone", [b"SE*", b"GE*", b"GS*", b"ST*"])
def test_a_control_segment_left_out_refuses_the_file(read: Read, gone: bytes) -> None:
    data = interchange(member(1))
    lines = [line for line in data.splitlines(keepends=True) if not line.startswith(gone)]
    assert read(b"".join(lines), "x12-834").state == "refused"


def test_control_counts_may_have_leading_zeros(read: Read) -> None:
    assert read(interchange(member(1), ge="01", iea="00001"), "x12-834").state == "accepted"


def test_a_file_that_does_not_say_whether_it_is_whole_needs_a_layout_that_does(read: Read) -> None:
    data = interchange(member(1), bgn08="")
    with pytest.raises(RosterError) as caught:
        read(data, "x12-834")
    assert caught.value.code == "HX-506"
    assert read(data, {"extends": "x12-834", "list": {"mode": "delta"}}).mode == "delta"


def test_a_date_of_the_header_that_is_no_day_is_refused(read: Read, codes: Codes) -> None:
    data = interchange(member(1)).replace(b"BGN*00*1*20260131", b"BGN*00*1*20260231")
    with pytest.raises(RosterError) as caught:
        read(data, "x12-834", as_of=None)
    assert caught.value.issues["code"].to_pylist() == ["bad_as_of"]
    # The hint says what to do, and that is enough.
    roster = read(data, "x12-834", as_of=date(2026, 1, 31))
    assert (roster.as_of, codes(roster)) == (date(2026, 1, 31), [(None, "bad_as_of", None)])
