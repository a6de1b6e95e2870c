"""Every format: byte for byte against golden files, and read back by another library.

``HIEXCHANGE_WRITE_GOLDEN=1 pytest tests/delivery/test_formats.py`` writes the golden files anew; look
at the difference before committing it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import hl7 as oracle
import pyarrow.parquet as pq
import pytest
import python_calamine
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from hiexchange import hl7v2
from hiexchange.delivery.base import Page
from hiexchange.delivery.channel import ChannelSpec
from hiexchange.delivery.text import CSV, PIPE, TSV
from hiexchange.errors import UnknownLayout

GOLDEN = Path(__file__).parent / "golden"
FORMATS = {
    "csv": "csv",
    "tsv": "tsv",
    "pipe": "txt",
    "ndjson": "ndjson",
    "xlsx": "xlsx",
    "parquet": "parquet",
    "fhir": "fhir.ndjson",
    "hl7v2": "hl7",
}
WRITTEN_WITH = {"xlsx": ("xlsxwriter", "3.3.1"), "parquet": ("pyarrow", "26.0.1")}
"""Formats whose bytes depend on the version of a library."""


@pytest.fixture
def sent(exchange, open_outbox, now, tmp_path):
    """Deliver a small day of all triggers in a format; return the file's bytes and its manifest's."""

    def send(form: str, **channel):
        discharge = {"trigger": "discharge", "status": "finished", "period_end_at": now, "discharge_disposition": "01"}
        events = [
            exchange.event(1),
            exchange.event(1, **discharge, event_at=now - timedelta(minutes=5)),
            exchange.event(2, trigger="register", **{"class": "EMER"}, diagnoses=[], attending_npi=None),
            exchange.event(2, trigger="class_change", **{"class": "IMP"}, facility_name="St. Mary's | West & Co^"),
            exchange.event(3, trigger="transfer", labels=["R", "PSY"], visit_number="=1+1"),
            exchange.event(4, trigger="cancel_admit", status="cancelled", person_id="-4"),
        ]
        subscription = exchange.subscription("clinic-7", "file:in", format=form, zone="America/Chicago", **channel)
        outbox = open_outbox()
        outbox.deliver(exchange.routing(events, [subscription]), now=now, persons=exchange.persons(1, 2, 3))
        name = f"clinic-7_default_000001.{FORMATS[form]}"
        return (tmp_path / "in" / name).read_bytes(), (tmp_path / "in" / f"{name}.manifest.json").read_bytes()

    return send


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_day_is_the_same_bytes(sent, form):
    data, manifest = sent(form)
    path = GOLDEN / f"day.{FORMATS[form]}"
    if os.environ.get("HIEXCHANGE_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_bytes(data)
        (GOLDEN / f"{path.name}.manifest.json").write_bytes(_unversioned(manifest))
    library, made_with = WRITTEN_WITH.get(form, ("", ""))
    if library and version(library) != made_with:
        pytest.skip(f"the golden file was written with {library} {made_with}")
    assert data == path.read_bytes()
    assert _unversioned(manifest) == (GOLDEN / f"{path.name}.manifest.json").read_bytes()


NOTICE = "Consent of 2026-01-05; ED and inpatient data; clinic-7 only."


@pytest.fixture
def rare(exchange, open_outbox, now, tmp_path):
    """Deliver a merge and a visit under a Part 2 consent in a format; return the file's bytes."""

    def send(form: str, **channel):
        events = [
            exchange.event(1, trigger="merge", trigger_code="A40", visit_number="old-mrn", **{"class": None}),
            exchange.event(2, labels=["42CFRPart2"]),
        ]
        decisions = [
            exchange.decision(events[0], "clinic-7"),
            exchange.decision(events[1], "clinic-7", notice=NOTICE),
        ]
        subscription = exchange.subscription("clinic-7", "file:in", format=form, zone="America/Chicago", **channel)
        outbox = open_outbox()
        outbox.deliver(exchange.routing(events, [subscription], decisions), now=now, persons=exchange.persons(1, 2))
        assert set(outbox.deliveries()["state"].to_pylist()) == {"acked"}
        return (tmp_path / "in" / f"clinic-7_default_000001.{FORMATS[form]}").read_bytes()

    return send


@pytest.mark.parametrize("form", ["csv", "fhir", "hl7v2"])
def test_merges_and_consent_statements_are_the_same_bytes(rare, form):
    columns = {"columns": ["trigger", "visit_number", "patient_id_sent", "notice"]} if form == "csv" else {}
    data = rare(form, **columns)
    path = GOLDEN / f"rare.{FORMATS[form]}"
    if os.environ.get("HIEXCHANGE_WRITE_GOLDEN"):
        path.write_bytes(data)
    assert data == path.read_bytes()


