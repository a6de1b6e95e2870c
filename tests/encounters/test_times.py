"""Times as senders write them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiexchange import hl7v2
from hiexchange.encounters.codes import code_system, is_npi
from hiexchange.encounters.times import Zones, parse_dtm, parse_fhir
from hiexchange.errors import ConfigError

CHICAGO = ZoneInfo("America/Chicago")


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_what_the_writer_writes_is_read_back(instant: datetime) -> None:
    moment = parse_dtm(hl7v2.dtm(instant), None)
    assert moment is not None and moment.at == instant.replace(microsecond=0) and moment.flags == ()
    fhir = parse_fhir(instant.isoformat(), None)
    assert fhir is not None and fhir.at == instant


@pytest.mark.parametrize(
    ("text", "at", "flags"),
    [
        ("20260302", datetime(2026, 3, 2, 6, tzinfo=UTC), ("date_only",)),
        ("2026030210", datetime(2026, 3, 2, 16, tzinfo=UTC), ("naive_time",)),
        ("202603021015", datetime(2026, 3, 2, 16, 15, tzinfo=UTC), ("naive_time",)),
        ("20260302101530.25-0500", datetime(2026, 3, 2, 15, 15, 30, 250000, tzinfo=UTC), ()),
        ("2026", None, ()),
        ("202613", None, ()),
        ("20261302", None, ()),
        ("2026030210x5", None, ()),
        ("20260302101530.x", None, ()),
        ("20260302101530+05", None, ()),
        ("20260302101530+0599", None, ()),
        ("00010101000000+1400", None, ()),
        ("", None, ()),
    ],
)
def test_hl7_times(text: str, at: datetime | None, flags: tuple[str, ...]) -> None:
    moment = parse_dtm(text, CHICAGO)
    assert (moment.at, moment.flags) == (at, flags) if moment else at is None


@pytest.mark.parametrize(
    ("text", "at", "on"),
    [
        ("2026-03-02", datetime(2026, 3, 2, 6, tzinfo=UTC), date(2026, 3, 2)),
        ("2026-03-03T03:00:00Z", datetime(2026, 3, 3, 3, tzinfo=UTC), date(2026, 3, 2)),
        ("2026-03-02T10:00:00", datetime(2026, 3, 2, 16, tzinfo=UTC), date(2026, 3, 2)),
        ("2026-03", None, None),
        ("2026-13-01", None, None),
        ("2026-03-02Tnoon", None, None),
        ("0001-01-01T00:00:00+14:00", None, None),
        (None, None, None),
    ],
)
def test_fhir_times(text: str | None, at: datetime | None, on: date | None) -> None:
    moment = parse_fhir(text, CHICAGO)
    assert (moment.at, moment.on) == (at, on) if moment else at is None


def test_times_at_the_end_of_the_calendar_are_no_moments() -> None:
    assert parse_dtm("99991231235959", CHICAGO) is None
    assert parse_fhir("9999-12-31T20:00:00-06:00", CHICAGO) is None


def test_zones_are_checked() -> None:
    zones = Zones({"h1": "America/New_York", "*": "America/Chicago"})
    assert zones.of("h1") == ZoneInfo("America/New_York") and zones.of(None) == CHICAGO
    assert Zones().of("h1") is None
    with pytest.raises(ConfigError, match="IANA"):
        Zones({"h1": "America/Springfield"})


def test_npis_and_code_systems() -> None:
    assert is_npi("1999999984") and is_npi("1234567893")
    assert not is_npi("1999999985") and not is_npi("123456789") and not is_npi("12345678AB")
    assert code_system("I10") == "http://hl7.org/fhir/sid/icd-10-cm"
    assert code_system("LOCAL") == "urn:hl7v2:LOCAL" and code_system("urn:x") == "urn:x" and code_system(" ") is None
