"""What one more night costs after a long history: `hiexchange run` with ten new messages in the inbox.

    python benchmarks/nightly.py                       # a million stored events, 200,000 members
    python benchmarks/nightly.py --events 100000 --members 20000 --folder /tmp/night

The history is written straight into a lake (ids only, nobody is real). A first run routes and delivers it; then each
night brings ten messages. CPU seconds of the run's stages, and its peak memory, are what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from hiexchange import config, pipeline
from hiexchange.lake import Lake
from hiexchange.pipeline import result as results
from hiexchange.tables import ATTRIBUTION, ENCOUNTER_EVENT, MEMBER, ROSTER, Table

SUBSCRIBERS, CLINICIANS = 40, 400
FIRST = datetime(2026, 3, 1, 6, tzinfo=UTC)
KNOWN = "TIMESTAMPTZ '2025-01-05 00:00:00+00'"
OPEN = "TIMESTAMPTZ '9999-12-31 00:00:00+00'"
_SQL = {
    pa.string(): "VARCHAR",
    pa.date32(): "DATE",
    pa.int16(): "SMALLINT",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="rows of the history; 36 in 100 are news")
    parser.add_argument("--members", type=int, default=200_000, help="members; three people for four of them")
    parser.add_argument("--nights", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="kept, and used again when it holds a history")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "out" / "lake").exists():
            history(folder, given.events, given.members)
        nights = len(list((folder / "inbox").glob("*.hl7"))) // 10
        print(f"{given.events:,} events, {given.members:,} members\n")
        print("| run | stage | CPU s |\n|---|---|---|")
        for night in range(nights, nights + given.nights + (nights == 0)):
            run(folder, night)
        print(f"\npeak memory {peak_mb():,.0f} MB")


def run(folder: Path, night: int) -> None:
    """Run once; print CPU seconds of each stage."""
    if night:
        messages(folder, night)
    known_at = FIRST + timedelta(days=night)
    (folder / "hiexchange.toml").write_text(configuration(known_at))
    spent: list[tuple[str, float]] = []
    with stages(spent):
        done = pipeline.run(config.load(folder / "hiexchange.toml"))
    name = f"night {night}" if night else "first"
    for stage, seconds in [*spent, ("all", sum(seconds for _, seconds in spent))]:
        print(f"| {name} | {stage} | {seconds:.1f} |", flush=True)
    assert done.identity_holds
    print(f"| {name} | {done.identity} | |", flush=True)


@contextlib.contextmanager
def stages(spent: list[tuple[str, float]]) -> Iterator[None]:
    """Note the CPU seconds of every stage of a run."""
    original = results.RunResult.stage

    @contextlib.contextmanager
    def timed(self: results.RunResult, name: str) -> Iterator[list[str]]:
        begin = time.process_time()
        with original(self, name) as facts:
            yield facts
        spent.append((name, time.process_time() - begin))

    results.RunResult.stage = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        results.RunResult.stage = original  # type: ignore[method-assign]


def peak_mb() -> float:
    """Peak resident memory of this process, from the kernel's own account of it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def configuration(known_at: datetime) -> str:
    """Forty practices, each with ten clinicians' NPIs of which one is attributed, a file a day."""
    subscriptions = "\n".join(
        f'[[subscriptions]]\nid = "practice-{number}"\nnpi = ["{npi(number)}"]\n[[subscriptions.channels]]\n'
        f'id = "daily"\nurl = "inbox-of/{number}"\nformat = "csv"\ncadence = "0 6 * * *"\nzone = "America/Chicago"\n'
        for number in range(SUBSCRIBERS * 3)
    )
    return f'output = "out"\nknown_at = "{known_at:%Y-%m-%dT%H:%M:%SZ}"\n[events]\nadt = "inbox"\n{subscriptions}'


def npi(number: int) -> str:
    """Ten digits for clinician ``number``."""
    return f"19{number:08d}"


def messages(folder: Path, night: int) -> None:
    """Put ten admissions into the inbox."""
    at = FIRST + timedelta(days=night, hours=-3)
    for number in range(10):
        person = (night * 7919 + number * 31) % 1000
        text = (
            f"MSH|^~\\&|ADT|HOSP-1|HX|HX|{at:%Y%m%d%H%M%S}+0000||ADT^A01|N{night}-{number}|P|2.5.1\r"
            f"PID|1||m{person}^^^INDEX^MR||X^Y||{birth(person).replace('-', '')}|F\r"
            f"PV1|1|I|W^1^1^HOSP-1||||||||||||||||N{night}-{number}|||||||||||||||||||||||||{at:%Y%m%d%H%M%S}+0000\r"
        )
        (folder / "inbox" / f"{at:%Y%m%dT%H%M%S}.{number:06d}Z-a.hl7").write_text(text)


def birth(person: int) -> str:
    """A birth date."""
    return f"{1930 + person % 80}-{1 + person % 12:02d}-{1 + person % 28:02d}"