def test_a_merge_is_an_a40_that_the_hl7_package_reads(rare):
    merge, visit = (oracle.parse(message.decode()) for message in hl7v2.split(rare("hl7v2")))
    assert str(merge.segment("MSH")[9]) == "ADT^A40^ADT_A39"
    assert [str(merge.segment("PID")[3][1][0]), str(merge.segment("MRG")[1][0][0])] == ["mrn1", "old-mrn"]
    assert [str(segment[0]) for segment in merge] == ["MSH", "EVN", "PID", "PD1", "MRG", "ZHX"]
    assert str(visit.segment("ARV")[5]) == NOTICE
    assert str(visit.segment("ARV")[3][0][0]) == "42CFRPart2"


def test_a_merge_and_a_consent_statement_are_valid_fhir(rare):
    raws = [json.loads(line) for line in rare("fhir").splitlines()]
    merge, visit = (Bundle.model_validate(raw) for raw in raws)
    header, patient, ended = (entry.resource for entry in merge.entry[:3])
    assert (header.eventCoding.system, header.eventCoding.code) == (
        "http://terminology.hl7.org/CodeSystem/v2-0003",
        "A40",
    )
    assert header.focus[0].reference == merge.entry[1].fullUrl
    assert (patient.link[0].type, patient.link[0].other.reference) == ("replaces", merge.entry[2].fullUrl)
    assert (ended.identifier[0].value, ended.active, ended.link[0].type) == ("old-mrn", False, "replaced-by")
    (consent,) = (entry.resource for entry in visit.entry if entry.resource.get_resource_type() == "Consent")
    assert consent.policyRule.text == NOTICE
    assert [label.code for label in visit.meta.security] == ["42CFRPart2"]
    for raw in raws:
        urls = {entry["fullUrl"] for entry in raw["entry"]}
        assert all(found in urls for found in _references(raw))


def test_the_exchange_is_the_intermediary_and_says_so(sent):
    data, _ = sent("fhir", options={"sending_facility": "State Exchange"})
    for raw in map(json.loads, data.splitlines()):
        bundle = Bundle.model_validate(raw)
        places = {entry.fullUrl: entry.resource for entry in bundle.entry}
        header = bundle.entry[0].resource
        (provenance,) = (entry for entry in places.values() if entry.get_resource_type() == "Provenance")
        assert provenance.target[0].reference == bundle.entry[0].fullUrl
        roles = {agent.type.coding[0].code: places[agent.who.reference].name for agent in provenance.agent}
        assert roles["transmitter"] == roles["assembler"] == places[header.sender.reference].name == "State Exchange"
        assert roles["author"] == places[header.responsible.reference].name != "State Exchange"


def _unversioned(manifest: bytes) -> bytes:
    """The manifest without the hash of the preferences, which covers every option there is."""
    return re.sub(rb'"config_version": "[0-9a-f]{64}"', b'"config_version": "..."', manifest)


@pytest.mark.parametrize("form", FORMATS)
def test_rendering_does_not_look_at_the_clock(sent, form, tmp_path):
    first, _ = sent(form)
    for path in (*tmp_path.glob("outbox.sqlite*"), *(tmp_path / "in").iterdir()):
        path.unlink()
    time.sleep(1.1 if form == "xlsx" else 0)  # zip keeps seconds
    assert sent(form)[0] == first


def test_hl7_is_read_by_the_hl7_package(sent):
    data, _ = sent("hl7v2")
    messages = [oracle.parse(message.decode()) for message in hl7v2.split(data)]
    triggers = [str(message.segment("MSH")[9]) for message in messages]
    assert (triggers[0], triggers[-1]) == ("ADT^A01^ADT_A01", "ADT^A03^ADT_A03")
    assert sorted(triggers[1:-1]) == ["ADT^A02^ADT_A02", "ADT^A04^ADT_A01", "ADT^A06^ADT_A06", "ADT^A11^ADT_A09"]
    first = messages[0]
    assert str(first.segment("PID")[18]) == "v1"
    assert str(first.segment("PID")[5]) == "Invented1^Ada"
    assert str(first.segment("PID")[7]) == "19500203"
    assert str(first.segment("EVN")[2]).endswith("+0000")
    assert str(first.segment("EVN")[7]) == "General Hospital^1999999984^NPI"
    assert str(first.segment("PV1")[2]) == "I"
    assert str(first.segment("PD1")[4]).startswith("1777777778^")
    discharge = hl7v2.parse(str(messages[-1]))
    assert [discharge.value(f"PV1-{field}") for field in (19, 36, 44, 45)] == [
        "v1",
        "01",
        "20261110100001+0000",
        "20261110120000+0000",
    ]
    west = next(message for message in messages if "West" in str(message))
    assert oracle.parse(str(west)).unescape(str(west.segment("EVN")[7][0][0])) == "St. Mary's | West & Co^"


