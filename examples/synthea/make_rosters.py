"""Make payers' roster files from the Group resources of a Synthea export.

    python make_rosters.py FOLDER_OF_NDJSON ROSTER_FOLDER

Each Group is a payer's panel. Its members get the clinician they saw most often in ambulatory
visits, from their first such visit on. The layout beside this script reads the files.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from hiexchange import ndjson

COLUMNS = "member_id first_name last_name birth_date sex address city zip phone practitioner_npi organization_id valid_from".split()


def read(folder: Path, kind: str) -> list[dict[str, Any]]:
    return ndjson.load(next(folder.glob(f"{kind}.ndjson*")))


def usual_provider(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Return patient id -> (Practitioner id, Organization id, day of the first visit there)."""
    visits: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    first: dict[tuple[str, str], str] = {}
    for encounter in read(folder, "Encounter"):
        patient = encounter["subject"]["reference"].split("/")[1]
        if encounter["class"]["code"] == "AMB":
            provider = encounter["participant"][0]["individual"]["reference"].split("/")[1]
            place = encounter["serviceProvider"]["reference"].split("/")[1]
            visits[patient][(provider, place)] += 1
            day = encounter["period"]["start"][:10]
            first[(patient, provider)] = min(day, first.get((patient, provider), day))
    usual = {patient: max(counts, key=lambda pair: (counts[pair], pair)) for patient, counts in visits.items()}
    return {patient: (provider, place, first[(patient, provider)]) for patient, (provider, place) in usual.items()}


def main(folder: Path, target: Path) -> None:
    """Write one CSV a payer."""
    patients = {patient["id"]: patient for patient in read(folder, "Patient")}
    npis = {clinician["id"]: clinician["identifier"][0]["value"] for clinician in read(folder, "Practitioner")}
    providers = usual_provider(folder)
    target.mkdir(parents=True, exist_ok=True)
    for group in read(folder, "Group"):
        with (target / f"{group['id']}-2021-01-01.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for number, member in enumerate(group["member"], 1):
                patient = patients[member["entity"]["reference"].removeprefix("urn:uuid:")]
                if patient["id"] not in providers:
                    continue
                provider, place, since = providers[patient["id"]]
                name, home = patient["name"][0], patient["address"][0]
                writer.writerow(
                    (
                        *(f"{group['id']}-{number:04d}", name["given"][0], name["family"], patient["birthDate"]),
                        *(patient["gender"], home["line"][0], home["city"], home.get("postalCode", "")),
                        *(patient["telecom"][0]["value"], npis[provider], place, since),
                    )
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
