"""Roster intake and diff at size: a CSV of 1.5 million rows, and an 834.

Two lists of one payer are written (2 % leave, 2 % change provider, 1 % join). The first becomes the
history, kept as Parquet in row groups as a lake would. Measured, in a fresh process each: reading the second list and
attributing it against that history; reading an 834. Bars: 60 s and 2 GB; 20,000 members/s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

HEADER = (
    "MEMBER_ID,FIRST_NAME,LAST_NAME,DOB,SEX,ADDRESS,CITY,STATE,ZIP,PHONE,PCP_NPI,PRACTICE_TIN,EFF_DATE,TERM_DATE,LOB"
)
PROVIDERS = 5000
JANUARY, FEBRUARY = date(2026, 1, 1), date(2026, 2, 1)


def npi(number: int) -> str:
    """An NPI with its check digit."""
    body = f"1{number:08d}"
    total = 24 + sum((d * 2 - 9 * (d > 4)) if i % 2 == 0 else d for i, d in enumerate(map(int, body)))
    return body + str(-total % 10)


def write_lists(folder: Path, rows: int, seed: int) -> None:
    """Write january.csv and february.csv."""
    rng = np.random.default_rng(seed)
    count = rows + rows // 100
    npis = [npi(int(n)) for n in rng.choice(99_999_999, PROVIDERS, replace=False)]
    first, last, born = rng.integers(0, 2000, count), rng.integers(0, 30000, count), rng.integers(0, 25000, count)
    house, provider = rng.integers(1, 9999, count), rng.integers(0, PROVIDERS, count)
    days = (np.datetime64("1935-01-01") + born).astype(str)
    switched = provider.copy()
    moving = rng.random(count) < 0.02
    switched[moving] = (switched[moving] + 1) % PROVIDERS
    staying = rng.random(count) >= 0.02
    for name, chosen, doctors in (
        ("january", range(rows), provider),
        ("february", np.flatnonzero(staying).tolist(), switched),
    ):
        with (folder / f"{name}.csv").open("w") as file:
            file.write(HEADER + "\n")
            for i in chosen:
                file.write(
                    f"A{i:09d},First{first[i]},Lastname{last[i]},{days[i]},{'MF'[i % 2]},{house[i]} Elm Street,Conway,AR,"
                    f"{72000 + house[i] % 999:05d},501{i % 10_000_000:07d},{npis[doctors[i]]},{710_000_000 + doctors[i]},"
                    "2025-06-01,,Medicaid\n"
                )


def write_834(path: Path, members: int) -> None:
    """Write an audit 834, thirteen segments a member."""
    with path.open("w") as file:
        file.write(
            "ISA*00*          *00*          *ZZ*SENDER         *ZZ*RECEIVER       *260101*1200*^*00501*000000001*0*P*:~\n"
        )
        file.write("GS*BE*S*R*20260101*1200*1*X*005010X220A1~\nST*834*0001*005010X220A1~\n")
        file.write("BGN*00*1*20260101*1200****4~\nN1*P5*SPONSOR*FI*123456789~\nN1*IN*PAYER*FI*987654321~\n")
        for i in range(members):
            file.write(
                f"INS*Y*18*030*XN*A***FT~\nREF*0F*S{i:07d}~\nREF*1L*G1~\nDTP*356*D8*20250101~\n"
                f"NM1*IL*1*LAST{i % 5000}*FIRST{i % 900}*M***ZZ*M{i:07d}~\nPER*IP**HP*5015551234~\nN3*{i} ELM ST~\n"
                f"N4*CONWAY*AR*72032~\nDMG*D8*19{50 + i % 50}0{1 + i % 9}15*F~\nHD*030**HMO*PLAN*IND~\n"
                "DTP*348*D8*20250101~\nLX*1~\nNM1*P3*1*DOC*A****XX*1234567893*25~\n"
            )
        file.write(f"SE*{5 + 13 * members}*0001~\nGE*1*1~\nIEA*1*000000001~\n")


def history(folder: Path) -> None:
    """Make the history of the first list."""
    import pyarrow.parquet as pq

    from hiexchange.attribution import attribute
    from hiexchange.roster import read_roster

    received = datetime(2026, 1, 2, tzinfo=UTC)
    roster = read_roster(folder / "january.csv", "csv", as_of=JANUARY, received_at=received, payer_id="payer-a")
    pq.write_table(attribute(roster, None, known_at=received), folder / "history.parquet", row_group_size=1 << 17)


def measure_csv(folder: Path) -> None:
    """Read the second list, attribute it, print one line of the table."""
    began, spent = time.perf_counter(), time.process_time()
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hiexchange.attribution import attribute
    from hiexchange.roster import read_roster

    received = datetime(2026, 2, 2, tzinfo=UTC)
    # The gate needs the members of the last list only; the fold reads the history batch by batch, as a lake gives it.
    before = pq.read_table(folder / "history.parquet", columns=["member_key"])
    roster = read_roster(
        folder / "february.csv", "csv", as_of=FEBRUARY, received_at=received, payer_id="payer-a", previous=before
    )
    del before
    read = time.perf_counter()
    file = pq.ParquetFile(folder / "history.parquet", pre_buffer=False)
    past = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(1 << 16))
    fresh = attribute(roster, past, known_at=received)
    found = {pair["values"]: pair["counts"] for pair in fresh["change_type"].value_counts().to_pylist()}
    changes = ", ".join(f"{name} {count:,}" for name, count in sorted(found.items()))
    _line(f"CSV intake + diff ({changes})", roster.counts.read, began, spent, f"intake {read - began:.1f} s")


def measure_834(folder: Path) -> None:
    """Read the 834, print one line of the table."""
    from hiexchange.roster import read_roster

    began, spent = time.perf_counter(), time.process_time()
    roster = read_roster(folder / "list.834", "x12-834", received_at=datetime(2026, 1, 5, tzinfo=UTC))
    seconds = time.perf_counter() - began
    _line(f"834 ({roster.state})", roster.counts.read, began, spent, f"{roster.counts.read / seconds:,.0f} members/s")


def _line(what: str, rows: int, began: float, spent: float, note: str) -> None:
    # Not ru_maxrss: a child inherits its parent's over exec.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    print(f"| {what} | {rows:,} | {wall:.1f} | {cpu:.1f} | {peak:.2f} | {note} |", flush=True)


def main() -> None:
    """Write the inputs, then measure each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--members", type=int, default=100_000, help="members of the 834")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--folder", type=Path, help="where inputs are kept; default: temporary")
    parser.add_argument("--part", choices=("history", "csv", "834"), help="run one part on an existing folder")
    given = parser.parse_args()
    if given.part:
        {"history": history, "csv": measure_csv, "834": measure_834}[given.part](given.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_lists(folder, given.rows, given.seed)
        write_834(folder / "list.834", given.members)
        print("| part | rows | wall s | CPU s | peak GB | |\n|---|---|---|---|---|---|", flush=True)
        for part in ("history", "csv", "834"):
            subprocess.run([sys.executable, __file__, "--part", part, "--folder", str(folder)], check=True)


if __name__ == "__main__":
    main()
