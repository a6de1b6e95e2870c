"""Subscriptions: read, validated, effective-dated; mistakes name themselves."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from hiexchange.errors import ConfigError
from hiexchange.routing import load_subscriptions

TOML = """
[defaults]
format = "tsv"
cadence = "0 6 * * *"
zone = "America/Chicago"

[[subscriptions]]
id = "clinic"
npi = ["1999999984"]
tin = ["11-1111111"]
classes = ["IMP", "EMER"]

[[subscriptions.channels]]
id = "now"
url = "https://clinic.example/fhir"
format = "fhir"
cadence = "immediate"
classes = ["EMER"]
credentials = { token = "env:CLINIC_TOKEN" }

[[subscriptions.channels]]
id = "daily"
url = "sftp://drop.clinic.example/in"
template_major = 2
template_from = 2026-02-01T00:00:00Z
holidays = [2026-07-03]
holiday_rule = "shift"
quiet_hours = ["22:00", "06:00"]
columns = ["event_at", "last_name"]
names = { last_name = "Surname" }
options = { bom = true, known_hosts = "hosts" }
credentials = { username = "env:U", private_key = "file:id_ed25519" }
"""


def entry(**changes: Any) -> dict[str, Any]:
    return {"id": "clinic", "npi": "1999999984", "channel": "out"} | changes


def test_a_file_gives_subscriptions_with_their_channels(tmp_path: Path) -> None:
    path = tmp_path / "subs.toml"
    path.write_text(TOML)
    (item,) = load_subscriptions(path)
    now, daily = item.channels
    assert (now.format, now.cadence, now.zone) == ("fhir", "immediate", "America/Chicago")
    assert (daily.format, daily.cadence, daily.quiet_hours) == ("tsv", "0 6 * * *", ("22:00", "06:00"))
    assert item.tin == ("111111111",) and daily.holidays == (date(2026, 7, 3),)
    assert (
        daily.major_at(datetime(2026, 1, 31, tzinfo=UTC)) == 1 and daily.major_at(datetime(2026, 2, 1, tzinfo=UTC)) == 2
    )
    assert daily.options == {"bom": "true", "known_hosts": "hosts"}
    assert daily.credentials["private_key"].base == tmp_path
    assert now.wants("admit", "EMER") and not now.wants("admit", "IMP")
    assert item.channel("daily") is daily
    with pytest.raises(KeyError):
        item.channel("weekly")


def test_the_short_form_is_one_channel() -> None:
    (item,) = load_subscriptions([entry(format="ndjson", cadence="every  15 minute")])
    (channel,) = item.channels
    assert (channel.id, channel.url, channel.format, channel.cadence) == (
        "default",
        "out",
        "ndjson",
        "every 15 minutes",
    )


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"chanel": "x"}, "unknown key 'chanel'", "did you mean 'channel'"),
        ({"zebra": 1}, "unknown key 'zebra'", "known keys"),
        ({"format": "cvs"}, "'cvs' is not allowed", "did you mean 'csv'"),
        ({"format": "docx-file"}, "is not allowed", "one of csv"),
        ({"classes": ["INP"]}, "'INP' is not allowed", "IMP"),
        ({"triggers": ["admitt"]}, "'admitt' is not allowed", "admit"),
        ({"cadence": "every day"}, "no cadence", "every 15 minutes"),
        ({"cadence": "61 * * * *"}, "no cadence", "cron"),
        ({"zone": "America/Springfield"}, "no IANA time zone", "Chicago"),
        ({"npi": "123"}, "'123' is no NPI", "ten digits"),
        ({"tin": "1"}, "no tax id", "nine digits"),
        ({"id": "../x"}, "may hold letters", None),
        ({"id": None}, "must be a text", None),
        ({"channel": "ftp://x/in"}, "'ftp' is no transport", "sftp"),
        ({"channel": "http://clinic.example/in"}, "in the clear", "https"),
        ({"channel": "sftp://user:secret@x/in"}, "holds a password", "credentials"),
        ({"credentials": {"password": "secret"}}, "by reference", None),
        ({"credentials": {"pasword": "env:X"}}, "not allowed", "password"),
        ({"max_rows": 0}, "at least 1", None),
        ({"max_rows": True}, "whole number", None),
        ({"ordered": "yes"}, "true or false", None),
        ({"holidays": "2026-01-01"}, "list of dates", None),
        ({"holidays": ["2026-13-01"]}, "is not a date", None),
        ({"holidays": ["2026-01-01"]}, "holiday_rule is 'send'", "shift or skip"),
        ({"template_from": "soon"}, "is not an instant", None),
        ({"template_from": "2026-01-01T00:00:00"}, "with an offset", None),
        ({"quiet_hours": ["22:00"]}, "two local times", None),
        ({"quiet_hours": ["22:00", "6am"]}, "no time of day", None),
        ({"encryption": "pgp"}, "pgp_key is not given", "public key"),
        ({"active_from": "2026-02-01", "active_to": "2026-02-01"}, "not before active_to", None),
        ({"active_from": 2026}, "must be a date", None),
        ({"columns": ["last_nam"]}, "not allowed", "last_name"),
        ({"npi": []}, "names no one", "npi, tin or org"),
        ({"names": ["x"]}, "must be a table", None),
        ({"org": 7}, "list of texts", None),
        ({"contacts": [""]}, "not empty", None),
        ({"null_text": 0}, "must be a text", None),
        ({"channels": []}, "both 'channel' and 'channels'", None),
        ({"channel": ""}, "not empty", None),
    ],
)
def test_mistakes_name_themselves(changes: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        load_subscriptions([entry(**changes)])
    assert message in str(refused.value)
    assert "secret" not in str(refused.value) or "a secret must" in str(refused.value)
    assert hint is None or hint in str(refused.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"npi": "1999999984", "channel": "x"}], "'id' is missing"),
        ([{"id": "a", "npi": "1999999984"}], "at least one channel"),
        ([{"id": "a", "npi": "1999999984", "channels": ["x"]}], "must be a table"),
        ([{"id": "a", "npi": "1999999984", "channels": [{"id": "c"}]}], "'url' is missing"),
        (
            [{"id": "a", "npi": "1999999984", "channels": [{"id": "c", "url": "x"}, {"id": "c", "url": "y"}]}],
            "the id 'c'",
        ),
        ([entry(), entry()], "two subscriptions of 'clinic'"),
        ([7], "list of tables"),
    ],
)
def test_entries_that_do_not_fit(entries: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_subscriptions(entries)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_subscriptions(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[[subscriptions")
    with pytest.raises(ConfigError, match="not TOML"):
        load_subscriptions(broken)
    broken.write_text("[subscription]")
    with pytest.raises(ConfigError, match="unknown key") as refused:
        load_subscriptions(broken)
    assert "subscriptions" in str(refused.value)


def test_spans_follow_each_other() -> None:
    spans = load_subscriptions(
        [entry(active_to="2026-02-01", format="csv"), entry(active_from="2026-02-01", format="xlsx"), entry(id="other")]
    )
    assert len(spans) == 3
    assert [item.id for item in spans.active(date(2026, 1, 31))] == ["clinic", "other"]
    first, last = (spans.get("clinic", day) for day in (date(2026, 1, 31), date(2026, 2, 1)))
    assert first is not None and last is not None and spans.get("clinic") is last
    assert (first.channels[0].format, last.channels[0].format) == ("csv", "xlsx")
    assert spans.get("nobody") is None


def test_the_version_changes_with_the_preferences_only() -> None:
    same, again, other = (load_subscriptions([entry(format=form)]) for form in ("csv", "csv", "tsv"))
    assert same.version == again.version != other.version
    credentials = load_subscriptions([entry(credentials={"token": "env:A"})])
    assert credentials.version != same.version