def history(folder: Path, events: int, members: int) -> None:
    """Write people, rosters and a year of events into the lake of a configuration."""
    people = members * 3 // 4
    (folder / "inbox").mkdir(parents=True)
    (folder / "export").mkdir()
    with (folder / "export" / "Patient.ndjson").open("w") as file:
        for person in range(people):
            file.write(
                f'{{"resourceType":"Patient","id":"p{person}","identifier":[{{"type":{{"coding":[{{"system":"http://'
                f'terminology.hl7.org/CodeSystem/v2-0203","code":"MR"}}]}},"system":"INDEX","value":"m{person}"}}],'
                f'"name":[{{"family":"F{_hash(person)[:8]}","given":["G{_hash(f"g{person}")[:6]}"]}}],'
                f'"gender":"female","birthDate":"{birth(person)}"}}\n'
            )
    lake = Lake(folder / "out" / "lake")
    lake.ingest(folder / "export")
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    con.execute(
        f"CREATE TABLE m AS SELECT range AS n, range % {people} AS p, 'payer-' || (range // {people}) AS payer, "
        f"sha256('m' || range) AS member_key FROM range({members})"
    )
    shared = {
        "payer_id": "payer",
        "member_key": "member_key",
        "member_id": "'M' || n",
        "member_id_system": "payer",
        "roster_id": "'roster-' || payer",
        "row_no": "n",
        "row_sha": "member_key",
        "provider_npi": f"'19' || lpad((p * 31 % {CLINICIANS}) || '', 8, '0')",
        "attribution_level": "'clinician'",
        "basis": "'payer_assigned'",
        "valid_from": "DATE '2025-01-01'",
        "valid_to": "DATE '9999-12-31'",
        "as_of_on": "DATE '2025-01-01'",
    }
    person = {
        "first_name": "'G' || sha256('g' || p)[:6]",
        "last_name": "'F' || sha256(p || '')[:8]",
        "birth_on": "make_date(1930 + p % 80, 1 + p % 12, 1 + p % 28)",
        "sex": "'female'",
    }
    known = {"known_from": KNOWN, "known_to": OPEN, "change_type": "'new'", "status": "'active'"}
    keys = {"attribution_id": "sha256('a' || n)", "business_key": "sha256('a' || n)"}
    lake.append_all(
        {
            "member": rows(con, MEMBER, {**shared, **person, "synthetic": "true"}, "m"),
            "attribution": rows(con, ATTRIBUTION, {**shared, **known, **keys}, "m"),
            "roster": ROSTER.empty(),
        }
    )
    for start in range(0, events, 250_000):
        size = min(250_000, events - start)
        con.execute(f"CREATE OR REPLACE TABLE e AS SELECT {start} + range AS n FROM range({size})")
        lake.append("encounter_event", rows(con, ENCOUNTER_EVENT, event_cells(people, events), "e"))


def _hash(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def event_cells(people: int, events: int) -> dict[str, str]:
    """Return SQL of the events' columns: evenly over a year, 64 in 100 of them no news."""
    at = f"(TIMESTAMPTZ '2025-02-15 00:00:00+00' + to_seconds(n * {380 * 86400 // max(events, 1)}))"
    return {
        "event_key": "sha256('e' || n)",
        "facility_id": "'HOSP-' || n % 100",
        "visit_number": "'V' || n",
        "trigger": "CASE WHEN n % 2 = 0 THEN 'admit' ELSE 'discharge' END",
        "version": "1",
        "event_at": at,
        "event_on": f"{at}::DATE",
        "received_at": at,
        "person_id": f"'p' || (n * 7 % {people})",
        "patient_id_sent": f"'m' || (n * 7 % {people})",
        "patient_id_system": "'INDEX'",
        "class": "'IMP'",
        "status": "'in-progress'",
        "material_hash": "sha256('h' || n)",
        "material": "n % 25 < 9",
        "swallowed_reason": "CASE WHEN n % 25 >= 9 THEN 'unchanged' END",
        "source": "'hl7v2'",
        "message_sha": "sha256('r' || n)",
        "message_control_id": "'C' || n",
        "sending_facility": "'HOSP-' || n % 100",
    }


def rows(con: duckdb.DuckDBPyConnection, table: Table, cells: dict[str, str], source: str) -> pa.Table:
    """Return rows of a corridor table, columns by SQL, the others null."""
    shown = ", ".join(
        f'{cells.get(column.name) or ("NULL::" + _SQL.get(column.type, "VARCHAR[]"))} AS "{column.name}"'
        for column in table.columns
        if column.name in cells or column.type in _SQL
    )
    found = con.sql(f"SELECT {shown} FROM {source}").to_arrow_table()
    arrays = [
        found[column.name].cast(column.type) if column.name in found.column_names else pa.nulls(len(found), column.type)
        for column in table.columns
    ]
    return pa.table(arrays, schema=table.schema)


if __name__ == "__main__":
    main()