@pytest.fixture
def one(exchange, open_outbox, now, tmp_path):
    """Deliver one event in a format; return the file's bytes."""

    def send(form: str, **event):
        routing = exchange.routing([exchange.event(1, **event)], [exchange.subscription("a", "file:in", format=form)])
        open_outbox().deliver(routing, now=now)
        return (tmp_path / "in" / f"a_default_000001.{FORMATS[form]}").read_bytes()

    return send


@pytest.mark.parametrize(
    ("event", "path", "expected"),
    [
        ({"trigger": "class_change", "class": "EMER"}, "MSH-9.2", "A07"),
        ({"trigger": "preadmit", "class": "PRENC"}, "PV1-2", "P"),
        ({"trigger": "cancel_discharge"}, "MSH-9.3", "ADT_A01"),
        ({"class": None}, "PV1-2", "U"),
        ({"class": "OBSENC"}, "PV1-2", "O"),
        ({"patient_id_system": "http://hospital.example/mrn"}, "PID-3[2].4.2", "http://hospital.example/mrn"),
        ({"patient_id_sent": None}, "PID-3[2].1", ""),
        ({"facility_npi": None}, "EVN-7.3", ""),
    ],
)
def test_hl7_fields_follow_the_event(one, event, path, expected):
    assert hl7v2.parse(one("hl7v2", **event)).value(path) == expected


@pytest.mark.parametrize(
    ("event", "code", "reason"),
    [
        ({"trigger": "update"}, "notification-admit", "update"),
        ({"trigger": "update", "status": "finished"}, "notification-discharge", "update"),
        ({"trigger": "cancel_transfer"}, "notification-transfer", "cancel transfer"),
        ({"trigger": "register", "facility_npi": None, "attending_npi": None}, "notification-admit", "register"),
    ],
)
def test_fhir_events_without_a_code_of_their_own_say_so(one, event, code, reason):
    header = json.loads(one("fhir", **event))["entry"][0]["resource"]
    assert (header["eventCoding"]["code"], header["reason"]["text"]) == (code, reason)


def test_a_message_that_is_not_valid_fhir_is_never_sent(exchange, open_outbox, now, tmp_path):
    outbox = open_outbox()
    routing = exchange.routing(
        [exchange.event(1, status="no such status!")], [exchange.subscription("a", "file:in", format="fhir")]
    )
    person = exchange.persons(1)
    person = person.set_column(person.column_names.index("birth_date"), "birth_date", [["not a date"]])
    report = outbox.deliver(routing, now=now, persons=person)
    assert report.states == {"dead": 1}
    assert "not valid FHIR" in outbox.deliveries()["reason"][0].as_py()
    assert "not a date" not in outbox.deliveries()["reason"][0].as_py()


def test_a_cell_too_long_for_excel_is_dead_not_missing(exchange, open_outbox, now):
    outbox = open_outbox()
    events = [exchange.event(1, facility_name="x" * 40_000), exchange.event(2)]
    report = outbox.deliver(exchange.routing(events, [exchange.subscription("a", "file:in", format="xlsx")]), now=now)
    assert report.states == {"acked": 1, "dead": 1}


def test_fhir_messages_are_valid_and_in_order(sent):
    data, _ = sent("fhir")
    bundles = [json.loads(line) for line in data.splitlines()]
    assert len(bundles) == 6
    for raw in bundles:
        bundle = Bundle.model_validate(raw)
        header = bundle.entry[0].resource
        assert header.get_resource_type() == "MessageHeader"
        assert header.focus[0].reference == bundle.entry[1].fullUrl
        assert bundle.entry[1].resource.get_resource_type() == "Encounter"
        urls = {entry.fullUrl for entry in bundle.entry}
        assert all(found in urls for found in _references(raw))
    codes = {raw["entry"][0]["resource"]["eventCoding"]["code"] for raw in bundles}
    assert codes == {"notification-admit", "notification-discharge", "notification-transfer"}
    labelled = next(raw for raw in bundles if "security" in raw["entry"][1]["resource"]["meta"])
    assert [label["code"] for label in labelled["entry"][1]["resource"]["meta"]["security"]] == ["R", "PSY"]


