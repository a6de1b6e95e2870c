"""Two payers' rosters, reconciled and matched; each practice gets the encounters of its patients, once."""

import tomllib
from datetime import UTC, date, datetime
from pathlib import Path

import hiexchange as hx
from hiexchange import tables
from hiexchange.testing.population import generate
from hiexchange.testing.population.settings import subscriptions

now = datetime(2026, 1, 5, 12, tzinfo=UTC)
people = generate("people", patients=200)
lake = hx.Lake("lake")
lake.ingest(people.fhir)

history = tables.ATTRIBUTION.empty()
for payer, as_of, path in people.rosters():
    roster = hx.read_roster(path, f"people/layouts/{payer}.toml", received_at=now)
    changes = hx.attribute(roster, history, known_at=now)
    lake.append_all({"member": roster.members, "attribution": changes})
    history = lake.table("attribution").to_arrow()
    counts = changes.group_by("change_type").aggregate([([], "count_all")]).to_pylist()
    print(f"{payer} as of {as_of}:", {row["change_type"]: row["count_all"] for row in counts})

persons = hx.view("patient_demographics", lake)
links = hx.match(lake.table("member"), persons, known_at=now, run_id="example")
print({row["band"]: row["band_count"] for row in links.group_by("band").aggregate([("band", "count")]).to_pylist()})

events = hx.from_view(hx.view("encounter", lake), received_at=now)
wanted = hx.load_subscriptions(tomllib.loads(subscriptions(list(people.tins)))["subscriptions"])
routing = hx.route(events, history, links, wanted, known_at=now)
print(routing.identity())

with hx.Outbox("outbox.sqlite") as outbox:
    print(outbox.deliver(routing, now=now, persons=persons))
    before = {path: path.read_bytes() for path in Path("inbox").rglob("*") if path.is_file()}
    outbox.deliver(routing, now=now, persons=persons)
    assert before == {path: path.read_bytes() for path in Path("inbox").rglob("*") if path.is_file()}
    print(f"{len(before)} files; running it again sent nothing")

on = date(2025, 7, 15)
print(f"{hx.active(history, on, now).num_rows} attributions hold on {on}")
