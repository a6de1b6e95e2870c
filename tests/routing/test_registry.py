"""Consent files: what they may say, and that no line is passed over."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from hiexchange.errors import ConfigError
from hiexchange.routing import load_consents
from hiexchange.tables import OPEN_DATE

HEADER = "person_id,scope,party,decision,valid_from,valid_to,known_from,statement\n"


def test_csv_and_ndjson_say_the_same(tmp_path: Path) -> None:
    csv = tmp_path / "consents.csv"
    csv.write_text("\ufeff" + HEADER + "p-1,payer,payer-a,deny,2026-01-31,,2026-02-01T06:00:00-06:00,\n", "utf-8")
    lines = tmp_path / "consents.ndjson"
    lines.write_text(
        '{"person_id":"p-1","scope":"payer","party":"payer-a","decision":"deny","valid_from":"2026-01-31",'
        '"known_from":"2026-02-01T12:00:00Z"}\n',
        "utf-8",
    )
    (row,) = load_consents(csv).to_pylist()
    assert row == {
        "person_id": "p-1",
        "scope": "payer",
        "party": "payer-a",
        "decision": "deny",
        "valid_from": date(2026, 1, 31),
        "valid_to": OPEN_DATE,
        "known_from": datetime(2026, 2, 1, 12, tzinfo=UTC),
        "statement": None,
    }
    assert load_consents(lines).to_pylist() == [row]


def test_without_dates_a_decision_always_holds(tmp_path: Path) -> None:
    file = tmp_path / "consents.csv"
    file.write_text("person_id,scope,decision\np-1,exchange,deny\n", "utf-8")
    (row,) = load_consents(file).to_pylist()
    assert (row["valid_from"], row["valid_to"], row["known_from"]) == (date.min, OPEN_DATE, None)


def test_ids_are_read_as_the_index_and_the_subscriptions_write_them(tmp_path: Path) -> None:
    file = tmp_path / "consents.csv"
    file.write_text("person_id,scope,party,decision\n Patient/p-1 ,provider, 71-0000001,deny\n")
    (row,) = load_consents(file).to_pylist()
    assert (row["person_id"], row["party"]) == ("p-1", "710000001")


@pytest.mark.parametrize(
    "line",
    [
        ",exchange,,deny,,,,",
        "secret-person,,,deny,,,,",
        "secret-person,exchange,,,,,,",
        "secret-person,everything,,deny,,,,",
        "secret-person,exchange,,maybe,,,,",
        "secret-person,exchange,,deny,31/01/2026,,,",
        "secret-person,exchange,,deny,,,yesterday,",
        "secret-person,exchange,,deny",
        "secret-person,exchange,,deny,,,,,more",
        'secret-person,"exchange,,deny,,,,',
    ],
)
def test_a_line_that_cannot_be_read_stops_everything_and_names_nobody(tmp_path: Path, line: str) -> None:
    file = tmp_path / "consents.csv"
    file.write_text(HEADER + "p-1,exchange,,deny,,,,\n" + line + "\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_consents(file)
    assert "secret-person" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("consents.csv", b"person_id,scope,decision,mood\np,exchange,deny,bad\n"),
        ("consents.csv", b"person_id,scope,decision\n\xff,exchange,deny\n"),
        ("consents.ndjson", b"[1]\n"),
        ("consents.ndjson", b'{"person_id":"p","scope":"exchange","decision":"deny","valid_from":7}\n'),
        ("consents.ndjson", b'{"person_id":\n'),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="consent"):
        load_consents(tmp_path / name)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="consent file"):
        load_consents(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("name", "text"), [("c.csv", ""), ("c.csv", "\n"), ("c.csv", "person,scope\n"), ("c.ndjson", "")]
)
def test_a_file_without_even_a_header_forgets_no_opt_out(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"empty|lacks"):
        load_consents(tmp_path / name)


def test_a_registry_may_have_decided_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(HEADER)
    assert load_consents(tmp_path / "c.csv").num_rows == 0