def _references(value) -> list[str]:
    if isinstance(value, dict):
        own = [value["reference"]] if "reference" in value else []
        return own + [found for item in value.values() for found in _references(item)]
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    return []


def test_parquet_keeps_types(sent):
    data, _ = sent("parquet", columns=["event_at", "event_on", "diagnoses", "version", "material"])
    table = pq.read_table(io.BytesIO(data))
    assert [str(field.type) for field in table.schema][:3] == ["string", "timestamp[us, tz=UTC]", "date32[day]"]
    assert table["version"].to_pylist() == [1] * 6
    assert table["diagnoses"][0].as_py()[0]["code"] == "I50.9"


def test_parquet_gives_dates_as_text_when_a_format_is_asked_for(sent):
    data, _ = sent("parquet", columns=["event_on"], date_format="%m/%d/%Y")
    assert pq.read_table(io.BytesIO(data))["event_on"].to_pylist()[0] == "11/10/2026"


def test_xlsx_reads_as_the_csv_does(sent, tmp_path):
    columns = ["trigger", "event_at", "last_name", "class", "diagnoses"]
    sheet = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(sent("xlsx", columns=columns)[0]))
    rows = sheet.get_sheet_by_index(0).to_python()
    assert rows[0] == ["delivery_id", *columns]
    assert rows[1][1:] == ["admit", "2026-11-10T04:00:01-06:00", "Invented1", "IMP", "I50.9"]


def test_headings_dates_nulls_and_order_are_the_subscribers(sent):
    data, _ = sent(
        "csv",
        columns=["last_name", "event_at", "attending_npi"],
        names={"last_name": "Patient"},
        date_format="%m/%d/%Y %H:%M",
        null_text="-",
        order=["last_name"],
        options={"bom": "true", "crlf": "true"},
    )
    assert data.startswith(b"\xef\xbb\xbfdelivery_id,Patient,event_at,attending_npi\r\n")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert [row["Patient"] for row in rows] == ["Invented1", "Invented1", "Invented2", "Invented2", "Invented3", "-"]
    assert rows[0]["event_at"] == "11/10/2026 04:00"
    assert rows[2]["attending_npi"] == "-"


def test_fhir_without_a_name_says_that_it_is_masked(exchange, open_outbox, now, tmp_path):
    needed = ["event_at", "class", "status", "trigger"]
    subscription = exchange.subscription("a", "file:in", format="fhir", columns=needed)
    event = exchange.event(1)
    routing = exchange.routing([event], [subscription], [exchange.decision(event, "a", columns=needed)])
    open_outbox().deliver(routing, now=now, persons=exchange.persons(1))
    (path,) = (tmp_path / "in").glob("*.ndjson")
    patient = json.loads(path.read_bytes())["entry"][2]["resource"]
    assert patient["name"][0]["extension"][0]["valueCode"] == "masked"
    assert "birthDate" not in patient
    assert "Invented" not in path.read_text()


@pytest.mark.parametrize("form", ["fhir", "hl7v2"])
def test_a_message_without_its_required_columns_is_dead_and_says_which(exchange, open_outbox, now, form):
    event = exchange.event(1)
    decisions = [exchange.decision(event, "a", columns=["last_name"])]
    outbox = open_outbox()
    outbox.deliver(exchange.routing([event], [exchange.subscription("a", "file:in", format=form)], decisions), now=now)
    (row,) = outbox.deliveries().to_pylist()
    assert row["state"] == "dead"
    assert "trigger" in row["reason"]


def test_an_unknown_format_is_named_with_those_that_exist():
    from hiexchange.delivery.formats import format_named

    with pytest.raises(UnknownLayout, match="csv"):
        format_named("fax")


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), max_size=20)


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from([CSV, TSV, PIPE]))
def test_separated_text_reads_back_as_written(rows, form):
    spec = ChannelSpec(subscriber_id="a", channel_id="b", url="in")
    records = [{"delivery_id": "1", "first_name": one, "last_name": two} for one, two in rows]
    page = Page(records, ["first_name", "last_name"], spec, 1)
    text = form.render(page).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), delimiter=form.separator))[1:]
    assert [[cell.removeprefix("'") for cell in row] for row in found] == [
        [value.removeprefix("'") for value in row] for row in rows
    ]
